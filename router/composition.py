"""Composition: makes every part of a node and joins them. The only place that sees all sides. Starts nothing."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from itertools import count

import msgspec
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from actors.adapters.http.egress import HttpEgress
from actors.adapters.peers.caller import Service
from actors.adapters.peers.links import PeerLinks
from actors.adapters.peers.listener import PeerListener
from actors.adapters.valkey.bell import ValkeyBell
from actors.adapters.valkey.cache_store import CacheOptions, ValkeyCache
from actors.adapters.valkey.channel_store import ChannelOptions, ValkeyChannels
from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.echo import Echo
from actors.adapters.valkey.keys import RESERVED_PREFIX
from actors.adapters.valkey.store import StoreOptions, ValkeyStore
from actors.announcer import Announcer
from actors.attempt import Attempts, Tools
from actors.buffers import Buffers
from actors.cache import Cache, CacheRules
from actors.cache_walks import CacheWalks
from actors.channels import Channels, ChannelTools
from actors.core.cache_names import CacheNames
from actors.core.ids import IdSource
from actors.core.outcome import Answered, Failed
from actors.core.partition import partition_of_instance
from actors.deliveries import Deliveries
from actors.desk import Desk
from actors.egress_ports import Egress
from actors.evolution import Evolution
from actors.forwarding import Forwarding, Neighbours
from actors.handover import Handover
from actors.inbound import Inbound
from actors.inbound_ports import InboundTools, Sending
from actors.instances import Instances, InstanceTools
from actors.inventory import Inventory
from actors.inventory_flow import AGAIN_TOLD_S, InventoryFlow
from actors.inventory_home import InventoryHome
from actors.membership import Membership
from actors.node_ports import NodeRecord
from actors.ownership import Ownership
from actors.ports import Claimed, Entry, Settle
from actors.replying import Replying
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from actors.sweeper import Sweeper
from actors.tail import Tail
from actors.task_ports import NewTask
from actors.task_send import TaskSend
from actors.tasks import Tasks
from router import told
from router.__about__ import __version__
from router.api import buffers as buffer_api
from router.api import cache as cache_api
from router.api import cache_batches, cache_durations, cache_seconds
from router.api import channels as channel_api
from router.api import deliveries as delivery_api
from router.api import inbound as inbound_api
from router.api import inventory as inventory_api
from router.api import monitoring as monitoring_api
from router.api import operations as operations_api
from router.api import stats as stats_api
from router.api import tasks as task_api
from router.api.whatsapp_view import WhatsApp
from router.edge import logs
from router.edge.http import Edge
from router.edge.idempotency import Idempotency
from router.edge.metrics import Metrics
from router.edge.openapi import About
from router.idempotency_records import IdempotencyRecords
from router.inventory_database import InventoryDatabase
from router.realtime import routes as realtime
from router.realtime.hall import Realtime
from router.settings import Settings
from router.status import Status

HOLD_PER_RETRY_DELAY = 2.0

ABOUT = About(
    title="Buzón",
    version=__version__,
    description="Gathers messages per key and delivers each batch to a webhook: reliably, in order, whatever crashes.",
    tags={
        buffer_api.TAG: "Messages and the batches they wait in.",
        delivery_api.TAG: "Closed batches on their way to their webhooks.",
        cache_api.TAG: cache_api.ABOUT,
        channel_api.TAG: channel_api.ABOUT,
        task_api.TAG: task_api.ABOUT,
        inventory_api.TAG: inventory_api.ABOUT,
        inbound_api.TAG: inbound_api.ABOUT,
        operations_api.TAG: "The node itself.",
    },
)


class Parts:
    """The parts of one node. `wrap_store` and `wrap_egress` let tests stand between the actors and what they act on."""

    def __init__(
        self,
        settings: Settings,
        store_url: str,
        on_fatal: Callable[[str], None],
        wrap_store: Callable[[ValkeyStore], None] = lambda _store: None,
        wrap_egress: Callable[[Egress], Egress] = lambda egress: egress,
    ) -> None:
        self.settings = settings
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop.time, loop.call_at)
        self.log: FilteringBoundLogger = logs.get("buzon")
        self.metrics = Metrics(__version__)
        self.supervisor = Supervisor(self.clock, self._report_crash, on_fatal)
        self.listeners = Supervisor(self.clock, self._report_crash, on_fatal)
        """Of what listeners want: however much that is, it takes no deliveries' place."""
        self.store = ValkeyStore(_store_options(settings, store_url), random.random)
        wrap_store(self.store)
        self.guard = told.guard_of(settings)
        self.http = HttpEgress(self.guard)
        self.evolution_http = HttpEgress(told.EVOLUTION_GUARD)
        """The operator has named the one server that is reached through it, and it may be in a private network."""
        self.tail = Tail(self.store.away)
        self.ids = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)
        self._make_actors(wrap_egress(self.http))
        self._make_tasks(wrap_egress(self.evolution_http))
        self._make_nodes()
        self._make_inbound()
        self._make_cache(settings.cache_url or store_url)
        self._make_channels()
        self._make_inventory()
        self._join(on_fatal)
        self.status = Status(
            settings,
            self.store,
            self.cache_store,
            self.ownership,
            echo_age_s=lambda: self.echo.age_s(self.clock.monotonic()),
            ear_age_s=lambda: self.channel_store.age_s(self.clock.monotonic()),
        )
        self.status.inventory = self.inventory_home
        self.edge = Edge(self.metrics, self.log, access_log=settings.log_level == "debug")

    def app(self) -> web.Application:
        """The web application with every route."""
        app = web.Application(client_max_size=self.settings.body_bytes_max)
        idempotency = Idempotency(IdempotencyRecords(self.store.records, os.urandom), self.settings.idempotency_ttl_s)
        buffer_routes = buffer_api.BufferRoutes(
            self.buffers, self.forwarding, self.ownership, idempotency, self.ids, self.guard
        )
        buffer_api.register(app, buffer_routes)
        delivery_api.register(app, delivery_api.DeliveryRoutes(self.deliveries, self.forwarding, idempotency))
        maker = task_api.TaskMaker(told.message_rules(self.settings), self.ids, self.clock)
        task_api.register(app, task_api.TaskRoutes(self.tasks, self.forwarding, idempotency, maker))
        inbound_api.register(app, inbound_api.InboundRoutes(self.inbound, self.store.inbound, self.guard))
        inventory_api.register(app, inventory_api.InventoryRoutes(self.inventory, idempotency, self.ids))
        self._register_cache(app, idempotency)
        whatsapp = WhatsApp(self.store.tasks, self.store.health, self.evolution)
        monitoring_api.register(
            app, monitoring_api.MonitoringRoutes(self.membership, self.ownership, self.store, whatsapp)
        )
        operations_api.register(app, operations_api.Operations(self.status, self.metrics, self.clock), ABOUT)
        return app

    def _register_cache(self, app: web.Application, idempotency: Idempotency) -> None:
        names = CacheNames((RESERVED_PREFIX, self.settings.reserved_prefix))
        default_ttl_ms = round(self.settings.cache_default_ttl_s * 1000)
        entries = cache_api.Entries(self.cache, self.cache_walks, names, default_ttl_ms)
        cache_seconds.register(app, cache_seconds.SecondsRoutes(entries, idempotency))
        cache_batches.register(app, cache_batches.BatchRoutes(entries, idempotency))
        cache_durations.register(app, cache_durations.DurationRoutes(entries))
        channel_api.register(app, channel_api.ChannelRoutes(self.channels, idempotency, self.settings.queue_channel))
        realtime.register(app, self.realtime, self.settings.allowed_origins)
        stats_api.register(app, stats_api.StatsRoutes(self.cache_store))

    def _make_actors(self, egress: Egress) -> None:
        """What a node does for the partitions it holds."""
        settings, store = self.settings, self.store
        self.tools = Tools(
            supervisor=self.supervisor,
            clock=self.clock,
            jitter=random.random,
            journal=self.log,
            meters=self.metrics,
        )
        self.ownership = Ownership(settings.node_id, store.partitions, self.clock, self.metrics)
        self.buffers = Buffers(store.batches, self.ownership, self.supervisor, self.clock, self.metrics)
        self.attempts = Attempts(store.deliveries, egress, self.ownership, told.delivery_rules(settings), self.tools)
        hold_s = HOLD_PER_RETRY_DELAY * settings.retry_delay_s
        self.deliveries = Deliveries(self.attempts, store.deliveries, self.ownership, self.tools, hold_s)
        self.sweeper = Sweeper(store.partitions, self.ownership, self.buffers, self.deliveries, self.tail)

    def _make_tasks(self, egress: Egress) -> None:
        """WhatsApp sends: deliveries of their own kind."""
        settings, store = self.settings, self.store
        self.evolution = Evolution(egress, told.evolution_rules(settings), self.clock)
        tools = InstanceTools(
            clock=self.clock,
            chance=random.random,
            journal=self.log,
            held=self.metrics.lanes_held,
            supervisor=self.supervisor,
        )
        self.instances = Instances(self.evolution, store.health, told.pacing(settings), tools)
        self.tasks = Tasks(store.tasks, self.supervisor, self.clock, self.metrics, self.metrics.tasks["queued"])
        self.replying = Replying(self.tasks, settings.evolution_on_unknown, settings.max_retries)
        self.attempts.webhooks.reply = self.replying.reply
        self.task_send = TaskSend(self.evolution, self.instances, settings.task_retry_delay_s)
        self.attempts.tasks = self.task_send

    def _make_nodes(self) -> None:
        """What it has to do with the other nodes."""
        settings, store, clock = self.settings, self.store, self.clock
        node = settings.node_id
        self.identity = told.identity(settings)
        self.membership = Membership(self.identity, store.membership, self.ownership, clock, self.metrics, self.log)
        self.bell = ValkeyBell(store.speaker.call, self.metrics.rings)
        self.echo = Echo.of(store, node, clock.monotonic, random.random)
        self.links = PeerLinks(
            node, lambda: store.secret, self.membership.address_of, self.supervisor, clock.boottime, self.log
        )
        self.desk = Desk(self.buffers, self.deliveries, self.ownership)
        self.listener = PeerListener(Service(node, lambda: store.secret, self.desk, self.supervisor, clock.boottime))
        self.handover = Handover(self.ownership, self.membership, self.bell, clock, self.metrics)
        self.forwarding = Forwarding(
            self.buffers,
            self.deliveries,
            self.ownership,
            Neighbours(self.links, self.bell, lambda other: other in self.membership.alive()),
            self.tools,
            settings.ingest == "forward",
        )

    def _make_cache(self, url: str) -> None:
        settings = self.settings
        names = CacheOptions(
            url=url,
            client_name=f"buzon-cache-{settings.node_id}",
            reserved=(RESERVED_PREFIX, settings.reserved_prefix),
            near=settings.cache_near_bytes > 0,
            once_ms=round(settings.idempotency_ttl_s * 1000),
        )
        rules = CacheRules(near_bytes_max=settings.cache_near_bytes, stale_s=settings.cache_stale_s)
        self.cache_store = ValkeyCache(names, random.random, self.clock.boottime)
        self.cache = Cache(self.cache_store, rules, self.supervisor, self.clock, self.metrics)
        self.cache_walks = CacheWalks(self.cache, self.cache_store, self.clock)
        self.cache_store.on_invalidated = self.cache.on_invalidated
        if settings.cache_url is None:
            self.cache_store.unfit = lambda: self.store.unfit

    def _make_channels(self) -> None:
        """Channels: their streams are in the store, whatever the cache is on."""
        options = ChannelOptions(
            history_size=self.settings.channel_history_size,
            history_ms=round(self.settings.channel_history_ttl_s * 1000),
            once_ms=round(self.settings.idempotency_ttl_s * 1000),
            incarnation=self.identity.incarnation,
        )
        marks = count(1)
        tools = ChannelTools(
            supervisor=self.listeners,
            clock=self.clock,
            meters=self.metrics,
            new_id=self.ids.message_id,
            new_mark=lambda: f"{self.identity.incarnation}-{next(marks)}",
            awake_s=self.settings.channel_history_ttl_s,
        )
        self.channel_store = ValkeyChannels.of(self.store, options, self.clock.monotonic, os.urandom)
        self.channels = Channels(self.channel_store, self.channel_store.ear, tools)
        self.channel_store.hears = self.channels
        self.channel_store.others = self.membership.others
        self.channel_store.unverified = self.channels.unverified
        self.realtime = Realtime(
            self.channels, self.listeners, self.clock, self.metrics, random.random, told.realtime_limits(self.settings)
        )

    def _make_inbound(self) -> None:
        """What WhatsApp contacts write, and what is told of our own messages."""
        tools = InboundTools(
            supervisor=self.supervisor,
            clock=self.clock,
            meters=self.metrics,
            new_batch_id=self.ids.delivery_id,
        )
        sending = Sending(self.tasks, self.tasks, self.instances)
        self.inbound = Inbound(self.store.inbound, self.forwarding.append, sending, told.gate_of(self.settings), tools)
        self.task_send.phone_of = self.store.inbound.other_name

    def _make_inventory(self) -> None:
        """The inventory: its database is opened when it is first wanted."""
        self.database = InventoryDatabase(self.settings)
        home = self.inventory_home = InventoryHome(self.database.open, self.log)
        self.inventory = Inventory(home, self.cache, self.clock)
        self.inventory_flow = InventoryFlow(home, self.store.events, self.cache, self.ownership, self.metrics)
        self.inventory.on_committed = self.inventory_flow.wake
        self.inventory_flow.publish = self.channels.publish
        self.inventory_flow.again_told_s = min(AGAIN_TOLD_S, self.settings.idempotency_ttl_s / 2)

    def _join_announcer(self) -> None:
        announcer = Announcer(self.channels.events, self.settings.node_id, self.deliveries.get, self.supervisor)
        self.announcer = announcer
        self.buffers.on_opened = announcer.batch_opened
        self.buffers.on_frozen = announcer.batch_closed
        self.attempts.on_settled = self._settled
        self.attempts.on_started = announcer.started
        self.tasks.on_queued = announcer.task_queued
        self.tasks.on_receipt = announcer.receipt
        self.instances.on_held = announcer.lane_changed
        self.inbound.on_takeover = announcer.taken_over
        self.inventory_flow.on_applied = announcer.inventory_changed
        self.deliveries.on_discarded = announcer.discarded
        self.membership.on_noted = announcer.node_noted

    def _join(self, on_fatal: Callable[[str], None]) -> None:
        self._join_announcer()
        self.buffers.make_delivery_id = self.ids.delivery_id
        self.buffers.on_closed = self.deliveries.offer
        self.buffers.on_stored = self._stored
        self.forwarding.appends.on_stored = self._stored
        self.buffers.on_foreign = self.forwarding.stored_for_other
        self.tasks.on_stored = self._stored
        self.tasks.on_startable = self.forwarding.task_startable
        self.deliveries.lane_of = self.instances.lane
        self.deliveries.on_room = self.sweeper.look_wide
        self.instances.on_free = self.deliveries.go_on
        self.instances.owns = lambda instance: self.ownership.epoch(partition_of_instance(instance)) > 0
        self.instances.owned_for_s = lambda instance: self.ownership.held_for_s(partition_of_instance(instance))
        self.ownership.on_lost = self.buffers.forget_partitions
        self.ownership.on_taken = self.sweeper.wake
        self.membership.on_replaced = on_fatal
        self.membership.describe = self._described
        self.handover.busy = self.attempts.partitions_in_hand
        self.echo.on_hints = self.desk.on_hints
        self.store.unreplayed = self._unreplayed
        self.store.on_replayed = self._replayed
        self.store.on_changed = self.ownership.reclaim
        self.store.others = lambda: len(self.membership.alive()) > 1
        self.store.on_unfit = lambda reason: self.log.error("store must not be used", reason=reason)

    def _settled(self, claimed: Claimed, settle: Settle, outcome: Answered | Failed) -> None:
        if settle.status in ("delivered", "dead"):
            self.tasks.has_ended(settle.delivery_id)
        self.announcer.settled(claimed, settle, outcome)

    def _described(self, record: NodeRecord) -> NodeRecord:
        """The node's record with the numbers of now."""
        census = self.sweeper.census
        return msgspec.structs.replace(
            record,
            address=self.listener.address,
            partitions=len(self.ownership.held()),
            open_batches=census.open_batches,
            undelivered=census.undelivered,
            oldest_waiting_ms=census.oldest_waiting_ms,
        )

    def _stored(self, entries: Sequence[Entry | NewTask], received_us: Sequence[int]) -> None:
        self.tail.keep(entries, self.clock.monotonic(), received_us)

    def _unreplayed(self) -> list[Entry | NewTask]:
        """What was acknowledged lately. A batch that closes with it closes at another time, so it has another id."""
        return [
            msgspec.structs.replace(each, batch_id=self.ids.delivery_id(each.partition))
            if isinstance(each, Entry)
            else each
            for each in self.tail.entries()
        ]

    def _replayed(self, count: int, added: int) -> None:
        self.metrics.store_restarts.inc()
        self.metrics.replayed.inc(count)
        self.metrics.repaired.inc(added)
        detail = f"what was acknowledged lately is written again; {added} messages had been lost"
        self.membership.note("store restarted", count=count, detail=detail)

    def _report_crash(self, phrase: str, name: str, error: BaseException) -> None:
        self.metrics.actor_restarts.inc()
        self.log.error(phrase, name=name, exc_info=error)


def _store_options(settings: Settings, store_url: str) -> StoreOptions:
    return StoreOptions(
        url=store_url,
        client_name=f"buzon-{settings.node_id}",
        cluster_name=settings.cluster_name,
        window_ms=round(settings.idempotency_ttl_s * 1000),
        kept=Kept(
            delivered_ms=round(settings.delivered_ttl_s * 1000),
            dead_ms=round(settings.dead_ttl_s * 1000),
            task_ms=round(settings.result_ttl_s * 1000),
        ),
    )
