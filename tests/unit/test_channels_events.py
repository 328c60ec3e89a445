"""The router's own channels among the others: who wakes them, who is kept awake; and what a store must still know."""

from __future__ import annotations

import pytest

from actors.channel_ports import Position
from actors.channels import RETRY_S
from actors.events import MARGIN_S, REFRESH_S
from actors.ports import Overloaded
from actors.publishing import RECENT_S
from tests.support.channel_doubles import LINES, channel, publications
from tests.support.channel_rig import AWAKE_S
from tests.support.channel_rig import ChannelRig as Rig
from tests.support.doubles import value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

LATE_S = 0.05


async def _is_kept_awake(rig: Rig) -> bool:
    """Whether the node goes on to pay for a channel."""
    before = len(rig.store.wakings)
    rig.supervisor.service("events", rig.channels.events.run)
    await passing(3 * REFRESH_S)
    return len(rig.store.wakings) > before


@in_virtual_time
async def test_who_joins_wakes_the_channel_first() -> None:
    """What is told from the position on that it was told is there; others are woken by nobody."""
    async with Rig() as rig:
        guest = rig.attend("$tasks", "news")
        rig.channels.listening(["$tasks", "news"])
        await passing(LATE_S)
        assert guest.told == ["admit"]
        assert [names for names, _ in rig.store.wakings] == [("$tasks",)]
        rig.channels.events.tell("$tasks", "started", {"id": "t1"})
        await passing(LATE_S)
        [message] = rig.store.publishes
        assert (message.channel.name, message.data) == ("$tasks", b'{"type":"started","id":"t1"}')


@in_virtual_time
async def test_a_channel_is_kept_awake_until_the_last_has_left() -> None:
    """Then it falls asleep by itself."""
    async with Rig() as rig:
        guests = [await rig.joined("$tasks"), await rig.joined("$tasks")]
        rig.channels.leave(guests[0], LINES, ["$tasks"])
        assert await _is_kept_awake(rig)
        rig.channels.leave(guests[1], LINES, ["$tasks"])
        asked = len(rig.store.wakings)
        await passing(AWAKE_S + MARGIN_S + LATE_S)
        assert len(rig.store.wakings) == asked
        assert not rig.channels.events.wanted("$tasks")


@in_virtual_time
async def test_who_leaves_at_once_keeps_nothing_awake() -> None:
    """The store had not been asked yet."""
    async with Rig() as rig:
        guest = await rig.joined("$tasks")
        rig.channels.listening(["$tasks"])
        rig.channels.leave(guest, LINES, ["$tasks"])
        await passing(LATE_S)
        assert rig.channels.idle
        assert not await _is_kept_awake(rig)


@in_virtual_time
async def test_who_leaves_while_the_store_is_away_keeps_nothing_awake() -> None:
    """The question was to be asked again."""
    async with Rig() as rig:
        guest = await rig.joined("$tasks")
        rig.store.away = True
        rig.channels.listening(["$tasks"])
        await passing(RETRY_S / 2)
        rig.channels.leave(guest, LINES, ["$tasks"])
        rig.store.away = False
        await passing(2 * RETRY_S)
        assert rig.channels.idle
        assert not await _is_kept_awake(rig)


@in_virtual_time
async def test_a_channel_that_cannot_be_woken_is_not_followed_yet() -> None:
    """It is tried again, until the store is there."""
    async with Rig() as rig:
        rig.store.away = True
        guest = rig.attend("$tasks")
        rig.channels.listening(["$tasks"])
        await passing(2.5 * RETRY_S)
        assert guest.told == []
        assert rig.store.recalls == []
        rig.store.away = False
        await passing(RETRY_S)
        assert guest.told == ["admit"]


