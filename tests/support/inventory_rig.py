"""Inventory rig: the real inventory store on a database of its own, and the steps that a relay and a projector take.

Owns the sessions. Decides nothing: what is right is said by the tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from actors.adapters.postgres.database import Database
from actors.adapters.postgres.inventory_store import (
    PostgresCommands,
    PostgresProjection,
    PostgresQueries,
    PostgresRelay,
)
from actors.adapters.postgres.inventory_upkeep import PostgresUpkeep
from actors.core.ids import IdSource
from actors.core.inventory import Event
from actors.inventory_ports import Applied, Created, LineAdded, Numbered, Resumen
from tests.support.until import until

EPOCH = 1
IDS = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)


class Inventory:
    """Everything that the store offers, over one pool of sessions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url, sessions_max=24)
        self.commands = PostgresCommands(self.database)
        self.relay = PostgresRelay(self.database)
        self.projection = PostgresProjection(self.database)
        self.queries = PostgresQueries(self.database)
        self.upkeep = PostgresUpkeep(self.database)

    async def made(self, cliente: str = "Ana", **more: Any) -> int:
        """A new inventory; gives its id."""
        answer = await self.commands.create(IDS.event_id(), cliente, more.get("fecha_caducidad"))
        assert isinstance(answer, Created)
        return answer.id

    async def grown(self, inventario_id: int, cantidad: int = 1) -> str:
        """An inventory with one line more; gives the event's id."""
        answer = await self.commands.add_line(IDS.event_id(), inventario_id, "tuerca", cantidad)
        assert isinstance(answer, LineAdded)
        return answer.event_id

    async def numbered(self, limit: int = 1000, epoch: int = EPOCH) -> tuple[Event, ...]:
        """The events that the relay would send now."""
        answer = await self.relay.number(epoch, limit)
        assert isinstance(answer, Numbered)
        return answer.events

    async def moved(self, limit: int = 1000, epoch: int = EPOCH) -> int:
        """One turn of a relay and a projector; gives how many events there were."""
        events = await self.numbered(limit, epoch)
        if events:
            assert isinstance(await self.projection.apply(epoch, events), Applied)
            await self.relay.sent(epoch, events[-1].seq)
        return len(events)

    async def caught_up(self, limit: int = 1000) -> None:
        """Move events, at most `limit` a turn, until the projection has all.

        A transaction that ends may hold them up for a moment.
        """

        async def has_all() -> bool:
            await self.moved(limit)
            return (await self.queries.lag()).events == 0

        await until(has_all, what="a projection that has everything")

    async def events(self) -> tuple[Event, ...]:
        """All numbered events."""
        return await self.projection.events(1, 1_000_000)

    async def resumen(self) -> dict[int, Resumen]:
        """The whole projection."""
        return {row.inventario_id: row for row in await self.queries.list(1_000_000, 0)}

    async def execute(self, statement: str, *arguments: object) -> None:
        """Run a statement as an operator would."""
        await self.database.rows(statement, *arguments)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Inventory]:
    """The store on a database; its sessions end with the block."""
    inventory = Inventory(url)
    try:
        yield inventory
    finally:
        await inventory.database.close()
