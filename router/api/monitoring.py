"""Monitoring: the whole cluster as one node sees it (the HTTP contract, sections 4 and 8).

Any node answers for all of them: from the records that come with every beat, and from the store for who owns what and
for the cluster's log. While the store is away it tells what it knew last. Never a secret, never a word of a message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from actors.core.membership import DEAD_AFTER_S, GAP_S
from actors.core.partition import PARTITIONS
from actors.core.rendering import rfc3339
from actors.core.rendezvous import winners
from actors.core.tasks import TaskState
from actors.node_ports import NodeEvent, NodeRecord
from actors.ports import Owner, StoreAway
from router.api.operations import MONITORING, TAG
from router.api.whatsapp_view import EvolutionView, WhatsApp
from router.edge.handlers import endpoint
from router.edge.openapi import Operation
from router.edge.paging import Cursor, Page
from router.edge.query import Query
from router.edge.usecase import Call, Reply

SILENT_AFTER_S = GAP_S
"""A sign of life that stands still for longer than this is worth a look, though it is no proof yet."""

NodeState = Literal["alive", "silent", "leaving", "dead"]


class Nodes(Protocol):
    """Who is there: `actors.membership.Membership`."""

    def alive(self) -> frozenset[str]: ...
    def records(self) -> Sequence[tuple[NodeRecord, float]]: ...


class KnownOwners(Protocol):
    """What this node knows of who owns what: `actors.ownership.Ownership`."""

    @property
    def node(self) -> str: ...
    def known(self, partition: int) -> Owner: ...


class OwnersInStore(Protocol):
    """Part of `actors.ports.PartitionStore`."""

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]: ...


class EventLog(Protocol):
    """Part of `actors.node_ports.MembershipStore`."""

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]: ...


class StoreView(Protocol):
    """What must be known of the store, and asked of it."""

    @property
    def connected(self) -> bool: ...
    @property
    def refusal(self) -> str: ...
    @property
    def server_name(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def partitions(self) -> OwnersInStore: ...
    @property
    def membership(self) -> EventLog: ...


class NodeView(Struct, frozen=True, kw_only=True):
    """One node, by its latest record. `silent_seconds`: for how long its beat stands still, as seen from the node that
    answers. `dead` ones are shown for a while after they were found so; `address` is where its peers reach it."""

    id: str
    state: NodeState
    silent_seconds: float
    incarnation: str
    address: str
    version: str
    machine: str
    pid: int
    url: str
    started_at: str
    partitions: int
    open_batches: int
    undelivered: int
    oldest_waiting_seconds: float


class Share(Struct, frozen=True):
    """How many partitions a node owns, and the highest epoch under which it owns one."""

    partitions: int
    epoch: int


class OwnedPartition(Struct, frozen=True):
    """Who owns a partition, and under which epoch; `node` is null when nobody does."""

    partition: int
    node: str | None
    epoch: int


class Partitions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`vacant` have no living owner, `misplaced` have one that is to give them to another node; `settled`: neither."""

    total: int
    vacant: int
    misplaced: int
    settled: bool
    nodes: dict[str, Share]
    owners: list[OwnedPartition] | None = None


class Queues(Struct, frozen=True, kw_only=True):
    """What waits, summed over the nodes. `oldest_waiting_seconds` is of the undelivered."""

    open_batches: int
    undelivered: int
    oldest_waiting_seconds: float


class RedisView(Struct, frozen=True, kw_only=True):
    """The store: whether it answers this node now, what it is, whose data it holds, and why it refuses to write."""

    connected: bool
    server: str | None
    cluster: str | None
    refusal: str | None


class EventView(Struct, frozen=True, kw_only=True):
    """One line of the cluster's log: what `node` did or noticed. `other` is the node it is about, `count` how many
    partitions, writes or messages."""

    at: str
    node: str
    what: str
    other: str | None
    count: int | None
    detail: str | None


class Monitoring(Struct, frozen=True, kw_only=True):
    """The cluster as `node` sees it. `events` newest first, empty while the store is away; `cursor` goes on there."""

    node: str
    nodes: list[NodeView]
    partitions: Partitions
    queues: Queues
    redis: RedisView
    tasks: Mapping[TaskState, int]
    evolution: EvolutionView
    events: list[EventView]
    cursor: str | None


class MonitoringQuery(Page, frozen=True, kw_only=True):
    """The query of `GET /monitoring`; `limit` and `cursor` are the events'."""

    partitions: Annotated[bool, Meta(description="Whether to list the owner of each partition.")] = False


class EventPosition(Struct, frozen=True, array_like=True):
    """Where a page of events goes on: before this one of the store's stream ids."""

    before: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}-[0-9]{1,19}$")]


_QUERY = Query(MonitoringQuery)
_CURSOR = Cursor(EventPosition)


