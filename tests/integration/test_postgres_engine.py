"""The embedded PostgreSQL: what it is started with, what it keeps, and what it says when it cannot run."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from actors.adapters.engine_process import SOCKET_PATH_BYTES_MAX, EngineFailed
from actors.adapters.postgres import embedded, engine_account
from actors.adapters.postgres.embedded import EmbeddedPostgres
from tests.support.postgres import MadeCluster, PostgresServer
from tests.support.until import until


async def answer(engine_url: str, statement: str) -> object:
    """What the engine answers to one question."""
    session = await asyncpg.connect(engine_url)
    try:
        return await session.fetchval(statement)
    finally:
        await session.close()


async def execute(engine: EmbeddedPostgres, statement: str) -> None:
    """Run statements on the engine."""
    session = await asyncpg.connect(engine.url)
    try:
        await session.execute(statement)
    finally:
        await session.close()


@pytest.fixture
async def engine(short_path: Path, made_cluster: MadeCluster) -> AsyncIterator[EmbeddedPostgres]:
    """An engine of the test's own."""
    made_cluster.copy_to(short_path)
    fresh = EmbeddedPostgres(short_path)
    try:
        await fresh.start()
        yield fresh
    finally:
        await fresh.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ],
)
async def test_it_is_durable_and_only_this_user_can_reach_it(
    shared_postgres: PostgresServer, name: str, value: str
) -> None:
    """What was committed is on the disk; no TCP port."""
    assert await answer(shared_postgres.engine.url, f"SELECT current_setting('{name}')") == value


