"""Inventory store: the inventory's commands, outbox, projection and queries on PostgreSQL.

Owns the order of the statements; what each does stands in its file in `sql/`. Every command is one statement, so a node
that freezes holds no transaction open. Never counts `total_items` outside the projection.
Invariants: a model change and its event are stored together or not at all; an event's number is given once, densely,
and along each inventory's history; the projection is always exactly what its events up to its watermark make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from actors.adapters.postgres.database import Database, values
from actors.adapters.postgres.sql import sql
from actors.core.inventory import (
    Changes,
    Event,
    InventarioCreado,
    LineaAgregada,
    fold,
    is_cantidad,
    is_fecha,
    is_text,
    missing_before,
)
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
)

if TYPE_CHECKING:
    from actors.inventory_ports import InventoryCommands, InventoryProjection, InventoryQueries, InventoryRelay

_ID_MAX = 2**63 - 1
_APPLY_TURNS_MAX = 5
"""How often a projection that somebody else moves meanwhile is looked at again."""
_EVENT_ID_TAKEN = "eventos_event_id_key"


class PostgresCommands:
    """Writes of the model. Implements `InventoryCommands`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, event_id: str, cliente: str, fecha_caducidad: date | None) -> Created | EventIdTaken:
        """Make an inventory."""
        _require(is_text(cliente), "cliente")
        _require(is_fecha(fecha_caducidad), "fecha_caducidad")
        row = await self._written("create", event_id, cliente, fecha_caducidad)
        if row is not None:
            return Created(id=row["id"], event_id=event_id)
        before = await self._before(event_id)
        if before is None or before["type"] != "InventarioCreado":
            return EventIdTaken(event_id=event_id)
        made = msgspec.json.decode(before["data"], type=InventarioCreado)
        same = (made.cliente, made.fecha_caducidad) == (cliente, fecha_caducidad)
        return Created(id=made.id, event_id=event_id) if same else EventIdTaken(event_id=event_id)

    async def add_line(
        self, event_id: str, inventario_id: int, producto: str, cantidad: int
    ) -> LineAdded | NoSuchInventory | EventIdTaken:
        """Add a line to an inventory."""
        _require(is_text(producto), "producto")
        _require(is_cantidad(cantidad), "cantidad")
        if not _is_id(inventario_id):
            return NoSuchInventory(id=inventario_id)
        row = await self._written("add_line", event_id, inventario_id, producto, cantidad)
        if row is not None:
            return LineAdded(id=row["id"], inventario_id=inventario_id, event_id=event_id)
        before = await self._before(event_id)
        if before is None:
            return NoSuchInventory(id=inventario_id)
        if before["type"] != "LineaAgregada":
            return EventIdTaken(event_id=event_id)
        line = msgspec.json.decode(before["data"], type=LineaAgregada)
        if (line.inventario_id, line.producto, line.cantidad) != (inventario_id, producto, cantidad):
            return EventIdTaken(event_id=event_id)
        return LineAdded(id=line.id, inventario_id=inventario_id, event_id=event_id)

    async def delete(self, event_id: str, inventario_id: int) -> Deleted | NoSuchInventory | EventIdTaken:
        """Remove an inventory and its lines."""
        if not _is_id(inventario_id):
            return NoSuchInventory(id=inventario_id)
        row = await self._written("delete", event_id, inventario_id)
        if row is not None:
            return Deleted(id=inventario_id, event_id=event_id)
        before = await self._before(event_id)
        if before is None:
            return NoSuchInventory(id=inventario_id)
        same = before["type"] == "InventarioEliminado" and before["inventario_id"] == inventario_id
        return Deleted(id=inventario_id, event_id=event_id) if same else EventIdTaken(event_id=event_id)

    async def _written(self, name: str, event_id: str, *arguments: object) -> asyncpg.Record | None:
        """The statement's row; None when it found no inventory or its event id has been used: `_before` tells which."""
        try:
            return await self._database.row(sql(name), event_id, *arguments)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != _EVENT_ID_TAKEN:
                raise
            return None

    async def _before(self, event_id: str) -> asyncpg.Record | None:
        return await self._database.row(sql("command_of"), event_id)


