"""The order of events: dense, and along each inventory's history, whoever commits when."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import asyncpg

from actors.adapters.postgres.sql import sql
from actors.core.inventory import LineaAgregada, data_of
from actors.inventory_ports import Deleted, Fenced, LineAdded
from tests.support.inventory_rig import EPOCH, IDS, Inventory
from tests.support.until import until

WRITERS = 20
COMMANDS_EACH = 25


@asynccontextmanager
async def unfinished(inventory: Inventory) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session with a transaction that is open, as of a node that froze; undone at the end unless committed."""
    session = await asyncpg.connect(inventory.url)
    try:
        await session.execute("BEGIN")
        yield session
    finally:
        await session.close()


async def test_an_event_waits_for_older_transactions(inventory: Inventory) -> None:
    """A number given too early could not be followed by an event that was begun before and committed after."""
    async with unfinished(inventory) as slow:
        await slow.fetch(sql("create"), "evt_slow", "Eva", None)
        await inventory.commands.create("evt_quick", "Ana", None)
        assert await inventory.numbered() == ()
        await slow.execute("COMMIT")

        assert [each.event_id for each in await inventory.numbered()] == ["evt_slow", "evt_quick"]


async def test_a_transaction_that_is_undone_leaves_no_hole(inventory: Inventory) -> None:
    """Ids of the table have holes then; numbers never do."""
    async with unfinished(inventory) as slow:
        await slow.fetch(sql("create"), "evt_undone", "Eva", None)
    await inventory.made()

    async def numbered() -> list[int]:
        return [each.seq for each in await inventory.numbered()]

    assert await until(numbered, what="a number") == [1]


async def test_a_command_that_waits_for_its_inventory_has_no_transaction_number_yet(inventory: Inventory) -> None:
    """What the order rests on: locked first, numbered then. A removal that waits must not look older than the line."""
    key = await inventory.made()
    async with unfinished(inventory) as first:
        await first.fetch(sql("add_line"), "evt_first", key, "p", 1)
        second = asyncio.ensure_future(inventory.commands.delete("evt_second", key))
        waiting = """
            SELECT backend_xid IS NULL AS unnumbered FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'
        """

        async def blocked() -> asyncpg.Record | None:
            return await inventory.database.row(waiting)

        row = await until(blocked, what="a removal that waits")
        assert row is not None
        assert row["unnumbered"]
        await first.execute("COMMIT")
        assert isinstance(await second, Deleted)
    await inventory.caught_up()
    assert [each.event_id for each in await inventory.events()][1:] == ["evt_first", "evt_second"]


async def test_a_line_for_an_inventory_that_goes_meanwhile_is_not_written(inventory: Inventory) -> None:
    """It waited for the row, and the row is gone."""
    key = await inventory.made()
    async with unfinished(inventory) as first:
        await first.fetch(sql("delete"), "evt_first", key)
        second = asyncio.ensure_future(inventory.commands.add_line("evt_second", key, "p", 1))
        await asyncio.sleep(0)
        await first.execute("COMMIT")
        assert not isinstance(await second, LineAdded)
    await inventory.caught_up()
    assert [each.event_id for each in await inventory.events()][1:] == ["evt_first"]


async def test_twenty_writers_and_two_relays_give_one_dense_sequence(inventory: Inventory) -> None:
    """Every event once, without a gap, each inventory's in the order of its history; no relay writes twice."""
    keys = [await inventory.made() for _ in range(8)]
    writing = True

    async def write(seed: int) -> None:
        chance = Random(seed)  # noqa: S311  which inventory comes next
        for number in range(COMMANDS_EACH):
            key = chance.choice(keys)
            if number == COMMANDS_EACH - 1 and seed < 4:
                await inventory.commands.delete(IDS.event_id(), keys[seed])
            else:
                await inventory.commands.add_line(IDS.event_id(), key, f"{seed}", number + 1)

    async def relay() -> None:
        while writing:
            assert not isinstance(await inventory.relay.number(EPOCH, 7), Fenced)
            await inventory.moved(limit=7)

    relays = [asyncio.ensure_future(relay()) for _ in range(2)]
    await asyncio.gather(*(write(seed) for seed in range(WRITERS)))
    writing = False
    await asyncio.gather(*relays)
    await inventory.caught_up()

    events = await inventory.events()
    assert [each.seq for each in events] == list(range(1, len(events) + 1))
    assert len({each.event_id for each in events}) == len(events)
    history: defaultdict[int, list[str]] = defaultdict(list)
    per_writer: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for each in events:
        data = data_of(each)
        if isinstance(data, LineaAgregada):
            history[data.inventario_id].append(each.type)
            per_writer[data.inventario_id, data.producto].append(data.cantidad)
        else:
            history[data.id].append(each.type)
    for types in history.values():
        assert types[0] == "InventarioCreado"
        assert set(types[1:-1]) <= {"LineaAgregada"}
    assert all(numbers == sorted(numbers) for numbers in per_writer.values())
    assert (await inventory.upkeep.verify()).differences == ()
    assert len(await inventory.resumen()) == 4


async def test_events_of_a_restored_database_come_before_new_ones(inventory: Inventory) -> None:
    """A dump carries transaction numbers of another cluster, beyond all that this one has given."""
    await inventory.commands.create("evt_restored", "Ana", None)
    await inventory.execute("UPDATE eventos SET xid = '9000000000'")
    await inventory.commands.create("evt_new", "Eva", None)
    await inventory.caught_up(limit=1)
    assert [each.event_id for each in await inventory.events()] == ["evt_restored", "evt_new"]
