"""The embedded engine: what it is started with, what it keeps, and what it says when it cannot run."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from actors.adapters import embedded
from actors.adapters.embedded import EmbeddedValkey, EngineFailed
from tests.support.until import until

OTHERS_FOLDER = 0o777


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """An engine that has been started on a fresh folder."""
    fresh = EmbeddedValkey(tmp_path)
    await fresh.start()
    yield fresh
    await fresh.stop()


def store(engine: EmbeddedValkey) -> redis.Redis:
    """A client made from the engine's URL, as the node makes its own."""
    return redis.Redis.from_url(engine.url, decode_responses=True, protocol=3, legacy_responses=False)


async def test_it_is_a_durable_store_that_only_this_user_can_reach(engine: EmbeddedValkey) -> None:
    """Append-only file synced every second, no eviction, no snapshots, no TCP port, a private socket."""
    with store(engine) as client:
        options = client.config_get("*")

    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "everysec"
    assert options["no-appendfsync-on-rewrite"] == "no"
    assert options["save"] == ""
    assert options["maxmemory-policy"] == "noeviction"
    assert options["port"] == "0"
    assert stat.S_IMODE(engine.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(engine.directory.stat().st_mode) == 0o700


async def test_an_orderly_stop_is_quick_and_keeps_everything(engine: EmbeddedValkey) -> None:
    """The process is gone, its socket too, and the next start has the data."""
    with store(engine) as client:
        client.set("kept", "yes")
    async with asyncio.timeout(embedded.STOP_S):
        await engine.stop()
    assert engine.pid is None
    assert not engine.socket_path.exists()

    await engine.start()

    with store(engine) as client:
        assert client.get("kept") == "yes"


async def test_a_crash_is_noticed_and_a_new_start_has_the_data(engine: EmbeddedValkey) -> None:
    """`wait_exit` returns for whoever supervises it; everything the engine answered for is still there."""
    with store(engine) as client:
        client.set("kept", "yes")
    noticed = asyncio.create_task(engine.wait_exit())
    assert engine.pid is not None

    os.kill(engine.pid, signal.SIGKILL)

    assert await noticed == -signal.SIGKILL
    assert engine.pid is None
    await engine.start()
    with store(engine) as client:
        assert client.get("kept") == "yes"


async def test_a_rewrite_that_outlives_a_crash_does_not_hold_up_the_restart(tmp_path: Path) -> None:
    """The engine's own child keeps the lock; it is ended, since its result could not be used any more."""
    engine = EmbeddedValkey(tmp_path)
    await engine.start()
    try:
        with store(engine) as client:
            client.config_set("rdb-key-save-delay", 10_000_000)  # the rewrite would take ten seconds per key
            client.set("kept", "yes")
            client.bgrewriteaof()
            await until(lambda: client.info("persistence")["aof_rewrite_in_progress"], what="the rewrite began")
        os.kill(engine.pid or 0, signal.SIGKILL)
        await engine.wait_exit()

        async with asyncio.timeout(embedded.PREVIOUS_ENDS_S):
            await engine.start()

        with store(engine) as client:
            assert client.get("kept") == "yes"
    finally:
        await engine.stop()


async def test_a_frozen_engine_is_killed_at_the_end(engine: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop takes little longer than `STOP_S`, whatever the engine does."""
    monkeypatch.setattr(embedded, "STOP_S", 0.1)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    async with asyncio.timeout(embedded.STOP_S + 1):
        await engine.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cut_off_tail_is_no_obstacle(engine: EmbeddedValkey) -> None:
    """A machine that lost power in the middle of a write starts with what was whole."""
    with store(engine) as client:
        client.set("kept", "yes")
        client.set("torn", "no")
    await engine.stop()
    (log,) = engine.directory.glob("appendonlydir/*.incr.aof")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 3)

    await engine.start()

    with store(engine) as client:
        assert client.mget("kept", "torn") == ["yes", None]


async def test_damaged_data_is_one_line_with_the_engines_reason(engine: EmbeddedValkey) -> None:
    """And the file to look into."""
    with store(engine) as client:
        client.set("kept", "yes")
    await engine.stop()
    (log,) = engine.directory.glob("appendonlydir/*.incr.aof")
    log.write_bytes(b"garbage\r\n" + log.read_bytes())

    with pytest.raises(EngineFailed) as caught:
        await engine.start()

    line = str(caught.value)
    assert line.startswith("the embedded Valkey ended at its start: Bad file format")
    assert line.endswith(f"(log: {engine.log_path})")
    assert "\n" not in line


async def test_a_long_load_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who waits for a large data set to load sees that it moves; the start succeeds at its end."""
    lines: list[str] = []
    engine = EmbeddedValkey(tmp_path, lines.append)
    await engine.start()
    try:
        with store(engine) as client:
            for number in range(3000):
                client.set(f"key{number}", "x")
        await engine.stop()
        monkeypatch.setitem(embedded.OPTIONS, "key-load-delay", "200")  # microseconds
        monkeypatch.setattr(embedded, "QUIET_LOADING_S", 0.0)

        await engine.start()

        with store(engine) as client:
            assert client.dbsize() == 3000
    finally:
        await engine.stop()
    assert lines
    assert all(line.startswith("embedded Valkey: loading its data, ") for line in lines)


@pytest.mark.parametrize("name", ["with a space", "ñandú", "100%25", "a#b?c=d", 'quo"te', "back\\slash", "it's"])
async def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    """The path reaches the engine and the URL unharmed."""
    engine = EmbeddedValkey(tmp_path / name)
    await engine.start()
    try:
        with store(engine) as client:
            assert client.ping()
        assert (tmp_path / name / "valkey" / "appendonlydir").is_dir()
    finally:
        await engine.stop()


async def test_a_path_too_long_for_a_socket_gets_a_short_private_one(tmp_path: Path) -> None:
    """The data stays where it was asked for; only the socket is elsewhere, and always in the same place."""
    folder = tmp_path / ("long" * 40)
    engine = EmbeddedValkey(folder)
    await engine.start()
    try:
        with store(engine) as client:
            client.set("kept", "yes")
        assert len(os.fsencode(engine.socket_path)) <= embedded.SOCKET_PATH_BYTES_MAX
        assert stat.S_IMODE(engine.socket_path.parent.stat().st_mode) == 0o700
        assert (folder / "valkey" / "appendonlydir").is_dir()
        assert EmbeddedValkey(folder).socket_path == engine.socket_path
    finally:
        await engine.stop()
        engine.socket_path.parent.rmdir()


async def test_somebody_elses_folder_is_not_taken_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes that folder first could otherwise read everything."""
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        monkeypatch.setattr(tempfile, "tempdir", shared)
        engine = EmbeddedValkey(tmp_path / ("long" * 40))
        engine.socket_path.parent.mkdir()
        engine.socket_path.parent.chmod(OTHERS_FOLDER)

        with pytest.raises(EngineFailed, match="it is not this user's own folder"):
            await engine.start()


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """The lock reports it first in a node; the engine does not fall over it either."""
    (tmp_path / "file").write_text("")

    with pytest.raises(EngineFailed, match=r"^the embedded Valkey cannot be started: .*Not a directory"):
        await EmbeddedValkey(tmp_path / "file").start()


async def test_a_machine_without_an_engine_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a way out: a store of one's own."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(EngineFailed, match=r"^no embedded Valkey for this machine .*set REDIS_URL"):
        await EmbeddedValkey(tmp_path).start()


async def test_a_large_log_is_put_aside_at_the_next_start(engine: EmbeddedValkey) -> None:
    """Two files of bounded size are kept."""
    await engine.stop()
    engine.log_path.write_bytes(b"x" * embedded.LOG_BYTES_MAX)

    await engine.start()

    assert engine.log_path.stat().st_size < embedded.LOG_BYTES_MAX
    assert engine.log_path.with_suffix(".log.1").stat().st_size == embedded.LOG_BYTES_MAX


def test_it_is_refused_on_another_thread(tmp_path: Path) -> None:
    """The kernel would end the engine with the thread, not with the node."""
    refused: list[str] = []

    def start() -> None:
        try:
            asyncio.run(EmbeddedValkey(tmp_path).start())
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert refused == ["the engine would be ended together with this thread: start it from the main one"]
