"""Memory channels: the channels' store in virtual time, as a server on a wire: in order, late or never.

A `ChannelServer` keeps streams and tells its ears, all of them in one order; a `ChannelWire` is one node's way to it,
with a lane and an ear that are slow by random amounts and can each be cut. Everything goes by the loop's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

from actors.channel_ports import (
    Audience,
    ChannelName,
    Hears,
    Ingest,
    Publication,
    Publish,
    Published,
    Recall,
    Recalled,
    Report,
)
from actors.core.stream import Position
from actors.ports import StoreAway
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock

T = TypeVar("T")
Told = Callable[[Hears], None]
TIE_S = 1e-5
"""Between two things that must come in order: a loop does not keep the order of what is due at the same time."""


class Stream:
    """One channel at the server."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.top = 0
        self.last_id = ""
        self.kept: list[Publication] = []

    def add(self, message_id: str, data: bytes, size: int) -> Publication:
        """One more message."""
        self.top += 1
        self.last_id = message_id
        publication = Publication(self.top, message_id, data)
        self.kept = [*self.kept, publication][-size:]
        return publication

    def copy(self) -> Stream:
        """As it is now."""
        copied = Stream(self.epoch)
        copied.top, copied.last_id = self.top, self.last_id
        copied.kept = list(self.kept)
        return copied


class ChannelServer:
    """What all nodes share. `size` messages of each channel are kept."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size
        self.streams: dict[str, Stream] = {}
        self.ingested: dict[str, int] = {}
        """By mark: how many foreign messages after it have offsets."""
        self.wires: list[ChannelWire] = []
        self.before: dict[str, str] = {}
        """By the id of each message that ever got an offset: that of the one before it in its stream, "" for none."""
        self._contents: list[bytes] = []
        self._epochs = 0

    def stream(self, name: str) -> Stream:
        """A channel's stream, begun if there is none."""
        if name not in self.streams:
            self._epochs += 1
            self.streams[name] = Stream(f"e{self._epochs:04}")
        return self.streams[name]

    def publish(self, name: str, message_id: str, data: bytes) -> Position:
        """One message of a node's."""
        publication = self._add(name, message_id, data)
        epoch = self.stream(name).epoch
        self._tell(name, lambda hears: hears.arrived(name, epoch, publication))
        return Position(epoch, publication.offset)

    def say(self, name: str, message: bytes) -> None:
        """One message of another Redis client."""
        self._tell(name, lambda hears: hears.foreign(name, message))

    def ingest(self, ingest: Ingest) -> None:
        """As the script does it."""
        name = ingest.channel.name
        for number, (message_id, data) in enumerate(ingest.messages, ingest.number):
            if number > self.ingested.get(ingest.mark, 0):
                self.ingested[ingest.mark] = number
                self._announce(name, ingest.mark, number, self._add(name, message_id, data))

    def recall(self, recall: Recall) -> Recalled:
        """As the script does it."""
        name, since = recall.channel.name, recall.since
        if recall.mark:
            stream = self.stream(name)
            if since is not None and recall.last_id and self._rolled_back(stream, since, recall.last_id):
                self.forget(name)
            self.stream(name)
            self._tell(name, lambda hears: hears.marked(name, recall.mark))
        found = self.streams.get(name)
        if found is None:
            return Recalled(Position("", 0), (), False)
        top = Position(found.epoch, found.top)
        top_id = found.kept[-1].id if found.kept and recall.mark else ""
        if since is None or since.epoch not in ("", found.epoch):
            return Recalled(top, (), False, top_id)
        after = [each for each in found.kept if each.offset > since.offset]
        return Recalled(top, tuple(after[: recall.limit]), len(after) > recall.limit, top_id)

    def forget(self, name: str) -> None:
        """The stream is gone."""
        self.streams.pop(name, None)

    def contents(self) -> list[bytes]:
        """What was said in all streams, also what is kept no more."""
        return list(self._contents)

    def saved(self) -> dict[str, Stream]:
        """What a restart may come back to."""
        return {name: stream.copy() for name, stream in self.streams.items()}

    def _add(self, name: str, message_id: str, data: bytes) -> Publication:
        stream = self.stream(name)
        self.before[message_id] = stream.last_id
        self._contents.append(data)
        return stream.add(message_id, data, self.size)

    def _announce(self, name: str, mark: str, number: int, publication: Publication) -> None:
        epoch = self.stream(name).epoch

        def tell(hears: Hears) -> None:
            hears.ingested(name, mark, number)
            hears.arrived(name, epoch, publication)

        self._tell(name, tell)

    def _tell(self, name: str, told: Told) -> None:
        for wire in self.wires:
            wire.hear(name, told)

    @staticmethod
    def _rolled_back(stream: Stream, since: Position, last_id: str) -> bool:
        if since.epoch != stream.epoch:
            return since.epoch > stream.epoch
        there = [each for each in stream.kept if each.offset == since.offset]
        return stream.top < since.offset or any(each.id != last_id for each in there)


