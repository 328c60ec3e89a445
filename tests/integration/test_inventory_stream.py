"""The inventory's events on their way through the real store: once, in order, enough to make the projection anew."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from actors.adapters.valkey.keys import EVENTS
from actors.adapters.valkey.store import ValkeyStore
from actors.cache import Cache, CacheRules
from actors.core.inventory import Event, InventarioCreado
from actors.inventory_flow import InventoryFlow
from actors.inventory_home import InventoryHome, InventoryParts
from actors.inventory_ports import StreamUnusable
from tests.support.doubles import Stage
from tests.support.inventory_rig import EPOCH, IDS, Inventory
from tests.support.memory_cache import CacheServer, CacheTallies, CacheWire
from tests.support.memory_inventory import FlowTallies, MemoryChannel, OwnedDouble
from tests.support.store import connected
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

EMPTIED = "DELETE FROM inventario_resumen"
AT_THE_START = "UPDATE proyeccion SET seq = 0"


def event(seq: int) -> Event:
    """An event with its number."""
    data = msgspec.Raw(msgspec.json.encode(InventarioCreado(id=seq, cliente="Ñandú \U0001f426", fecha_caducidad=None)))
    at = "2026-01-01T00:00:00.000000Z"
    return Event(seq=seq, event_id=f"evt_{seq}", type="InventarioCreado", data=data, at=at)


@asynccontextmanager
async def flowing(inventory: Inventory, store: ValkeyStore) -> AsyncIterator[tuple[InventoryFlow, MemoryChannel]]:
    """A flow between the real database and the real stream."""
    parts = InventoryParts(
        commands=inventory.commands,
        relay=inventory.relay,
        projection=inventory.projection,
        queries=inventory.queries,
        probe=lambda: inventory.database.row("SELECT 1"),
    )

    async def opened() -> InventoryParts:
        return parts

    async with Stage() as stage:
        home = InventoryHome(opened, stage.journal)
        stage.supervisor.service("home", home.run)
        await home.parts()
        rules = CacheRules(near_bytes_max=1 << 20, stale_s=60.0)
        cache = Cache(CacheWire(CacheServer()), rules, stage.supervisor, stage.clock, CacheTallies())
        flow, channel = InventoryFlow(home, store.events, cache, OwnedDouble(EPOCH), FlowTallies()), MemoryChannel()
        flow.publish = channel.publish
        yield flow, channel
        assert not stage.crashes


async def caught_up(inventory: Inventory, flow: InventoryFlow) -> None:
    """Move events until the projection has all."""

    async def has_all() -> bool:
        await flow.run_once()
        return (await inventory.queries.lag()).events == 0

    await until(has_all, what="a projection that has everything")


async def busy(inventory: Inventory, seed: int) -> None:
    """Some commands of each kind."""
    chance = random.Random(seed)  # noqa: S311  which command comes next
    keys = [await inventory.made(f"c{number}") for number in range(4)]
    for _ in range(30):
        key = chance.choice(keys)
        if chance.random() < 0.05:
            await inventory.commands.delete(IDS.event_id(), key)
        else:
            await inventory.commands.add_line(IDS.event_id(), key, "tuerca", chance.randrange(1, 9))


async def test_the_stream_has_each_event_once_however_often_it_is_added(
    any_topology: ValkeyServer | ValkeyCluster,
) -> None:
    """In order, under its number: overlapping runs, all of it again, and none at all."""
    events = [event(seq) for seq in range(1, 21)]
    async with connected(any_topology) as store:
        assert list(await store.events.read(1, 10)) == []
        for run in (events[:12], events[8:15], events, events[:3], [], events[19:]):
            await store.events.add(run)

        assert list(await store.events.read(1, 100)) == events
        assert list(await store.events.read(7, 3)) == events[6:9]
        assert list(await store.events.read(21, 10)) == []


async def test_other_programs_can_read_the_stream(valkey: ValkeyServer) -> None:
    """Entries are named by their numbers; what they hold is text."""
    async with connected(valkey) as store:
        await store.events.add([event(1), event(2)])
    with valkey.client() as client:
        first, _ = client.execute_command("XRANGE", EVENTS, "-", "+")
    assert EVENTS == "buzon:events"
    name, fields = first
    assert name == "1-0"
    known = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    assert msgspec.json.decode(known.pop("data")) == {"id": 1, "cliente": "Ñandú \U0001f426", "fecha_caducidad": None}
    assert known == {"event_id": "evt_1", "type": "InventarioCreado", "at": "2026-01-01T00:00:00.000000Z"}


async def test_an_entry_of_somebody_else_is_no_event(valkey: ValkeyServer, inventory: Inventory) -> None:
    """The stream ends before it for us, and the database gives what comes after."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, _):
        await inventory.made()
        await caught_up(inventory, flow)
        valkey.command("XADD", EVENTS, "2-0", "hello", "world")
        assert [each.seq for each in await store.events.read(1, 10)] == [1]
        await inventory.made()
        await inventory.made()
        await caught_up(inventory, flow)
        assert len(await inventory.resumen()) == 3


