"""Inventory upkeep: the projection made anew from the events while it is read, and compared with both models.

Owns the table `inventario_resumen_nuevo` while a rebuild runs. Never changes the model or an event.
Invariants: readers see the old projection or the new one, never a part; the watermark never goes back; one rebuild at a
time in all nodes, and one that dies leaves nothing that the next does not remove.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg

from actors.adapters.postgres.database import Database, values
from actors.adapters.postgres.sql import sql, statements
from actors.inventory_ports import Difference, RebuildBusy, Rebuilt, Verdict

if TYPE_CHECKING:
    from actors.adapters.postgres.database import Session
    from actors.inventory_ports import InventoryUpkeep

PROJECTION_VERSION = 1
"""Of the rules by which events become the projection. A database with another one wants a rebuild."""
SLICE_EVENTS = 20_000
SWAP_EVENTS_MAX = 1_000
"""So few may lack when readers are made to wait for the swap."""
SWAP_TURNS_MAX = 10
VERIFY_S = 600.0
_REBUILD_LOCK = 0x62757A6F_0002  # "buzo", 2


class PostgresUpkeep:
    """What an operator asks for. Implements `InventoryUpkeep`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rebuild(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Rebuilt | RebuildBusy:
        """Make the projection anew from all numbered events, and put it in the old one's place."""
        async with self._database.session() as session:
            if not await session.fetchval("SELECT pg_try_advisory_lock($1)", _REBUILD_LOCK):
                return RebuildBusy()
            try:
                return await self._rebuild(session, progress)
            finally:
                if not session.is_closed():
                    await session.execute("SELECT pg_advisory_unlock($1)", _REBUILD_LOCK)

    async def verify(self, differences_max: int = 100) -> Verdict:
        """Compare the projection with its events and with the model, as all three are at one instant."""
        async with (
            self._database.session() as session,
            session.transaction(isolation="repeatable_read", readonly=True),
        ):
            await session.execute(f"SET LOCAL statement_timeout = {VERIFY_S * 1000:.0f}")
            (counts,) = await session.fetch(sql("verify_counts"), timeout=VERIFY_S)
            found = [
                Difference(against=against, **values(row))
                for against in ("events", "model")
                for row in await session.fetch(sql(f"verify_{against}"), differences_max, timeout=VERIFY_S)
            ]
        return Verdict(**values(counts), differences=tuple(found[:differences_max]))

    async def _rebuild(self, session: Session, progress: Callable[[int, int], None]) -> Rebuilt:
        async with session.transaction():
            for statement in statements("rebuild_begin"):
                await session.execute(statement)
        done, total = 0, await _numbered(session)
        for turns_left in reversed(range(SWAP_TURNS_MAX)):
            while total - done > SWAP_EVENTS_MAX:
                upto = min(done + SLICE_EVENTS, total)
                await session.execute(sql("rebuild_slice"), done, upto)
                done, total = upto, await _numbered(session)
                progress(done, total)
            try:
                seq = await self._swap(session, done)
            except asyncpg.LockNotAvailableError:  # a long read; what has come meanwhile is brought in first
                if turns_left == 0:
                    raise
                total = await _numbered(session)
            else:
                break
        progress(seq, seq)
        return Rebuilt(seq=seq)

    async def _swap(self, session: Session, done: int) -> int:
        """Hold readers and the projector, bring in the last events, and let the new projection take its place."""
        async with session.transaction(isolation="read_committed"):
            for statement in statements("rebuild_hold"):
                await session.execute(statement)
            upto = await _numbered(session)
            await session.execute(sql("rebuild_slice"), done, upto)
            for statement in statements("rebuild_swap"):
                await session.execute(statement)
            await session.execute(sql("rebuild_end"), upto, PROJECTION_VERSION)
        return upto


async def _numbered(session: Session) -> int:
    seq: int = await session.fetchval("SELECT seq FROM relevo")
    return seq


if TYPE_CHECKING:
    _upkeep: type[InventoryUpkeep] = PostgresUpkeep
