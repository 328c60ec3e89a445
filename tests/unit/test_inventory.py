"""Commands and queries: their order, their bound, waiting for an event, and what is kept near of the projection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from actors.cache import Cache, CacheRules
from actors.core.ids import derived_event_id
from actors.inventory import AFTER_S, KEPT_MS, PREFIX, SEQ_NAME, WAITING_MAX, Inventory, NotThere, UnknownEvent
from actors.inventory_flow import InventoryFlow
from actors.inventory_home import InventoryHome
from actors.inventory_mark import LOOK_S, ProjectionMark
from actors.inventory_ports import Created, DatabaseAway, LineAdded, NoSuchInventory
from actors.ports import Overloaded
from tests.support.doubles import Stage
from tests.support.memory_cache import CacheServer, CacheTallies, CacheWire
from tests.support.memory_inventory import FlowTallies, MemoryChannel, MemoryDatabase, MemoryStream, OwnedDouble, opener
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

AWAY_S = 2.0
"""Longer than what is near is proved for."""


class Rig:
    """An inventory on a database in memory, with a flow that moves when it is told to."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.database = MemoryDatabase()
        self.server = CacheServer()
        self.wire = CacheWire(self.server)
        self.home = InventoryHome(opener(self.database), stage.journal)
        stage.supervisor.service("home", self.home.run)
        cache = self._cache(self.wire)
        self.inventory = Inventory(self.home, cache, stage.clock)
        self.flow = InventoryFlow(self.home, MemoryStream(), cache, OwnedDouble(), FlowTallies())
        self.flow.publish = MemoryChannel().publish

    def another(self) -> tuple[Inventory, CacheWire]:
        """A node that does not move the events, and its way to the cache's server."""
        wire = CacheWire(self.server)
        return Inventory(self.home, self._cache(wire), self.stage.clock), wire

    def _cache(self, wire: CacheWire) -> Cache:
        rules = CacheRules(near_bytes_max=1 << 20, stale_s=60.0)
        cache = Cache(wire, rules, self.stage.supervisor, self.stage.clock, CacheTallies())
        wire.on_invalidated = cache.on_invalidated
        return cache

    async def made(self, cliente: str = "Ana") -> int:
        """A new inventory; gives its id."""
        made = await self.inventory.create(derived_event_id(cliente), cliente, None)
        assert isinstance(made, Created)
        return made.id

    async def moved(self) -> None:
        """Let the projection have everything, and everybody know."""
        while await self.flow.run_once():
            pass
        await ticks()

    async def total(self, inventario_id: int) -> int:
        """What a reader sees."""
        found = await self.inventory.detail(inventario_id, None)
        assert found is not None
        return found.resumen.total_items


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A rig on a stage."""
    async with Stage() as stage:
        yield Rig(stage)
        assert not stage.crashes


@in_virtual_time
async def test_commands_of_one_inventory_are_done_one_after_the_other() -> None:
    """In the order in which they came; those of another one do not wait for them."""
    async with rig() as r:
        ana, eva = await r.made("Ana"), await r.made("Eva")
        r.database.takes_s = 0.1
        r.database.begun.clear()
        began = r.stage.clock.monotonic()

        lines = [r.inventory.add_line(f"evt_{number}", ana, "p", 1) for number in range(9)]
        answers = await asyncio.gather(*lines, r.inventory.delete("evt_9", ana), r.inventory.add_line("e", eva, "p", 1))

        of_ana = [event_id for event_id in r.database.begun if event_id != "e"]
        assert of_ana == [f"evt_{number}" for number in range(10)]
        assert r.database.under_way_max[ana] == 1
        assert r.database.begun.index("e") == 1, "at once, beside the first"
        assert r.stage.clock.monotonic() - began == pytest.approx(1.0)
        assert all(isinstance(answer, LineAdded) for answer in answers[:9])
        assert await r.inventory.add_line("evt_10", ana, "p", 1) == NoSuchInventory(id=ana)


@in_virtual_time
async def test_a_command_that_was_given_up_lets_the_next_have_its_turn() -> None:
    """Whether it was being done or was waiting; nothing is remembered of an inventory that nobody works on."""
    async with rig() as r:
        ana = await r.made()
        r.database.takes_s = 0.1
        first, second, third = (
            asyncio.create_task(r.inventory.add_line(f"evt_{number}", ana, "p", 1)) for number in range(3)
        )
        await passing(0.05)
        second.cancel()
        first.cancel()
        assert isinstance(await third, LineAdded)
        await asyncio.gather(first, second, return_exceptions=True)
        assert not r.inventory._turns


@in_virtual_time
async def test_too_many_commands_for_one_inventory_are_refused() -> None:
    """At once, and those of another are not; when there is room again they are taken again."""
    async with rig() as r:
        ana, eva = await r.made("Ana"), await r.made("Eva")
        r.database.takes_s = 0.01
        waiting = [
            asyncio.create_task(r.inventory.add_line(f"evt_{number}", ana, "p", 1)) for number in range(WAITING_MAX)
        ]
        await ticks()
        with pytest.raises(Overloaded):
            await r.inventory.add_line("evt_more", ana, "p", 1)
        assert isinstance(await r.inventory.add_line("evt_eva", eva, "p", 1), LineAdded)
        await asyncio.gather(*waiting)
        assert isinstance(await r.inventory.add_line("evt_more", ana, "p", 1), LineAdded)


@in_virtual_time
async def test_whoever_waits_for_one_that_finds_the_database_away_does_not_try() -> None:
    """All who were caught are refused with the first, and at once when it is known; then it goes on where it was."""
    async with rig() as r:
        ana = await r.made()
        r.database.frozen = True
        began = r.stage.clock.monotonic()
        caught = [asyncio.create_task(r.inventory.add_line(f"evt_{number}", ana, "p", 1)) for number in range(8)]
        await passing(0.5)
        caught += [asyncio.create_task(r.inventory.add_line(f"evt_{number}", ana, "p", 1)) for number in range(8, 12)]
        answers = await asyncio.gather(*caught, return_exceptions=True)
        assert all(isinstance(answer, DatabaseAway) for answer in answers)
        assert r.stage.clock.monotonic() - began == pytest.approx(r.database.deadline_s, abs=0.01)

        await passing(1.0)
        assert r.home.gone
        began = r.stage.clock.monotonic()
        for _ in range(3):
            with pytest.raises(DatabaseAway):
                await r.inventory.add_line("evt_late", ana, "p", 1)
            with pytest.raises(DatabaseAway):
                await r.inventory.page(10, 0, derived_event_id("Ana"))
        assert r.stage.clock.monotonic() == began

        r.database.frozen = False
        await passing(2.0)
        assert isinstance(await r.inventory.add_line("evt_back", ana, "p", 1), LineAdded)


@in_virtual_time
async def test_those_who_wait_for_events_are_refused_together() -> None:
    """However many they are, when the database hangs."""
    async with rig() as r:
        await r.made()
        waiting = [asyncio.create_task(r.inventory.page(10, 0, derived_event_id("Ana"))) for _ in range(50)]
        await passing(0.1)
        r.database.frozen = True
        began = r.stage.clock.monotonic()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, DatabaseAway) for answer in answers)
        assert r.stage.clock.monotonic() - began < r.database.deadline_s + 0.1


@in_virtual_time
async def test_what_is_kept_near_is_shown_while_the_database_is_away() -> None:
    """It is what the projection has: nobody moves it meanwhile."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        assert await r.total(ana) == 0
        r.database.away = True
        await passing(1.0)
        assert r.home.gone
        assert await r.total(ana) == 0
        with pytest.raises(DatabaseAway):
            await r.inventory.page(10, 0, None)


