"""What the inventory's databases hold before they are measured, written in sets: model, numbered events, projection.

Owns the statements. Lines are numbered across all inventories, so that a slice of the events is about as many of them
as there can be: what a rebuild finds hardest.
"""

from __future__ import annotations

from actors.adapters.postgres.database import Database
from actors.adapters.postgres.inventory_upkeep import PostgresUpkeep
from actors.adapters.postgres.schema import migrate
from actors.core.ids import EVENT_PREFIX, make_id
from actors.inventory_ports import Rebuilt
from tests.bench.inventory_requests import CANTIDAD, LATEST, READ
from tests.bench.postgres import PostgresEngine

FIRST_EVENT = make_id(EVENT_PREFIX, 0, bytes(10))
"""The event that made the first inventory of all."""
TABLES = "empty_tables"
GONE_EVERY = 20
WRITE_S = 120.0
FIRST_ID = "SELECT setval(pg_get_serial_sequence('inventario', 'id'), $1::bigint, false)"
MADE = """
WITH made AS (
    INSERT INTO inventario (cliente, fecha_caducidad)
    SELECT 'Cliente ' || lpad(n::text, 9, '0'), $3::date - (n - $2::int)
    FROM generate_series($2::int, $2::int + $1::int - 1) AS n
    RETURNING id, cliente, fecha_caducidad
)
INSERT INTO eventos (event_id, type, inventario_id, data, seq)
SELECT CASE id WHEN $2::int THEN $4 ELSE 'evt_made_' || id END, 'InventarioCreado', id, to_jsonb(made), id - $2::int + 1
FROM made ORDER BY id
"""
GROWN = """
WITH added AS (
    INSERT INTO lineas_inventario (inventario_id, producto, cantidad)
    SELECT inventario.id, 'Tuerca M8 ' || lpad(n::text, 9, '0'), $3::int
    FROM generate_series(1, $2::int) AS n, inventario ORDER BY n, inventario.id
    RETURNING id, inventario_id, producto, cantidad
)
INSERT INTO eventos (event_id, type, inventario_id, data, seq)
SELECT 'evt_line_' || id, 'LineaAgregada', inventario_id, to_jsonb(added), $1::int + id FROM added ORDER BY id
"""
GONE = """
WITH gone AS (
    DELETE FROM inventario WHERE id % $2::int = 0 RETURNING id
)
INSERT INTO eventos (event_id, type, inventario_id, data, seq)
SELECT 'evt_gone_' || id, 'InventarioEliminado', id, jsonb_build_object('id', id),
       $1::int + row_number() OVER (ORDER BY id) FROM gone
"""
SENT = "UPDATE relevo SET seq = $1::int, sent = $1::int"


async def make_tables(postgres: PostgresEngine) -> None:
    """Make the database `TABLES`, whose copies can be filled."""
    await migrate(await postgres.database(TABLES))


async def fill(url: str, inventories: int, lines_each: int, *, gone: bool = False) -> int:
    """Give empty tables a history, and bring the projection to its end; gives how many events it has.

    `gone`: one inventory in twenty has been removed in the end.
    """
    database = Database(url, sessions_max=1)
    try:
        async with database.session() as session:
            await session.execute(f"SET statement_timeout = {WRITE_S * 1000:.0f}")
            await session.execute(FIRST_ID, READ)
            await session.execute(MADE, inventories, READ, LATEST, FIRST_EVENT, timeout=WRITE_S)
            await session.execute(GROWN, inventories, lines_each, CANTIDAD, timeout=WRITE_S)
            if gone:
                await session.execute(GONE, inventories * (1 + lines_each), GONE_EVERY, timeout=WRITE_S)
            total: int = await session.fetchval("SELECT max(seq) FROM eventos")
            await session.execute(SENT, total)
            await session.execute("VACUUM ANALYZE", timeout=WRITE_S)
        if await PostgresUpkeep(database).rebuild() != Rebuilt(seq=total):
            raise RuntimeError("the history's projection is not where it should be")
    finally:
        await database.close()
    return total