@pytest.mark.parametrize("number", ["1700000000000-0", "9223372036854775808-0", "18446744073709551615-0"])
async def test_an_entry_with_a_large_number_keeps_events_out_of_the_stream_alone(
    valkey: ValkeyServer, inventory: Inventory, number: str
) -> None:
    """Also one that has every field of ours: the projection has all of them from the database, and an add says why."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, channel):
        fields = ("event_id", "evt_x", "type", "InventarioCreado", "data", '{"id":9,"cliente":"x"}', "at", "now")
        valkey.command("XADD", EVENTS, number, *fields)
        for _ in range(3):
            await inventory.made()
            await caught_up(inventory, flow)
        assert len(await inventory.resumen()) == len(channel.published) == 3
        assert await store.events.add(await inventory.events()) == int(number.partition("-")[0])


@pytest.mark.parametrize("fields", [{"type": b"Other"}, {"type": b"\xff"}, {"event_id": b"\xff"}])
async def test_an_entry_that_is_nearly_an_event_is_none(valkey: ValkeyServer, fields: dict[str, bytes]) -> None:
    """The stream ends before it for us."""
    ours = {"event_id": b"evt_2", "type": b"InventarioCreado", "data": b"{}", "at": b"now"}
    async with connected(valkey) as store:
        await store.events.add([event(1)])
        with valkey.client() as client:
            client.execute_command("XADD", EVENTS, "2-0", *(part for item in (ours | fields).items() for part in item))
        assert [each.seq for each in await store.events.read(1, 10)] == [1]


async def test_something_else_under_the_stream_s_name_holds_up_the_relay_alone(
    valkey: ValkeyServer, inventory: Inventory
) -> None:
    """It is left as it is until somebody removes it; then everything that waited goes."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, channel):
        valkey.command("SET", EVENTS, "x")
        await inventory.made()
        await caught_up(inventory, flow)
        assert len(await inventory.resumen()) == 1
        with pytest.raises(StreamUnusable, match=EVENTS):
            await store.events.read(1, 10)
        assert not channel.published

        valkey.command("DEL", EVENTS)
        await flow.run_once()
        assert list(await store.events.read(1, 10)) == list(await inventory.events())
        assert len(channel.published) == 1


async def test_a_stream_of_another_database_is_not_followed(valkey: ValkeyServer, inventory: Inventory) -> None:
    """The store stayed while the database was made anew, or restored from yesterday: the numbers are the same, the
    events are not. Nothing of the old ones is shown, and the stream begins anew with the first of ours."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, _):
        await store.events.add([event(seq) for seq in range(1, 6)])
        await flow.run_once()
        assert await inventory.resumen() == {}

        made = [await inventory.made(f"ours {number}") for number in range(3)]
        await caught_up(inventory, flow)

        assert {key: row.cliente for key, row in (await inventory.resumen()).items()} == {
            key: f"ours {number}" for number, key in enumerate(made)
        }
        assert list(await store.events.read(1, 10)) == list(await inventory.events())


async def test_the_stream_replayed_from_its_start_makes_the_same_projection(
    valkey: ValkeyServer, inventory: Inventory
) -> None:
    """An emptied projection at number 0 follows the stream alone; and once more over a full one changes nothing."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, channel):
        await busy(inventory, 7)
        await caught_up(inventory, flow)
        before = await inventory.resumen()
        assert before
        events = await inventory.events()
        assert list(await store.events.read(1, 1000)) == list(events)
        assert [each.seq for each in events] == list(range(1, len(events) + 1))
        assert list(channel.published) == [each.event_id for each in events]

        await inventory.execute(EMPTIED)
        await inventory.execute(AT_THE_START)
        await flow.run_once()

        assert await inventory.resumen() == before
        assert not (await inventory.upkeep.verify()).differences
        await inventory.projection.apply(EPOCH, events)
        assert await inventory.resumen() == before


async def test_a_stream_that_lost_its_end_is_healed(valkey: ValkeyServer, inventory: Inventory) -> None:
    """The store forgot what counts as sent: the projection follows the database, and the stream goes on after."""
    async with connected(valkey) as store, flowing(inventory, store) as (flow, _):
        await busy(inventory, 8)
        await caught_up(inventory, flow)
        await inventory.made()
        numbered = await until(inventory.numbered, what="a number")
        await inventory.relay.sent(EPOCH, numbered[-1].seq)
        await inventory.made()
        await caught_up(inventory, flow)

        assert not (await inventory.upkeep.verify()).differences
        last = await inventory.events()
        assert list(await store.events.read(last[-1].seq, 10)) == [last[-1]]
