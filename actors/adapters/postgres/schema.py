"""Schema: brings a database to the tables that this release works with, one node at a time.

Owns the advisory lock that the nodes take turns by. Alembic does the work in a process of its own, so that no node
loads it or SQLAlchemy; when there is nothing to do that process is not even started.
Invariants: two nodes never migrate at once; a database that is newer than this release is left as it is.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Literal

import asyncpg

from actors.adapters.postgres.database import Database
from actors.core.refusals import CannotStart
from actors.inventory_ports import DatabaseAway

REVISIONS = ("0001",)
"""All that this release knows, the oldest first; a test compares them with the migrations."""
MIGRATE_S = 300.0
TURN_S = 310.0
PROBE_S = 0.05
_MIGRATION_LOCK = 0x62757A6F_0001  # "buzo", 1

Migrated = Literal["current", "migrated", "newer"]


class MigrationFailed(CannotStart):
    """The database's tables cannot be brought up to date."""


async def migrate(url: str) -> Migrated:
    """Bring the database to this release's tables, after any other node that does so already.

    `newer` when a later release has been here: its tables serve this one as well. `DatabaseAway` when it cannot be
    reached or cannot hold every text; `MigrationFailed` with the reason otherwise. Cancelled, it ends the process that
    was at work.
    """
    database = Database(url, sessions_max=1)
    try:
        async with database.session() as session:
            await _require_utf8(session, database.place)
            await session.execute("SET statement_timeout = 0")
            await session.fetchval("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK, timeout=TURN_S)
            before = await _revision(session)
            if before is not None and await session.fetchval("SELECT to_regclass('relevo')") is None:
                raise MigrationFailed(
                    f"PostgreSQL at {database.place}: its alembic_version is another program's, and the inventory's "
                    "tables are missing: give the inventory a database of its own"
                )
            if before == REVISIONS[-1]:
                return "current"
            if before is not None and before not in REVISIONS:
                return "newer"
            await _upgrade(url)
            return "migrated"
    finally:
        await database.close()  # and with the session its lock goes


async def revision(url: str) -> str | None:
    """The revision that a database is at, None for one without our tables."""
    database = Database(url, sessions_max=1)
    try:
        async with database.session() as session:
            return await _revision(session)
    finally:
        await database.close()


async def _require_utf8(session: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], place: str) -> None:
    encoding = await session.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise DatabaseAway(f"PostgreSQL at {place}: its encoding is {encoding}, not UTF8")


async def _revision(session: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> str | None:
    if await session.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found: str | None = await session.fetchval("SELECT version_num FROM alembic_version")
    return found


async def _upgrade(url: str) -> None:
    # The URL goes in by a pipe: arguments and environments are there for others to read.
    process = subprocess.Popen(  # noqa: ASYNC220  ours; asyncio's need a watcher that uvloop has not
        [sys.executable, "-m", "actors.adapters.postgres.migrations"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101  asked for above
    assert process.stderr is not None  # noqa: S101  asked for above
    try:
        process.stdin.write(url.encode())
        process.stdin.close()
        async with asyncio.timeout(MIGRATE_S):
            while (code := process.poll()) is None:  # noqa: ASYNC110  as in engine_process.py
                await asyncio.sleep(PROBE_S)
        said = process.stderr.read().decode(errors="replace").strip().splitlines()
    except TimeoutError:
        raise DatabaseAway(f"migrating took longer than {MIGRATE_S:g} s") from None
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    if code != 0:
        reason = said[-1][:300] if said else f"exit code {code}"
        raise MigrationFailed(f"the database's tables cannot be made: {reason}")
