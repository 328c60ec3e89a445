"""Lifecycle: one node from its first line to its exit code: lock, sockets, engine, node, signals, and back.

Owns the process. Every failure before the node is ready leaves as one of `banner.START_ERRORS`. A worker (see
`router/workers.py`) has no lock and no engine, shares its port, and tells its parent what others tell the terminal.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from socket import socket

import uvloop
from structlog.contextvars import bind_contextvars

from router.app import Node
from router.banner import START_ERRORS, ready_lines, start_error_line
from router.edge import logs
from router.engine import ENGINE_STOP_S_MIN, data_dir_lock, embedded_engine, first_start, keep
from router.inventory_database import EmbeddedDatabase
from router.listening import addresses, listen
from router.settings import Settings
from router.worker_line import ParentLine

GC_THRESHOLDS = (50_000, 20, 50)
"""Allocations before a collection; almost nothing here is cyclic, and a full collection looks at every open buffer."""
FILES_MAX = 65_536
STOP_S = 4.5
"""From the signal to the exit, whatever hangs; the HTTP contract promises five seconds."""
NodeFactory = Callable[[Settings, str, Callable[[str], None]], Node]


def run(settings: Settings, make_node: NodeFactory = Node) -> int:
    """Run a node until SIGTERM or SIGINT; gives the exit code."""
    logs.configure(sys.stderr, level=settings.log_level)
    _allow_many_connections()
    if settings.worker is None:
        return _run_process(settings, make_node, None)
    with closing(ParentLine(settings.worker)) as line:
        line.tie()
        bind_contextvars(worker=settings.worker.index)
        try:
            return _run_process(settings, make_node, line)
        except START_ERRORS as error:
            reason = start_error_line(error)
            if reason is None:
                raise
            line.failed(reason)
            return 1


def _run_process(settings: Settings, make_node: NodeFactory, line: ParentLine | None) -> int:
    with ExitStack() as held:
        if settings.redis_url is None:
            held.enter_context(data_dir_lock(settings))
        sockets = listen(settings.host, settings.ports, shared=line is not None)
        for listener in sockets:
            held.callback(listener.close)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings, sockets, make_node, line))


async def _run(settings: Settings, sockets: list[socket], make_node: NodeFactory, line: ParentLine | None) -> int:
    return await _Process(settings, sockets, make_node, line).run()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files as far as the system lets us: each client and each webhook is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Process:
    def __init__(
        self, settings: Settings, sockets: list[socket], make_node: NodeFactory, line: ParentLine | None
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._make_node = make_node
        self._line = line
        self._engine = embedded_engine(settings) if settings.redis_url is None else None
        self._database: EmbeddedDatabase | None = None
        if settings.database_url is None and line is None:
            self._database = EmbeddedDatabase(settings, locked=self._engine is not None)
        self._ending: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._ends_at = 0.0
        """When the process must be gone, once it was told to end; the engine gets what is left of the time."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, None)
        try:
            if self._engine is None:
                return await self._serve(str(self._settings.redis_url))
            return await self._serve(await first_start(self._engine))
        finally:
            left_s = max(self._ends_at - loop.time(), ENGINE_STOP_S_MIN)
            engines = (each for each in (self._engine, self._database) if each is not None)
            await asyncio.gather(*(each.stop(left_s) for each in engines))

    async def _serve(self, url: str) -> int:
        node = self._make_node(self._settings, url, self._end)
        try:
            if self._line is not None:
                await self._join(node, self._line)
            self._lend(node)
            await node.start(self._sockets)
            if self._engine is not None:
                engine = self._engine
                node.supervisor.service("engine", lambda: keep(engine, node.log))
            # What start-up made lives as long as the process: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self._announce(node)
            fatal = await self._ending
        finally:
            await node.stop()
        if fatal is not None:
            node.log.critical("node ended", reason=fatal)
        return 0 if fatal is None else 1

    def _lend(self, node: Node) -> None:
        """Let the inventory have a database: this process's own, its parent's, or the one that was named."""
        if self._settings.database_url is not None:
            node.inventory_home.want()
        elif self._line is not None:
            node.database.embedded_url = self._line.database
            self._line.on_database = node.inventory_home.want
        elif self._database is not None:
            database = self._database
            node.database.embedded_url = database.url
            node.supervisor.service("database engine", lambda: database.keep(node.log))
            if database.exists:
                node.inventory_home.want()

    async def _join(self, node: Node, line: ParentLine) -> None:
        """Become one of the parent's workers: hear of its end, and show the numbers of all."""
        await line.open()
        node.supervisor.service("parent", lambda: line.run(node.metrics.families))
        node.metrics.sum_up = line.sum_up

    def _announce(self, node: Node) -> None:
        if self._line is not None:
            self._line.ready(self._settings.node_id, node.store.server_name)
            return
        for line in ready_lines(self._settings, addresses(self._sockets), node.store.server_name):
            print(line, flush=True)

    def _end(self, fatal: str | None) -> None:
        if not self._ending.done():
            self._ends_at = asyncio.get_running_loop().time() + STOP_S
            self._ending.set_result(fatal)
