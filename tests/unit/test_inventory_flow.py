"""Relay and projector: a step that was the last one is done again by the next, and nothing is lost nor doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from actors.cache import Cache, CacheRules
from actors.core.inventory import Event, InventarioCreado
from actors.inventory import SEQ_NAME
from actors.inventory_flow import AGAIN_S, BITE, IDLE_S, LAG_EVERY, InventoryFlow, message_of
from actors.inventory_home import InventoryHome
from actors.ports import StoreAway
from tests.support.doubles import JournalLines, Stage, value
from tests.support.memory_cache import CacheServer, CacheTallies, CacheWire
from tests.support.memory_inventory import (
    Died,
    FlowTallies,
    MemoryChannel,
    MemoryDatabase,
    MemoryStream,
    OwnedDouble,
    Steps,
    opener,
)
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

Read = Callable[[int, int], Coroutine[Any, Any, Sequence[Event]]]
STEPS = ("number", "add", "publish", "sent", "apply", "told")
"""In the order in which an event goes through them; `told` comes after the projection's new number is shown."""


class Rig:
    """What survives nodes, and the nodes that are made on it."""

    def __init__(self, stage: Stage, steps: Steps) -> None:
        self.stage = stage
        self.steps = steps
        self.database = MemoryDatabase(steps)
        self.stream = MemoryStream(steps)
        self.channel = MemoryChannel(steps)
        self.server = CacheServer()
        self.wire = CacheWire(self.server)
        self.told: list[int] = []
        """The numbers that were told of, each at the first time: later ones change nothing."""
        self.homes: list[InventoryHome] = []

    async def node(self, owned: OwnedDouble | None = None, meters: FlowTallies | None = None) -> InventoryFlow:
        """Another node, whose database is open."""
        wire = CacheWire(self.server) if self.homes else self.wire
        rules = CacheRules(near_bytes_max=1 << 20, stale_s=60.0)
        cache = Cache(wire, rules, self.stage.supervisor, self.stage.clock, CacheTallies())
        wire.on_invalidated = cache.on_invalidated
        home = InventoryHome(opener(self.database), self.stage.journal)
        self.homes.append(home)
        self.stage.supervisor.service("home", home.run)
        await home.parts()
        flow = InventoryFlow(home, self.stream, cache, owned or OwnedDouble(), meters or FlowTallies())
        flow.publish = self.channel.publish
        flow.on_applied = self._tell
        return flow

    def shown(self) -> str:
        """The number that readers look under."""
        held = self.server.get(SEQ_NAME)
        return "" if held is None else held[0].decode()

    def all_is_well(self) -> None:
        """Everything that was committed is everywhere, once and in order."""
        numbers = [event.seq for event in self.database.log]
        assert self.stream.entries == self.database.log
        assert list(self.channel.published) == [event.event_id for event in self.database.log]
        assert list(self.channel.published.values()) == [message_of(event) for event in self.database.log]
        assert self.database.rows == self.database.expected()
        assert self.database.applied == self.database.sent_upto == len(numbers)
        assert self.told == numbers, "each is told of, in order"
        assert self.shown() == str(len(numbers))

    async def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.seq not in self.told:
                self.told.append(event.seq)
            self.steps.reach("told")


@asynccontextmanager
async def rig(deadly: str = "", nth: int = 1) -> AsyncIterator[Rig]:
    """A rig on a stage."""
    async with Stage() as stage:
        yield Rig(stage, Steps(deadly, nth))
        assert not stage.crashes


async def moved(flow: InventoryFlow) -> int:
    """Let it move everything there is; gives how often it died on the way."""
    deaths = 0
    while True:
        try:
            if not await flow.run_once():
                return deaths
        except Died:
            deaths += 1


@in_virtual_time
async def test_an_event_goes_through_all_steps_in_order() -> None:
    """It is sent before it is applied, and told of once it can be read."""
    async with rig() as r:
        meters = FlowTallies()
        flow = await r.node(meters=meters)
        r.database.made()
        assert await flow.run_once() == 2, "numbered, and applied"
        assert tuple(r.steps.done) == STEPS
        assert await flow.run_once() == 0
        assert value(meters.inventory_events) == 1
        r.all_is_well()