class MonitoringRoutes:
    """The use case of this file."""

    def __init__(self, nodes: Nodes, known: KnownOwners, store: StoreView, whatsapp: WhatsApp) -> None:
        self._nodes = nodes
        self._known = known
        self._store = store
        self._whatsapp = whatsapp

    @Operation(
        summary="Show nodes, partitions, queues and events",
        tag=TAG,
        query=MonitoringQuery,
        responses={200: Monitoring},
    )
    async def monitoring(self, call: Call) -> Reply:
        """Answer `GET /monitoring`."""
        query = _QUERY.decode(call.query)
        position = _CURSOR.decode(query.cursor)
        owners, events, following = await self._from_store("" if position is None else position.before, query.limit)
        alive = self._nodes.alive()
        records = sorted(self._nodes.records(), key=lambda seen: seen[0].node)
        nodes = [node_view(record, silent_s, alive) for record, silent_s in records]
        answer = Monitoring(
            node=self._known.node,
            nodes=nodes,
            partitions=partitions_view(owners, alive, listed=query.partitions),
            queues=queues_of([node for node in nodes if node.state != "dead"]),
            redis=self._redis(),
            tasks=await self._whatsapp.tasks(),
            evolution=await self._whatsapp.evolution(),
            events=[event_view(event) for event in events],
            cursor=None if following is None else _CURSOR.encode(EventPosition(following)),
        )
        return Reply(200, msgspec.json.encode(answer), {hdrs.CACHE_CONTROL: "no-store"})

    async def _from_store(self, before: str, limit: int) -> tuple[Sequence[Owner], Sequence[NodeEvent], str | None]:
        """Owners and a page of events; while the store is away the owners known here, and no events."""
        try:
            owners = await self._store.partitions.owners(range(PARTITIONS))
            return owners, *await self._store.membership.events(before, limit)
        except StoreAway:
            return [self._known.known(partition) for partition in range(PARTITIONS)], (), None

    def _redis(self) -> RedisView:
        store = self._store
        return RedisView(
            connected=store.connected,
            server=store.server_name or None,
            cluster=store.cluster or None,
            refusal=store.refusal or None,
        )


def register(app: web.Application, routes: MonitoringRoutes) -> None:
    """Add the route."""
    app.router.add_get(MONITORING, endpoint(routes.monitoring))


def node_view(record: NodeRecord, silent_s: float, alive: Collection[str]) -> NodeView:
    """One node as it is shown. What a dead one last said of its partitions is not so any more."""
    state = state_of(record, silent_s, alive)
    return NodeView(
        id=record.node,
        state=state,
        silent_seconds=round(silent_s, 3),
        incarnation=record.incarnation,
        address=record.address,
        version=record.version,
        machine=record.machine,
        pid=record.pid,
        url=record.url,
        started_at=rfc3339(record.started_ms),
        partitions=0 if state == "dead" else record.partitions,
        open_batches=record.open_batches,
        undelivered=record.undelivered,
        oldest_waiting_seconds=record.oldest_waiting_ms / 1000,
    )


def state_of(record: NodeRecord, silent_s: float, alive: Collection[str]) -> NodeState:
    """What to call a node: nobody is dead whom the failure detector has not found so."""
    if record.leaving and silent_s < DEAD_AFTER_S:
        return "leaving"
    if record.node not in alive:
        return "dead"
    return "silent" if silent_s > SILENT_AFTER_S else "alive"


def partitions_view(owners: Sequence[Owner], alive: frozenset[str], *, listed: bool) -> Partitions:
    """The counts, and the list when it is asked for."""
    winner = winners(alive)
    vacant = sum(owner.node not in alive for owner in owners)
    misplaced = sum(owner.node in alive and owner.node != winner[at] for at, owner in enumerate(owners))
    return Partitions(
        total=len(owners),
        vacant=vacant,
        misplaced=misplaced,
        settled=not vacant and not misplaced,
        nodes=_shares(owners),
        owners=[OwnedPartition(at, owner.node or None, owner.epoch) for at, owner in enumerate(owners)]
        if listed
        else None,
    )


def queues_of(nodes: Sequence[NodeView]) -> Queues:
    """What waits on all of these."""
    return Queues(
        open_batches=sum(node.open_batches for node in nodes),
        undelivered=sum(node.undelivered for node in nodes),
        oldest_waiting_seconds=max((node.oldest_waiting_seconds for node in nodes), default=0.0),
    )


def event_view(event: NodeEvent) -> EventView:
    """One line of the log as it is shown."""
    return EventView(
        at=rfc3339(event.at_ms),
        node=event.node,
        what=event.what,
        other=event.other or None,
        count=event.count or None,
        detail=event.detail or None,
    )


def _shares(owners: Sequence[Owner]) -> dict[str, Share]:
    shares: Mapping[str, list[int]] = {owner.node: [] for owner in owners if owner.node}
    for owner in owners:
        if owner.node:
            shares[owner.node].append(owner.epoch)
    return {node: Share(len(epochs), max(epochs)) for node, epochs in sorted(shares.items())}
