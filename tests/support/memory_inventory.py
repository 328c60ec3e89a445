"""Memory inventory: the inventory's database, stream and channel in memory, whose every step can be the last one.

What they hold survives a `Died`, as the real ones survive a node. They follow the ports' promises and judge nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import msgspec

from actors.core.inventory import (
    Event,
    EventData,
    EventType,
    InventarioCreado,
    InventarioEliminado,
    LineaAgregada,
    data_of,
    missing_before,
)
from actors.inventory_home import InventoryParts
from actors.inventory_ports import (
    Applied,
    Created,
    DatabaseAway,
    Deleted,
    Detalle,
    EventIdTaken,
    EventPlace,
    Fenced,
    Gap,
    Lag,
    Linea,
    LineAdded,
    NoSuchInventory,
    Numbered,
    Resumen,
    Sent,
    StreamUnusable,
)
from actors.ports import Counter, Gauge, StoreAway
from tests.support.doubles import Tally
from tests.support.until import passing

TYPES: dict[type[Any], EventType] = {
    InventarioCreado: "InventarioCreado",
    LineaAgregada: "LineaAgregada",
    InventarioEliminado: "InventarioEliminado",
}
AT = "2026-01-01T00:00:00.000000Z"


class Died(Exception):
    """The node ends at this very step."""


@dataclass
class Steps:
    """What was done, in order, and after which of it the node dies: once, at the `nth` time."""

    deadly: str = ""
    nth: int = 1
    done: list[str] = field(default_factory=list)

    def reach(self, step: str) -> None:
        """The step has been done."""
        self.done.append(step)
        if step == self.deadly:
            self.nth -= 1
            if not self.nth:
                self.deadly = ""
                raise Died(step)


class FlowTallies:
    """Meters of the flow that can be read."""

    def __init__(self) -> None:
        self.inventory_events: Counter = Tally()
        self.inventory_lag_seconds: Gauge = Tally()
        self.inventory_lag_events: Gauge = Tally()


class MemoryDatabase:
    """All four roles on one set of rows. A command takes `takes_s`, and longer for the ids in `slow`."""

    def __init__(self, steps: Steps | None = None) -> None:
        self.steps = steps or Steps()
        self.away = False
        self.frozen = False
        """Whether nothing is answered until the deadline."""
        self.deadline_s = 1.0
        self.takes_s = 0.0
        self.begun: list[str] = []
        """The event ids of commands in the order in which they reached the database."""
        self.under_way: dict[int, int] = {}
        self.under_way_max: dict[int, int] = {}
        self.reads = 0
        self.log: list[Event] = []
        """Everything that was committed, by its number to be."""
        self.numbered = 0
        self.sent_upto = 0
        self.relay_epoch = 0
        self.model: dict[int, list[Linea]] = {}
        self.rows: dict[int, Resumen] = {}
        self.applied = 0
        self.projection_epoch = 0
        self._ids = 0

    def parts(self) -> InventoryParts:
        """Itself, by its roles."""
        relay, projection, queries = MemoryRelay(self), MemoryProjection(self), MemoryQueries(self)
        return InventoryParts(
            commands=MemoryCommands(self), relay=relay, projection=projection, queries=queries, probe=self.probe
        )

    async def probe(self) -> None:
        """Fail if it is away, as late as everything else does."""
        await self.hang()
        self.look()

    async def hang(self) -> None:
        """Answer nothing until the deadline."""
        if self.frozen:
            await passing(self.deadline_s)
            raise DatabaseAway("no answer in time")

    def look(self) -> None:
        """Fail if it is away."""
        if self.away:
            raise DatabaseAway("the database is away")

    def next_id(self) -> int:
        """Another number for a row."""
        self._ids += 1
        return self._ids

    def wrote(self, event_id: str, data: EventData) -> None:
        """A command was committed."""
        raw = msgspec.Raw(msgspec.json.encode(data))
        number = len(self.log) + 1
        self.log.append(Event(seq=number, event_id=event_id, type=TYPES[type(data)], data=raw, at=AT))

    def made(self, count: int = 1) -> None:
        """So many inventories are made, of which nobody is told."""
        for _ in range(count):
            key = self.next_id()
            self.model[key] = []
            self.wrote(f"evt_{key}", InventarioCreado(id=key, cliente=f"Ana {key}", fecha_caducidad=None))

    def rebuilt(self, upto: int) -> None:
        """An operator made the projection anew, up to a number."""
        for event in self.log[self.applied : upto]:
            _change(self.rows, event)
        self.applied = upto

    def expected(self) -> dict[int, Resumen]:
        """What the projection must be once it has everything."""
        rows: dict[int, Resumen] = {}
        for event in self.log:
            _change(rows, event)
        return rows


class MemoryCommands:
    """Implements `InventoryCommands`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def create(self, event_id: str, cliente: str, fecha_caducidad: date | None) -> Created | EventIdTaken:
        """Make an inventory."""
        await self._work(event_id, 0)
        key = self._database.next_id()
        self._database.model[key] = []
        self._database.wrote(event_id, InventarioCreado(id=key, cliente=cliente, fecha_caducidad=fecha_caducidad))
        return Created(id=key, event_id=event_id)

    async def add_line(
        self, event_id: str, inventario_id: int, producto: str, cantidad: int
    ) -> LineAdded | NoSuchInventory | EventIdTaken:
        """Add a line."""
        database = self._database
        await self._work(event_id, inventario_id)
        if inventario_id not in database.model:
            return NoSuchInventory(id=inventario_id)
        line = Linea(id=database.next_id(), producto=producto, cantidad=cantidad)
        database.model[inventario_id].append(line)
        said = LineaAgregada(id=line.id, inventario_id=inventario_id, producto=producto, cantidad=cantidad)
        database.wrote(event_id, said)
        return LineAdded(id=line.id, inventario_id=inventario_id, event_id=event_id)

    async def delete(self, event_id: str, inventario_id: int) -> Deleted | NoSuchInventory | EventIdTaken:
        """Remove an inventory."""
        await self._work(event_id, inventario_id)
        if self._database.model.pop(inventario_id, None) is None:
            return NoSuchInventory(id=inventario_id)
        self._database.wrote(event_id, InventarioEliminado(id=inventario_id))
        return Deleted(id=inventario_id, event_id=event_id)

    async def _work(self, event_id: str, inventario_id: int) -> None:
        database = self._database
        database.look()
        database.begun.append(event_id)
        now = database.under_way[inventario_id] = database.under_way.get(inventario_id, 0) + 1
        database.under_way_max[inventario_id] = max(database.under_way_max.get(inventario_id, 0), now)
        try:
            await database.hang()
            await passing(database.takes_s)
        finally:
            database.under_way[inventario_id] -= 1
        database.look()


