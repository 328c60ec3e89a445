"""The rig: which core does what, and the processes of a benchmark, every one of which ends with it.

Children hang on a leash (the kernel ends them when we die, however that happens) and are closed in reverse order
when the rig is left, also on Ctrl-C. Everything listens on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from tests.bench.load import LoadResult, LoadSpec
from tests.bench.postgres import PostgresEngine
from tests.bench.readings import CoreShare
from tests.bench.running import Cluster, Node, Sink
from tests.support.child import Child, leashed
from tests.support.forked import Fork
from tests.support.node import NodeProcess, answers_200, http_client
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port

T = TypeVar("T")
START_S = 10.0
OVERTIME_S = 40.0
"""How much longer than planned a helper process may take before the run is given up."""


class Rig:
    """Starts what a benchmark needs, pinned: the server under test on one core, everything else on another.

    `shared`: everything on both, for servers that are several processes each. `forks`: our own modules start quicker,
    and nothing is weighed.
    """

    forks: ClassVar[bool] = False

    def __init__(self, *, shared: bool = False) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = tuple(cores[: 2 if shared else 1])
        self.other_cores = self.server_core if shared else tuple(cores[1:2]) or self.server_core
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
        argv = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
        return self._child(module, argv, {}, server=server, forks=self.forks)

    def program(
        self, name: str, argv: Sequence[str], *, server: bool = False, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Run any program on the server's core or beside it."""
        return self._child(name, argv, environment or {}, server=server)

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

    async def sink(self, module: str = "sink_fast") -> Sink:
        """A webhook beside the server, or what is made of it."""
        child, port = await self.serving(module)
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

    async def postgres(self) -> PostgresEngine:
        """An engine without databases beside the server."""
        self._started += 1
        engine = PostgresEngine(self.directory / f"pg-{self._started}", self.other_cores)
        self._stack.push_async_callback(engine.close)
        await engine.start()
        return engine

    def _child(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        server: bool,
        forks: bool = False,
    ) -> Child:
        self._started += 1
        log = self.directory / f"{name}-{self._started}"
        cores = self.server_core if server else self.other_cores
        begin = Fork if forks else leashed
        return self._stack.enter_context(Child(argv, log, environment=environment, cores=cores, begin=begin))

    def _node_process(self, store: ValkeyServer, environment: dict[str, str] | None) -> NodeProcess:
        self._started += 1
        data_dir = self.directory / f"data-{self._started}"
        process = NodeProcess(data_dir, environment, redis_url=store.url, cores=self.server_core)
        process.begin = Fork if self.forks else leashed
        self._stack.callback(process.close)
        return process


def as_json(spec: Struct) -> str:
    """A spec as the argument of a helper process."""
    return json.dumps(msgspec.to_builtins(spec))
