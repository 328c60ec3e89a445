"""Inventory ports: what the inventory's actors need of a database. Nothing here does anything.

Three roles on one database: commands write the model and its event, the relay numbers events and lets them go, the
projection follows them. Every method may raise `DatabaseAway`; after one, a write may or may not have happened, and
doing it again with the same arguments is right for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Literal, Protocol

from msgspec import Struct

from actors.core.inventory import Event


class DatabaseAway(Exception):
    """The database cannot be reached, or does not answer in time. The line names no password; try later."""


class StreamUnusable(Exception):
    """What is under the stream's name in the store is no stream of ours. Waiting does not mend it; somebody must."""


class Created(Struct, frozen=True, kw_only=True):
    """The inventory is stored, and its event with it."""

    id: int
    event_id: str


class LineAdded(Struct, frozen=True, kw_only=True):
    """The line is stored, and its event with it."""

    id: int
    inventario_id: int
    event_id: str


class Deleted(Struct, frozen=True, kw_only=True):
    """The inventory and its lines are gone; their event is stored."""

    id: int
    event_id: str


class NoSuchInventory(Struct, frozen=True, kw_only=True):
    """There is no inventory of that id; nothing was written."""

    id: int


class EventIdTaken(Struct, frozen=True, kw_only=True):
    """The event id is that of another command; nothing was written."""

    event_id: str


class Fenced(Struct, frozen=True, kw_only=True):
    """Somebody with a higher epoch has worked here since; nothing was written. Stop."""

    epoch: int


class Numbered(Struct, frozen=True, kw_only=True):
    """Events in order that have not been called sent, the oldest first, without a gap."""

    events: tuple[Event, ...]
    more: bool
    """Whether there may be more than were asked for."""


class Sent(Struct, frozen=True, kw_only=True):
    """Events up to this number count as sent."""

    seq: int


class Applied(Struct, frozen=True, kw_only=True):
    """The projection is at this number."""

    seq: int
    count: int
    """How many events this call applied; 0 when it knew them all."""


class Gap(Struct, frozen=True, kw_only=True):
    """Nothing was written: the projection lacks this number. Read from it with `events`, and apply that first."""

    expected: int


class Resumen(Struct, frozen=True, kw_only=True):
    """An inventory as the projection has it."""

    inventario_id: int
    cliente: str
    total_items: int
    fecha_caducidad: date | None


class Linea(Struct, frozen=True, kw_only=True):
    """A line of an inventory."""

    id: int
    producto: str
    cantidad: int


class Detalle(Struct, frozen=True, kw_only=True):
    """An inventory as the projection has it, with the lines that are stored: these may be ahead of its total."""

    resumen: Resumen
    lineas: tuple[Linea, ...]


class EventPlace(Struct, frozen=True, kw_only=True):
    """Where an event stands. `seq` is None until the relay has numbered it."""

    seq: int | None


class Lag(Struct, frozen=True, kw_only=True):
    """How far the projection is behind what was committed. 0 and 0.0 when it has everything."""

    events: int
    seconds: float
    """The age of the oldest event that it lacks, by the database's clock."""


class Difference(Struct, frozen=True, kw_only=True):
    """Where the projection is not what it should be. A value is None where a row lacks."""

    inventario_id: int
    against: Literal["events", "model"]
    field: Literal["row", "cliente", "total_items", "fecha_caducidad"]
    projection: str | None
    expected: str | None


class Verdict(Struct, frozen=True, kw_only=True):
    """What a comparison found. Inventories with events that are not applied yet are not held against the model."""

    watermark: int
    compared: int
    pending: int
    differences: tuple[Difference, ...]


class Rebuilt(Struct, frozen=True, kw_only=True):
    """A new projection has taken the place of the old one: it holds the events up to this number."""

    seq: int


class RebuildBusy(Struct, frozen=True):
    """Somebody else rebuilds already."""


class InventoryCommands(Protocol):
    """Writes of the model, each in one transaction with its event. Commands of one inventory are put in order.

    `event_id` names the command: the same call again changes nothing and gives the first answer, also when the first
    ended in `DatabaseAway`. Texts and quantities must be as `actors/core/inventory.py` allows: ValueError otherwise.
    """

    async def create(self, event_id: str, cliente: str, fecha_caducidad: date | None) -> Created | EventIdTaken: ...
    async def add_line(
        self, event_id: str, inventario_id: int, producto: str, cantidad: int
    ) -> LineAdded | NoSuchInventory | EventIdTaken: ...
    async def delete(self, event_id: str, inventario_id: int) -> Deleted | NoSuchInventory | EventIdTaken: ...


class InventoryRelay(Protocol):
    """The outbox. Numbers are dense from 1 and follow every inventory's history; a numbered event is never renumbered.

    Only what no running transaction can precede any more is numbered. Each call carries the caller's epoch.
    """

    async def number(self, epoch: int, limit: int) -> Numbered | Fenced: ...
    async def sent(self, epoch: int, upto_seq: int) -> Sent | Fenced: ...


class InventoryProjection(Protocol):
    """The read side's writer. `apply` takes events in order; those it has are skipped, a gap is an answer, and so are
    numbers that the relay has not given: such events are another database's. Of no events it says where it is. `recent`
    are those of the last `limit` up to a number that were written within a time, in order."""

    async def apply(self, epoch: int, events: Sequence[Event]) -> Applied | Gap | Fenced: ...
    async def events(self, from_seq: int, limit: int) -> tuple[Event, ...]: ...
    async def recent(self, upto_seq: int, limit: int, within_s: float) -> tuple[Event, ...]: ...


class InventoryQueries(Protocol):
    """Reads of the projection, of the lines, and of how far the projection is."""

    async def list(self, limit: int, offset: int) -> tuple[Resumen, ...]: ...
    async def get(self, inventario_id: int) -> Detalle | None: ...
    async def watermark(self) -> int: ...
    async def seq_of(self, event_id: str) -> EventPlace | None: ...
    async def lag(self) -> Lag: ...


class InventoryUpkeep(Protocol):
    """What an operator asks for. `progress` gets how many events are in, and how many there were at the last look."""

    async def rebuild(self, progress: Callable[[int, int], None]) -> Rebuilt | RebuildBusy: ...
    async def verify(self, differences_max: int = 100) -> Verdict: ...
