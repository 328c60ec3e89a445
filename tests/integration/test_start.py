"""One command: the node as a process, from its first line to its exit code, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import pytest

from tests.support.child import Child
from tests.support.until import until
from tests.support.valkey import ValkeyServer

READY_S = 3.0
STOP_S = 5.0


class Node:
    """`buzon serve` in a process of its own, on a port that the kernel picks."""

    def __init__(self, folder: Path, **environment: str) -> None:
        settings = {"PORT": "0", "DATA_DIR": str(folder / "data")} | environment
        self.started_at = monotonic()
        self.child = Child([sys.executable, "-m", "router", "serve"], folder / "node", environment=settings)
        self.urls: list[str] = []

    async def ready(self) -> None:
        """Wait until it says that it is ready, and note where."""
        out = self.child.stdout_path
        offset = len(out.read_text())
        await until(lambda: "  stop " in out.read_text()[offset:] or self.child.exit_code is not None, 10)
        assert self.child.exit_code is None, self.child.output()
        (line,) = re.findall(r"^  listening  (.*)$", out.read_text()[offset:], re.MULTILINE)
        self.urls = line.split()

    def get(self, path: str) -> tuple[int, bytes]:
        """One request to it."""
        with urlopen(self.urls[0] + path, timeout=5) as answer:  # noqa: S310  our own loopback URL
            return answer.status, answer.read()

    @property
    def engine_pid(self) -> int:
        """The process of its embedded engine, as the engine's own lock tells."""
        return int((Path(self.child.stdout_path).parent / "data/valkey/engine.lock").read_text())

    def refused(self) -> str:
        """Wait until it has given up with exit code 1, and return all that it said: one line."""
        assert self.child.wait(10) == 1, self.child.output()
        assert self.child.stdout_path.read_text() == ""
        (line,) = self.child.stderr_path.read_text().splitlines()
        return line


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Nodes to be ended after the test."""
    started: list[Node] = []
    yield started
    for node in started:
        node.child.close()


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody has buried yet has."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_second_start_is_ready_in_three_seconds(tmp_path: Path, nodes: list[Node]) -> None:
    """It says where it listens, where the data is, where the docs are and how to stop; all of that is true."""
    for _ in range(2):
        node = Node(tmp_path)
        nodes.append(node)
        await node.ready()
        took_s = monotonic() - node.started_at
        said = node.child.stdout_path.read_text()

        assert node.get("/readyz")[0] == 200
        assert node.get("/docs")[0] == 200
        assert f"  data       {tmp_path / 'data'} (embedded Valkey 9." in said
        assert f"  docs       {node.urls[0]}/docs" in said
        assert "  stop       Ctrl-C or SIGTERM" in said

        node.child.close()
    assert took_s < READY_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_both_ways_to_stop_end_in_exit_code_0(tmp_path: Path, nodes: list[Node], number: signal.Signals) -> None:
    """Within five seconds, the engine with it, and without a word of complaint."""
    node = Node(tmp_path)
    nodes.append(node)
    await node.ready()
    engine = node.engine_pid

    node.child.send_signal(number)

    assert node.child.wait(STOP_S) == 0, node.child.output()
    assert gone(engine)
    assert "Traceback" not in node.child.output()


async def test_kill_9_takes_the_engine_along_and_the_next_start_works(tmp_path: Path, nodes: list[Node]) -> None:
    """Also when it comes at once, while the old engine is still writing its last bytes."""
    for _ in range(3):
        node = Node(tmp_path)
        nodes.append(node)
        await node.ready()
        engine = node.engine_pid

        node.child.kill9()

    await until(lambda: gone(engine), 2, what="the engine has ended")


async def test_a_crashed_engine_is_started_again_by_its_node(tmp_path: Path, nodes: list[Node]) -> None:
    """The node stays, and is ready again with a new engine."""
    node = Node(tmp_path)
    nodes.append(node)
    await node.ready()
    engine = node.engine_pid

    os.kill(engine, signal.SIGKILL)

    await until(lambda: (tmp_path / "data/valkey/engine.lock").read_text() not in ("", str(engine)), 5)
    await until(lambda: node.child.exit_code is None and _ready(node), 5, what="ready again")


def _ready(node: Node) -> bool:
    try:
        return node.get("/readyz")[0] == 200
    except OSError:  # 503 is one as well
        return False


async def test_a_taken_port_is_one_line(tmp_path: Path, nodes: list[Node]) -> None:
    """Nothing was started for it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        node = Node(tmp_path, PORT=str(port))
        nodes.append(node)

        line = node.refused()

    assert line == f"buzon: PORT: port {port} on 127.0.0.1 is taken by another program; end it or set another PORT"
    assert not (tmp_path / "data/valkey").exists()


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, nodes: list[Node]) -> None:
    """Its setting is named."""
    (tmp_path / "file").write_text("")
    node = Node(tmp_path, DATA_DIR=str(tmp_path / "file" / "data"))
    nodes.append(node)

    assert node.refused() == f"buzon: DATA_DIR: cannot write to {tmp_path / 'file/data'}: Not a directory"


