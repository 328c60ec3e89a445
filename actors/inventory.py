"""Inventory: the supervisor of commands and queries: from a wish to an answer, in order for each inventory.

Commands write the model and their event in one transaction and are done then; the projection follows by the events
(`inventory_flow.py`). Queries read the projection, often from the near cache: what is kept there bears the number of
the projection that it was read from, and nobody looks for it under an older one.
Invariants: commands of one inventory are done one after the other, in the order in which they came to this node; an
answer was committed; whoever names an event gets no answer from before it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import TypeVar

import msgspec
from msgspec import Struct

from actors.cache import Cache
from actors.cache_ports import CacheWrite
from actors.core.cache_names import NEAR_PREFIX
from actors.inventory_home import InventoryHome, InventoryParts
from actors.inventory_mark import LOOK_S, ProjectionMark
from actors.inventory_mark import WAITING_MAX as MARK_WAITING_MAX
from actors.inventory_ports import (
    Created,
    DatabaseAway,
    Deleted,
    Detalle,
    EventIdTaken,
    LineAdded,
    NoSuchInventory,
    Resumen,
)
from actors.ports import Overloaded, StoreAway
from actors.runtime.clock import Clock

WAITING_MAX = 256
"""Commands that wait for one inventory."""
AFTER_S = 2.0
KEPT_MS = 60_000
PREFIX = f"{NEAR_PREFIX}inventario:"
SEQ_NAME = f"{PREFIX}seq"
_NUMBER = re.compile(rb"[0-9]{1,19}")
"""Anything else under the name is somebody else's, and would become part of other names."""
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class UnknownEvent(Exception):
    """There is no event of that id."""


class NotThere(Exception):
    """The projection does not have the event within the time that one may wait."""


class Rows(Struct, frozen=True):
    """A page of the projection."""

    rows: tuple[Resumen, ...]


class _Turns:
    """The commands of one inventory."""

    __slots__ = ("failures", "lock", "waiting", "why")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.failures = 0
        """How many found the database away, the last of them for `why`."""
        self.why = ""


