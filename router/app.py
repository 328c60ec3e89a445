"""App: one node in motion: the order in which its parts come up and go down. Decides nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import socket

from aiohttp import web

from actors.adapters.valkey.identity import StoreUnfit
from actors.adapters.valkey.store import ValkeyStore
from actors.egress_ports import Egress
from actors.loop_lag import watch_loop
from actors.node_ports import NodeReplaced
from actors.ports import StoreAway
from router.composition import ABOUT, Parts
from router.edge import lane
from router.edge.openapi import freeze
from router.edge.server import EdgeRunner
from router.listening import BACKLOG, CannotListen
from router.node_place import node_place
from router.settings import Settings

STORE_WAIT_S = 5.0
CACHE_WAIT_S = 1.0
ACCEPTS_PER_TURN = 16
"""uvloop takes one connection of a listening socket in each turn of its loop. Under a flood a turn lasts 100 ms, and
whoever came new would wait for seconds [measured: 5.4 s for a GET of /livez, 0.25 s with several]."""
REQUESTS_DRAIN_S = 1.0
DELIVERIES_DRAIN_S = 2.5


class Node(Parts):
    """One node. `wrap_store` and `wrap_egress` as in `Parts`."""

    def __init__(
        self,
        settings: Settings,
        store_url: str,
        on_fatal: Callable[[str], None],
        wrap_store: Callable[[ValkeyStore], None] = lambda _store: None,
        wrap_egress: Callable[[Egress], Egress] = lambda egress: egress,
    ) -> None:
        super().__init__(settings, store_url, on_fatal, wrap_store, wrap_egress)
        self._store_url = store_url
        self._sockets: Sequence[socket] = ()
        self._runner: EdgeRunner | None = None

    async def start(self, sockets: Sequence[socket]) -> None:
        """Reach the store, join the other nodes, then listen. Raises StoreUnfit, CannotListen: in one line."""
        for name, run in self.store.services():
            self.supervisor.service(name, run)
        for name, run in self.cache_store.services():
            self.supervisor.service(name, run)
        self.supervisor.service("cache", self.cache.run)
        for name, run in self.channel_store.services():
            self.supervisor.service(name, run)
        self.supervisor.service("audience", self.channels.audience.run)
        self.supervisor.service("events", self.channels.events.run)
        await self._store_reached()
        await self._cache_reached()
        await self.http.start()
        await self.evolution_http.start()
        await self._open_to_peers()
        await self.membership.run_once()
        self.supervisor.service("membership", self.membership.run)
        self.supervisor.service("handover", self.handover.run)
        self.supervisor.service("sweeper", lambda: self.sweeper.run(self.clock, self.metrics, self.log))
        self.supervisor.service("instances", self.instances.run)
        self.supervisor.service("held instances", self.instances.ask)
        self.supervisor.service("tasks", self.tasks.run)
        self.supervisor.service("inventory", self.inventory_home.run)
        self.supervisor.service("inventory flow", lambda: self.inventory_flow.run(self.log))
        self.supervisor.service("echo", self.echo.run)
        self.supervisor.service("peers", self.links.run)
        self.supervisor.service("loop-lag", lambda: watch_loop(self.clock, self.metrics.loop_lag_seconds))
        self._runner = EdgeRunner(self.app(), self.edge, fast_lane=self._fast_lane(), shutdown_timeout=REQUESTS_DRAIN_S)
        await self._runner.setup()
        self._sockets = sockets
        for listener in sockets:
            for _ in range(ACCEPTS_PER_TURN):
                await web.SockSite(self._runner, listener.dup(), backlog=BACKLOG).start()
        if sockets:
            self.status.port = sockets[0].getsockname()[1]
        self.status.started = True
        if self.store.server is not None:
            for unsafe in self.store.server.unsafe:
                self.log.error("store can lose what was acknowledged", setting=unsafe)

    async def stop(self) -> None:
        """Go down in order: not ready, no delivery starts and idle partitions are given back; no new requests, commits
        out; deliveries done or given back with their partitions; the peers' door."""
        self.status.draining = True
        self.edge.draining = True
        self.tasks.leave()
        leaving = self.supervisor.spawn("leave", self._leave())
        emptying = self.supervisor.spawn("send listeners home", self._send_home())
        draining = self.supervisor.spawn("drain", self.deliveries.drain(DELIVERIES_DRAIN_S))
        for listener in self._sockets:
            listener.close()  # else the kernel would go on taking connections that nobody reads
        if self._runner is not None:
            await self._runner.cleanup()
        try:
            async with asyncio.timeout(REQUESTS_DRAIN_S):
                await self.forwarding.appends.drained()
                await self.buffers.drained()
                await self.tasks.drained()
                await self.cache.drained()
                await self.channels.drained()
        except TimeoutError:
            self.log.warning("commit queue not empty at the end")
        await asyncio.wait([draining], timeout=DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S)
        await asyncio.wait([leaving, emptying], timeout=REQUESTS_DRAIN_S)
        await self.listener.aclose()
        await self.listeners.stop()
        await self.supervisor.stop()
        await self.database.close()
        await self.http.aclose()
        await self.evolution_http.aclose()

    def _fast_lane(self) -> bool:
        if not self.settings.fast_lane:
            return False
        if reason := lane.why_not():
            self.log.warning("fast lane is off", reason=reason)
        return not reason

    async def _open_to_peers(self) -> None:
        place = node_place(self.settings, self._store_url)
        try:
            await self.listener.start(place.host, place.port, place.advertised)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise CannotListen(f"NODE_URL: cannot listen on {place.host} port {place.port}: {why}") from None

    async def _leave(self) -> None:
        """Give the partitions back as they become idle, and the name last."""
        if not self.status.started:
            return
        try:
            async with asyncio.timeout(DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S):
                await self.handover.leave()
                await self.membership.leave()
        except (StoreAway, TimeoutError, NodeReplaced) as error:
            self.log.warning("partitions not given back", reason=str(error))

    async def _send_home(self) -> None:
        """Have those who listen here listen elsewhere."""
        await self.realtime.drain()
        with suppress(StoreAway):  # what this node has said of its listeners is forgotten soon
            await self.channels.audience.leave()

    async def _store_reached(self) -> None:
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await self.store.reached()
        except (TimeoutError, StoreUnfit):
            raise StoreUnfit(f"REDIS_URL: cannot use the store: {self.store.why_away}") from None

    async def _cache_reached(self) -> None:
        """A cache that is away is no reason not to start: it answers 503 until it is there."""
        try:
            async with asyncio.timeout(CACHE_WAIT_S):
                await self.cache_store.reached()
        except (TimeoutError, StoreAway):
            self.log.warning("cache is away", reason=self.cache_store.why_away)


def openapi_document() -> str:
    """The OpenAPI document of this version, without running a node."""
    return asyncio.run(_document())


async def _document() -> str:
    from router.settings import load  # noqa: PLC0415  only this command needs defaults

    node = Node(load({}).settings, "redis://127.0.0.1:6379/0", lambda _reason: None)
    return freeze(node.app(), ABOUT).body.decode()
