"""Attendance rig: attendance in virtual time, with topics that follow what a test publishes."""

from __future__ import annotations

from collections.abc import Mapping

from actors.attendance import Attendance, Order
from actors.channel_ports import Format, Position, Recall, Recalled
from actors.core.stream import Answered, Arrived, Listening
from actors.fanout import Fanout, Outlet
from actors.foreign import Foreign
from actors.topic import Topic, outlet_key
from tests.support.channel_doubles import LINES, GuestDouble, StoreDouble, channel
from tests.support.doubles import Stage, Tally


class AttendanceRig(Stage):
    """`over` are the orders that ended."""

    def __init__(self, jobs_max: int = 4096) -> None:
        super().__init__(jobs_max)
        self.store = StoreDouble()
        self.topics: dict[str, Topic] = {}
        self.over: list[Order] = []
        self.read_s: list[float] = []
        """When the store was asked."""
        self._fanout = Fanout(Tally())
        self.attendance = Attendance(self._recall, self._admitted, self.over.append, self.supervisor, self.clock)

    async def _recall(self, recall: Recall) -> Recalled:
        self.read_s.append(self.clock.monotonic())
        [answer] = await self.store.recall([recall])
        assert isinstance(answer, Recalled)
        return answer

    def _admitted(self, order: Order) -> None:
        key = outlet_key(order.form, order.names)
        outlet = order.topics[0].outlets.get(key) or Outlet(self._fanout, order.form, key[1])
        for topic in order.topics:
            topic.outlets[key] = outlet
        outlet.add(order.guest)

    def topic(self, name: str = "news", *, live: bool = True, published: int = 0) -> Topic:
        """A topic; while it is live it stands where the store stands."""
        of = channel(name)
        foreign = Foreign(of, str, lambda _ingest: None)
        topic = Topic(of, foreign, lambda _topic, _ask: None, lambda _names: (), lambda: None)
        self.topics[name] = topic
        self.store.stream(name).add(published)
        if live:
            self.follow(name)
        return topic

    def follow(self, name: str = "news") -> None:
        """The topic listens, and its question is answered."""
        topic = self.topics[name]
        topic.tell(Listening())
        self.store.stream(name)
        since = topic.stream.at
        recall = Recall(channel=topic.channel, since=since, limit=1 << 20, bytes_max=1 << 30)
        topic.tell(Answered(topic.stream.asked, self.store.recalled(recall)))

    def publish(self, name: str = "news", count: int = 1, data: bytes = b"1", *, heard: bool = True) -> None:
        """Messages are in the store; the node hears them."""
        stream = self.store.stream(name)
        for publication in stream.add(count, data):
            if heard:
                self.topics[name].tell(Arrived(stream.epoch, publication))

    def attend(
        self, wanted: Mapping[str, Position | None], form: Format = LINES, guest: GuestDouble | None = None
    ) -> GuestDouble:
        """Somebody wants to join."""
        guest = guest or GuestDouble()
        self.attendance.attend(guest, form, wanted, [self.topics[name] for name in wanted])
        return guest

    def is_over(self) -> bool:
        """Nothing of any order is left."""
        pending = self.attendance._pending or self.attendance._orders or self.attendance._serving
        return not pending and all(topic.holds == 0 for topic in self.topics.values())


def at(offset: int, epoch: str = "e1") -> Position:
    """A place."""
    return Position(epoch, offset)
