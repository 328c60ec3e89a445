"""Channel ports: what the channels need from a store, from its ear and from their listeners, and the values that cross.

A channel's messages are numbered 1, 2, 3 … within an epoch. Whoever has seen offset `n` of epoch `e` has seen all up to
it. Another epoch means that nobody can say what lies between. Durations that end in `_ms` are the store's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from actors.core.stream import Position as Position  # noqa: PLC0414  a value of these ports
from actors.core.stream import Publication as Publication  # noqa: PLC0414  a value of these ports
from actors.core.stream import Recalled as Recalled  # noqa: PLC0414  a value of these ports
from actors.ports import CommitMeters, Counter, Gauge, StoreAway


class ChannelName(Struct, frozen=True, gc=False):
    """A channel, and where its stream is kept: `kid` stands for the name in the store (`core.partition.locate`)."""

    name: str
    kid: str
    partition: int


class Publish(Struct, frozen=True, gc=False):
    """Put a message into a stream, and on the plain Redis channel of that name. `once`: under this id it may have been
    published before, and is not again."""

    channel: ChannelName
    id: str
    data: bytes
    once: bool = False

    @property
    def partition(self) -> int:
        """That of the channel."""
        return self.channel.partition


class Published(Struct, frozen=True, gc=False):
    """Where it stands, and who was there: `elsewhere` are people on other nodes as those last said, `foreign` Redis
    clients that are no nodes. `again`: it stood there already, and nobody was told anything now."""

    position: Position
    elsewhere: int
    foreign: int
    again: bool = False


class Ingest(Struct, frozen=True, gc=False):
    """Give offsets to what others published on the plain Redis channel: `data`, in order, as JSON with an id each.

    Every node that listens heard the same, and asks the same. `mark` and `number` say which they are: the `number`-th
    that was heard after this mark, and those that follow it. What has an offset already is left alone. `gone` is up to
    which message, after which mark, this node gave some up: those that have no offset by now will never have one.
    """

    channel: ChannelName
    mark: str
    number: int
    messages: tuple[tuple[str, bytes], ...]
    gone: tuple[str, int] | None = None

    @property
    def partition(self) -> int:
        """That of the channel."""
        return self.channel.partition


class Recall(Struct, frozen=True, gc=False, kw_only=True):
    """Read a stream after `since` (None: only where it stands now; epoch "": whatever epoch it has), oldest first, no
    more than `limit` messages nor much more than `bytes_max`.

    `mark`, when it is not "", is also put into what all ears of the channel hear, and the stream is given an epoch if
    it has none. `last_id` is the id that the reader knows at `since`: when the stream does not reach there any more,
    holds another message there, or is of an earlier epoch (epochs sort by when they began), the store has lost
    something and begins a new epoch. Only a node's own position may be trusted so far: `last_id` needs a `mark`.
    """

    channel: ChannelName
    since: Position | None
    limit: int
    bytes_max: int
    mark: str = ""
    last_id: str = ""

    @property
    def partition(self) -> int:
        """That of the channel."""
        return self.channel.partition


class Report(Struct, frozen=True, gc=False):
    """How many people listen on this node to channels of a partition, by kid; 0 takes a channel out. `whole`: these are
    all. Without counts it only says that the earlier ones still hold. Forgotten REPORT_S after the last one."""

    partition: int
    counts: tuple[tuple[str, int], ...]
    whole: bool


class Audience(Struct, frozen=True, gc=False):
    """Who listens to a channel elsewhere: people on other nodes, and Redis clients that are no nodes."""

    elsewhere: int
    foreign: int


class ChannelStore(Protocol):
    """Where streams are. Every method may raise StoreAway; a StoreAway among answers stands for one whose server is
    away. An answer for each request, in order."""

    def publish(self, messages: Sequence[Publish]) -> Awaitable[Sequence[Published | StoreAway]]:
        """Publish each, in order."""
        ...

    async def ingest(self, batches: Sequence[Ingest]) -> Sequence[bool | StoreAway]:
        """Give offsets to what was heard; true when all of it has one now."""
        ...

    async def recall(self, recalls: Sequence[Recall]) -> Sequence[Recalled | StoreAway]:
        """Read streams."""
        ...

    async def report(self, reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
        """Tell how many listen here; false when the store has forgotten the earlier reports and wants the whole."""
        ...

    async def audiences(self, channels: Sequence[ChannelName]) -> Sequence[Audience]:
        """Who listens elsewhere."""
        ...

    async def active(self, pattern: str) -> Sequence[str]:
        """The names that match, a Redis glob, of channels that somebody or some node listens to; the router's own
        internal ones are not among them. Not sorted."""
        ...

    async def awake(self, channels: Sequence[ChannelName], kept_ms: int) -> None:
        """Say that somebody listens to these channels of the router's own, for `kept_ms` from now; every ear hears
        it (`Hears.woken`)."""
        ...

    async def are_awake(self, channels: Sequence[ChannelName]) -> Sequence[bool]:
        """Of which that still holds."""
        ...


class Hears(Protocol):
    """Told, synchronously and in the order of the server, what an ear hears. Names are of channels that are listened
    to here; one that was just left may still be told of."""

    def listening(self, names: Sequence[str]) -> None:
        """From now on everything is heard; again after each interruption."""
        ...

    def deaf(self, names: Sequence[str]) -> None:
        """From now on something may be missed."""
        ...

    def arrived(self, name: str, epoch: str, publication: Publication) -> None:
        """A message has got an offset."""
        ...

    def marked(self, name: str, mark: str) -> None:
        """Everybody who listens hears this mark between the same two messages."""
        ...

    def foreign(self, name: str, message: bytes) -> None:
        """Another Redis client has published this, which has no offset."""
        ...

    def ingested(self, name: str, mark: str, number: int) -> None:
        """The `number`-th foreign message after the mark has got an offset; `arrived` is told of it next."""
        ...

    def woken(self, name: str) -> None:
        """Somebody, somewhere, listens to this channel of the router's own."""
        ...

    def opened(self) -> None:
        """An ear has opened (again); what was to be heard of `woken` meanwhile was missed."""
        ...