class PostgresRelay:
    """The outbox. Implements `InventoryRelay`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, epoch: int, limit: int) -> Numbered | Fenced:
        """Number what can be numbered, at most `limit`, and give the oldest `limit` that are not sent.

        Writes nothing when there is nothing to number.
        """
        state = await self._state()
        if state["epoch"] > epoch:
            return Fenced(epoch=state["epoch"])
        if state["unnumbered"] or state["epoch"] < epoch:
            async with self._database.transaction() as session:
                held = await session.fetchval(sql("relay_fence"), epoch)
                if held is not None:
                    await session.execute(sql("number"), held, limit)
            if held is None:
                return Fenced(epoch=(await self._state())["epoch"])
        found = await _events(self._database, state["sent"] + 1, limit)
        return Numbered(events=found, more=len(found) == limit)

    async def sent(self, epoch: int, upto_seq: int) -> Sent | Fenced:
        """Let all events up to a number go. ValueError if that number has not been given."""
        row = await self._database.row(sql("sent"), epoch, upto_seq)
        if row is not None:
            return Sent(seq=row["sent"])
        state = await self._state()
        if state["epoch"] > epoch:
            return Fenced(epoch=state["epoch"])
        raise ValueError(f"no event has the number {upto_seq}: the last is {state['seq']}")

    async def _state(self) -> asyncpg.Record:
        return _present(await self._database.row(sql("relay_state")))


class PostgresProjection:
    """The projection's writer. Implements `InventoryProjection`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, epoch: int, events: Sequence[Event]) -> Applied | Gap | Fenced:
        """Bring events into the projection, in one transaction."""
        if not events:
            state = await self._state()
            return Fenced(epoch=state["epoch"]) if state["epoch"] > epoch else Applied(seq=state["seq"], count=0)
        from_seq = events[0].seq - 1  # most likely it is there, and then one statement does
        for _ in range(_APPLY_TURNS_MAX):
            new = [event for event in events if event.seq > from_seq]
            if (missing := missing_before(new, from_seq)) is not None:
                return Gap(expected=missing)
            if new:
                row = await self._database.row(sql("apply"), epoch, from_seq, new[-1].seq, *_arrays(fold(new)))
                if row is not None:
                    return Applied(seq=row["seq"], count=len(new))
            state = await self._state()
            if state["epoch"] > epoch:
                return Fenced(epoch=state["epoch"])
            if not new or events[-1].seq <= state["seq"]:
                return Applied(seq=state["seq"], count=0)
            if new[-1].seq > state["numbered"]:
                return Gap(expected=state["seq"] + 1)  # they are another database's
            from_seq = state["seq"]
        raise DatabaseAway("the projection is moved by somebody else all the time")

    async def events(self, from_seq: int, limit: int) -> tuple[Event, ...]:
        """Numbered events from a number on, in order."""
        return await _events(self._database, from_seq, limit)

    async def recent(self, upto_seq: int, limit: int, within_s: float) -> tuple[Event, ...]:
        """Of the last events up to a number those that were written lately, in order."""
        return _as_events(await self._database.rows(sql("recent"), upto_seq, limit, within_s))

    async def _state(self) -> asyncpg.Record:
        return _present(await self._database.row(sql("projection_state")))


class PostgresQueries:
    """Reads. Implements `InventoryQueries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, limit: int, offset: int) -> tuple[Resumen, ...]:
        """A page of the projection: newest expiry first, those without one last, of equal ones the newest first."""
        return tuple(Resumen(**values(row)) for row in await self._database.rows(sql("list"), limit, offset))

    async def get(self, inventario_id: int) -> Detalle | None:
        """An inventory with its lines in the order they came; None when the projection does not have it."""
        if not _is_id(inventario_id):
            return None
        rows = await self._database.rows(sql("get"), inventario_id)
        if not rows:
            return None
        first = rows[0]
        resumen = Resumen(**{name: first[name] for name in Resumen.__struct_fields__})
        lines = [row for row in rows if row["id"] is not None]
        lineas = tuple(Linea(id=row["id"], producto=row["producto"], cantidad=row["cantidad"]) for row in lines)
        return Detalle(resumen=resumen, lineas=lineas)

    async def watermark(self) -> int:
        """The number of the last event that the projection has; 0 at first."""
        seq: int = _present(await self._database.row(sql("projection_state")))["seq"]
        return seq

    async def seq_of(self, event_id: str) -> EventPlace | None:
        """Where an event stands; None when there is none of that id."""
        row = await self._database.row(sql("seq_of"), event_id)
        return None if row is None else EventPlace(seq=row["seq"])

    async def lag(self) -> Lag:
        """How far the projection is behind what was committed."""
        return Lag(**values(_present(await self._database.row(sql("lag")))))


async def _events(database: Database, from_seq: int, limit: int) -> tuple[Event, ...]:
    return _as_events(await database.rows(sql("events"), from_seq, limit))


def _as_events(rows: Sequence[asyncpg.Record]) -> tuple[Event, ...]:
    return tuple(
        Event(
            seq=row["seq"],
            event_id=row["event_id"],
            type=row["type"],
            data=msgspec.Raw(row["data"].encode()),
            at=row["at"],
        )
        for row in rows
    )


def _arrays(changes: Changes) -> tuple[Sequence[object], ...]:
    """The changes as the arrays that apply.sql takes."""
    made, grown = changes.made, changes.grown
    return (
        [each.inventario_id for each in made],
        [each.cliente for each in made],
        [each.total_items for each in made],
        [each.fecha_caducidad for each in made],
        [key for key, _ in grown],
        [quantity for _, quantity in grown],
        list(changes.removed),
    )


def _present(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise DatabaseAway("the inventory's tables lack their only row: they were changed by hand")
    return row


def _is_id(number: int) -> bool:
    return 0 < number <= _ID_MAX


def _require(holds: bool, field: str) -> None:
    if not holds:
        raise ValueError(f"{field} is not as it must be")


if TYPE_CHECKING:
    _commands: type[InventoryCommands] = PostgresCommands
    _relay: type[InventoryRelay] = PostgresRelay
    _projection: type[InventoryProjection] = PostgresProjection
    _queries: type[InventoryQueries] = PostgresQueries
