"""The projection made anew while it is read and written, and what a comparison finds."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

from actors.adapters.postgres import inventory_upkeep
from actors.inventory_ports import Difference, RebuildBusy, Rebuilt
from tests.support.inventory_rig import IDS, Inventory
from tests.support.until import until

HISTORY = """
WITH made AS (
    INSERT INTO inventario (cliente, fecha_caducidad)
    SELECT 'c' || n, CASE WHEN n % 3 > 0 THEN date '2030-01-01' + n END FROM generate_series(1, $1::int) n
    RETURNING id, cliente, fecha_caducidad
)
INSERT INTO eventos (event_id, type, inventario_id, data)
SELECT 'evt_made_' || id, 'InventarioCreado', id, to_jsonb(made) FROM made
"""
LINES = """
WITH added AS (
    INSERT INTO lineas_inventario (inventario_id, producto, cantidad)
    SELECT inventario.id, 'p' || n, n FROM inventario, generate_series(1, $1::int) n
    RETURNING id, inventario_id, producto, cantidad
)
INSERT INTO eventos (event_id, type, inventario_id, data)
SELECT 'evt_line_' || id, 'LineaAgregada', inventario_id, to_jsonb(added) FROM added
"""


async def history(inventory: Inventory, inventories: int, lines_each: int) -> int:
    """A long history, written in sets; numbered, not applied. Gives how many events it has."""
    await inventory.execute(HISTORY, inventories)
    await inventory.execute(LINES, lines_each)
    await inventory.commands.delete(IDS.event_id(), 1)
    total = inventories * (lines_each + 1) + 1

    async def all_numbered() -> bool:
        await inventory.relay.number(1, total)
        return await inventory.projection.events(total, 1) != ()

    await until(all_numbered, 20.0, what="numbers for all")
    return total


async def test_a_rebuild_equals_what_event_by_event_gives(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut into slices anywhere; the projection is then at the last number, and its comparison finds nothing."""
    monkeypatch.setattr(inventory_upkeep, "SLICE_EVENTS", 7)
    monkeypatch.setattr(inventory_upkeep, "SWAP_EVENTS_MAX", 3)
    total = await history(inventory, 20, 4)
    seen: list[tuple[int, int]] = []

    assert await inventory.upkeep.rebuild(lambda done, all_: seen.append((done, all_))) == Rebuilt(seq=total)

    rebuilt = await inventory.resumen()
    assert len(rebuilt) == 19
    assert seen == sorted(seen)
    assert len(seen) > 10
    assert seen[-1] == (total, total)
    assert (await inventory.upkeep.verify()).differences == ()
    await inventory.execute("DELETE FROM inventario_resumen")
    await inventory.execute("UPDATE proyeccion SET seq = 0")
    await inventory.caught_up()
    assert await inventory.resumen() == rebuilt


async def test_reads_writes_and_the_projector_go_on_during_rebuilds(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers never see less than before, nothing is lost or counted twice, and the watermark never goes back."""
    monkeypatch.setattr(inventory_upkeep, "SLICE_EVENTS", 50)
    monkeypatch.setattr(inventory_upkeep, "SWAP_EVENTS_MAX", 5)
    keys = [await inventory.made() for _ in range(10)]
    await inventory.caught_up()
    busy = True

    async def write(key: int) -> None:
        for _ in range(40):
            await inventory.grown(key, 2)

    async def project() -> None:
        while busy:
            await inventory.moved(limit=20)

    async def read() -> None:
        totals, watermark = dict.fromkeys(keys, 0), 0
        while busy:
            at, rows = await inventory.queries.watermark(), await inventory.resumen()
            assert at >= watermark
            assert rows.keys() == totals.keys()
            assert all(rows[key].total_items >= totals[key] for key in keys)
            totals, watermark = {key: rows[key].total_items for key in keys}, at

    others = [asyncio.ensure_future(each) for each in (project(), read())]
    writers = asyncio.gather(*(write(key) for key in keys))
    rebuilds = 0
    while not writers.done() or rebuilds < 2:
        assert isinstance(await inventory.upkeep.rebuild(), Rebuilt)
        rebuilds += 1
    await writers
    busy = False
    await asyncio.gather(*others)
    await inventory.caught_up()

    assert {row.total_items for row in (await inventory.resumen()).values()} == {80}
    verdict = await inventory.upkeep.verify()
    assert verdict.differences == ()
    assert verdict.pending == 0
    assert verdict.compared == 10


async def test_one_rebuild_at_a_time_and_one_that_died_is_no_obstacle(inventory: Inventory) -> None:
    """What it left behind is removed by the next."""
    await history(inventory, 5, 2)
    await inventory.execute("CREATE TABLE inventario_resumen_nuevo (left_by text)")

    answers = await asyncio.gather(*(inventory.upkeep.rebuild() for _ in range(3)))

    assert RebuildBusy() in answers
    assert any(isinstance(each, Rebuilt) for each in answers)
    assert isinstance(await inventory.upkeep.rebuild(), Rebuilt)
    assert (await inventory.upkeep.verify()).differences == ()


async def test_a_long_read_holds_up_the_swap_and_not_the_others(inventory: Inventory) -> None:
    """The swap gives up soon and tries again, so that readers never queue behind it for long."""
    await history(inventory, 5, 2)
    async with inventory.database.transaction() as reader:
        await reader.fetch("SELECT * FROM inventario_resumen")
        rebuild = asyncio.ensure_future(inventory.upkeep.rebuild())
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'inventario_resumen'::regclass"
        await until(lambda: inventory.database.row(waiting), what="a swap that waits")
        assert await inventory.queries.list(10, 0) == ()
        assert not rebuild.done()
    assert isinstance(await rebuild, Rebuilt)


async def test_a_comparison_names_every_kind_of_difference(inventory: Inventory) -> None:
    """Against the events and against the model; what is not applied yet is not held against it."""
    keys = [await inventory.made("Ana", fecha_caducidad=date(2030, 1, 1)) for _ in range(4)]
    await inventory.caught_up()
    await inventory.execute("DELETE FROM inventario_resumen WHERE inventario_id = $1", keys[0])
    await inventory.execute("UPDATE inventario_resumen SET total_items = 9 WHERE inventario_id = $1", keys[1])
    await inventory.execute("UPDATE inventario_resumen SET cliente = 'Eva' WHERE inventario_id = $1", keys[2])
    await inventory.execute("INSERT INTO inventario_resumen VALUES (999, 'nobody', 1, NULL)")
    await inventory.grown(keys[3])

    verdict = await inventory.upkeep.verify()

    assert (verdict.watermark, verdict.compared, verdict.pending) == (4, 4, 1)
    for against in ("events", "model"):
        found = [each for each in verdict.differences if each.against == against]
        assert [(each.inventario_id, each.field, each.projection, each.expected) for each in found] == [
            (keys[0], "row", None, "there"),
            (keys[1], "total_items", "9", "0"),
            (keys[2], "cliente", "Eva", "Ana"),
            (999, "row", "there", None),
        ]
    assert isinstance(verdict.differences[0], Difference)
    assert len((await inventory.upkeep.verify(differences_max=3)).differences) == 3
    await inventory.upkeep.rebuild()
    await inventory.caught_up()
    assert (await inventory.upkeep.verify()).differences == ()
