"""Lifecycle: one node from its first line to its exit code: lock, sockets, engine, node, signals, and back.

Owns the process. Every failure before the node is ready leaves as one of `banner.START_ERRORS`.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from socket import socket
from typing import Protocol

import uvloop

from router.app import Node, data_dir_lock, embedded_engine
from router.banner import ready_lines
from router.edge import logs
from router.listening import addresses, listen
from router.settings import Settings

GC_THRESHOLDS = (50_000, 20, 50)
"""Allocations before a collection; almost nothing here is cyclic, and a full collection looks at every open buffer."""
FILES_MAX = 65_536
STOP_S = 4.5
"""From the signal to the exit, whatever hangs; the HTTP contract promises five seconds."""
ENGINE_STOP_S_MIN = 0.5
"""A healthy engine has written out its log and gone within a tenth of that."""
NodeFactory = Callable[[Settings, str, Callable[[str], None]], Node]


def run(settings: Settings, make_node: NodeFactory = Node) -> int:
    """Run a node until SIGTERM or SIGINT; gives the exit code."""
    logs.configure(sys.stderr, level=settings.log_level)
    _allow_many_connections()
    with ExitStack() as held:
        if settings.redis_url is None:
            held.enter_context(data_dir_lock(settings))
        sockets = listen(settings.host, settings.ports)
        for listener in sockets:
            held.callback(listener.close)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings, sockets, make_node))


async def _run(settings: Settings, sockets: list[socket], make_node: NodeFactory) -> int:
    return await _Process(settings, sockets, make_node).run()


class Engine(Protocol):
    """A store that this process runs itself."""

    async def start(self) -> str: ...
    async def stop(self, within_s: float | None = None) -> None: ...
    async def wait_exit(self) -> int: ...


def _allow_many_connections() -> None:
    """Raise the soft limit of open files as far as the system lets us: each client and each webhook is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Process:
    def __init__(self, settings: Settings, sockets: list[socket], make_node: NodeFactory) -> None:
        self._settings = settings
        self._sockets = sockets
        self._make_node = make_node
        self._engine = embedded_engine(settings, _progress) if settings.redis_url is None else None
        self._ending: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._ends_at = 0.0
        """When the process must be gone, once it was told to end; the engine gets what is left of the time."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, None)
        if self._engine is None:
            return await self._serve(str(self._settings.redis_url))
        try:
            return await self._serve(await self._engine.start())
        finally:
            await self._engine.stop(max(self._ends_at - loop.time(), ENGINE_STOP_S_MIN))

    async def _serve(self, url: str) -> int:
        node = self._make_node(self._settings, url, self._end)
        try:
            await node.start(self._sockets)
            if self._engine is not None:
                engine = self._engine
                node.supervisor.service("engine", lambda: _keep(engine, node))
            # What start-up made lives as long as the process: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            for line in ready_lines(self._settings, addresses(self._sockets), node.store.server_name):
                print(line, flush=True)
            fatal = await self._ending
        finally:
            await node.stop()
        if fatal is not None:
            node.log.critical("node ended", reason=fatal)
        return 0 if fatal is None else 1

    def _end(self, fatal: str | None) -> None:
        if not self._ending.done():
            self._ends_at = asyncio.get_running_loop().time() + STOP_S
            self._ending.set_result(fatal)


async def _keep(engine: Engine, node: Node) -> None:
    """Start the engine again whenever it ends by itself; the data is in its log."""
    while True:
        code = await engine.wait_exit()
        node.log.error("embedded store ended", exit_code=code)
        await engine.start()