class Inventory:
    """The front of the inventory."""

    def __init__(self, home: InventoryHome, cache: Cache, clock: Clock) -> None:
        self._home = home
        self._cache = cache
        self._clock = clock
        self._turns: dict[int, _Turns] = {}
        self.mark = ProjectionMark(clock)
        self.on_committed: Callable[[], None] = lambda: None
        """Told after each command that wrote an event; set once by the composition root."""

    @property
    def away(self) -> bool:
        """Whether the database is known to be away: what is answered then was near."""
        return bool(self._home.gone)

    async def create(self, event_id: str, cliente: str, fecha_caducidad: date | None) -> Created | EventIdTaken:
        """Make an inventory. Raises DatabaseAway."""
        parts = await self._home.parts()
        return self._told(await parts.commands.create(event_id, cliente, fecha_caducidad))

    async def add_line(
        self, event_id: str, inventario_id: int, producto: str, cantidad: int
    ) -> LineAdded | NoSuchInventory | EventIdTaken:
        """Add a line. Raises DatabaseAway, Overloaded."""
        parts = await self._home.parts()
        async with self._turn(inventario_id):
            return self._told(await parts.commands.add_line(event_id, inventario_id, producto, cantidad))

    async def delete(self, event_id: str, inventario_id: int) -> Deleted | NoSuchInventory | EventIdTaken:
        """Remove an inventory and its lines. Raises DatabaseAway, Overloaded."""
        parts = await self._home.parts()
        async with self._turn(inventario_id):
            return self._told(await parts.commands.delete(event_id, inventario_id))

    async def page(self, limit: int, offset: int, after: str | None) -> tuple[Resumen, ...]:
        """Rows of the projection, newest expiry first. Raises DatabaseAway, UnknownEvent, NotThere."""
        self._home.want()
        await self._until(after)

        async def read() -> Rows:
            return Rows(await (await self._home.parts()).queries.list(limit, offset))

        return (await self._near(f"{limit}:{offset}", Rows, read, fresh=after is not None)).rows

    async def detail(self, inventario_id: int, after: str | None) -> Detalle | None:
        """One inventory with its lines. Raises DatabaseAway, UnknownEvent, NotThere."""
        self._home.want()
        await self._until(after)

        async def read() -> Detalle | None:
            return await (await self._home.parts()).queries.get(inventario_id)

        found = await self._near(f"id:{inventario_id}", _Found, lambda: _wrapped(read), fresh=after is not None)
        return found.detalle

    async def _until(self, after: str | None) -> None:
        """Wait until the projection has an event. Raises Overloaded when too many wait."""
        if after is None:
            return
        parts = await self._home.parts()
        mark = self.mark
        if mark.waiting >= MARK_WAITING_MAX:
            raise Overloaded("too many queries wait for events")
        mark.waiting += 1
        try:
            await self._passed(parts, after)
        finally:
            mark.waiting -= 1

    async def _passed(self, parts: InventoryParts, after: str) -> None:
        ends_at = self._clock.monotonic() + AFTER_S
        seq: int | None = None
        seen = -1
        while True:
            self._home.check()
            reached = await self.mark.look(parts.queries.watermark)
            if seq is None and reached != seen:  # an event that had no number may have one when others moved
                seen = reached
                place = await parts.queries.seq_of(after)
                if place is None:
                    raise UnknownEvent(after)
                seq = place.seq
            if seq is not None and reached >= seq:
                return
            if self._clock.monotonic() >= ends_at:
                raise NotThere(after)
            await asyncio.sleep(LOOK_S)

    async def _near(self, name: str, kind: type[T], read: Callable[[], Awaitable[T]], *, fresh: bool) -> T:
        """What is kept of the projection as it is now, else what the database says, to be kept. A cache that is away
        changes nothing but the time it takes."""
        if fresh:
            return await read()
        try:
            version, how = await self._cache.read(SEQ_NAME)
            if version.value is None or how == "stale" or not _NUMBER.fullmatch(version.value):
                return await read()
            key = f"{PREFIX}{version.value.decode()}:{name}"
            kept, _ = await self._cache.read(key)
        except (StoreAway, Overloaded):
            return await read()
        if kept.value is not None:
            try:
                return msgspec.json.decode(kept.value, type=kind)
            except msgspec.DecodeError:
                pass  # somebody else wrote under our name
        value = await read()
        with suppress(StoreAway, Overloaded):
            await self._cache.write(CacheWrite(key=key, op="set", value=_encode(value), ttl_ms=KEPT_MS))
        return value

    def _told(self, outcome: T) -> T:
        if isinstance(outcome, Created | LineAdded | Deleted):
            self.on_committed()
        return outcome

    @asynccontextmanager
    async def _turn(self, inventario_id: int) -> AsyncIterator[None]:
        """Wait for those before. When one of them finds the database away, those who waited for it do not try."""
        turns = self._turns.get(inventario_id)
        if turns is None:
            turns = self._turns[inventario_id] = _Turns()
        if turns.waiting >= WAITING_MAX:
            raise Overloaded("too many commands wait for this inventory")
        turns.waiting += 1
        failures = turns.failures
        try:
            async with turns.lock:
                if turns.failures != failures:
                    raise DatabaseAway(turns.why)
                self._home.check()
                try:
                    yield
                except DatabaseAway as error:
                    turns.failures += 1
                    turns.why = str(error)
                    raise
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                self._turns.pop(inventario_id, None)


class _Found(Struct, frozen=True):
    """What there is under an id: a cache keeps no nothing."""

    detalle: Detalle | None


async def _wrapped(read: Callable[[], Awaitable[Detalle | None]]) -> _Found:
    return _Found(await read())
