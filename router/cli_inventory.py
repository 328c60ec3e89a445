"""Inventory commands: what an operator does to the inventory's database: migrate, rebuild the projection, verify it.

Works on DATABASE_URL, or on the embedded database, which it starts when no node runs it. Prints progress to stderr and
the outcome to stdout; the exit code says whether all is well.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from actors.core.refusals import CannotStart
from actors.inventory_ports import DatabaseAway, RebuildBusy
from router.inventory_database import DataDirUnusable, EmbeddedDatabase, Upkeep, upkeep
from router.settings import Settings

OK, DIFFERENT, FAILED = 0, 4, 1
STOP_S = 5.0
WAIT_S = 20.0
"""Longer than another process takes to make a fresh DATA_DIR and to end its database."""
AGAIN_S = 0.2


def migrate(settings: Settings) -> int:
    """Bring the database to this release's tables."""
    return _run(_migrate(settings))


def rebuild(settings: Settings) -> int:
    """Make the projection anew from the events, while it is read."""
    return _run(_rebuild(settings))


def verify(settings: Settings) -> int:
    """Hold the projection against the events and the model."""
    return _run(_verify(settings))


def _run(work: object) -> int:
    try:
        return asyncio.run(work)  # type: ignore[arg-type]  # one of the coroutines below
    except (DatabaseAway, CannotStart) as error:
        print(error, file=sys.stderr)
        return FAILED


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Upkeep]:
    if settings.database_url is not None:
        async with upkeep(settings.database_url) as opened:
            yield opened
        return
    embedded = EmbeddedDatabase(settings, locked=False)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(embedded.stop, STOP_S)
        yield await _entered(stack, embedded)


async def _entered(stack: AsyncExitStack, embedded: EmbeddedDatabase) -> Upkeep:
    """Open the embedded database. Whoever else has it may be about to start it, or to end it."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + WAIT_S
    while True:
        try:
            return await stack.enter_async_context(upkeep(await _url_of(embedded)))
        except DatabaseAway as error:
            if embedded.started.is_set():
                raise
            if loop.time() >= ends_at:
                raise DatabaseAway(f"DATA_DIR is in use by another process that has no database: {error}") from None
        await asyncio.sleep(AGAIN_S)


async def _url_of(embedded: EmbeddedDatabase) -> str:
    try:
        return await embedded.url()
    except DataDirUnusable:
        return embedded.running_url  # a node runs on this DATA_DIR, and perhaps the database with it


async def _migrate(settings: Settings) -> int:
    async with _opened(settings) as opened:
        print(opened.migrated)
    return OK


async def _rebuild(settings: Settings) -> int:
    def progress(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} events", end="", file=sys.stderr, flush=True)

    async with _opened(settings) as opened:
        outcome = await opened.upkeep.rebuild(progress)
    print(file=sys.stderr)
    if isinstance(outcome, RebuildBusy):
        print("somebody else rebuilds already", file=sys.stderr)
        return FAILED
    print(f"rebuilt up to event {outcome.seq}")
    return OK


async def _verify(settings: Settings) -> int:
    async with _opened(settings) as opened:
        verdict = await opened.upkeep.verify()
    for difference in verdict.differences:
        print(msgspec.json.encode(difference).decode())
    print(
        f"compared {verdict.compared} inventories at event {verdict.watermark}, {verdict.pending} not applied yet: "
        f"{len(verdict.differences)} differences"
    )
    return DIFFERENT if verdict.differences else OK
