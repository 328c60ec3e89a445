"""Inventory database: from the settings to an opened PostgreSQL: whose it is, started if it is ours, its tables made.

Part of the composition, apart from `router/composition.py` for its size. Owns the embedded engine of a node of its own;
a worker asks its parent for it. Invariant: an engine of ours runs under the lock of its DATA_DIR.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from actors.adapters.data_dir import DataDirLock, DataDirUnusable
from actors.adapters.engine_process import EngineFailed
from actors.adapters.postgres.database import COMMAND_S, Database
from actors.adapters.postgres.embedded import EmbeddedPostgres
from actors.adapters.postgres.inventory_store import (
    PostgresCommands,
    PostgresProjection,
    PostgresQueries,
    PostgresRelay,
)
from actors.adapters.postgres.inventory_upkeep import PostgresUpkeep
from actors.adapters.postgres.schema import migrate
from actors.inventory_home import AGAIN_S_MAX, AGAIN_S_MIN, InventoryParts
from actors.inventory_ports import DatabaseAway, InventoryUpkeep
from router.settings import Settings

__all__ = ["DataDirUnusable", "EmbeddedDatabase", "InventoryDatabase", "Upkeep", "upkeep"]

FLOW_SESSIONS = 2
PROBE_SESSIONS = 1


class InventoryDatabase:
    """Opens the database of one node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: list[Database] = []
        self.embedded_url: Callable[[], Awaitable[str]] = _nobody
        """Starts an engine where there is none, and says where it is; set by whoever runs the node."""

    async def open(self) -> InventoryParts:
        """Open it. Raises DatabaseAway, CannotStart."""
        given = self._settings.database_url
        url = given if given is not None else await self.embedded_url()
        await migrate(url)
        # What moves events has sessions of its own: many who ask must not hold up what they ask for.
        asked, moved, probed = self._opened = [
            Database(url, command_s=COMMAND_S),
            Database(url, FLOW_SESSIONS),
            Database(url, PROBE_SESSIONS, COMMAND_S),
        ]
        return InventoryParts(
            commands=PostgresCommands(asked),
            relay=PostgresRelay(moved),
            projection=PostgresProjection(moved),
            queries=PostgresQueries(asked),
            probe=lambda: probed.row("SELECT 1"),
        )

    async def close(self) -> None:
        """End its sessions."""
        for database in self._opened:
            await database.close()


class EmbeddedDatabase:
    """The PostgreSQL of this process, started when it is first wanted. `locked`: DATA_DIR is this process's already."""

    def __init__(self, settings: Settings, *, locked: bool) -> None:
        self._engine = EmbeddedPostgres(settings.data_dir, lambda line: print(line, file=sys.stderr, flush=True))
        self._lock = None if locked else DataDirLock(settings.data_dir)
        self._held = ExitStack()
        self._starting = asyncio.Lock()
        self._url = ""
        self.started = asyncio.Event()

    @property
    def exists(self) -> bool:
        """Whether there is one from earlier: then somebody has used the inventory."""
        return self._engine.cluster.exists()

    @property
    def running_url(self) -> str:
        """Where it is if somebody else runs it."""
        return self._engine.url

    async def url(self) -> str:
        """Where it is, once it runs. Raises EngineFailed, and what the lock raises."""
        async with self._starting:
            if not self._url:
                if self._lock is not None:
                    self._held.enter_context(self._lock)
                    self._lock = None
                self._url = await self._engine.start()
                self.started.set()
            return self._url

    async def keep(self, log: FilteringBoundLogger) -> None:
        """Start it again whenever it ends by itself. A service: ends only by cancellation."""
        await self.started.wait()
        while True:
            code = await self._engine.wait_exit()
            log.error("embedded database ended", exit_code=code)
            await self._start_again(log)

    async def _start_again(self, log: FilteringBoundLogger) -> None:
        """However long that takes: a node does the rest of its work without it, and must not end for it."""
        pause_s = 0.0
        while True:
            try:
                await self._engine.start()
            except EngineFailed as error:
                if not pause_s:
                    log.warning("embedded database cannot be started", reason=str(error))
                pause_s = min(2 * pause_s, AGAIN_S_MAX) or AGAIN_S_MIN
                await self._engine.stop()
                await asyncio.sleep(pause_s)
            else:
                return

    async def stop(self, within_s: float) -> None:
        """End it."""
        if self.started.is_set():
            await self._engine.stop(within_s)
        self._held.close()


class Upkeep(Struct, frozen=True):
    """What an operator can ask of an opened database, and what was done to its tables."""

    upkeep: InventoryUpkeep
    migrated: str


@asynccontextmanager
async def upkeep(url: str) -> AsyncIterator[Upkeep]:
    """Open a database for an operator. Raises DatabaseAway, CannotStart."""
    migrated = await migrate(url)
    database = Database(url)
    try:
        yield Upkeep(PostgresUpkeep(database), migrated)
    finally:
        await database.close()


async def _nobody() -> str:
    raise DatabaseAway("DATABASE_URL is not set, and nobody runs a PostgreSQL for this node")
