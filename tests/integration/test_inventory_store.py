"""The inventory's store: commands and their events, the outbox, the projection, and what happens twice."""

from __future__ import annotations

import asyncio
from datetime import date

import msgspec
import pytest

from actors.adapters.postgres.sql import sql
from actors.core.inventory import CANTIDAD_MAX, Event, data_of
from actors.inventory_ports import (
    Applied,
    Created,
    Deleted,
    EventIdTaken,
    EventPlace,
    Fenced,
    Gap,
    Lag,
    LineAdded,
    NoSuchInventory,
    Numbered,
    Resumen,
    Sent,
)
from tests.support.inventory_rig import EPOCH, IDS, Inventory
from tests.support.until import until

UNKNOWN = [0, -1, 1_000_000, 2**63, -(2**70)]


async def test_a_command_writes_the_model_and_its_event_together(inventory: Inventory) -> None:
    """The event holds what the answer says; the total belongs to the projection alone, which has nothing yet."""
    made = await inventory.commands.create("evt_1", "Ñandú S. A.", date(2030, 1, 31))
    assert isinstance(made, Created)
    line = await inventory.commands.add_line("evt_2", made.id, "tuerca 'M6'", CANTIDAD_MAX)
    assert isinstance(line, LineAdded)
    assert await inventory.commands.delete("evt_3", made.id) == Deleted(id=made.id, event_id="evt_3")
    assert await inventory.queries.list(10, 0) == ()

    events = await inventory.numbered()

    assert [(each.seq, each.event_id, each.type) for each in events] == [
        (1, "evt_1", "InventarioCreado"),
        (2, "evt_2", "LineaAgregada"),
        (3, "evt_3", "InventarioEliminado"),
    ]
    assert [msgspec.json.decode(each.data) for each in events] == [
        {"id": made.id, "cliente": "Ñandú S. A.", "fecha_caducidad": "2030-01-31"},
        {"id": line.id, "inventario_id": made.id, "producto": "tuerca 'M6'", "cantidad": CANTIDAD_MAX},
        {"id": made.id},
    ]
    assert all(each.at.endswith("Z") for each in events)
    assert [data_of(each).id for each in events] == [made.id, line.id, made.id]


@pytest.mark.parametrize("unknown", UNKNOWN)
async def test_an_unknown_inventory_is_an_answer_and_nothing_is_written(inventory: Inventory, unknown: int) -> None:
    """Whatever number a client sends."""
    assert await inventory.commands.add_line("evt_1", unknown, "p", 1) == NoSuchInventory(id=unknown)
    assert await inventory.commands.delete("evt_2", unknown) == NoSuchInventory(id=unknown)
    assert await inventory.queries.get(unknown) is None
    assert await inventory.numbered() == ()


@pytest.mark.parametrize(("producto", "cantidad"), [("", 1), ("a" * 201, 1), ("\0", 1), ("p", 0), ("p", 2**31)])
async def test_what_may_not_be_stored_is_refused(inventory: Inventory, producto: str, cantidad: int) -> None:
    """The edge says 400 first; here it is a mistake of the caller's."""
    key = await inventory.made()
    with pytest.raises(ValueError, match="is not as it must be"):
        await inventory.commands.add_line("evt_1", key, producto, cantidad)
    with pytest.raises(ValueError, match="cliente"):
        await inventory.commands.create("evt_2", producto if cantidad == 1 else " ", None)
    with pytest.raises(ValueError, match="fecha_caducidad"):
        await inventory.commands.create("evt_3", "Ana", date.max)
    assert len(await inventory.numbered()) == 1


async def test_the_same_command_again_gives_the_first_answer(inventory: Inventory) -> None:
    """Whoever got no answer asks again under the same event id, also when the inventory is gone meanwhile."""
    made = await inventory.commands.create("evt_1", "Ana", None)
    assert isinstance(made, Created)
    line = await inventory.commands.add_line("evt_2", made.id, "p", 3)
    for _ in range(2):
        assert await inventory.commands.create("evt_1", "Ana", None) == made
        assert await inventory.commands.add_line("evt_2", made.id, "p", 3) == line
        gone = await inventory.commands.delete("evt_3", made.id)
        assert gone == Deleted(id=made.id, event_id="evt_3")
    assert len(await inventory.numbered()) == 3