@pytest.mark.parametrize("another", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS)
@in_virtual_time
async def test_a_step_that_was_the_last_one_loses_and_doubles_nothing(step: str, nth: int, *, another: bool) -> None:
    """Whether the same node goes on or another one under a higher epoch, which may find newer events beside the old."""
    async with rig(step, nth) as r:
        flow = await r.node()
        r.database.made(3)
        deaths = 0
        for _ in range(nth):
            try:
                await flow.run_once()
            except Died:
                deaths += 1
                break
            r.database.made(2)
        assert deaths == 1

        r.database.made(2)
        if another:
            flow = await r.node(OwnedDouble(number=2))
        assert await moved(flow) == 0
        r.all_is_well()


@in_virtual_time
async def test_more_events_than_go_in_one_bite_all_go() -> None:
    """In order."""
    async with rig() as r:
        flow = await r.node()
        r.database.made(2 * BITE + 1)
        await moved(flow)
        r.all_is_well()


@pytest.mark.parametrize("lost", [1, 3, 5])
@in_virtual_time
async def test_a_stream_that_lost_its_end_is_healed_from_the_database(lost: int) -> None:
    """A store that crashed within its second: the events count as sent, and are in the database alone."""
    async with rig() as r:
        flow = await r.node()
        r.database.made(5)
        await flow.relay(await r.homes[0].parts(), 1)
        del r.stream.entries[5 - lost :]
        r.stage.supervisor.service("flow", lambda: flow.run(r.stage.journal))

        await passing(2 * LAG_EVERY * IDLE_S)

        assert r.database.rows == r.database.expected()
        r.database.made(2)
        await passing(2 * IDLE_S)
        assert r.database.rows == r.database.expected()
        assert r.shown() == "7"


@in_virtual_time
async def test_events_that_a_stream_lost_at_rest_are_found_by_the_measure() -> None:
    """The projection stood still when they were lost; nobody writes, and the next look at the lag finds them."""
    async with rig() as r:
        flow = await r.node()
        r.database.made(2)
        await moved(flow)
        r.stage.supervisor.service("flow", lambda: flow.run(r.stage.journal))
        await passing(IDLE_S / 2)
        r.database.made()
        r.database.numbered = r.database.sent_upto = 3
        await passing(2 * LAG_EVERY * IDLE_S)
        assert r.database.rows == r.database.expected()


@in_virtual_time
async def test_only_the_owner_moves_events() -> None:
    """Neither a node that does not own the partition nor one whose lease is in doubt touches anything."""
    async with rig() as r:
        owned = OwnedDouble(may=False)
        flow = await r.node(owned)
        r.database.made()
        assert await flow.run_once() == 0
        assert r.steps.done == []
        owned.may = True
        assert await moved(flow) == 0
        r.all_is_well()


@in_virtual_time
async def test_a_node_that_was_overtaken_changes_nothing() -> None:
    """Also not under which number readers look: what they kept under the older one is from before."""
    async with rig() as r:
        old = await r.node(OwnedDouble(number=1))
        r.database.made(2)
        await moved(old)
        new = await r.node(OwnedDouble(number=2))
        r.database.made(2)
        await moved(new)
        r.database.made()

        parts = await r.homes[0].parts()
        assert await old.relay(parts, 1) == 0
        assert await old.project(parts, 1) == 0

        assert r.shown() == "4"
        await moved(new)
        r.all_is_well()


@in_virtual_time
async def test_a_fenced_projector_shows_no_older_number() -> None:
    """It looked where the projection was, slept, and learns from its write that somebody else went on."""
    async with rig() as r:
        old = await r.node(OwnedDouble(number=1))
        new = await r.node(OwnedDouble(number=2))
        r.database.made(2)
        parts = await r.homes[0].parts()
        read = r.stream.read

        async def overtaken(from_seq: int, limit: int) -> object:
            r.stream.read = read  # type: ignore[method-assign]  # only once
            await moved(new)
            return await read(from_seq, limit)

        r.stream.read = overtaken  # type: ignore[method-assign,assignment]  # the moment at which it sleeps
        assert await old.project(parts, 1) == 0
        assert r.shown() == "2"


@pytest.mark.parametrize("written", [None, b"1", b"garbage", b"\xff\xfe"])
@in_virtual_time
async def test_the_number_that_readers_look_under_is_set_right_again(written: bytes | None) -> None:
    """It may have been deleted with the cache, or written by somebody who slept or had no business to."""
    async with rig() as r:
        flow = await r.node()
        r.database.made(2)
        await moved(flow)
        if written is None:
            r.server.flush()
        else:
            r.server.set(SEQ_NAME, written)
        await ticks()
        await moved(flow)
        assert r.shown() == "2"


