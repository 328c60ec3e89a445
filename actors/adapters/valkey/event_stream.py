"""Event stream: the inventory's events in the store, as one Redis stream that other programs may read.

Entries are named by their numbers (`7-0`), so each is there once, however often it is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, cast, get_args

import msgspec

from actors.adapters.valkey.keys import EVENTS
from actors.adapters.valkey.runner import Runner
from actors.adapters.valkey.wire import StoreRefused
from actors.core.inventory import Event, EventType
from actors.inventory_ports import StreamUnusable

EVENTS_MAX = 100_000
"""Kept in the stream; all of them are in the database."""
FIELDS = {b"event_id", b"type", b"data", b"at"}
TYPES = frozenset(get_args(EventType))
SEQ_MAX = 2**63 - 1
"""PostgreSQL's bigint; the id of an entry may be larger."""


class ValkeyEventStream:
    """Implements EventStream."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def add(self, events: Sequence[Event]) -> int:
        """Put events at the end; gives the number of the last entry that was there before."""
        arguments: list[Any] = [EVENTS_MAX]
        for event in events:
            arguments += (event.seq, event.event_id, event.type, bytes(event.data), event.at)
        with _refusals():
            _, before = await self._runner.cold("add_events", (EVENTS,), arguments)
        return int(before)

    async def read(self, from_seq: int, limit: int) -> Sequence[Event]:
        """Events from a number on, up to the first entry that is somebody else's."""
        with _refusals():
            rows = await self._runner.command("XRANGE", EVENTS, f"{from_seq}-0", "+", "COUNT", limit)
        events = (_event(name, fields) for name, fields in rows)
        return [event for event in takewhile(lambda event: event is not None, events) if event is not None]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except StoreRefused as error:
        raise StreamUnusable(f"{EVENTS}: {str(error)[:200]}") from error


def _event(name: bytes, fields: Any) -> Event | None:
    flat = iter(fields)
    known = fields if isinstance(fields, dict) else dict(zip(flat, flat, strict=True))
    seq = int(name.partition(b"-")[0])
    if not known.keys() >= FIELDS or seq > SEQ_MAX:
        return None
    try:
        event_id, kind, at = (known[field].decode() for field in (b"event_id", b"type", b"at"))
    except UnicodeDecodeError:
        return None
    if kind not in TYPES:
        return None
    return Event(seq=seq, event_id=event_id, type=cast(EventType, kind), data=msgspec.Raw(known[b"data"]), at=at)