@in_virtual_time
async def test_only_what_was_written_is_told() -> None:
    """The flow is woken for an event, not for a refusal nor for a failure."""
    async with rig() as r:
        told: list[None] = []
        r.inventory.on_committed = lambda: told.append(None)
        ana = await r.made()
        await r.inventory.add_line("evt_1", ana, "p", 1)
        assert len(told) == 2
        await r.inventory.add_line("evt_2", 77, "p", 1)
        await r.inventory.delete("evt_3", 77)
        r.database.away = True
        with pytest.raises(DatabaseAway):
            await r.inventory.delete("evt_4", ana)
        assert len(told) == 2


@in_virtual_time
async def test_whoever_names_an_event_waits_for_it() -> None:
    """Until the projection has it, and no longer."""
    async with rig() as r:
        ana = await r.made()
        event_id = derived_event_id("Ana")
        reading = asyncio.create_task(r.inventory.detail(ana, event_id))
        listing = asyncio.create_task(r.inventory.page(10, 0, event_id))
        await passing(AFTER_S / 2)
        assert not reading.done()
        await r.moved()
        began = r.stage.clock.monotonic()
        found = await reading
        assert found is not None
        assert found.resumen.inventario_id == ana
        assert [row.inventario_id for row in await listing] == [ana]
        assert r.stage.clock.monotonic() - began < 0.05