class Ear(Protocol):
    """Listens for a node: one subscription a channel, however many people listen to it here."""

    def listen(self, channel: ChannelName) -> None:
        """Listen to a channel. Never raises: while a server is away this waits."""
        ...

    def leave(self, channel: ChannelName) -> None:
        """Listen to it no more."""
        ...


class Joined(Struct, frozen=True, gc=False):
    """What somebody is told who joins a channel: where they stand after `publications`, which are what they missed
    since the position they came with. `recovered`: that is all of it; else nobody can say what they missed (or they
    came with no position), and `publications` is empty."""

    name: str
    position: Position
    recovered: bool
    publications: tuple[Publication, ...] = ()


Places = Sequence[tuple[str, Position]]
"""Where each of some channels stands."""


class Guest(Protocol):
    """Somebody's connection, as the channels see it. All but `caught_up` are called synchronously and never raise."""

    @property
    def closed(self) -> bool:
        """Whether it has gone."""
        ...

    def send(self, block: bytes, frames: int) -> None:
        """Write some whole frames. A reader too slow for it is closed."""
        ...

    def admit(self, joined: Sequence[Joined]) -> None:
        """It has joined: write what it must be told. Whatever comes after these positions is sent from now on."""
        ...

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """It could not join (StoreAway, Overloaded, TimeoutError)."""
        ...

    def lost(self, name: str, position: Position, others: Places) -> None:
        """A channel it has joined goes on from this position, and nobody can say what came before it. `others` are
        where the other channels of the same seat stand."""
        ...

    async def caught_up(self, part: Joined, places: Places) -> None:
        """Write a part of what was missed, and wait until there is room for the next. `places` are where all channels
        of the seat stand after it. Never called for a format whose answers are `whole`."""
        ...


class Encode(Protocol):
    """Makes one frame of a publication. `others` are where the other channels of the same seat stand."""

    def __call__(self, name: str, epoch: str, publication: Publication, others: Places, /) -> bytes: ...


class Format(Struct, frozen=True, gc=False):
    """What the frames of a kind of connection look like. `whole`: all that somebody missed must be in the one answer
    that admits them, so it is recovered only while it is short."""

    name: str
    encode: Encode
    whole: bool = False


class Sent(Struct, frozen=True, gc=False):
    """A message was published: its id, where it stands, and how many there were who listen to its channel."""

    id: str
    position: Position
    subscribers: int
    again: bool = False


class ChannelService(Protocol):
    """What the edge asks of the channels of a node (`actors.channels.Channels`). Names are checked by whoever calls
    (`core.channel_names`)."""

    def attend(self, guest: Guest, form: Format, wanted: Mapping[str, Position | None]) -> None:
        """Join channels, all in one seat: `guest.admit` is told, now or soon, or `guest.refuse`. With a position comes
        everything since then. One guest has a channel in one seat only, and does not ask for it twice."""
        ...

    def leave(self, guest: Guest, form: Format, names: Sequence[str]) -> None:
        """Give a seat up: the same names as it was asked for with. Also right while it is not admitted yet, which it
        will not be any more."""
        ...

    async def publish(self, name: str, data: bytes, once: str | None = None) -> Sent:
        """Publish JSON. `once` names the request, so that it is published once however often it is sent. Raises
        StoreAway, Overloaded."""
        ...

    async def history(self, name: str, since: Position | None, limit: int) -> Recalled:
        """What a channel still has after a position (None: from the start), oldest first. Raises StoreAway,
        Overloaded."""
        ...

    async def subscribers(self, names: Sequence[str]) -> Sequence[int]:
        """How many people, on all nodes, and other Redis clients listen. Raises StoreAway."""
        ...

    async def active(self, pattern: str) -> Sequence[str]:
        """The names that match a Redis glob of channels that may have subscribers, sorted. Raises StoreAway."""
        ...


class ChannelMeters(Protocol):
    """Pre-bound metric children of the channels."""

    @property
    def channel_commits(self) -> CommitMeters: ...

    channel_publications: Counter
    channel_foreign: Counter
    """Messages of other Redis clients that this node heard."""
    channel_deliveries: Counter
    """Frames handed to connections."""
    channel_lost: Counter
    """Times that listeners were told of messages that nobody can bring back."""
    channel_events_dropped: Counter
    """Events of the router's own that were not told: too many at once."""
    channel_slow: Counter
    """Connections closed because their readers were too slow."""
    channels_listened: Gauge
    channel_listeners: Gauge
