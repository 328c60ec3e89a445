"""Membership in the store: signs of life and the cluster's log. The keys share one slot with the store's own record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from actors.adapters.valkey.keys import CONFIG, LOG, NODES
from actors.adapters.valkey.runner import Runner
from actors.node_ports import NodeEvent, NodeRecord, NodeReplaced
from actors.ports import StoreAway

EVENTS_STORED_MAX = 1000
_encode = msgspec.json.Encoder().encode
_record = msgspec.json.Decoder(NodeRecord)
_event = msgspec.json.Decoder(NodeEvent)


class ValkeyMembership:
    """`cluster` gives the id of the cluster this node belongs to; `reject` is told that the store is another's now."""

    def __init__(self, runner: Runner, cluster: Callable[[], str], reject: Callable[[str], None]) -> None:
        self._runner = runner
        self._cluster = cluster
        self._reject = reject

    async def beat(
        self, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
    ) -> Sequence[NodeRecord]:
        """Write the own record, take those of the dead away, append to the log; gives all records."""
        arguments: list[Any] = [self._cluster(), own.node, own.incarnation, own.beat, _encode(own), len(buried)]
        for record in buried:
            arguments += (record.node, _sign(record))
        arguments += (EVENTS_STORED_MAX, *map(_encode, events))
        reply = await self._runner.cold("beat", (CONFIG, NODES, LOG), arguments)
        match reply[0]:
            case b"OK":
                return [_record.decode(stored.split(b" ", 2)[2]) for stored in reply[1]]
            case b"REPLACED":
                raise NodeReplaced(f"NODE_ID: another process uses the name {own.node} on this store")
            case _:
                found = reply[1].decode()
                why = f"the store belongs to another cluster now ({found})" if found else "the store has been emptied"
                self._reject(why)
                raise StoreAway(why)

    async def leave(self, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
        """Take the own record away, if it still is this process's."""
        arguments = [own.node, own.incarnation, EVENTS_STORED_MAX, *map(_encode, events)]
        await self._runner.cold("leave", (NODES, LOG), arguments)

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """A page of the log, newest first."""
        start = f"({before}" if before else "+"
        rows = await self._runner.command("XREVRANGE", LOG, start, "-", "COUNT", limit + 1)
        found = [_stored_event(row) for row in rows[:limit]]
        return found, found[-1].id if len(rows) > limit else None


def _sign(record: NodeRecord) -> str:
    return f"{record.incarnation} {record.beat} "


def _stored_event(row: Any) -> NodeEvent:
    name, fields = row
    event_id = name.decode()
    return msgspec.structs.replace(_event.decode(fields[1]), id=event_id, at_ms=int(event_id.partition("-")[0]))
