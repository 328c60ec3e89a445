"""Channel meters: meters of the channels that can be read."""

from __future__ import annotations

from actors.ports import CommitMeters, Counter, Gauge
from tests.support.doubles import Tally, TallyMeters


class ChannelTallies:
    """`value(tallies.channel_lost)`."""

    def __init__(self) -> None:
        self.channel_commits: CommitMeters = TallyMeters()
        self.channel_publications: Counter = Tally()
        self.channel_foreign: Counter = Tally()
        self.channel_deliveries: Counter = Tally()
        self.channel_lost: Counter = Tally()
        self.channel_events_dropped: Counter = Tally()
        self.channel_slow: Counter = Tally()
        self.channels_listened: Gauge = Tally()
        self.channel_listeners: Gauge = Tally()
