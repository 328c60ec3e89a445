"""What the router tells of itself: to nobody while nobody listens, and to whoever comes back in time."""

from __future__ import annotations

import msgspec
import pytest

from actors.channel_ports import ChannelName
from actors.events import EVENT_CHANNELS, MARGIN_S, REFRESH_S, Events
from actors.ports import Overloaded, StoreAway
from tests.support.channel_doubles import StoreDouble
from tests.support.doubles import Stage, Tally
from tests.support.until import passing
from tests.support.virtual_time import WALL_AT_START_S, in_virtual_time

AWAKE_S = 60.0
LATE_S = 0.1
PAUSE_S = 1.0
"""After a store that was away."""


class Rig(Stage):
    """Events on a stage; `told` is what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.store = StoreDouble()
        self.dropped = Tally()
        self.told: list[tuple[str, dict[str, object]]] = []
        self.full = False
        self.events = Events(self.store, self._publish, AWAKE_S, self.clock, self.dropped)

    def _publish(self, channel: ChannelName, data: bytes) -> None:
        if self.full:
            raise Overloaded("full")
        self.told.append((channel.name, msgspec.json.decode(data)))

    def awake(self) -> list[str]:
        """The channels that are told something."""
        return [name for name in EVENT_CHANNELS if self.events.wanted(name)]


@in_virtual_time
async def test_nobody_pays_while_nobody_listens() -> None:
    """Nothing is made into JSON, published, or asked of the store, ever."""
    async with Rig() as rig:
        rig.events.stamp = lambda _wall: pytest.fail("an event was made")
        rig.supervisor.service("events", rig.events.run)
        rig.events.tell("$buffers", "closed", {"cannot be JSON": object()})
        await passing(10 * REFRESH_S)
        assert rig.awake() == []
        assert rig.told == []
        assert (rig.store.wakings, rig.store.looks) == ([], 0)


@in_virtual_time
async def test_an_event_is_json_with_its_type_and_stamp() -> None:
    """The fields of the event itself win; only on its own channel."""
    async with Rig() as rig:
        rig.events.stamp = lambda wall: {"at": wall, "node": "n1"}
        rig.events.woken("$tasks")
        rig.events.tell("$tasks", "started", {"id": "t1", "node": "n2"})
        rig.events.tell("$buffers", "closed", {"key": "k"})
        assert rig.told == [("$tasks", {"type": "started", "at": WALL_AT_START_S, "node": "n2", "id": "t1"})]


@in_virtual_time
async def test_the_store_is_asked_who_hears_when_nobody_is_known() -> None:
    """Once there is somebody it is known for as long as that holds."""
    async with Rig() as rig:
        assert not await rig.events.heard("$inventory")
        assert rig.store.looks == 1
        rig.store.awake_now = {"$inventory"}
        for _ in range(3):
            assert await rig.events.heard("$inventory")
        assert rig.store.looks == 2
        assert rig.awake() == ["$inventory"]


@in_virtual_time
async def test_what_is_told_once_is_waited_for() -> None:
    """Under its name, in the shape of all others; what the channel raises is the teller's affair."""
    async with Rig() as rig:
        told: list[tuple[str, object, str]] = []

        async def publish(channel: ChannelName, data: bytes, once: str) -> None:
            told.append((channel.name, msgspec.json.decode(data), once))
            raise StoreAway("gone")

        rig.events.stamp = lambda wall: {"at": wall}
        rig.events.publish_once = publish
        with pytest.raises(StoreAway):
            await rig.events.tell_once("$inventory", "made", {"id": 1}, "inventory:evt_1")
        assert told == [("$inventory", {"type": "made", "at": WALL_AT_START_S, "id": 1}, "inventory:evt_1")]