@in_virtual_time
async def test_nobody_waits_for_an_event_for_ever() -> None:
    """An event that is known is late; an unknown one is never waited for."""
    async with rig() as r:
        ana = await r.made()
        began = r.stage.clock.monotonic()
        with pytest.raises(UnknownEvent):
            await r.inventory.page(10, 0, derived_event_id("nobody"))
        assert r.stage.clock.monotonic() == began
        with pytest.raises(NotThere):
            await r.inventory.detail(ana, derived_event_id("Ana"))
        assert r.stage.clock.monotonic() - began == pytest.approx(AFTER_S, abs=0.05)


@in_virtual_time
async def test_the_second_read_does_not_ask_the_database() -> None:
    """Nor does one of an inventory that is not there; each page is another."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        for _ in range(3):
            assert await r.total(ana) == 0
            assert await r.inventory.detail(77, None) is None
            assert len(await r.inventory.page(10, 0, None)) == 1
            assert await r.inventory.page(10, 1, None) == ()
        assert r.database.reads == 4


@in_virtual_time
async def test_nothing_is_shown_from_before_once_the_number_has_moved() -> None:
    """What is kept bears the number that it was read under."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        for number in range(1, 5):
            assert await r.total(ana) == number - 1
            await r.inventory.add_line(f"evt_{number}", ana, "p", 1)
            await r.moved()
        assert await r.total(ana) == 4
        (row,) = await r.inventory.page(10, 0, None)
        assert row.total_items == 4
        await r.inventory.delete("evt_9", ana)
        await r.moved()
        assert await r.inventory.detail(ana, None) is None


@in_virtual_time
async def test_a_read_that_names_an_event_believes_nothing_kept() -> None:
    """The number in the cache may be that of a moment ago."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        assert await r.total(ana) == 0
        before = r.server.get(SEQ_NAME)
        assert before is not None
        await r.inventory.add_line(derived_event_id("line"), ana, "p", 5)
        await r.moved()
        r.server.set(SEQ_NAME, before[0])
        await ticks()
        found = await r.inventory.detail(ana, derived_event_id("line"))
        assert found is not None
        assert found.resumen.total_items == 5


@in_virtual_time
async def test_what_is_kept_goes_by_itself() -> None:
    """Numbers move on, and nobody deletes what was kept under the older ones."""
    async with rig() as r:
        await r.made()
        await r.moved()
        await r.inventory.page(10, 0, None)
        assert len(r.server.names()) == 2
        await passing(KEPT_MS / 1000 + 1)
        assert r.server.names() == [SEQ_NAME]


@in_virtual_time
async def test_a_cache_that_is_away_changes_nothing_but_time() -> None:
    """Also when what is near could be shown for a while yet: it may be from before."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        assert await r.total(ana) == 0
        r.wire.away = True
        r.wire.cut()
        await passing(AWAY_S)
        reads = r.database.reads
        await r.inventory.add_line("evt_1", ana, "p", 3)
        await r.moved()
        assert await r.total(ana) == 3
        assert await r.total(ana) == 3
        assert r.database.reads == reads + 2
        r.wire.away = False
        await r.moved()
        assert await r.total(ana) == 3


