"""Channels: the supervisor of all channels of a node: who listens here, what is published, what the ear hears.

Owns a topic for each channel that somebody listens to, and the outlets they share. Decides nothing about HTTP, frames
or Redis. Invariant: a channel is listened to while somebody here needs it, once however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from msgspec import Struct

from actors.attendance import Attendance, Order
from actors.audience import Audience
from actors.channel_ports import (
    ChannelMeters,
    ChannelName,
    ChannelStore,
    Ear,
    Format,
    Guest,
    Ingest,
    Places,
    Position,
    Publication,
    Published,
    Recall,
    Recalled,
    Sent,
)
from actors.committer import Committer
from actors.core.channel_names import is_event_channel
from actors.core.partition import locate
from actors.core.stream import Answered, Ask, Deaf, Listening, Unanswered
from actors.events import Events
from actors.fanout import Fanout, Outlet
from actors.foreign import Foreign
from actors.ports import Overloaded, StoreAway
from actors.publishing import OVERHEAD_BYTES, Publishing
from actors.runtime.clock import Clock
from actors.runtime.outcome import Tell, told
from actors.runtime.supervisor import Supervisor
from actors.topic import Topic, outlet_key

ASKED = (500, 256 * 1024)
"""How many messages and bytes one answer brings."""
NAMES_KEPT = 4096
"""Of so many channels it is remembered where their streams are."""
HISTORY_BYTES = 512 * 1024
"""What one page of a history holds, at the most but for its last message."""
RETRY_S = 0.2
"""Until a question that had no answer is asked again."""


class ChannelTools(Struct, frozen=True):
    """What the channels of a node work with. `new_id` makes ids of messages, `new_mark` marks that no node makes again;
    `awake_s` is for how long a channel of the router's own is kept for who may come back."""

    supervisor: Supervisor
    clock: Clock
    meters: ChannelMeters
    new_id: Callable[[], str]
    new_mark: Callable[[], str]
    awake_s: float