@in_virtual_time
async def test_a_channel_is_awake_a_little_longer_than_the_store_says() -> None:
    """Each time that it is heard anew; other names are nobody's."""
    async with Rig() as rig:
        rig.events.woken("$nodes")
        rig.events.woken("$unknown")
        await passing(AWAKE_S + MARGIN_S - LATE_S)
        assert rig.awake() == ["$nodes"]
        rig.events.woken("$nodes")
        await passing(AWAKE_S + MARGIN_S - LATE_S)
        assert rig.awake() == ["$nodes"]
        await passing(LATE_S)
        assert rig.awake() == []


@in_virtual_time
async def test_too_many_at_once_are_dropped_and_counted() -> None:
    """Whoever tells is not held up, and hears of nothing."""
    async with Rig() as rig:
        rig.events.woken("$buffers")
        rig.full = True
        rig.events.tell("$buffers", "closed", {})
        rig.events.tell("$buffers", "closed", {})
        rig.full = False
        rig.events.tell("$buffers", "opened", {})
        assert rig.dropped.value == 2
        assert rig.told == [("$buffers", {"type": "opened"})]


@in_virtual_time
async def test_who_is_about_to_listen_wakes_the_channel() -> None:
    """In the store, for all nodes, before it is awake here; a plain channel is never woken."""
    async with Rig() as rig:
        await rig.events.wake("news")
        assert rig.store.wakings == []
        rig.store.away = True
        with pytest.raises(StoreAway):
            await rig.events.wake("$buffers")
        assert rig.awake() == []
        rig.store.away = False
        await rig.events.wake("$buffers")
        assert rig.store.wakings == [(("$buffers",), round(AWAKE_S * 1000))]
        assert rig.awake() == ["$buffers"]


@in_virtual_time
async def test_what_is_listened_to_is_kept_awake_until_it_is_left() -> None:
    """Every REFRESH_S; afterwards it falls asleep by itself."""
    async with Rig() as rig:
        rig.supervisor.service("events", rig.events.run)
        await rig.events.wake("$buffers")
        await rig.events.wake("$nodes")
        await passing(REFRESH_S + LATE_S)
        assert rig.store.wakings[2:] == [(("$buffers", "$nodes"), round(AWAKE_S * 1000))]
        await passing(10 * AWAKE_S)
        assert rig.awake() == ["$buffers", "$nodes"]
        rig.events.left("$buffers")
        rig.events.left("$nodes")
        rig.events.left("news")
        asked = len(rig.store.wakings)
        await passing(AWAKE_S + MARGIN_S + LATE_S)
        assert len(rig.store.wakings) == asked
        assert rig.awake() == []


@in_virtual_time
async def test_what_an_ear_missed_is_looked_up_once() -> None:
    """As soon as it has opened, not again and again."""
    async with Rig() as rig:
        rig.supervisor.service("events", rig.events.run)
        await passing(LATE_S)
        rig.store.awake_now = {"$tasks"}
        rig.events.opened()
        rig.events.opened()
        await passing(LATE_S)
        assert rig.awake() == ["$tasks"]
        await passing(5 * REFRESH_S)
        assert rig.store.looks == 1
        assert rig.store.wakings == [], "nobody listens here"


@in_virtual_time
async def test_what_an_ear_missed_is_looked_up_when_the_store_is_there_again() -> None:
    """A look that failed has seen nothing."""
    async with Rig() as rig:
        rig.supervisor.service("events", rig.events.run)
        rig.store.awake_now = {"$tasks"}
        rig.store.away = True
        rig.events.opened()
        await passing(3 * PAUSE_S)
        assert rig.awake() == []
        assert 1 <= rig.store.looks <= 4
        rig.store.away = False
        await passing(PAUSE_S + LATE_S)
        assert rig.awake() == ["$tasks"]
        assert rig.crashes == []


@in_virtual_time
async def test_a_round_says_how_many_are_awake() -> None:
    """Those that are listened to here, and those that somebody else listens to."""
    async with Rig() as rig:
        await rig.events.wake("$buffers")
        rig.store.awake_now = {"$tasks", "$nodes"}
        assert await rig.events.run_once() == 1
        rig.events.opened()
        assert await rig.events.run_once() == 3
