"""App: the composition root. The only place that sees all sides; makes every part and joins them.

Owns the order in which a node comes up and goes down. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from socket import gethostname, socket

import msgspec
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from actors.adapters.data_dir import DataDirLock
from actors.adapters.embedded import EmbeddedValkey
from actors.adapters.http.egress import HttpEgress
from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.echo import Echo
from actors.adapters.valkey.store import StoreOptions, StoreUnfit, ValkeyStore
from actors.attempt import Attempts, DeliveryRules, Tools
from actors.buffers import Buffers
from actors.core.addresses import Guard
from actors.core.ids import IdSource
from actors.deliveries import Deliveries
from actors.handover import Handover
from actors.loop_lag import watch_loop
from actors.membership import Membership
from actors.node_ports import Hint, NodeRecord
from actors.ownership import Ownership
from actors.ports import Egress, Entry, StoreAway
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from actors.sweeper import Sweeper
from actors.tail import Tail
from router.__about__ import __version__
from router.api import buffers as buffer_api
from router.api import deliveries as delivery_api
from router.api import operations as operations_api
from router.edge import logs
from router.edge.http import Edge
from router.edge.idempotency import Idempotency
from router.edge.metrics import Metrics
from router.edge.openapi import About, freeze
from router.edge.server import EdgeRunner
from router.idempotency_records import IdempotencyRecords
from router.settings import Settings
from router.status import Status

STORE_WAIT_S = 5.0
REQUESTS_DRAIN_S = 1.0
DELIVERIES_DRAIN_S = 2.5
HOLD_PER_RETRY_DELAY = 2.0

ABOUT = About(
    title="Buzón",
    version=__version__,
    description="Gathers messages per key and delivers each batch to a webhook: reliably, in order, whatever crashes.",
    tags={
        buffer_api.TAG: "Messages and the batches they wait in.",
        delivery_api.TAG: "Closed batches on their way to their webhooks.",
        operations_api.TAG: "The node itself.",
    },
)


class Node:
    """One node. `wrap_store` and `wrap_egress` let tests stand between the actors and what they act on."""

    def __init__(
        self,
        settings: Settings,
        store_url: str,
        on_fatal: Callable[[str], None],
        wrap_store: Callable[[ValkeyStore], None] = lambda _store: None,
        wrap_egress: Callable[[Egress], Egress] = lambda egress: egress,
    ) -> None:
        self.settings = settings
        self._on_fatal = on_fatal
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop.time, loop.call_at)
        self.log: FilteringBoundLogger = logs.get("buzon")
        self.metrics = Metrics(__version__)
        self.supervisor = Supervisor(self.clock, self._report_crash, on_fatal)
        self.store = ValkeyStore(_store_options(settings, store_url), random.random)
        wrap_store(self.store)
        self.guard = guard_of(settings)
        self._http = HttpEgress(self.guard)
        self.ownership = Ownership(settings.node_id, self.store.partitions, self.clock, self.metrics)
        self.membership = Membership(
            _identity(settings), self.store.membership, self.ownership, self.clock, self.metrics, self.log
        )
        self.tail = Tail()
        self.ids = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)
        self.buffers = Buffers(self.store.batches, self.ownership, self.supervisor, self.clock, self.metrics)
        tools = Tools(
            supervisor=self.supervisor,
            clock=self.clock,
            jitter=random.random,
            journal=self.log,
            meters=self.metrics,
        )
        attempts = Attempts(self.store.deliveries, wrap_egress(self._http), self.ownership, _rules(settings), tools)
        hold_s = HOLD_PER_RETRY_DELAY * settings.retry_delay_s
        self.deliveries = Deliveries(attempts, self.store.deliveries, self.ownership, tools, hold_s)
        self.handover = Handover(self.ownership, self.membership, _Silent(), self.clock, self.metrics)
        self.handover.busy = attempts.partitions_in_hand
        self.sweeper = Sweeper(self.store.partitions, self.ownership, self.buffers, self.deliveries, self.tail)
        self.echo = Echo.of(self.store, settings.node_id, self.clock.monotonic, random.random)
        self.status = Status(settings, self.store, self.ownership, lambda: self.echo.age_s(self.clock.monotonic()))
        self.edge = Edge(self.metrics, self.log, access_log=settings.log_level == "debug")
        self._join()
        self._runner: EdgeRunner | None = None

    def app(self) -> web.Application:
        """The web application with every route."""
        app = web.Application(client_max_size=self.settings.body_bytes_max)
        idempotency = Idempotency(IdempotencyRecords(self.store.records, os.urandom), self.settings.idempotency_ttl_s)
        buffer_api.register(
            app, buffer_api.BufferRoutes(self.buffers, self.ownership, idempotency, self.ids, self.guard)
        )
        delivery_api.register(app, delivery_api.DeliveryRoutes(self.deliveries, idempotency))
        operations_api.register(app, operations_api.Operations(self.status, self.metrics, self.clock), ABOUT)
        return app

    async def start(self, sockets: Sequence[socket]) -> None:
        """Reach the store, take the partitions, then listen. Raises StoreUnfit in one line."""
        self.supervisor.service("store-hot", self.store.hot.run)
        self.supervisor.service("store-cold", self.store.cold.run)
        await self._store_reached()
        await self._http.start()
        await self.membership.run_once()
        self.supervisor.service("membership", self.membership.run)
        self.supervisor.service("handover", self.handover.run)
        self.supervisor.service("sweeper", lambda: self.sweeper.run(self.clock, self.metrics, self.log))
        self.supervisor.service("echo", self.echo.run)
        self.supervisor.service("loop-lag", lambda: watch_loop(self.clock, self.metrics.loop_lag_seconds))
        self._runner = EdgeRunner(self.app(), self.edge, shutdown_timeout=REQUESTS_DRAIN_S)
        await self._runner.setup()
        for listener in sockets:
            await web.SockSite(self._runner, listener).start()
        if sockets:
            self.status.port = sockets[0].getsockname()[1]
        self.status.started = True
        if self.store.server is not None:
            for unsafe in self.store.server.unsafe:
                self.log.error("store can lose what was acknowledged", setting=unsafe)

    async def stop(self) -> None:
        """Go down in order: not ready, no new requests, commits out, deliveries done or given back, partitions free."""
        self.status.draining = True
        self.edge.draining = True
        leaving = self.supervisor.spawn("leave", self._leave())
        draining = self.supervisor.spawn("drain", self.deliveries.drain(DELIVERIES_DRAIN_S))
        if self._runner is not None:
            await self._runner.cleanup()
        try:
            async with asyncio.timeout(REQUESTS_DRAIN_S):
                await self.buffers.drained()
        except TimeoutError:
            self.log.warning("commit queue not empty at the end")
        await asyncio.wait([draining], timeout=DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S)
        await asyncio.wait([leaving], timeout=REQUESTS_DRAIN_S)
        await self.supervisor.stop()
        await self._http.aclose()

    def _join(self) -> None:
        self.buffers.make_delivery_id = self.ids.delivery_id
        self.buffers.on_closed = self.deliveries.offer
        self.buffers.on_stored = lambda entries: self.tail.keep(entries, self.clock.monotonic())
        self.ownership.on_lost = self.buffers.forget_partitions
        self.ownership.on_taken = self.sweeper.wake
        self.membership.on_replaced = self._on_fatal
        self.membership.describe = self._described
        self.store.unreplayed = self._unreplayed
        self.store.on_replayed = self._replayed
        self.store.on_changed = self.ownership.reclaim

    def _described(self, record: NodeRecord) -> NodeRecord:
        """The node's record with the numbers of now."""
        census = self.sweeper.census
        return msgspec.structs.replace(
            record,
            partitions=len(self.ownership.held()),
            open_batches=census.open_batches,
            undelivered=census.undelivered,
            oldest_waiting_ms=census.oldest_waiting_ms,
        )

    async def _leave(self) -> None:
        """Give the partitions back as they become idle, and the name last."""
        try:
            async with asyncio.timeout(DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S):
                await self.handover.leave()
                await self.membership.leave()
        except (StoreAway, TimeoutError) as error:
            self.log.warning("partitions not given back", reason=str(error))

    def _unreplayed(self) -> list[Entry]:
        """What was acknowledged lately. A batch that closes with it closes at another time, so it has another id."""
        return [
            msgspec.structs.replace(entry, batch_id=self.ids.delivery_id(entry.partition))
            for entry in self.tail.entries()
        ]

    def _replayed(self, count: int) -> None:
        self.metrics.store_restarts.inc()
        self.metrics.replayed.inc(count)
        self.log.warning("store restarted or was replaced", replayed=count)

    async def _store_reached(self) -> None:
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await self.store.hot.up.wait()
                await self.store.cold.up.wait()
        except TimeoutError:
            why = self.store.unfit or self.store.hot.why_down
            raise StoreUnfit(f"REDIS_URL: cannot use the store: {why}") from None

    def _report_crash(self, phrase: str, name: str, error: BaseException) -> None:
        self.metrics.actor_restarts.inc()
        self.log.error(phrase, name=name, exc_info=error)


