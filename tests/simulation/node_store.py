"""Node store: the store's ports of one node, each call one script on one of its two lanes, as the adapters do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from msgspec.structs import replace

from actors.adapters.valkey.partitions import TURNED_MS_MIN
from actors.node_ports import NodeEvent, NodeRecord
from actors.ports import (
    Appended,
    Census,
    Claim,
    Claimed,
    Close,
    ClosedBatch,
    DeliveryFilter,
    DeliveryRecord,
    DueBatch,
    Entry,
    Fenced,
    ListCursor,
    Next,
    NotDue,
    NothingOpen,
    OpenBatch,
    Owner,
    Poisoned,
    Ready,
    Release,
    Settle,
    WrongState,
)
from tests.simulation.loop import Process
from tests.simulation.wires import Lanes


class NodeStore:
    """BatchStore, DeliveryStore, PartitionStore and MembershipStore over two lanes. Lists are not simulated."""

    def __init__(self, lanes: Lanes, process: Process) -> None:
        self._lanes = lanes
        self._process = process
        self._ahead_ms: dict[int, float] = {}

    async def append(self, entries: Sequence[Entry]) -> Sequence[Appended]:
        """BatchStore."""
        found: Sequence[Appended] = await self._lanes.append(entries)
        return found

    async def close(self, closes: Sequence[Close]) -> Sequence[ClosedBatch | NotDue | NothingOpen | Fenced]:
        """BatchStore."""
        found: Sequence[Any] = await self._lanes.hot.begin("close", tuple(closes))
        return found

    async def cancel(self, partition: int, epoch: int, kid: str) -> int | NothingOpen | Fenced:
        """BatchStore."""
        found: int | NothingOpen | Fenced = await self._lanes.hot.begin("cancel", partition, epoch, kid)
        return found

    async def peek(self, key: str) -> OpenBatch | None:
        """BatchStore."""
        self._not_simulated("peek")

    async def list_open(self, cursor: ListCursor, limit: int) -> tuple[Sequence[OpenBatch], ListCursor | None]:
        """BatchStore."""
        self._not_simulated("list_open")

    async def work(
        self, requests: Sequence[Claim | Settle]
    ) -> Sequence[Claimed | Poisoned | Next | NothingOpen | Fenced]:
        """DeliveryStore: settles and then claims, both on their way before either is answered."""
        claims = tuple(request for request in requests if isinstance(request, Claim))
        outcomes = tuple(request for request in requests if isinstance(request, Settle))
        settling = self._lanes.hot.begin("settle", outcomes) if outcomes else None
        claiming = self._lanes.hot.begin("claim", claims) if claims else None
        settled = iter(() if settling is None else await settling)
        claimed = iter(() if claiming is None else await claiming)
        return [next(claimed) if isinstance(request, Claim) else next(settled) for request in requests]

    async def release(self, releases: Sequence[Release]) -> Sequence[Next | NothingOpen | Fenced]:
        """DeliveryStore."""
        found: Sequence[Any] = await self._lanes.hot.begin("release", tuple(releases))
        return found

    async def requeue(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """DeliveryStore."""
        found: Next | WrongState | NothingOpen | Fenced = await self._lanes.hot.begin("requeue", claim)
        return found

    async def discard(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """DeliveryStore."""
        found: Next | WrongState | NothingOpen | Fenced = await self._lanes.hot.begin("discard", claim)
        return found

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        """DeliveryStore."""
        self._not_simulated("get")

    async def list_deliveries(
        self, wanted: DeliveryFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[DeliveryRecord], ListCursor | None]:
        """DeliveryStore."""
        self._not_simulated("list_deliveries")

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]:
        """PartitionStore."""
        found: Sequence[Owner] = await self._lanes.cold.begin("owners", tuple(partitions))
        return found

    async def acquire(self, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Sequence[Owner]:
        """PartitionStore."""
        found: Sequence[Owner] = await self._lanes.hot.begin("acquire", node, seen, tuple(wanted))
        return found

    async def resign(self, held: Sequence[tuple[int, int]]) -> None:
        """PartitionStore."""
        await self._lanes.hot.begin("resign", tuple(held))

    async def hand_over(self, moves: Sequence[tuple[int, int, str]]) -> Sequence[Owner | Fenced]:
        """PartitionStore."""
        found: Sequence[Owner | Fenced] = await self._lanes.hot.begin("hand_over", tuple(moves)) if moves else ()
        return found

    async def sweep(
        self, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int]
    ) -> tuple[Sequence[DueBatch], Sequence[Ready]]:
        """PartitionStore."""
        if not partitions:
            return (), ()
        found: tuple[Sequence[DueBatch], Sequence[Ready]] = await self._lanes.cold.begin(
            "sweep", tuple(partitions), ahead_ms, limit, dict(skip)
        )
        return found

    async def census(self, partitions: Sequence[int]) -> Census:
        """PartitionStore. Notices a clock that was turned back as the adapter does."""
        if not partitions:
            return Census(0, 0, 0)
        sent_ms = 1000 * self._lanes.path.loop.now
        found: Census
        found, now_ms = await self._lanes.cold.begin("census", tuple(partitions))
        turned: dict[int, int] = {}
        for partition in partitions:
            behind_ms = self._ahead_ms.get(partition, float("-inf")) - (now_ms - sent_ms)
            if behind_ms > TURNED_MS_MIN:
                turned[partition] = round(behind_ms)
            self._ahead_ms[partition] = now_ms - 1000 * self._lanes.path.loop.now
        return replace(found, turned_back=turned)

    async def turn_back(self, turned: Sequence[tuple[int, int, int]]) -> None:
        """PartitionStore."""
        await self._lanes.hot.begin("turn_back", tuple(turned))

    async def beat(
        self, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
    ) -> Sequence[NodeRecord]:
        """MembershipStore."""
        sent_at = self._lanes.path.loop.now
        found: Sequence[NodeRecord] = await self._lanes.cold.begin("beat", own, tuple(buried), tuple(events))
        self._process.beat_sent_at = sent_at
        return found

    async def leave(self, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
        """MembershipStore."""
        await self._lanes.cold.begin("leave", own, tuple(events))

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """MembershipStore."""
        self._not_simulated("events")

    def _not_simulated(self, name: str) -> NoReturn:
        raise NotImplementedError(name)