@pytest.mark.parametrize("left", [0, 1])
@in_virtual_time
async def test_what_a_rebuild_brought_is_told_of_too(left: int) -> None:
    """Whether it moved the projection before our look at it or between that and our write; all of it or a part."""
    async with rig() as r:
        meters = FlowTallies()
        flow = await r.node(meters=meters)
        r.database.made()
        await moved(flow)
        for between in (False, True):
            r.database.made(3)
            parts = await r.homes[0].parts()
            await flow.relay(parts, 1)
            if between:
                read = r.stream.read

                async def rebuilt(from_seq: int, limit: int, read: Read = read) -> Sequence[Event]:
                    r.stream.read = read  # type: ignore[method-assign,assignment]  # only once
                    r.database.rebuilt(len(r.database.log) - left)
                    return await read(from_seq, limit)

                r.stream.read = rebuilt  # type: ignore[method-assign]  # the moment at which an operator is quicker
            else:
                r.database.rebuilt(len(r.database.log) - left)
            await moved(flow)
            r.all_is_well()
            assert r.told == [event.seq for event in r.database.log]
        assert value(meters.inventory_events) == 7


@in_virtual_time
async def test_what_another_owner_moved_is_counted_by_that_one() -> None:
    """By one that has the partition again it is told of again, which changes nothing."""
    async with rig() as r:
        owned = OwnedDouble(number=1)
        meters = FlowTallies()
        first, second = await r.node(owned, meters), await r.node(OwnedDouble(number=2))
        for flow in (first, second):
            r.database.made(2)
            await moved(flow)
        owned.number = 3
        r.database.made(2)
        await moved(first)
        r.all_is_well()
        assert r.told == [1, 2, 3, 4, 5, 6]
        assert value(meters.inventory_events) == 4


@in_virtual_time
async def test_what_could_not_be_told_is_told_once_the_store_is_back() -> None:
    """However long that takes; what was told shortly before is told again, since a store that crashed may have lost
    it."""
    async with rig() as r:
        meters = FlowTallies()
        flow = await r.node(meters=meters)
        r.database.made(2)
        await moved(flow)
        tell, heard = flow.on_applied, list[int]()

        async def away(_events: Sequence[Event]) -> None:
            raise StoreAway("gone")

        async def back(events: Sequence[Event]) -> None:
            heard.extend(event.seq for event in events)
            await tell(events)

        flow.on_applied = away
        r.stage.supervisor.service("flow", lambda: flow.run(JournalLines()))
        r.database.made(3)
        await passing(60.0)
        assert r.database.rows == r.database.expected(), "first it can be read"
        r.database.made()
        assert (r.told, value(meters.inventory_events)) == ([1, 2], 2)

        flow.on_applied = back
        await passing(2 * AGAIN_S)
        assert heard == [1, 2, 3, 4, 5, 6]
        assert value(meters.inventory_events) == 6
        r.all_is_well()


@in_virtual_time
async def test_a_cache_that_is_away_does_not_stop_the_projection() -> None:
    """Its number is shown once it is back."""
    async with rig() as r:
        flow = await r.node()
        r.wire.away = True
        r.database.made(2)
        await moved(flow)
        assert r.database.rows == r.database.expected()
        assert r.shown() == ""
        r.wire.away = False
        await moved(flow)
        r.all_is_well()


@in_virtual_time
async def test_a_service_goes_on_after_store_and_database_were_away() -> None:
    """It says so once for each time, and whoever asks for the database's health hears of it meanwhile."""
    async with rig() as r:
        flow = await r.node()
        journal = JournalLines()
        r.stage.supervisor.service("flow", lambda: flow.run(journal))
        for away in (r.stream, r.database):
            away.away = True
            r.database.made()
            flow.wake()
            await passing(10 * AGAIN_S)
            assert (r.homes[0].why_away != "") == (away is r.database)
            away.away = False
            await passing(2 * AGAIN_S)
            assert r.homes[0].why_away == ""
            r.all_is_well()
        assert journal.phrases() == ["inventory stands still", "inventory flows again"] * 2


