"""Inventory, pure: what may be stored, what an event says, and what a run of events changes in the projection.

Owns the rules of the inventory's texts and numbers. Knows no database, no clock and no ids of its own making.
Invariant: folding a run of events and applying the result is the same as applying the events one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal
from unicodedata import category

import msgspec
from msgspec import Struct

TEXT_CHARACTERS_MAX = 200
INVISIBLE = "Cf"
"""Unicode's category of marks without a width: zero width space, byte order mark, direction marks."""
CANTIDAD_MAX = 2**31 - 1
"""PostgreSQL's integer; 2^32 lines of that size still fit into a total (bigint), so the projection cannot overflow."""

EventType = Literal["InventarioCreado", "LineaAgregada", "InventarioEliminado"]


class InventarioCreado(Struct, frozen=True, kw_only=True):
    """`data` of the event: an inventory was made."""

    id: int
    cliente: str
    fecha_caducidad: date | None


class LineaAgregada(Struct, frozen=True, kw_only=True):
    """`data` of the event: a line was added to an inventory."""

    id: int
    inventario_id: int
    producto: str
    cantidad: int


class InventarioEliminado(Struct, frozen=True, kw_only=True):
    """`data` of the event: an inventory and its lines were removed."""

    id: int


class UnreadableEvent(ValueError):
    """What is stored of an event is not what its type promises."""


EventData = InventarioCreado | LineaAgregada | InventarioEliminado

_DATA: dict[EventType, msgspec.json.Decoder[EventData]] = {
    "InventarioCreado": msgspec.json.Decoder(InventarioCreado),
    "LineaAgregada": msgspec.json.Decoder(LineaAgregada),
    "InventarioEliminado": msgspec.json.Decoder(InventarioEliminado),
}


class Event(Struct, frozen=True, kw_only=True):
    """One fact of the inventory, as it is numbered and sent. `at` is RFC 3339 in UTC, by the database's clock."""

    seq: int
    event_id: str
    type: EventType
    data: msgspec.Raw
    """JSON of the type's own Struct, as the database holds it."""
    at: str


class Made(Struct, frozen=True, kw_only=True):
    """An inventory that is new in a run, with what the run already added to it."""

    inventario_id: int
    cliente: str
    fecha_caducidad: date | None
    total_items: int


class Changes(Struct, frozen=True, kw_only=True):
    """What a run of events changes: three sets of different inventories, so they can be written in any order."""

    made: tuple[Made, ...]
    grown: tuple[tuple[int, int], ...]
    """Inventory and the quantity that was added to it."""
    removed: tuple[int, ...]


def is_text(text: str) -> bool:
    """Whether a cliente or producto may be stored: 1 … 200 characters, one of them to be seen, none that is NUL."""
    return 0 < len(text) <= TEXT_CHARACTERS_MAX and any(map(_is_seen, text)) and "\0" not in text


def _is_seen(character: str) -> bool:
    return not character.isspace() and category(character) != INVISIBLE


def is_cantidad(number: int) -> bool:
    """Whether a quantity may be stored."""
    return 0 < number <= CANTIDAD_MAX


def is_fecha(day: date | None) -> bool:
    """Whether a day of expiry may be stored: none is one; the calendar's first and last are infinite to PostgreSQL's
    driver."""
    return day is None or date.min < day < date.max


def data_of(event: Event) -> EventData:
    """What the event says. Raises UnreadableEvent if it is not what its type promises."""
    try:
        return _DATA[event.type].decode(event.data)
    except msgspec.DecodeError as error:
        raise UnreadableEvent(f"event {event.seq} ({event.event_id}) cannot be read: {error}") from None


def missing_before(events: Sequence[Event], watermark: int) -> int | None:
    """The first number that lacks between `watermark` and the end of a run, None if the run is whole.

    Numbers up to the watermark may come again, in any place before the new ones.
    """
    expected = watermark + 1
    for event in events:
        if event.seq < expected and event.seq <= watermark:
            continue
        if event.seq != expected:
            return expected
        expected += 1
    return None


def fold(events: Sequence[Event]) -> Changes:
    """Say what a run of events changes. An inventory that goes in the run is only removed; ids never come again."""
    made: dict[int, InventarioCreado] = {}
    added: dict[int, int] = {}
    removed: dict[int, None] = {}
    for event in events:
        match data_of(event):
            case InventarioCreado() as data:
                made[data.id] = data
            case LineaAgregada() as data:
                added[data.inventario_id] = added.get(data.inventario_id, 0) + data.cantidad
            case InventarioEliminado() as data:
                removed[data.id] = None
    return Changes(
        made=tuple(
            Made(
                inventario_id=key,
                cliente=data.cliente,
                fecha_caducidad=data.fecha_caducidad,
                total_items=added.get(key, 0),
            )
            for key, data in made.items()
            if key not in removed
        ),
        grown=tuple((key, total) for key, total in added.items() if key not in made and key not in removed),
        removed=tuple(removed),
    )
