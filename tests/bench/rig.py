"""The rig: which core does what, and the processes of a benchmark, every one of which ends with it.

Children hang on a leash (the kernel ends them when we die, however that happens) and are closed in reverse order
when the rig is left, also on Ctrl-C. Everything listens on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from tests.bench.load import LoadResult, LoadSpec
from tests.bench.readings import CoreShare
from tests.bench.sink_fast import Counts, Received
from tests.support.child import Child
from tests.support.node import NodeProcess, answers_200, http_client
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port

T = TypeVar("T")
START_S = 10.0
OVERTIME_S = 40.0
"""How much longer than planned a helper process may take before the run is given up."""


class Rig:
    """Starts what a benchmark needs, pinned: the server under test on one core, everything else on the others."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = tuple(cores[:1])
        self.other_cores = tuple(cores[1:2]) or self.server_core
        self.directory = Path()
        self.http: aiohttp.ClientSession
        self._stack = AsyncExitStack()
        self._started = 0

    async def __aenter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="buzon-bench-")))
        self.http = await self._stack.enter_async_context(http_client())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def child(self, module: str, *arguments: str, server: bool = False) -> Child:
        """Run `python -m tests.bench.<module>` on the server's core or beside it."""
        return self.program(module, [sys.executable, "-m", f"tests.bench.{module}", *arguments], server=server)

    def program(self, name: str, argv: Sequence[str], *, server: bool = False) -> Child:
        """Run any program on the server's core or beside it."""
        self._started += 1
        log = self.directory / f"{name}-{self._started}"
        child = Child(argv, log, cores=self.server_core if server else self.other_cores)
        return self._stack.enter_context(child)

    async def serving(self, module: str, *, server: bool = False) -> tuple[Child, int]:
        """Run a module that serves on the port it is given; returns when it answers."""
        port = free_port()
        child = self.child(module, str(port), server=server)
        await until(lambda: answers_200(port, "/readyz"), START_S, what=f"{module} answers")
        return child, port

    async def result(self, child: Child, kind: type[T], within_s: float) -> T:
        """Wait until a helper process has ended well, and decode what it printed."""
        await until(lambda: child.exit_code is not None, within_s + OVERTIME_S, what=f"{child.name} ends")
        if child.exit_code != 0:
            raise RuntimeError(child.output())
        return msgspec.json.decode(child.stdout_path.read_bytes(), type=kind)

    async def load(self, spec: LoadSpec) -> LoadResult:
        """Run the load generator to its end."""
        return await self.result(self.child("load", as_json(spec)), LoadResult, spec.seconds)

    async def sink(self) -> Sink:
        """A webhook beside the server."""
        child, port = await self.serving("sink_fast")
        return Sink(self.http, child, port)

    async def node(self, environment: dict[str, str] | None = None) -> Node:
        """The node, as `router serve`, on the server's core, with an empty store of its own beside it."""
        store = self.store()
        process = self._node_process(store, environment)
        await process.start()
        return Node(self.http, process, store, CoreShare(self.server_core[0], process.pid))

    async def cluster(self, nodes: int, environment: dict[str, str] | None = None) -> Cluster:
        """That many nodes on the server's core, with one empty store beside them."""
        store = self.store()
        names = [f"node-{number + 1}" for number in range(nodes)]
        processes = [self._node_process(store, {"NODE_ID": name, **(environment or {})}) for name in names]
        await asyncio.gather(*(process.start() for process in processes))
        return Cluster(self.http, processes, store)

    def store(self) -> ValkeyServer:
        """An empty store beside the server."""
        store = ValkeyServer(cores=self.other_cores)
        self._stack.callback(store.close)
        store.start()
        return store

    def _node_process(self, store: ValkeyServer, environment: dict[str, str] | None) -> NodeProcess:
        self._started += 1
        data_dir = self.directory / f"data-{self._started}"
        process = NodeProcess(data_dir, environment, redis_url=store.url, cores=self.server_core)
        self._stack.callback(process.close)
        return process


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
        self.url = f"http://127.0.0.1:{port}/hook"
        self.child = child
        self._http = http
        self._base = f"http://127.0.0.1:{port}/_/"

    async def messages(self) -> int:
        """How many messages came since its start."""
        return (await self._ask("counts", Counts)).messages

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
        return (await self._ask("counts", Counts)).held

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
        async with self._http.get(self._base + path, timeout=timeout) as response:
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

    async def metrics(self) -> str:
        """The text of /metrics."""
        async with self._http.get(f"{self.process.url}/metrics") as response:
            return await response.text()


class Settled(Struct, frozen=True):
    """Whether every partition is where it belongs."""

    settled: bool


class MonitoringPage(Struct, frozen=True):
    """What the nodes say of themselves, as far as it matters here."""

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
        for port in self.ports:
            async with self._http.get(f"http://127.0.0.1:{port}/monitoring") as response:
                page = msgspec.json.decode(await response.read(), type=MonitoringPage)
            if not page.partitions.settled:
                return False
        return True


def as_json(spec: Struct) -> str:
    """A spec as the argument of a helper process."""
    return json.dumps(msgspec.to_builtins(spec))
