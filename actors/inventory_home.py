"""Inventory home: the database that the inventory lives in, opened when somebody first wants it.

Owns when it is opened, that opening is tried again, and the probe that says whether an opened one answers. Never
decides which database it is. Until somebody asks for the inventory, or there is one from earlier, a node has no session
and starts no engine.
Invariant: nobody waits for a database that is known to be away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from actors.core.refusals import CannotStart
from actors.inventory_ports import (
    DatabaseAway,
    InventoryCommands,
    InventoryProjection,
    InventoryQueries,
    InventoryRelay,
)
from actors.ports import Journal

OPEN_S = 15.0
"""How long the first who asks waits: making the embedded engine's folder takes up to 5 s on a small machine."""
PROBE_S = 0.5
AGAIN_S_MIN = 0.5
AGAIN_S_MAX = 5.0


class InventoryParts(Struct, frozen=True, kw_only=True):
    """An opened database, by its roles."""

    commands: InventoryCommands
    relay: InventoryRelay
    projection: InventoryProjection
    queries: InventoryQueries
    probe: Callable[[], Awaitable[object]]
    """Asks for nothing on a session of its own, so that no load holds it up. Raises DatabaseAway."""


class InventoryHome:
    """`open_parts` starts what has to be started and makes the tables. `run` is a service."""

    def __init__(self, open_parts: Callable[[], Awaitable[InventoryParts]], journal: Journal) -> None:
        self._open_parts = open_parts
        self._journal = journal
        self._wanted = asyncio.Event()
        self._known = asyncio.Event()
        self._parts: InventoryParts | None = None
        self.why_away = ""
        """Why it is not open though somebody wants it, or why events stand still; "" while that is not so."""
        self.gone = ""
        """Why an opened one does not answer, by its last probe; "" while it does."""

    @property
    def wanted(self) -> bool:
        """Whether anybody has asked for it."""
        return self._wanted.is_set()

    @property
    def opened(self) -> InventoryParts | None:
        """The parts, if it is open."""
        return self._parts

    def want(self) -> None:
        """Open it soon."""
        self._wanted.set()

    async def parts(self) -> InventoryParts:
        """The parts; the first who asks waits until it is open. Raises DatabaseAway."""
        if self._parts is not None:
            self.check()
            return self._parts
        self.want()
        try:
            async with asyncio.timeout(OPEN_S):
                await self._known.wait()
        except TimeoutError:
            raise DatabaseAway("the database is still being started") from None
        if self._parts is None:
            raise DatabaseAway(self.why_away or "the database is not there")
        return self._parts

    def check(self) -> None:
        """Raise DatabaseAway if it is known to be away."""
        if self.gone:
            raise DatabaseAway(self.gone)

    async def run(self) -> None:
        """Open it once it is wanted, then look whether it answers. A service: ends only by cancellation."""
        parts = await self._open()
        while True:
            before = self.gone
            try:
                await parts.probe()
                self.gone = ""
            except DatabaseAway as error:
                self.gone = str(error)
            if before or not self.gone:  # the first failure may be this process's, which did not run
                await asyncio.sleep(PROBE_S)

    async def _open(self) -> InventoryParts:
        await self._wanted.wait()
        again_s = AGAIN_S_MIN
        while self._parts is None:
            try:
                self._parts = await self._open_parts()
            except (DatabaseAway, CannotStart) as error:
                if not self.why_away:
                    self._journal.warning("inventory is away", reason=str(error))
                self.why_away = str(error)
                self._known.set()
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_S_MAX)
            else:
                self.why_away = ""
                self._known.set()
                self._journal.info("inventory is open")
        return self._parts