class Channels:
    """The channels of one node; implements `ChannelService` for the edge and `Hears` for the ear."""

    def __init__(self, store: ChannelStore, ear: Ear, tools: ChannelTools) -> None:
        self._store = store
        self._ear = ear
        self._clock = tools.clock
        self._supervisor = tools.supervisor
        self._meters = tools.meters
        self._new_id = tools.new_id
        self._topics: dict[str, Topic] = {}
        self._people = 0
        self._fanout = Fanout(tools.meters.channel_deliveries)
        self.audience = Audience(store, tools.clock)
        self.publishing = Publishing(store, tools.supervisor, tools.clock, tools.meters, tools.new_id, tools.new_mark)
        self.events = Events(
            store, self.publishing.publish_unheeded, tools.awake_s, tools.clock, tools.meters.channel_events_dropped
        )
        self.events.publish_once = self.publishing.publish
        commits = tools.meters.channel_commits
        self._reads: Committer[Recall, Recalled] = Committer(
            "channel reads", store.recall, tools.supervisor, tools.clock, commits
        )
        self._ingests: Committer[Ingest, bool] = Committer(
            "channel ingests", store.ingest, tools.supervisor, tools.clock, commits
        )
        self._attendance = Attendance(self._recall, self._admit, self._over, tools.supervisor, tools.clock)

    # What the edge asks.

    def attend(self, guest: Guest, form: Format, wanted: Mapping[str, Position | None]) -> None:
        """Join channels, all in one seat."""
        self._attendance.attend(guest, form, wanted, [self._topic(name) for name in wanted])

    def leave(self, guest: Guest, form: Format, names: Sequence[str]) -> None:
        """Give a seat up, or the wish for one."""
        if self._attendance.give_up(guest, tuple(names)):
            return
        key = outlet_key(form, names)
        topics = [self._topics[name] for name in names if name in self._topics]
        outlet = topics[0].outlets.get(key) if topics else None
        if outlet is None or guest not in outlet:
            return
        outlet.remove(guest)
        for topic in topics:
            if not len(outlet):
                del topic.outlets[key]
            self._count(topic, -1)
            self._let_go(topic)

    def submit(self, name: str, data: bytes, once: str | None, tell: Tell[Sent]) -> None:
        """Publish JSON; `tell` is called later, once. Raises Overloaded."""

        def answer(published: Published | Exception) -> None:
            if isinstance(published, Exception):
                tell(published)
                return
            topic = self._topics.get(name)
            here = 0 if topic is None else topic.people
            people = here + published.elsewhere + published.foreign
            tell(Sent(message_id, published.position, people, published.again))

        message_id = self.publishing.submit(channel_of(name), data, once, answer)

    async def publish(self, name: str, data: bytes, once: str | None = None) -> Sent:
        """The same, to be awaited. Raises StoreAway, Overloaded."""
        return await told(partial(self.submit, name, data, once))

    async def history(self, name: str, since: Position | None, limit: int) -> Recalled:
        """What a channel still has after a position (None: from the start). Raises StoreAway, Overloaded."""
        start = Position("", 0) if since is None else since
        return await self._recall(Recall(channel=channel_of(name), since=start, limit=limit, bytes_max=HISTORY_BYTES))

    async def subscribers(self, names: Sequence[str]) -> Sequence[int]:
        """How many people and other Redis clients listen. Raises StoreAway."""
        elsewhere = await self._store.audiences([channel_of(name) for name in names])
        topics = [self._topics.get(name) for name in names]
        return [
            found.elsewhere + found.foreign + (0 if topic is None else topic.people)
            for topic, found in zip(topics, elsewhere, strict=True)
        ]

    async def active(self, pattern: str) -> Sequence[str]:
        """The names of channels that may have subscribers, sorted. Raises StoreAway."""
        return sorted(await self._store.active(pattern))

    @property
    def idle(self) -> bool:
        """Whether nobody listens here."""
        return not self._topics

    async def drained(self) -> None:
        """Wait until every message has its answer."""
        await self.publishing.drained()

    # What the ear hears.

    def listening(self, names: Sequence[str]) -> None:
        """From now on everything is heard."""
        for name in names:
            if topic := self._topics.get(name):
                topic.foreign.unheard()  # a mark that is known now may be one of before an interruption
                topic.tell(Listening())
                topic.foreign.go_on()

    def deaf(self, names: Sequence[str]) -> None:
        """From now on something may be missed."""
        for name in names:
            if topic := self._topics.get(name):
                topic.foreign.unheard()
                topic.tell(Deaf())

    def arrived(self, name: str, epoch: str, publication: Publication) -> None:
        """A message has got an offset."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.arrived(epoch, publication)

    def marked(self, name: str, mark: str) -> None:
        """Everybody counts foreign messages from here."""
        if topic := self._topics.get(name):
            topic.foreign.marked(mark)

    def foreign(self, name: str, message: bytes) -> None:
        """Another Redis client has published something."""
        topic = self._topics.get(name)
        if topic is not None and not is_event_channel(name):
            self._meters.channel_foreign.inc()
            topic.foreign.heard(message)

    def ingested(self, name: str, mark: str, number: int) -> None:
        """A foreign message has got its offset."""
        if topic := self._topics.get(name):
            topic.foreign.has_offset(mark, number)

    def woken(self, name: str) -> None:
        """Somebody, somewhere, listens to a channel of the router's own."""
        self.events.woken(name)

    def opened(self) -> None:
        """An ear has opened."""
        self.events.opened()

    def unverified(self) -> Sequence[Recall]:
        """What must be asked of a store that came back, before anybody uses it: whether it still has what was published
        and heard here lately. It begins new epochs where it has not."""
        for topic in self._topics.values():
            self._remember(topic)
        return self.publishing.unverified()

    # Topics.

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            channel = channel_of(name)
            foreign = Foreign(channel, self._new_id, self._ingest)
            topic = Topic(channel, foreign, self._ask, self._places, self._meters.channel_lost.inc)
            self._topics[name] = topic
            self._meters.channels_listened.set(len(self._topics))
            self._ear.listen(channel)
        return topic

    def _let_go(self, topic: Topic) -> None:
        """Listen no more to what nobody needs. What is on its way to an offset gets there all the same."""
        name = topic.channel.name
        if topic.idle and self._has(topic):
            del self._topics[name]
            self._meters.channels_listened.set(len(self._topics))
            self._ear.leave(topic.channel)
            self._remember(topic)
            self.events.left(name)

    def _remember(self, topic: Topic) -> None:
        """What was heard must still be there when the store comes back, also if nobody listens any more."""
        at, known = topic.stream.at, self.publishing.stands(topic.channel.name)
        if at is None or not topic.stream.last_id:
            return
        if known is None or known.epoch != at.epoch or known.offset < at.offset:
            self.publishing.remember(topic.channel, at, topic.stream.last_id)

    def _places(self, names: Sequence[str]) -> Places:
        found = [(name, self._topics[name].stream.at) for name in names if name in self._topics]
        return [(name, at) for name, at in found if at is not None]

    def _admit(self, order: Order) -> None:
        key = outlet_key(order.form, order.names)
        outlet = order.topics[0].outlets.get(key)
        if outlet is None:
            outlet = Outlet(self._fanout, order.form, key[1])
            for topic in order.topics:
                topic.outlets[key] = outlet
        outlet.add(order.guest)
        for topic in order.topics:
            self._count(topic, +1)

    def _over(self, order: Order) -> None:
        for topic in order.topics:
            self._let_go(topic)

    def _count(self, topic: Topic, change: int) -> None:
        topic.people += change
        self._people += change
        self._meters.channel_listeners.set(self._people)
        self.audience.count(topic.channel, topic.people)

    # Questions.

    async def _recall(self, recall: Recall) -> Recalled:
        return await self._reads.ask(recall, OVERHEAD_BYTES)

    def _ask(self, topic: Topic, ask: Ask) -> None:
        answer = partial(self._answered, topic, ask.asked)
        submit = partial(self._submit, self.publishing.join(topic.channel, ask.since, ask.last_id, ASKED), answer)
        if not is_event_channel(topic.channel.name):
            submit()
            return
        try:
            self._supervisor.spawn("wake a channel", self._woken_first(topic, submit, answer))
        except Overloaded as error:
            answer(error)

    async def _woken_first(self, topic: Topic, submit: Callable[[], None], answer: Callable[[Any], None]) -> None:
        if not self._has(topic):  # it was left before this job began, and nobody would leave it again
            return
        try:
            await self.events.wake(topic.channel.name)
        except StoreAway as error:
            answer(error)
        else:
            submit()

    @staticmethod
    def _submit(join: Callable[[Callable[[Any], object]], None], answer: Callable[[Any], None]) -> None:
        try:
            join(answer)
        except Overloaded as error:
            answer(error)

    def _answered(self, topic: Topic, asked: int, outcome: Recalled | Exception) -> None:
        if not self._has(topic):
            return
        if isinstance(outcome, Recalled):
            topic.tell(Answered(asked, outcome))
            return
        # A server that is away is heard of by the ear as well; this is for one that was there and did not answer.
        self._clock.call_at(self._clock.monotonic() + RETRY_S, partial(self._unanswered, topic, asked))

    def _unanswered(self, topic: Topic, asked: int) -> None:
        if self._has(topic):
            topic.tell(Unanswered(asked))

    def _has(self, topic: Topic) -> bool:
        return self._topics.get(topic.channel.name) is topic

    def _ingest(self, ingest: Ingest) -> None:
        answer = partial(self._has_ingested, ingest)
        try:
            self._ingests.submit(ingest, sum(len(data) for _, data in ingest.messages) + OVERHEAD_BYTES, answer)
        except Overloaded as error:
            answer(error)

    def _has_ingested(self, ingest: Ingest, outcome: Any) -> None:
        topic = self._topics.get(ingest.channel.name)
        if topic is None:
            return
        topic.foreign.answered(ingest, outcome is True)
        if outcome is not True:
            self._clock.call_at(self._clock.monotonic() + RETRY_S, topic.foreign.go_on)


@lru_cache(maxsize=NAMES_KEPT)
def channel_of(name: str) -> ChannelName:
    """A channel by its name."""
    return ChannelName(name, *locate(name))
