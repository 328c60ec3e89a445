"""How fast the projection is made anew: `InventoryUpkeep.rebuild` over a long history, with nobody else at work."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from actors.adapters.postgres.database import Database
from actors.adapters.postgres.inventory_upkeep import PostgresUpkeep
from actors.inventory_ports import Rebuilt
from tests.bench.figures import Figure, spread
from tests.bench.inventory_history import TABLES, fill
from tests.bench.postgres import PostgresEngine

NAME = "rebuilt"
INVENTORIES, LINES_EACH = 20_000, 9
SMOKE_INVENTORIES = 200
ASKED_PER_S = 20_000


async def measure(postgres: PostgresEngine, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Write the history, rebuild that many times, and compare what came out with events and model."""
    url = await postgres.database(NAME, TABLES)
    events = await fill(url, SMOKE_INVENTORIES if smoke else INVENTORIES, LINES_EACH, gone=True)
    database, speeds, troubles = Database(url, sessions_max=1), [], []
    upkeep, used = PostgresUpkeep(database), postgres.cpu_s()
    try:
        for _ in range(turns):
            began = monotonic()
            outcome = await upkeep.rebuild()
            speeds.append(events / (monotonic() - began))
            if outcome != Rebuilt(seq=events):
                troubles.append(f"rebuild: {outcome} instead of {events:,} events")
        used = (postgres.cpu_s() - used) / (turns * events) * 1e6
        if differences := (await upkeep.verify()).differences:
            troubles.append(f"rebuild: the projection differs: {differences[:3]}")
    finally:
        await database.close()
    await postgres.drop(NAME)
    return [figure(events, speeds, used)], troubles


def figure(events: int, speeds: Sequence[float], postgres_us: float) -> Figure:
    """Events a second, the median of the turns."""
    speed = spread(speeds)
    return Figure(
        name="inventory: events of a rebuild, per second",
        measured=speed.of(",.0f"),
        asked=f"≥ {ASKED_PER_S:,}",
        met=speed.middle >= ASKED_PER_S,
        detail=f"{events:,} events, {len(speeds)} turns; PostgreSQL {postgres_us:.1f} µs each",
    )
