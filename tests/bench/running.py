"""What runs in a benchmark, seen from outside: the fast sink, a node and its store, several nodes and theirs.

Only asks and steers over HTTP; `tests/bench/rig.py` starts and ends the processes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from tests.bench.readings import CoreShare
from tests.bench.sink_fast import Counts, Received
from tests.support.child import Child
from tests.support.node import NodeProcess
from tests.support.until import until
from tests.support.valkey import ValkeyServer

T = TypeVar("T")
SETTLED_S = 90.0
"""So long partitions may take to be where they belong."""


class BufferSize(Struct, frozen=True):
    """One open buffer, as far as it matters here."""

    size: int


class BufferPage(Struct, frozen=True):
    """One page of the node's listing."""

    buffers: list[BufferSize]
    cursor: str | None


class Sink:
    """The fast sink, steered over HTTP."""

    def __init__(self, http: aiohttp.ClientSession, child: Child, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/hook"
        self.child = child
        self._http = http

    async def messages(self) -> int:
        """How many messages came since its start."""
        return (await self.counts()).messages

    async def counts(self) -> Counts:
        """What came since its start."""
        return await self._ask("counts", Counts)

    async def arrived(self, messages: int, within_s: float) -> bool:
        """Wait until that many messages have come since its start; False when they have not, in time."""
        with contextlib.suppress(TimeoutError):
            await self._ask(f"wait/{messages}", Counts, within_s)
            return True
        return False

    async def hold(self) -> None:
        """From now on no request is answered."""
        await self._ask("hold", Counts)

    async def held(self) -> int:
        """How many requests wait for their answer."""
        return (await self.counts()).held

    async def release(self) -> None:
        """Answer what waits, and everything from now on."""
        await self._ask("release", Counts)

    async def record(self) -> None:
        """From now on keep every request."""
        await self._ask("record", Counts)

    async def log(self) -> list[Received]:
        """The requests kept."""
        return await self._ask("log", list[Received])

    async def latest(self) -> Received:
        """The first request, or the latest one while it records."""
        return await self._ask("latest", Received)

    async def _ask(self, path: str, kind: type[T], within_s: float = 10.0) -> T:
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with self._http.get(f"{self.base}/_/{path}", timeout=timeout) as response:
            return msgspec.json.decode(await response.read(), type=kind)


class Node:
    """The node under test and its store."""

    def __init__(self, http: aiohttp.ClientSession, process: NodeProcess, store: ValkeyServer, core: CoreShare) -> None:
        self.process = process
        self.store = store
        self.core = core
        self.ports = (process.port,)
        self.pids = {"server": process.pid, "store": store.child.pid}
        self._http = http

    async def open_messages(self) -> int:
        """How many messages lie in open buffers, by its own listing."""
        messages = 0
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            async with self._http.get(f"{self.process.url}/api/v1/buffers", params=query) as response:
                response.raise_for_status()
                page = msgspec.json.decode(await response.read(), type=BufferPage)
            messages += sum(buffer.size for buffer in page.buffers)
            cursor = page.cursor
        return messages

    async def settled(self, within_s: float, workers: int) -> None:
        """Wait until all its workers are up, and every partition is with the one that it belongs to."""
        await until(
            lambda: is_settled(self._http, self.process.port, workers),
            within_s,
            every_s=0.2,
            what="all workers settled",
        )

    async def metrics(self) -> str:
        """The text of /metrics."""
        async with self._http.get(f"{self.process.url}/metrics") as response:
            return await response.text()


class NodeName(Struct, frozen=True):
    """One node of a cluster, as far as it matters here."""

    id: str


class Settled(Struct, frozen=True):
    """Whether every partition is where it belongs."""

    settled: bool


class MonitoringPage(Struct, frozen=True):
    """What the nodes say of themselves, as far as it matters here."""

    nodes: list[NodeName]
    partitions: Settled


class Cluster:
    """Several nodes and their one store. `pids` names the nodes and "store"."""

    def __init__(self, http: aiohttp.ClientSession, processes: Sequence[NodeProcess], store: ValkeyServer) -> None:
        self.ports = tuple(process.port for process in processes)
        self.pids = {process.environment["NODE_ID"]: process.pid for process in processes}
        self.pids["store"] = store.child.pid
        self._http = http

    async def settled(self, within_s: float) -> None:
        """Wait until every partition is with the node it belongs to: moving them costs, and is not what is asked."""
        await until(self._is_settled, within_s, every_s=0.2, what="every partition is where it belongs")

    async def metric(self, pattern: str) -> float:
        """The sum over all nodes of the samples whose name and labels match."""
        total = 0.0
        for port in self.ports:
            async with self._http.get(f"http://127.0.0.1:{port}/metrics") as response:
                found = re.findall(rf"^(?:{pattern}) ([\d.e+]+)", await response.text(), re.MULTILINE)
            total += sum(float(value) for value in found)
        return total

    async def _is_settled(self) -> bool:
        return all([await is_settled(self._http, port, len(self.ports)) for port in self.ports])


async def is_settled(http: aiohttp.ClientSession, port: int, nodes: int) -> bool:
    """Whether whoever answers there knows of so many nodes, and of no partition that is not where it belongs."""
    async with http.get(f"http://127.0.0.1:{port}/monitoring") as response:
        page = msgspec.json.decode(await response.read(), type=MonitoringPage)
    return page.partitions.settled and len(page.nodes) == nodes