@in_virtual_time
async def test_a_number_that_cannot_be_proved_is_believed_by_nobody() -> None:
    """A node whose cache is away reads the database, whatever it has near; those that moved on are not its cache's."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        other, wire = r.another()
        for _ in range(2):  # the first is told by the database and kept, the second is near
            assert await other.detail(ana, None) is not None
        wire.away, wire.link_silent = True, True
        wire.cut()
        await passing(AWAY_S)
        await r.inventory.add_line("evt_1", ana, "p", 3)
        await r.moved()
        found = await other.detail(ana, None)
        assert found is not None
        assert found.resumen.total_items == 3


@pytest.mark.parametrize("garbage", [b"garbage", b"null", b"[]", b'{"rows":[{"cliente":1}]}', b"\xff\xfe", b""])
@in_virtual_time
async def test_garbage_under_a_kept_name_is_read_over(garbage: bytes) -> None:
    """Any program may write any name."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        await r.total(ana)
        await r.inventory.page(10, 0, None)
        for name in r.server.names():
            if name != SEQ_NAME:
                r.server.set(name, garbage)
        await ticks()
        assert await r.total(ana) == 0
        assert len(await r.inventory.page(10, 0, None)) == 1
        for name in r.server.names():
            if name != SEQ_NAME:
                held = r.server.get(name)
                assert held is not None
                assert msgspec.json.decode(held[0]), "mended"


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", b"-1", b"1.5", b'"1"', b"\xff\xfe", b"", b"9" * 1000, "\u0661".encode(), b'{"a":"' + b"x" * 500],
)
@in_virtual_time
async def test_a_number_that_is_none_is_believed_by_nobody(garbage: bytes) -> None:
    """And nothing is kept under it: a name would hold whatever somebody wrote."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        r.server.set(SEQ_NAME, garbage)
        await ticks()
        for _ in range(2):
            assert await r.total(ana) == 0
        assert [name for name in r.server.names() if name != SEQ_NAME] == []


@in_virtual_time
async def test_names_of_another_type_change_nothing() -> None:
    """A list under our name."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()
        r.server.others |= {f"{PREFIX}1:id:{ana}", f"{PREFIX}1:10:0"}
        for _ in range(2):
            assert await r.total(ana) == 0
            assert len(await r.inventory.page(10, 0, None)) == 1


@in_virtual_time
async def test_a_cache_without_room_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overloaded is a cache that is away for a moment."""
    async with rig() as r:
        ana = await r.made()
        await r.moved()

        async def full(_self: Cache, _key: str) -> object:
            raise Overloaded("full")

        monkeypatch.setattr(Cache, "read", full)
        assert await r.total(ana) == 0


@in_virtual_time
async def test_however_many_wait_the_database_is_asked_once_in_a_while() -> None:
    """Those who wait share one look, or they would hold up what they wait for."""
    async with Stage() as stage:
        mark, asked = ProjectionMark(stage.clock), 0

        async def watermark() -> int:
            nonlocal asked
            asked += 1
            await passing(0.001)
            return asked

        for turn in range(1, 4):
            found = await asyncio.gather(*(mark.look(watermark) for _ in range(100)))
            assert set(found) == {turn}
            await passing(2 * LOOK_S)
