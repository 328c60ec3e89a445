"""The embedded engine when its node dies, and the next node on the same folder."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from actors.adapters import embedded
from actors.adapters.data_dir import DataDirLock, DataDirUnusable
from actors.adapters.embedded import EmbeddedValkey, EngineFailed
from tests.support.child import Child
from tests.support.until import until

NODE = """
import asyncio, sys
from pathlib import Path
from actors.adapters.data_dir import DataDirLock
from actors.adapters.embedded import EmbeddedValkey

async def main(folder, tie):
    with DataDirLock(folder):
        engine = EmbeddedValkey(folder, tie=tie)
        await engine.start()
        print(engine.pid, flush=True)
        await engine.wait_exit()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""
GONE_S = 2.0
NOBODY = 65_534


class Node:
    """A process that does with the engine what a node does: locks the folder, starts it, and waits."""

    def __init__(self, folder: Path, tie: str = "signal") -> None:
        self.folder = folder
        self.child = Child([sys.executable, "-c", NODE, folder / "data", tie], folder / "node")
        self.engine_pid = 0
        self._engine = -1

    async def ready(self) -> None:
        """Wait until its engine runs, and hold on to that very process."""
        self.engine_pid = int(await until(self.child.stdout_path.read_text, what=self.child.output()))
        self._engine = os.pidfd_open(self.engine_pid)

    def engine_gone_within(self, timeout_s: float) -> bool:
        """Whether the engine's process has ended by then."""
        ended = select.poll()
        ended.register(self._engine, select.POLLIN)
        return bool(ended.poll(timeout_s * 1000))

    def close(self) -> None:
        """End whatever is left."""
        self.child.close()
        if self._engine >= 0:
            if not self.engine_gone_within(GONE_S):
                signal.pidfd_send_signal(self._engine, signal.SIGKILL)
            os.close(self._engine)


@pytest.fixture(params=["signal", "pipe"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with its engine tied to it in either way; the second is what systems without the first use."""
    started = Node(tmp_path, request.param)
    yield started
    started.close()


def written(node: Node) -> None:
    """Leave something in the node's store."""
    with redis.Redis(unix_socket_path=str(node.folder / "data/valkey/valkey.sock")) as client:
        client.set("kept", "yes")


async def kept(folder: Path) -> bool:
    """Whether a new engine on the node's folder has what was left there."""
    engine = EmbeddedValkey(folder / "data")
    await engine.start()
    try:
        with redis.Redis.from_url(engine.url) as client:
            return bool(client.get("kept") == b"yes")
    finally:
        await engine.stop()


async def test_no_engine_outlives_a_killed_node_and_its_data_stays(node: Node) -> None:
    """kill -9 of the node ends the engine in good order, and the next node finds what was written."""
    await node.ready()
    written(node)

    node.child.kill9()

    assert node.engine_gone_within(GONE_S)
    assert "User requested shutdown" in (node.folder / "data/valkey/valkey.log").read_text()
    assert await kept(node.folder)


async def test_the_next_node_may_start_while_the_old_engine_is_still_ending(node: Node) -> None:
    """A start right after kill -9 waits for the lock instead of failing, and loses nothing."""
    await node.ready()
    written(node)

    node.child.kill9()

    assert await kept(node.folder)


async def test_an_engine_that_hung_when_its_node_died_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it cannot act on its signal; the next node wakes it up to do so."""
    monkeypatch.setattr(embedded, "PREVIOUS_ENDS_S", 0.1)
    node = Node(tmp_path)
    try:
        await node.ready()
        written(node)
        os.kill(node.engine_pid, signal.SIGSTOP)
        node.child.kill9()
        assert not node.engine_gone_within(0.2)

        assert await kept(tmp_path)

        assert node.engine_gone_within(0)
    finally:
        node.close()


async def test_an_interrupt_at_the_terminal_reaches_the_node_only(tmp_path: Path) -> None:
    """The engine has a session of its own: Ctrl-C must not take the store away under a node that drains."""
    node = Node(tmp_path)
    try:
        await node.ready()
        assert os.getsid(node.engine_pid) == node.engine_pid
        assert os.getpgid(node.engine_pid) != os.getpgid(node.child.pid)
    finally:
        node.close()


async def test_the_engine_holds_no_file_of_the_node(tmp_path: Path) -> None:
    """Least of all the lock on the folder, which must fall when the node dies."""
    node = Node(tmp_path)
    try:
        await node.ready()
        open_files = [os.readlink(each) for each in Path(f"/proc/{node.engine_pid}/fd").iterdir()]
        assert str(tmp_path / "data" / "lock") not in open_files
        files = [name for name in open_files if name.startswith("/") and not name.startswith("/dev/")]
        assert files
        assert all(name.startswith(f"{tmp_path}/data/valkey/") for name in files)
    finally:
        node.close()


async def test_a_pid_left_in_the_file_is_nobodys(tmp_path: Path) -> None:
    """The file of a dead engine may name a process that is somebody else's by now: it is left alone."""
    engine = EmbeddedValkey(tmp_path)
    engine.directory.mkdir()
    with subprocess.Popen(["/bin/sleep", "30"]) as bystander:
        (engine.directory / "engine.lock").write_text(str(bystander.pid))

        await engine.start()
        await engine.stop()

        assert bystander.poll() is None
        bystander.kill()


async def test_a_lock_that_is_held_by_no_engine_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup program, say: it is not ended, and the line names the file."""
    monkeypatch.setattr(embedded, "PREVIOUS_ENDS_S", 0.05)
    engine = EmbeddedValkey(tmp_path)
    engine.directory.mkdir()
    with (engine.directory / "engine.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(EngineFailed, match=r"another program holds .*/valkey/engine\.lock$"):
            await engine.start()


async def test_two_nodes_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is told which process has it; kill -9 of that one lets it in."""
    node = Node(tmp_path)
    try:
        await node.ready()
        with pytest.raises(DataDirUnusable) as caught:
            DataDirLock(tmp_path / "data").acquire()
        assert str(caught.value) == (
            f"DATA_DIR: {tmp_path / 'data'} is in use by another node (pid {node.child.pid}); give each node its own"
        )

        node.child.kill9()

        with DataDirLock(tmp_path / "data"):
            assert (tmp_path / "data" / "lock").read_text() == f"{os.getpid()}\n"
    finally:
        node.close()


def test_a_folder_can_be_used_again_after_its_release(tmp_path: Path) -> None:
    """By the next node of this machine, or of this process."""
    with DataDirLock(tmp_path):
        pass
    with DataDirLock(tmp_path):
        pass


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so be nobody for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It names the setting, the folder and the reason."""
    tmp_path.chmod(0o500)
    request.getfixturevalue("ordinary_user")

    with pytest.raises(DataDirUnusable) as caught:
        DataDirLock(tmp_path / "data").acquire()

    assert str(caught.value) == f"DATA_DIR: cannot write to {tmp_path / 'data'}: Permission denied"


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    """The same."""
    (tmp_path / "data").write_text("")

    with pytest.raises(DataDirUnusable, match=r"^DATA_DIR: cannot write to .*/data: (File exists|Not a directory)$"):
        DataDirLock(tmp_path / "data").acquire()