async def test_an_event_id_of_another_command_is_refused(inventory: Inventory) -> None:
    """Neither as the first one's answer nor as a second write."""
    key, other = await inventory.made(), await inventory.made()
    await inventory.commands.create("evt_1", "Ana", None)
    await inventory.commands.add_line("evt_2", key, "p", 3)
    taken = EventIdTaken(event_id="evt_1")
    assert await inventory.commands.create("evt_1", "Eva", None) == taken
    assert await inventory.commands.add_line("evt_1", key, "p", 3) == taken
    assert await inventory.commands.delete("evt_1", key) == taken
    assert await inventory.commands.add_line("evt_2", key, "p", 4) == EventIdTaken(event_id="evt_2")
    assert await inventory.commands.add_line("evt_2", other, "p", 3) == EventIdTaken(event_id="evt_2")
    assert len(await inventory.numbered()) == 4


async def test_the_same_command_at_the_same_time_is_done_once(inventory: Inventory) -> None:
    """A retry may meet its first attempt, which still runs."""
    answers = await asyncio.gather(*(inventory.commands.create("evt_1", "Ana", None) for _ in range(8)))
    assert len(set(map(repr, answers))) == 1
    assert len(await inventory.numbered()) == 1


async def test_numbered_events_come_again_until_they_are_sent(inventory: Inventory) -> None:
    """A relay that died after numbering, or after sending without saying so, begins where it was."""
    for _ in range(5):
        await inventory.made()
    first = await inventory.relay.number(EPOCH, 3)
    assert isinstance(first, Numbered)
    assert first.more
    assert await inventory.relay.number(EPOCH, 3) == first

    assert await inventory.relay.sent(EPOCH, 2) == Sent(seq=2)
    assert await inventory.relay.sent(EPOCH, 1) == Sent(seq=2)

    rest = await inventory.relay.number(EPOCH, 10)
    assert isinstance(rest, Numbered)
    assert [each.seq for each in rest.events] == [3, 4, 5]
    assert not rest.more
    with pytest.raises(ValueError, match="the last is 5"):
        await inventory.relay.sent(EPOCH, 6)


async def test_an_idle_relay_writes_nothing(inventory: Inventory) -> None:
    """It asks many times a second."""
    await inventory.made()
    await inventory.moved()
    before = await inventory.database.row("SELECT pg_current_wal_insert_lsn() AS at, xmin FROM relevo")
    for _ in range(5):
        assert await inventory.moved() == 0
    after = await inventory.database.row("SELECT pg_current_wal_insert_lsn() AS at, xmin FROM relevo")
    assert before is not None
    assert after is not None
    assert before["xmin"] == after["xmin"]


async def test_a_stale_epoch_writes_nothing(inventory: Inventory) -> None:
    """Relay and projector of a node that was taken for dead learn it from their next write."""
    await inventory.made()
    events = await inventory.numbered(epoch=7)
    assert await inventory.relay.number(6, 10) == Fenced(epoch=7)
    assert await inventory.relay.sent(6, 1) == Fenced(epoch=7)
    await inventory.projection.apply(7, events)
    await inventory.made()
    await inventory.relay.sent(7, 1)
    later = await inventory.numbered(epoch=8)
    assert [each.seq for each in later] == [2]

    assert await inventory.projection.apply(6, later) == Fenced(epoch=7)
    assert await inventory.database.row(sql("relay_fence"), 7) is None, "also when it was let in by an older look"

    assert await inventory.queries.watermark() == 1
    assert await inventory.projection.apply(8, later) == Applied(seq=2, count=1)


async def test_what_is_known_is_skipped_and_a_gap_is_told(inventory: Inventory) -> None:
    """A projector gets events from a stream: again, from the start, or with a hole."""
    key = await inventory.made()
    for _ in range(4):
        await inventory.grown(key, 10)
    events = await inventory.numbered()

    assert await inventory.projection.apply(EPOCH, events[1:]) == Gap(expected=1)
    assert await inventory.projection.apply(EPOCH, (*events[:2], *events[3:])) == Gap(expected=3)
    assert await inventory.projection.apply(EPOCH, events[:2]) == Applied(seq=2, count=2)
    assert await inventory.projection.apply(EPOCH, events[:2]) == Applied(seq=2, count=0)
    assert await inventory.projection.apply(EPOCH, events[3:]) == Gap(expected=3)
    assert await inventory.projection.apply(EPOCH, await inventory.projection.events(3, 1)) == Applied(seq=3, count=1)
    assert await inventory.projection.apply(EPOCH, events) == Applied(seq=5, count=2)
    assert await inventory.projection.apply(EPOCH, events) == Applied(seq=5, count=0)
    assert await inventory.projection.apply(EPOCH, ()) == Applied(seq=5, count=0)
    assert await inventory.projection.apply(EPOCH - 1, ()) == Fenced(epoch=EPOCH)
    assert (await inventory.resumen())[key].total_items == 40


