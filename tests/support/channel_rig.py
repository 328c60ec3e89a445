"""Channel rig: the channels of a node in virtual time, whose ear hears what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from actors.channel_ports import Format, Position
from actors.channels import Channels, ChannelTools
from tests.support.channel_doubles import LINES, EarDouble, GuestDouble, StoreDouble
from tests.support.channel_meters import ChannelTallies
from tests.support.doubles import Stage, value
from tests.support.until import passing

AWAKE_S = 60.0
ANSWERED_S = 0.05
"""By then every question has its answer."""


class ChannelRig(Stage):
    """The ear listens when a test says so; ids are p1, p2 …, marks k1, k2 …"""

    def __init__(self) -> None:
        super().__init__()
        self.store = StoreDouble()
        self.ear = EarDouble()
        self.tallies = ChannelTallies()
        ids, marks = count(1), count(1)
        tools = ChannelTools(
            self.supervisor,
            self.clock,
            self.tallies,
            lambda: f"p{next(ids)}",
            lambda: f"k{next(marks)}",
            AWAKE_S,
        )
        self.channels = Channels(self.store, self.ear, tools)

    def attend(self, *names: str, form: Format = LINES, since: Mapping[str, Position] | None = None) -> GuestDouble:
        """Somebody wants to join."""
        guest = GuestDouble()
        self.channels.attend(guest, form, {name: (since or {}).get(name) for name in names})
        return guest

    async def joined(self, *names: str, form: Format = LINES) -> GuestDouble:
        """Somebody joins: the ear listens, and the store answers."""
        guest = self.attend(*names, form=form)
        await self.listen(*names)
        assert guest.told == ["admit"]
        return guest

    async def listen(self, *names: str) -> None:
        """The ear listens; the questions have their answers."""
        self.channels.listening([name for name in names if not self.follows(name)])
        await passing(ANSWERED_S)

    def follows(self, name: str) -> bool:
        """Whether the node follows a channel."""
        topic = self.channels._topics.get(name)
        return topic is not None and topic.live

    def publish(self, name: str = "news", times: int = 1) -> None:
        """Somebody elsewhere publishes, and the ear hears it."""
        stream = self.store.stream(name)
        for publication in stream.add(times):
            self.channels.arrived(name, stream.epoch, publication)

    def people(self) -> tuple[float, float]:
        """Channels that are listened to, and listeners."""
        return value(self.tallies.channels_listened), value(self.tallies.channel_listeners)