class MemoryRelay:
    """Implements `InventoryRelay`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def number(self, epoch: int, limit: int) -> Numbered | Fenced:
        """Number everything, and give what is not sent."""
        database = self._database
        database.look()
        if database.relay_epoch > epoch:
            return Fenced(epoch=database.relay_epoch)
        database.relay_epoch = epoch
        database.numbered = len(database.log)
        found = tuple(database.log[database.sent_upto : database.sent_upto + limit])
        if found:
            database.steps.reach("number")
        return Numbered(events=found, more=len(found) == limit)

    async def sent(self, epoch: int, upto_seq: int) -> Sent | Fenced:
        """Call events sent."""
        database = self._database
        database.look()
        if database.relay_epoch > epoch:
            return Fenced(epoch=database.relay_epoch)
        database.sent_upto = max(database.sent_upto, upto_seq)
        database.steps.reach("sent")
        return Sent(seq=database.sent_upto)


class MemoryProjection:
    """Implements `InventoryProjection`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def apply(self, epoch: int, events: Sequence[Event]) -> Applied | Gap | Fenced:
        """Bring events into the rows."""
        database = self._database
        database.look()
        if database.projection_epoch > epoch:
            return Fenced(epoch=database.projection_epoch)
        if (missing := missing_before(events, database.applied)) is not None:
            return Gap(expected=missing)
        if events and events[-1].seq > database.numbered:
            return Gap(expected=database.applied + 1)
        database.projection_epoch = epoch
        new = [event for event in events if event.seq > database.applied]
        for event in new:
            _change(database.rows, event)
            database.applied = event.seq
        if new:
            database.steps.reach("apply")
        return Applied(seq=database.applied, count=len(new))

    async def recent(self, upto_seq: int, limit: int, within_s: float) -> tuple[Event, ...]:
        """The last ones: all of them are new."""
        assert within_s > 0
        return await self.events(max(1, upto_seq - limit + 1), min(limit, upto_seq))

    async def events(self, from_seq: int, limit: int) -> tuple[Event, ...]:
        """Numbered events."""
        self._database.look()
        upto = min(self._database.numbered, from_seq - 1 + limit)
        return tuple(self._database.log[from_seq - 1 : upto])