class ChannelWire:
    """One node's way to the server: a `ChannelStore` and an `Ear`. Delays are drawn anew each time."""

    def __init__(self, server: ChannelServer, random: Random, *, lane_s: float = 0.0, ear_s: float = 0.0) -> None:
        self.server = server
        self.hears: Hears
        self.away = False
        self.outcome_lost = False
        self._random = random
        self._lane_s = lane_s
        self._ear_s = ear_s
        self._clock = VirtualClock()
        self._lane_free_at = 0.0
        self._ear_free_at = 0.0
        self._ear_number = 0
        self._open = True
        self._wanted: dict[str, None] = {}
        self._subscribed: set[str] = set()
        server.wires.append(self)

    async def publish(self, messages: Sequence[Publish]) -> Sequence[Published | StoreAway]:
        """In the lane's order."""

        def do() -> list[Published | StoreAway]:
            return [
                Published(self.server.publish(each.channel.name, each.id, each.data), 0, 0, False) for each in messages
            ]

        return await self._in_order(do)

    async def ingest(self, batches: Sequence[Ingest]) -> Sequence[bool | StoreAway]:
        """In the lane's order."""

        def do() -> list[bool | StoreAway]:
            for each in batches:
                self.server.ingest(each)
            return [True] * len(batches)

        return await self._in_order(do)

    async def recall(self, recalls: Sequence[Recall]) -> Sequence[Recalled | StoreAway]:
        """In the lane's order."""
        return await self._in_order(lambda: [self.server.recall(each) for each in recalls])

    async def report(self, reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
        """Believed."""
        return [True] * len(reports)

    async def audiences(self, channels: Sequence[ChannelName]) -> Sequence[Audience]:
        """Nobody."""
        return [Audience(0, 0)] * len(channels)

    async def active(self, pattern: str) -> Sequence[str]:
        """Whatever is listened to, whatever the pattern."""
        return list(self._subscribed)

    async def awake(self, channels: Sequence[ChannelName], kept_ms: int) -> None:
        """Nothing falls asleep here."""

    async def are_awake(self, channels: Sequence[ChannelName]) -> Sequence[bool]:
        """Nothing falls asleep here."""
        return [True] * len(channels)

    def listen(self, channel: ChannelName) -> None:
        """Subscribe, after a while."""
        self._wanted[channel.name] = None
        if self._open:
            self._later(self._subscribe, (channel.name,), self._ear_number)

    def leave(self, channel: ChannelName) -> None:
        """At once."""
        self._wanted.pop(channel.name, None)
        self._subscribed.discard(channel.name)

    def cut(self) -> None:
        """The ear's connection breaks: what was on its way is lost."""
        if self._open:
            self._open = False
            self._ear_number += 1
            self._subscribed.clear()
            self.hears.deaf(list(self._wanted))

    def mend(self) -> None:
        """It is there again."""
        if not self._open:
            self._open = True
            self.hears.opened()
            self._later(self._subscribe, tuple(self._wanted), self._ear_number)

    def hear(self, name: str, told: Told) -> None:
        """The server says something on a channel."""
        if name in self._subscribed:
            self._later(self._hear, told, self._ear_number)

    def _subscribe(self, names: Sequence[str], number: int) -> None:
        wanted = [name for name in names if name in self._wanted]
        if number == self._ear_number and wanted:
            self._subscribed.update(wanted)
            self._later(self._hear, lambda hears: hears.listening(wanted), number)

    def _hear(self, told: Told, number: int) -> None:
        if number == self._ear_number:
            told(self.hears)

    def _later(self, act: Callable[..., None], *arguments: object) -> None:
        """The ear carries everything in order."""
        now = self._clock.monotonic()
        self._ear_free_at = max(self._ear_free_at + TIE_S, now + self._random.uniform(0, self._ear_s))
        asyncio.get_running_loop().call_at(self._ear_free_at, act, *arguments)

    async def _in_order(self, act: Callable[[], T]) -> T:
        """Act at the server after a while, answer after another; both in the order of the questions."""
        if self.away:
            raise StoreAway("away")
        now = self._clock.monotonic()
        acts_at = max(self._lane_free_at + TIE_S, now + self._random.uniform(0, self._lane_s))
        self._lane_free_at = acts_at
        await self._at(acts_at)
        if self.away:
            raise StoreAway("the outcome is unknown")
        outcome = act()
        self._lane_free_at = max(self._lane_free_at + TIE_S, acts_at + self._random.uniform(0, self._lane_s))
        await self._at(self._lane_free_at)
        if self.outcome_lost:
            raise StoreAway("the outcome is unknown")
        return outcome

    def _at(self, when: float) -> Awaitable[None]:
        return passing(max(when - self._clock.monotonic(), 0.0))
