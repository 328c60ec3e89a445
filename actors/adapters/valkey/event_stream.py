"""Event stream: the inventory's events in the store, as one Redis stream that other programs may read.

Entries are named by their numbers (`7-0`), so each is there once, however often it is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, cast

import msgspec

from actors.adapters.valkey.keys import EVENTS
from actors.adapters.valkey.runner import Runner
from actors.core.inventory import Event, EventType

EVENTS_MAX = 100_000
"""Kept in the stream; all of them are in the database."""
FIELDS = {b"event_id", b"type", b"data", b"at"}


class ValkeyEventStream:
    """Implements EventStream."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def add(self, events: Sequence[Event]) -> None:
        """Put events at the end."""
        arguments: list[Any] = [EVENTS_MAX]
        for event in events:
            arguments += (event.seq, event.event_id, event.type, bytes(event.data), event.at)
        await self._runner.cold("add_events", (EVENTS,), arguments)

    async def read(self, from_seq: int, limit: int) -> Sequence[Event]:
        """Events from a number on, up to the first entry that is somebody else's."""
        rows = await self._runner.command("XRANGE", EVENTS, f"{from_seq}-0", "+", "COUNT", limit)
        events = (_event(name, fields) for name, fields in rows)
        return [event for event in takewhile(lambda event: event is not None, events) if event is not None]


def _event(name: bytes, fields: Any) -> Event | None:
    flat = iter(fields)
    known = fields if isinstance(fields, dict) else dict(zip(flat, flat, strict=True))
    if not known.keys() >= FIELDS:
        return None
    return Event(
        seq=int(name.partition(b"-")[0]),
        event_id=known[b"event_id"].decode(),
        type=cast(EventType, known[b"type"].decode()),
        data=msgspec.Raw(known[b"data"]),
        at=known[b"at"].decode(),
    )
