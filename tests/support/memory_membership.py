"""Memory membership: the signs of life and the cluster's log over dictionaries, for several nodes of one test.

Follows `beat.lua` and `leave.lua`. Each node has a `link` of its own, with its own faults; checks nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from msgspec.structs import replace

from actors.node_ports import NodeEvent, NodeRecord, NodeReplaced
from tests.support.memory_store import Faults


class MemoryMembership:
    """`nodes` is what the store holds, `log` the cluster's log, oldest first."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.nodes: dict[str, NodeRecord] = {}
        self.log: list[NodeEvent] = []

    def link(self) -> MemoryMembership:
        """Another node's way to the same store."""
        link = copy(self)
        link.faults = Faults()
        return link

    async def beat(
        self, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
    ) -> Sequence[NodeRecord]:
        """MembershipStore."""

        def perform() -> Sequence[NodeRecord]:
            stands = self.nodes.get(own.node)
            if stands is not None and own.beat != 1 and stands.incarnation != own.incarnation:
                raise NodeReplaced(f"another process uses the name {own.node}")
            self.nodes[own.node] = own
            for record in buried:
                there = self.nodes.get(record.node)
                if there is not None and _sign(there) == _sign(record):
                    del self.nodes[record.node]
            self._write(events)
            return list(self.nodes.values())

        return await self.faults.call("beat", [own], perform)

    async def leave(self, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
        """MembershipStore."""

        def perform() -> None:
            stands = self.nodes.get(own.node)
            if stands is not None and stands.incarnation == own.incarnation:
                del self.nodes[own.node]
            self._write(events)

        await self.faults.call("leave", [own], perform)

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """MembershipStore. Ids are places in the log."""
        end = int(before) if before else len(self.log)
        start = max(end - limit, 0)
        return self.log[start:end][::-1], str(start) if start else None

    def told(self) -> list[tuple[str, str, str, int]]:
        """The log: node, what, other, count."""
        return [(event.node, event.what, event.other, event.count) for event in self.log]

    def _write(self, events: Sequence[NodeEvent]) -> None:
        self.log += [replace(event, id=str(len(self.log) + number)) for number, event in enumerate(events)]


def _sign(record: NodeRecord) -> tuple[str, int]:
    return record.incarnation, record.beat