@in_virtual_time
async def test_a_node_without_room_for_a_job_wakes_a_channel_later() -> None:
    """The listener waits, as long as there is time."""
    async with Rig() as rig:
        guest = rig.attend("$tasks")
        spawn = rig.supervisor.spawn

        def full(_name: str, job: object) -> object:
            job.close()  # type: ignore[attr-defined]  # a coroutine
            raise Overloaded("full")

        rig.supervisor.spawn = full  # type: ignore[method-assign, assignment]  # for a while
        rig.channels.listening(["$tasks"])
        rig.supervisor.spawn = spawn  # type: ignore[method-assign]  # as it was
        await passing(RETRY_S + LATE_S)
        assert guest.told == ["admit"]


@in_virtual_time
async def test_nobody_but_the_router_tells_events() -> None:
    """What another Redis client publishes there is no message of the channel."""
    async with Rig() as rig:
        await rig.joined("$tasks")
        rig.channels.marked("$tasks", "k1")
        rig.channels.foreign("$tasks", b"1")
        await passing(LATE_S)
        assert rig.store.ingests == []
        assert value(rig.tallies.channel_foreign) == 0


@in_virtual_time
async def test_what_the_ear_hears_of_events_is_passed_on() -> None:
    """Woken elsewhere: told from here as well. Missed: looked up."""
    async with Rig() as rig:
        rig.channels.woken("$nodes")
        assert rig.channels.events.wanted("$nodes")
        rig.store.awake_now = {"$tasks"}
        rig.channels.opened()
        await rig.channels.events.run_once()
        assert rig.channels.events.wanted("$tasks")


@in_virtual_time
async def test_a_store_that_comes_back_is_asked_for_all_that_was_heard_or_published_lately() -> None:
    """By anybody here: also of channels that nobody listens to any more; for RECENT_S."""
    async with Rig() as rig:
        await rig.joined("heard")
        left = await rig.joined("left")
        await rig.joined("silent")
        rig.publish("heard", 2)
        rig.publish("left", 1)
        rig.channels.leave(left, LINES, ["left"])
        await rig.channels.publish("said", b"1", "request")
        asked = {each.channel.name: (each.since, each.limit, bool(each.mark)) for each in rig.channels.unverified()}
        assert asked == {
            "heard": (Position("e1", 2), 1, True),
            "left": (Position("e1", 1), 1, True),
            "said": (Position("e1", 1), 1, True),
        }
        await passing(RECENT_S + LATE_S)
        assert [(each.channel.name, each.last_id) for each in rig.channels.unverified()] == [("heard", "m2")]


@pytest.mark.parametrize("published_first", [False, True])
@in_virtual_time
async def test_a_store_is_asked_for_the_newest_that_is_known(*, published_first: bool) -> None:
    """Of what was published here and what was heard here, whichever is further; another epoch counts as newer."""
    async with Rig() as rig:
        await rig.joined("news")
        if published_first:
            await rig.channels.publish("news", b"1")
            rig.channels.arrived("news", "e1", rig.store.stream("news").kept[-1])
            rig.publish(times=2)
            newest = Position("e1", 3)
        else:
            rig.publish(times=2)
            await rig.channels.publish("news", b"1")
            newest = Position("e1", 3)
        assert [each.since for each in rig.channels.unverified()] == [newest]
        rig.store.stream().epoch = "e2"
        rig.store.stream().top = 0
        rig.store.stream().kept.clear()
        rig.channels.arrived("news", "e2", publications(1, 1)[0])
        await passing(LATE_S)
        rig.publish()
        assert [each.since for each in rig.channels.unverified()] == [Position("e2", 1)]


@in_virtual_time
async def test_draining_waits_for_what_is_published() -> None:
    """Whoever publishes has its answer before the node ends."""
    async with Rig() as rig:
        rig.store.took_s = 0.5
        rig.channels.publishing.publish_unheeded(channel(), b"1")
        await ticks()
        began = rig.clock.monotonic()
        await rig.channels.drained()
        assert rig.clock.monotonic() - began >= 0.5 - LATE_S
        assert len(rig.store.publishes) == 1