class _Silent:
    """Placeholder until the bell is joined."""

    def ring(self, node: str, hint: Hint) -> None:
        """Nothing."""


def _identity(settings: Settings) -> NodeRecord:
    """What this process says of itself with each beat."""
    return NodeRecord(
        node=settings.node_id,
        incarnation=os.urandom(8).hex(),
        beat=0,
        version=__version__,
        machine=gethostname(),
        pid=os.getpid(),
        started_ms=time.time_ns() // 1_000_000,
    )


def guard_of(settings: Settings) -> Guard:
    """Which addresses a webhook may have. A server that only this machine can reach may reach this machine."""
    return Guard(
        allowed_networks=tuple(ip_network(network) for network in settings.webhook_allowed_networks),
        loopback_allowed=settings.loopback_only and settings.secret_key is None,
    )


def data_dir_lock(settings: Settings) -> DataDirLock:
    """The lock that makes DATA_DIR belong to one node; a context manager."""
    return DataDirLock(settings.data_dir)


def embedded_engine(settings: Settings, on_progress: Callable[[str], None]) -> EmbeddedValkey:
    """The store of a node that was given none."""
    return EmbeddedValkey(settings.data_dir, on_progress)


def openapi_document() -> str:
    """The OpenAPI document of this version, without running a node."""
    return asyncio.run(_document())


async def _document() -> str:
    from router.settings import load  # noqa: PLC0415  only this command needs defaults

    node = Node(load({}).settings, "redis://127.0.0.1:6379/0", lambda _reason: None)
    return freeze(node.app(), ABOUT).body.decode()


def _store_options(settings: Settings, store_url: str) -> StoreOptions:
    return StoreOptions(
        url=store_url,
        client_name=f"buzon-{settings.node_id}",
        window_ms=round(settings.idempotency_ttl_s * 1000),
        kept=Kept(
            delivered_ms=round(settings.delivered_ttl_s * 1000),
            dead_ms=round(settings.dead_ttl_s * 1000),
        ),
    )


def _rules(settings: Settings) -> DeliveryRules:
    return DeliveryRules(
        timeout_s=settings.webhook_timeout_s,
        max_retries=settings.max_retries,
        retry_delay_s=settings.retry_delay_s,
        user_agent=f"buzon/{__version__}",
    )
