"""The embedded PostgreSQL when its node dies, and the next node on the same folder."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from actors.adapters.postgres import embedded
from actors.adapters.postgres.embedded import EmbeddedPostgres
from tests.support.child import Child
from tests.support.postgres import MadeCluster
from tests.support.until import until

NODE = """
import asyncio, sys
from pathlib import Path
from actors.adapters.data_dir import DataDirLock
from actors.adapters.postgres.embedded import EmbeddedPostgres

async def main(folder, tie):
    with DataDirLock(folder):
        engine = EmbeddedPostgres(folder, tie=tie)
        await engine.start()
        print(engine.pid, flush=True)
        await engine.wait_exit()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""
GONE_S = 3.0
START_S = 15.0


class Node:
    """A process that does with the engine what a node does: locks the folder, starts it, and waits."""

    def __init__(self, folder: Path, made: MadeCluster, tie: str = "signal") -> None:
        self.data = folder / "data"
        made.copy_to(self.data)
        self.child = Child([sys.executable, "-c", NODE, self.data, tie], folder / "node")
        self.engine_pid = 0
        self._engine = -1

    async def ready(self) -> None:
        """Wait until its engine runs, hold on to that very process, and write something."""
        told = await until(self.child.stdout_path.read_text, START_S, what=self.child.output())
        self.engine_pid = int(told)
        self._engine = os.pidfd_open(self.engine_pid)
        session = await asyncpg.connect(EmbeddedPostgres(self.data).url)
        await session.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        await session.close()

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
def node(short_path: Path, made_cluster: MadeCluster, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with its engine tied to it in either way; the second is what systems without the first use."""
    started = Node(short_path, made_cluster, request.param)
    yield started
    started.close()


async def kept(data: Path) -> bool:
    """Whether a new engine on the node's folder has what was left there."""
    engine = EmbeddedPostgres(data)
    await engine.start()
    try:
        session = await asyncpg.connect(engine.url)
        try:
            return bool(await session.fetchval("SELECT n FROM kept") == 1)
        finally:
            await session.close()
    finally:
        await engine.stop()


async def test_no_engine_outlives_a_killed_node_and_its_data_stays(node: Node) -> None:
    """kill -9 of the node ends the engine in good order; the next may start at once, and finds what was written."""
    await node.ready()

    node.child.kill9()

    assert await kept(node.data)
    assert node.engine_gone_within(0)
    assert "received fast shutdown request" in (node.data / "postgres/postgres.log").read_text()


async def test_an_engine_that_hung_when_its_node_died_is_ended_by_the_next(
    short_path: Path, made_cluster: MadeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it cannot act on its signal; the next node wakes it up to do so."""
    monkeypatch.setattr(embedded, "PREVIOUS_ENDS_S", 0.1)
    node = Node(short_path, made_cluster)
    try:
        await node.ready()
        os.kill(node.engine_pid, signal.SIGSTOP)
        node.child.kill9()
        assert not node.engine_gone_within(0.2)

        assert await kept(node.data)

        assert node.engine_gone_within(0)
    finally:
        node.close()


async def test_what_a_dead_postmaster_left_running_is_ended_by_the_next(
    short_path: Path, made_cluster: MadeCluster
) -> None:
    """A backend that hangs keeps the lock and the shared memory; PostgreSQL alone would refuse to start."""
    node = Node(short_path, made_cluster)
    session = None
    try:
        await node.ready()
        session = await asyncpg.connect(EmbeddedPostgres(node.data).url)
        os.kill(session.get_server_pid(), signal.SIGSTOP)
        os.kill(node.engine_pid, signal.SIGKILL)
        node.child.kill9()

        assert await kept(node.data)
    finally:
        if session is not None:
            session.terminate()
        node.close()


async def test_the_engine_has_a_session_of_its_own_and_no_file_of_the_node(
    short_path: Path, made_cluster: MadeCluster
) -> None:
    """Ctrl-C must not take it away under a node that drains; the lock on DATA_DIR must fall when the node dies."""
    node = Node(short_path, made_cluster)
    try:
        await node.ready()
        assert os.getsid(node.engine_pid) == node.engine_pid
        open_files = [os.readlink(each) for each in Path(f"/proc/{node.engine_pid}/fd").iterdir()]
        assert str(node.data / "lock") not in open_files
    finally:
        node.close()