class MemoryQueries:
    """Implements `InventoryQueries`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def list(self, limit: int, offset: int) -> tuple[Resumen, ...]:
        """A page, the newest first."""
        await self._database.hang()
        self._database.look()
        self._database.reads += 1
        return tuple(self._database.rows[key] for key in sorted(self._database.rows, reverse=True))[
            offset : offset + limit
        ]

    async def get(self, inventario_id: int) -> Detalle | None:
        """One with its lines."""
        self._database.look()
        self._database.reads += 1
        row = self._database.rows.get(inventario_id)
        return None if row is None else Detalle(resumen=row, lineas=tuple(self._database.model.get(inventario_id, ())))

    async def watermark(self) -> int:
        """How far the projection is."""
        await self._database.hang()
        self._database.look()
        return self._database.applied

    async def seq_of(self, event_id: str) -> EventPlace | None:
        """Where an event stands."""
        self._database.look()
        for event in self._database.log:
            if event.event_id == event_id:
                return EventPlace(seq=event.seq if event.seq <= self._database.numbered else None)
        return None

    async def lag(self) -> Lag:
        """How far it is behind."""
        self._database.look()
        behind = len(self._database.log) - self._database.applied
        return Lag(events=behind, seconds=float(behind))


class MemoryStream:
    """Implements `EventStream`."""

    def __init__(self, steps: Steps | None = None) -> None:
        self.steps = steps or Steps()
        self.away = False
        self.unusable = False
        self.foreign = 0
        """The number of an entry at the end that is somebody else's."""
        self.entries: list[Event] = []

    async def add(self, events: Sequence[Event]) -> int:
        """Put events at the end."""
        self._look()
        top = max(self.entries[-1].seq if self.entries else 0, self.foreign)
        self.entries += [event for event in events if event.seq > top]
        self.steps.reach("add")
        return top

    async def read(self, from_seq: int, limit: int) -> Sequence[Event]:
        """Events from a number on."""
        self._look()
        return [event for event in self.entries if event.seq >= from_seq][:limit]

    def _look(self) -> None:
        if self.away:
            raise StoreAway("the store is away")
        if self.unusable:
            raise StreamUnusable("WRONGTYPE")


class MemoryChannel:
    """What readers of the channel `events` got: each id once."""

    def __init__(self, steps: Steps | None = None) -> None:
        self.steps = steps or Steps()
        self.published: dict[str, bytes] = {}

    async def publish(self, channel: str, data: bytes, once: str) -> None:
        """Publish."""
        assert channel == "events"
        self.published.setdefault(once, data)
        self.steps.reach("publish")


@dataclass
class OwnedDouble:
    """Who owns the inventory's partition: this node, unless the test says otherwise."""

    number: int = 1
    may: bool = True

    def epoch(self, _partition: int) -> int:
        """The epoch of this node's ownership."""
        return self.number

    def may_act(self, _partition: int, epoch: int) -> bool:
        """Whether it may act now."""
        return self.may and epoch == self.number


def _change(rows: dict[int, Resumen], event: Event) -> None:
    match data_of(event):
        case InventarioCreado() as data:
            rows[data.id] = Resumen(
                inventario_id=data.id, cliente=data.cliente, total_items=0, fecha_caducidad=data.fecha_caducidad
            )
        case LineaAgregada() as data:
            before = rows[data.inventario_id]
            rows[data.inventario_id] = msgspec.structs.replace(before, total_items=before.total_items + data.cantidad)
        case InventarioEliminado() as data:
            del rows[data.id]


def opener(database: MemoryDatabase) -> Callable[[], Any]:
    """Opens it at once, or says that it is away."""

    async def open_parts() -> InventoryParts:
        await asyncio.sleep(0)
        database.look()
        return database.parts()

    return open_parts