async def test_a_second_node_on_the_folder_is_one_line_and_the_first_goes_on(tmp_path: Path, nodes: list[Node]) -> None:
    """It names the process that has the folder."""
    first = Node(tmp_path)
    nodes.append(first)
    await first.ready()
    (tmp_path / "second").mkdir()
    second = Node(tmp_path / "second", DATA_DIR=str(tmp_path / "data"))
    nodes.append(second)

    line = second.refused()

    assert line.startswith(f"buzon: DATA_DIR: {tmp_path / 'data'} is in use by another node (pid {first.child.pid})")
    assert first.get("/readyz")[0] == 200


async def test_several_ports_are_served(tmp_path: Path, nodes: list[Node]) -> None:
    """Each answers."""
    node = Node(tmp_path, PORT="0,0")
    nodes.append(node)
    await node.ready()

    assert len(node.urls) == 2
    for url in node.urls:
        with urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  our own loopback URL
            assert answer.status == 200


@pytest.mark.parametrize("by_parts", [False, True])
async def test_a_store_of_ones_own_is_used_instead(tmp_path: Path, nodes: list[Node], by_parts: bool) -> None:
    """By URL or by the seeds' parts; then nothing is started and no folder is made."""
    store = ValkeyServer(tcp=True)
    try:
        store.start()
        parts = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(store.port)}
        node = Node(tmp_path, **parts if by_parts else {"REDIS_URL": store.url})
        nodes.append(node)
        await node.ready()

        assert f"  data       redis://127.0.0.1:{store.port}/0 (Valkey 9." in node.child.stdout_path.read_text()
        assert node.get("/readyz")[0] == 200
        assert not (tmp_path / "data").exists()

        node.child.send_signal(signal.SIGTERM)
        assert node.child.wait(STOP_S) == 0
    finally:
        store.close()


async def test_a_store_that_does_not_answer_is_one_line(tmp_path: Path, nodes: list[Node]) -> None:
    """After the five seconds that it is given to come up; the password is not told."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    node = Node(tmp_path, REDIS_URL=f"redis://:canary@127.0.0.1:{port}/0")
    nodes.append(node)

    line = node.refused()

    assert line.startswith("buzon: REDIS_URL: cannot use the store: ")
    assert "canary" not in line


async def test_the_health_check_command_agrees_with_the_node(tmp_path: Path, nodes: list[Node]) -> None:
    """Exit 0 while it is ready, 3 when it has gone."""
    node = Node(tmp_path)
    nodes.append(node)
    await node.ready()
    port = node.urls[0].rpartition(":")[2]

    with Child([sys.executable, "-m", "router", "healthcheck"], tmp_path / "up", environment={"PORT": port}) as up:
        assert up.wait(5) == 0
    node.child.close()
    with Child([sys.executable, "-m", "router", "healthcheck"], tmp_path / "down", environment={"PORT": port}) as down:
        assert down.wait(5) == 3


def test_the_openapi_command_prints_the_document(tmp_path: Path) -> None:
    """Without a node and without a store."""
    with Child([sys.executable, "-m", "router", "openapi"], tmp_path / "openapi") as command:
        assert command.wait(10) == 0, command.output()
        document = json.loads(command.stdout_path.read_text())

    assert document["openapi"].startswith("3.1")
    assert "/api/v1/message" in document["paths"]