async def test_it_is_the_version_that_was_promised(shared_postgres: PostgresServer) -> None:
    """PostgreSQL 18, in a folder that nobody else can enter, not as root."""
    engine = shared_postgres.engine
    assert str(await answer(engine.url, "SHOW server_version")).startswith("18.")
    assert stat.S_IMODE(engine.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(engine.cluster.stat().st_mode) == 0o700
    assert Path(f"/proc/{engine.pid}").stat().st_uid != 0


async def test_a_crash_or_a_stop_is_noticed_and_a_new_start_has_the_data(engine: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster, with what it leaves behind; then an orderly stop, which leaves nothing."""
    await execute(engine, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    noticed = asyncio.create_task(engine.wait_exit())
    assert engine.pid is not None

    os.kill(engine.pid, signal.SIGKILL)

    assert await noticed == -signal.SIGKILL
    assert engine.pid is None
    assert (engine.cluster / "postmaster.pid").exists()
    await engine.start()
    assert await answer(engine.url, "SELECT n FROM kept") == 1

    async with asyncio.timeout(embedded.STOP_S):
        await engine.stop()

    assert engine.pid is None
    assert not engine.socket_path.exists()
    assert not (engine.cluster / "postmaster.pid").exists()
    await engine.start()
    assert await answer(engine.url, "SELECT n FROM kept") == 1


async def test_a_pid_that_is_somebody_elses_by_now_is_no_obstacle(engine: EmbeddedPostgres) -> None:
    """In a container pids come again soon: PostgreSQL alone would refuse to start beside a living one of its user."""
    await engine.stop()
    other = await asyncio.create_subprocess_exec("sleep", "60", user=engine.cluster.stat().st_uid)
    try:
        lines = (str(other.pid), engine.cluster, "1", "5432", engine.socket_path.parent, "", "1 1", "ready")
        (engine.cluster / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))
        engine.socket_path.with_name(".s.PGSQL.5432.lock").write_text(f"{other.pid}\n")

        await engine.start()

        assert await answer(engine.url, "SELECT 1") == 1
    finally:
        other.kill()
        await other.wait()


async def test_a_frozen_engine_is_killed_at_the_end_with_its_children(engine: EmbeddedPostgres) -> None:
    """A stop takes little longer than it may; the children, in groups of their own, go as well."""
    pid = engine.pid
    assert pid is not None
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    assert children
    for each in (pid, *children):
        os.kill(each, signal.SIGSTOP)

    async with asyncio.timeout(1):
        await engine.stop(within_s=0.1)

    await until(lambda: not any(runs(each) for each in (pid, *children)), what="the end of all its processes")


async def test_a_folder_that_was_only_half_made_is_made_anew(short_path: Path) -> None:
    """A node that was killed in its first second leaves the next one nothing to stumble over."""
    data_dir = short_path / "ñ a\"b'c%25#?&\\"
    half = data_dir / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    engine = EmbeddedPostgres(data_dir)
    try:
        await engine.start()
        assert await answer(engine.url, "SELECT 1") == 1
        assert not half.exists()
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("name", "beside"), [("ñ a\"b'c%25#?&\\", True), ("long" * 40, False), ("a,b", False)], ids=["odd", "long", "comma"]
)
async def test_any_folder_name_will_do(name: str, beside: bool, made_cluster: MadeCluster) -> None:
    """The data stays where it was asked for; the socket is beside it if a client can name it there, else in /tmp."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made_cluster.copy_to(Path(folder) / name)
        engine = EmbeddedPostgres(Path(folder) / name)
        try:
            await engine.start()
            assert await answer(engine.url, "SELECT 1") == 1
            assert (engine.socket_path.parent == engine.cluster) == beside
            assert len(os.fsencode(engine.socket_path)) <= SOCKET_PATH_BYTES_MAX
            assert stat.S_IMODE(engine.socket_path.parent.stat().st_mode) == 0o700
            assert EmbeddedPostgres(Path(folder) / name).socket_path == engine.socket_path
        finally:
            await engine.stop()
        if not beside:
            engine.socket_path.parent.rmdir()


async def test_somebody_elses_folder_is_not_taken_for_the_socket(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes that folder first could otherwise read everything."""
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        monkeypatch.setattr(tempfile, "tempdir", shared)
        engine = EmbeddedPostgres(short_path / ("long" * 40))
        engine.socket_path.parent.mkdir()
        engine.socket_path.parent.chmod(0o777)

        with pytest.raises(EngineFailed, match="it is not this user's own folder"):
            await engine.start()


async def test_what_cannot_be_started_is_one_line(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made, data of another version, damaged data, no user to become, no engine."""
    (short_path / "file").write_text("")
    with pytest.raises(EngineFailed, match=r"^the embedded PostgreSQL cannot be started: .*Not a directory"):
        await EmbeddedPostgres(short_path / "file").start()

    old = short_path / "old" / "postgres" / "data"
    old.mkdir(parents=True)
    (old / "PG_VERSION").write_text("16\n")
    with pytest.raises(EngineFailed, match="is of PostgreSQL 16, the embedded one is 18: move it"):
        await EmbeddedPostgres(short_path / "old").start()

    (old / "PG_VERSION").write_text("18\n")
    with pytest.raises(EngineFailed, match=r"^the embedded PostgreSQL ended at its start: .* \(log: .*\)$") as caught:
        await EmbeddedPostgres(short_path / "old").start()
    assert "\n" not in str(caught.value)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine_account, "ACCOUNTS", ("nobody-of-that-name",))
    with pytest.raises(EngineFailed, match="there is no user nobody-of-that-name"):
        await EmbeddedPostgres(short_path / "fresh").start()

    monkeypatch.setattr(embedded, "find_spec", lambda _name: None)
    with pytest.raises(EngineFailed, match=r"^no embedded PostgreSQL for this machine: set DATABASE_URL"):
        await EmbeddedPostgres(short_path / "fresh").start()


async def test_statements_and_values_stay_out_of_its_log(shared_postgres: PostgresServer) -> None:
    """They hold what users wrote."""
    with pytest.raises(asyncpg.PostgresError):
        await answer(shared_postgres.engine.url, "SELECT 'confidential'::int")
    assert "confidential'::int" not in shared_postgres.engine.log_path.read_text()


def runs(pid: int) -> bool:
    """Whether a process of that id is there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
