"""Channel doubles: what stands around the actors of the channels in a unit test: a guest, a store, an ear.

They record and do as they are told; none of them checks anything, none is ever late by itself. The store that races and
loses things is in `memory_channels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actors.channel_ports import (
    Audience,
    ChannelName,
    Format,
    Ingest,
    Joined,
    Places,
    Position,
    Publication,
    Publish,
    Published,
    Recall,
    Recalled,
    Report,
)
from actors.core.partition import locate
from actors.ports import StoreAway
from tests.support.until import passing


def _line(name: str, epoch: str, publication: Publication, others: Places) -> bytes:
    places = "".join(f" {other}={at.epoch}/{at.offset}" for other, at in others)
    return f"{name} {epoch}/{publication.offset} {publication.id}{places}\n".encode()


LINES = Format("lines", _line)
"""A line for each publication: channel, place, id, and where the other channels of the seat stand."""
WHOLE = Format("whole", _line, whole=True)
"""The same, for whom all that was missed must be in one answer."""


def channel(name: str = "news") -> ChannelName:
    """A channel by its name."""
    return ChannelName(name, *locate(name))


def publications(first: int, last: int, data: bytes = b"1") -> tuple[Publication, ...]:
    """Those with these offsets, of one stream: the id of each follows from its offset."""
    return tuple(Publication(offset, f"m{offset}", data) for offset in range(first, last + 1))


class GuestDouble:
    """Somebody's connection. `on_send` is called with each block, `on_part` awaited with each part."""

    def __init__(self, name: str = "guest") -> None:
        self.name = name
        self.closed = False
        self.blocks: list[tuple[bytes, int]] = []
        """What was sent, each with the number of frames that was said."""
        self.admissions: list[tuple[Joined, ...]] = []
        self.refusals: list[tuple[tuple[str, ...], Exception]] = []
        self.losses: list[tuple[str, Position, dict[str, Position]]] = []
        self.parts: list[tuple[Joined, dict[str, Position]]] = []
        self.told: list[str] = []
        """Which of these, in order."""
        self.on_send: Callable[[bytes], None] = lambda _block: None
        self.part_s = 0.0
        """How long it reads a part."""

    @property
    def lines(self) -> list[str]:
        """What was sent, line by line."""
        return b"".join(block for block, _ in self.blocks).decode().splitlines()

    def send(self, block: bytes, frames: int) -> None:
        """Some frames."""
        self.told.append("send")
        self.blocks.append((block, frames))
        self.on_send(block)

    def admit(self, joined: Sequence[Joined]) -> None:
        """It has joined."""
        self.told.append("admit")
        self.admissions.append(tuple(joined))

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """It has not."""
        self.told.append("refuse")
        self.refusals.append((tuple(names), error))

    def lost(self, name: str, position: Position, others: Places) -> None:
        """A channel goes on from another place."""
        self.told.append("lost")
        self.losses.append((name, position, dict(others)))

    async def caught_up(self, part: Joined, places: Places) -> None:
        """A part of what it missed."""
        self.told.append("part")
        self.parts.append((part, dict(places)))
        await passing(self.part_s)


class StreamDouble:
    """One channel in the store."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.top = 0
        self.kept: list[Publication] = []

    def add(self, count: int = 1, data: bytes = b"1") -> tuple[Publication, ...]:
        """So many more messages, with the ids of `publications`."""
        added = publications(self.top + 1, self.top + count, data)
        self.top += count
        self.kept += added
        return added

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.epoch, self.top)


class StoreDouble:
    """The store. While it is `away` every method raises StoreAway; each takes `took_s`."""

    def __init__(self) -> None:
        self.away = False
        self.took_s = 0.0
        self.streams: dict[str, StreamDouble] = {}
        self.heard_by: dict[str, Audience] = {}
        self.awake_now: set[str] = set()
        self.forgot_reports = False
        """The next reports are answered with false."""
        self.publishes: list[Publish] = []
        self.ingests: list[Ingest] = []
        self.recalls: list[Recall] = []
        self.reports: list[list[Report]] = []
        self.wakings: list[tuple[tuple[str, ...], int]] = []
        self.looks = 0
        """Times that somebody asked who is awake."""

    def stream(self, name: str = "news") -> StreamDouble:
        """A channel's stream."""
        return self.streams.setdefault(name, StreamDouble())

    async def publish(self, messages: Sequence[Publish]) -> Sequence[Published | StoreAway]:
        """Put each into its stream; what may come twice is known by its id."""
        await self._answering()
        self.publishes += messages
        return [self._published(each) for each in messages]

    async def ingest(self, batches: Sequence[Ingest]) -> Sequence[bool | StoreAway]:
        """Note them."""
        self.ingests += batches
        await self._answering()
        return [True] * len(batches)

    async def recall(self, recalls: Sequence[Recall]) -> Sequence[Recalled | StoreAway]:
        """Read streams, as they are when the answer leaves."""
        self.recalls += recalls
        await self._answering()
        return [self.recalled(each) for each in recalls]

    async def report(self, reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
        """Note them."""
        await self._answering()
        self.reports.append(list(reports))
        forgot, self.forgot_reports = self.forgot_reports, False
        return [not forgot] * len(reports)

    async def audiences(self, channels: Sequence[ChannelName]) -> Sequence[Audience]:
        """As `heard_by` says."""
        await self._answering()
        return [self.heard_by.get(each.name, Audience(0, 0)) for each in channels]

    async def active(self, pattern: str) -> Sequence[str]:
        """All streams, whatever the pattern."""
        await self._answering()
        return list(self.streams)

    async def awake(self, channels: Sequence[ChannelName], kept_ms: int) -> None:
        """Note it."""
        await self._answering()
        self.wakings.append((tuple(each.name for each in channels), kept_ms))

    async def are_awake(self, channels: Sequence[ChannelName]) -> Sequence[bool]:
        """As `awake_now` says."""
        self.looks += 1
        await self._answering()
        return [each.name in self.awake_now for each in channels]

    def recalled(self, recall: Recall) -> Recalled:
        """The answer of now."""
        stream = self.stream(recall.channel.name)
        top_id = stream.kept[-1].id if stream.kept else ""
        if recall.since is None or recall.since.epoch not in ("", stream.epoch):
            return Recalled(stream.position, (), False, top_id)
        after = [each for each in stream.kept if each.offset > recall.since.offset]
        fits, size_bytes = 0, 0
        while fits < min(len(after), recall.limit) and size_bytes < recall.bytes_max:
            size_bytes += len(after[fits].data)
            fits += 1
        return Recalled(stream.position, tuple(after[:fits]), fits < len(after), top_id)

    def _published(self, message: Publish) -> Published:
        stream = self.stream(message.channel.name)
        who = self.heard_by.get(message.channel.name, Audience(0, 0))
        there = [each for each in stream.kept if each.id == message.id]
        if there:
            return Published(Position(stream.epoch, there[0].offset), who.elsewhere, who.foreign, True)
        stream.top += 1
        stream.kept.append(Publication(stream.top, message.id, message.data))
        return Published(stream.position, who.elsewhere, who.foreign)

    async def _answering(self) -> None:
        if self.took_s:
            await passing(self.took_s)
        if self.away:
            raise StoreAway("away")


class EarDouble:
    """Notes what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def listen(self, channel: ChannelName) -> None:
        """Listen to a channel."""
        self.told.append(("listen", channel.name))

    def leave(self, channel: ChannelName) -> None:
        """Listen to it no more."""
        self.told.append(("leave", channel.name))
