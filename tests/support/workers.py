"""Workers: a parent and its workers as they run in production, watched from outside.

Owns the parent's process and its log files. Processes are told apart by their command line, nodes by what they answer.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.child import Child
from tests.support.client import Client
from tests.support.node import http_client
from tests.support.until import until
from tests.support.valkey import free_port

READY_S = 20.0
ANSWER_S = 1.0
CONNECTIONS = 40
"""Fresh connections in one look; that all of them reach the same one of two workers is one chance in 10 to the 12th."""


class Workers:
    """`buzon serve` with WORKERS=2, or as the environment says; `async with` ends it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = {"WORKERS": "2", "NODE_ID": "n", "DATA_DIR": str(folder / "data"), **environment}
        self.environment.setdefault("PORT", str(self.port))
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.close()
            if error is not None:
                error.add_note(self._child.output())

    @property
    def child(self) -> Child:
        """The parent's process."""
        assert self._child is not None, "not started"
        return self._child

    @property
    def url(self) -> str:
        """Where all of them are reached."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        """The workers' processes, the oldest first."""
        return sorted(pid for pid, command in children(self.child.pid).items() if "serve" in command)

    @property
    def engine_pid(self) -> int:
        """The process of the embedded engine."""
        (pid,) = (pid for pid, command in children(self.child.pid).items() if "valkey-server" in command[0])
        return pid

    def launch(self) -> None:
        """Start the parent and wait for nothing."""
        argv = [sys.executable, "-m", "router", "serve"]
        self._child = Child(argv, self.folder / "workers", environment=self.environment)

    async def start(self) -> None:
        """Start the parent and wait until it says that all are ready."""
        out = self.folder / "workers.out"
        offset = len(out.read_text()) if out.exists() else 0
        self.launch()
        await until(lambda: "  stop " in out.read_text()[offset:] or self.child.exit_code is not None, READY_S)
        assert self.child.exit_code is None, self.child.output()
        if self.environment["PORT"] == "0":
            self.port = int(out.read_text()[offset:].partition("http://127.0.0.1:")[2].split()[0])

    async def names(self) -> set[str]:
        """Which nodes answer that they are ready, over many connections of their own."""
        found = set()
        for _ in range(CONNECTIONS):
            try:
                answer = await self.fresh("/readyz?verbose")
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                continue
            if answer.status == 200:
                found.add(answer.node)
        return found

    async def fresh(self, path: str) -> Fresh:
        """One GET over a connection of its own, so that any worker may get it; not waited for when that one hangs."""
        async with asyncio.timeout(ANSWER_S), http_client() as session:
            answer = await Client(session, self.url).call("GET", path)
            return Fresh(answer.status, answer.body)

    def refused(self) -> str:
        """Wait until the parent has given up with exit code 1, and return all that it said: one line."""
        assert self.child.wait(READY_S) == 1, self.child.output()
        assert self.child.stdout_path.read_text() == ""
        (line,) = self.child.stderr_path.read_text().splitlines()
        return line


class Fresh:
    """One answer of whichever worker got the connection."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @property
    def node(self) -> str:
        """The node of a verbose readiness."""
        _, _, rest = self.body.decode().partition('"node":"')
        return rest.partition('"')[0]

    @property
    def samples(self) -> dict[str, float]:
        """The numbers of a page of metrics, by name and label values."""
        return {
            " ".join((sample.name, *sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.body.decode())
            for sample in family.samples
        }


def children(pid: int) -> dict[int, list[str]]:
    """The living children of a process and their command lines."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = (stat.parent / "cmdline").read_text().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == pid and state not in "ZX":
            found[int(stat.parent.name)] = command
    return found


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that have not ended; a zombie has."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(pid)
    return found