async def test_a_replay_from_the_start_gives_the_same_projection(inventory: Inventory) -> None:
    """Event by event, in runs of any length, or rebuilt."""
    keys = [await inventory.made(f"c{number}", fecha_caducidad=date(2030, 1, number + 1)) for number in range(6)]
    for number, key in enumerate(keys * 3):
        await inventory.grown(key, number + 1)
    for key in keys[::3]:
        await inventory.commands.delete(IDS.event_id(), key)
    await inventory.caught_up()
    expected, events = await inventory.resumen(), await inventory.events()
    assert len(expected) == 4
    for length in (1, 4, len(events)):
        await inventory.execute("DELETE FROM inventario_resumen")
        await inventory.execute("UPDATE proyeccion SET seq = 0")
        for start in range(0, len(events), length):
            await inventory.projection.apply(EPOCH, events[start : start + length])
        assert await inventory.resumen() == expected


async def test_two_projectors_at_once_apply_each_event_once(inventory: Inventory) -> None:
    """An owner and the one that took over may overlap; the fence decides, the sum is right."""
    key = await inventory.made()
    for _ in range(20):
        await inventory.grown(key)
    events = await inventory.numbered()

    answers = await asyncio.gather(*(inventory.projection.apply(EPOCH, events[:n]) for n in (21, 5, 21, 13, 21, 1)))

    assert all(isinstance(each, Applied) for each in answers)
    assert sum(each.count for each in answers if isinstance(each, Applied)) == 21
    assert (await inventory.resumen())[key].total_items == 20


async def test_the_list_is_newest_expiry_first_and_stable(inventory: Inventory) -> None:
    """Those without one last; of equal ones the newest inventory first; pages fit together."""
    dates = [date(2030, 1, 1), None, date(2031, 1, 1), date(2030, 1, 1), None]
    keys = [await inventory.made(fecha_caducidad=each) for each in dates]
    await inventory.caught_up()
    wanted = [keys[2], keys[3], keys[0], keys[4], keys[1]]

    pages = [await inventory.queries.list(2, offset) for offset in (0, 2, 4, 6)]

    assert [row.inventario_id for page in pages for row in page] == wanted
    plan = await inventory.database.rows(f"EXPLAIN {sql('list').replace('$1', '10').replace('$2', '0')}")
    assert plan


async def test_an_inventory_with_its_lines(inventory: Inventory) -> None:
    """What is projected, and the lines in the order they came; one without lines has none."""
    key = await inventory.made("Ana", fecha_caducidad=date(2030, 1, 1))
    assert await inventory.queries.get(key) is None
    await inventory.moved()
    empty = await inventory.queries.get(key)
    assert empty is not None
    assert empty.lineas == ()
    await inventory.grown(key, 2)
    await inventory.grown(key, 3)
    await inventory.moved()

    found = await inventory.queries.get(key)

    assert found is not None
    assert found.resumen == Resumen(inventario_id=key, cliente="Ana", total_items=5, fecha_caducidad=date(2030, 1, 1))
    assert [(line.producto, line.cantidad) for line in found.lineas] == [("tuerca", 2), ("tuerca", 3)]


async def test_recent_events_are_those_of_the_last_that_are_not_old(inventory: Inventory) -> None:
    """By the database's clock, in order, up to a number."""
    for _ in range(6):
        await inventory.made()
    events = await until(lambda: six(inventory), what="six numbers")
    assert await inventory.projection.recent(6, 500, 60.0) == events
    assert await inventory.projection.recent(5, 3, 60.0) == events[2:5]
    assert await inventory.projection.recent(0, 500, 60.0) == ()
    await inventory.execute("UPDATE eventos SET at = at - interval '61 seconds' WHERE seq <= 4")
    assert [each.seq for each in await inventory.projection.recent(6, 500, 60.0)] == [5, 6]


async def six(inventory: Inventory) -> tuple[Event, ...]:
    """Six numbered events, or none yet."""
    events = await inventory.numbered()
    return events if len(events) == 6 else ()


async def test_how_far_the_projection_is(inventory: Inventory) -> None:
    """By its number, by an event's place, and by what it lacks."""
    assert await inventory.queries.lag() == Lag(events=0, seconds=0.0)
    event_id = await inventory.grown(await inventory.made())
    assert await inventory.queries.seq_of("evt_unknown") is None
    assert await inventory.queries.seq_of(event_id) == EventPlace(seq=None)
    behind = await inventory.queries.lag()
    assert behind.events == 2
    assert behind.seconds > 0
    events = await inventory.numbered()
    assert await inventory.queries.seq_of(event_id) == EventPlace(seq=2)
    assert (await inventory.queries.lag()).events == 2
    await inventory.projection.apply(EPOCH, events)
    assert await inventory.queries.lag() == Lag(events=0, seconds=0.0)
    assert await inventory.queries.watermark() == 2