@in_virtual_time
async def test_a_stream_that_cannot_be_used_holds_up_the_relay_alone() -> None:
    """It is said once; the projection follows the database, and the relay goes on by itself once it is mended."""
    async with rig() as r:
        flow = await r.node()
        journal = JournalLines()
        r.stage.supervisor.service("flow", lambda: flow.run(journal))
        r.stream.unusable = True
        for _ in range(3):
            r.database.made(2)
            flow.wake()
            await passing(AGAIN_S / 2)
            assert r.database.rows == r.database.expected()
            await passing(10 * AGAIN_S)
        assert (r.database.sent_upto, r.stream.entries, len(r.channel.published)) == (0, [], 0)
        assert journal.phrases() == ["event stream cannot be used"]

        r.stream.unusable = False
        await passing(2 * AGAIN_S)
        r.all_is_well()
        assert journal.phrases() == ["event stream cannot be used", "event stream can be used again"]


@in_virtual_time
async def test_a_foreign_entry_that_keeps_events_out_of_the_stream_is_said() -> None:
    """Once, until it is gone."""
    async with rig() as r:
        flow = await r.node()
        journal = JournalLines()
        r.stage.supervisor.service("flow", lambda: flow.run(journal))
        for foreign, said in ((1_700_000_000_000, 1), (0, 1), (1_700_000_000_000, 2)):
            r.stream.foreign = foreign
            for _ in range(2):
                r.database.made()
                flow.wake()
                await passing(1.0)
            assert journal.phrases() == ["event stream takes no events"] * said
            assert r.database.rows == r.database.expected()


@in_virtual_time
async def test_an_event_that_cannot_be_read_holds_up_the_projection_alone() -> None:
    """It is said once, the lag shows it, later events still leave; once it is mended everything follows."""
    async with rig() as r:
        meters = FlowTallies()
        flow = await r.node(meters=meters)
        journal = JournalLines()
        r.database.made()
        (whole,) = r.database.log
        r.database.log[0] = msgspec.structs.replace(whole, data=msgspec.Raw(b'{"id":1,"fecha_caducidad":"infinity"}'))
        r.stage.supervisor.service("flow", lambda: flow.run(journal))
        await passing(60.0)
        r.database.made()
        await passing(2 * LAG_EVERY * IDLE_S)
        assert (r.database.sent_upto, r.database.applied, value(meters.inventory_lag_events)) == (2, 0, 2)
        assert journal.phrases() == ["projection stands still"]

        r.database.log[0] = whole  # not in the stream
        await passing(1.0)
        assert r.database.rows == r.database.expected()
        assert journal.phrases() == ["projection stands still"]


@in_virtual_time
async def test_a_node_that_moves_nothing_knows_whether_the_database_is_there() -> None:
    """Without a word for each time that it looks."""
    async with rig() as r:
        flow = await r.node(OwnedDouble(may=False))
        journal = JournalLines()
        r.stage.supervisor.service("flow", lambda: flow.run(journal))
        await passing(1.0)
        r.database.away = True
        await passing(2.0)
        for _ in range(100):
            assert r.homes[0].why_away
            await passing(0.1)
        r.database.away = False
        await passing(2.0)
        assert r.homes[0].why_away == ""
        assert journal.phrases() == ["inventory stands still", "inventory flows again"]


@in_virtual_time
async def test_a_command_wakes_the_flow() -> None:
    """Nothing has to wait for the next look."""
    async with rig() as r:
        flow = await r.node()
        r.stage.supervisor.service("flow", lambda: flow.run(r.stage.journal))
        await passing(IDLE_S * 1.5)
        r.database.made()
        flow.wake()
        await passing(IDLE_S / 10)
        r.all_is_well()


@in_virtual_time
async def test_the_lag_is_measured() -> None:
    """By every node, also one that moves nothing."""
    async with rig() as r:
        meters = FlowTallies()
        flow = await r.node(OwnedDouble(may=False), meters)
        r.stage.supervisor.service("flow", lambda: flow.run(r.stage.journal))
        r.database.made(3)
        await passing(2 * LAG_EVERY * IDLE_S)
        assert value(meters.inventory_lag_events) == 3
        assert value(meters.inventory_lag_seconds) == 3.0


def test_the_message_is_what_the_contract_says() -> None:
    """The event's data as they are, its id, its type and when it was written; its number is the stream's."""
    data = msgspec.Raw(msgspec.json.encode(InventarioCreado(id=1, cliente="Ñandú", fecha_caducidad=None)))
    event = Event(seq=7, event_id="evt_1", type="InventarioCreado", data=data, at="2026-01-01T00:00:00.000000Z")
    assert msgspec.json.decode(message_of(event)) == {
        "event_id": "evt_1",
        "type": "InventarioCreado",
        "data": {"id": 1, "cliente": "Ñandú", "fecha_caducidad": None},
        "at": "2026-01-01T00:00:00.000000Z",
    }
