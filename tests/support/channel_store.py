"""Channel store: the real ValkeyChannels of a node, connected to a real server, and what its ears hear.

Nothing here decides what is right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from typing import Any

from actors.adapters.valkey.channel_probe import ServerProbe
from actors.adapters.valkey.channel_store import ChannelOptions, ValkeyChannels
from actors.adapters.valkey.keys import OWNERS
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.store import ValkeyStore
from actors.channel_ports import (
    ChannelName,
    Ingest,
    Position,
    Publication,
    Publish,
    Published,
    Recall,
    Recalled,
    Report,
)
from actors.core.partition import PARTITIONS, locate
from actors.ports import StoreAway
from tests.support.store import made, raw_client, running
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

Server = ValkeyServer | ValkeyCluster
BYTES_MAX = 512 * 1024
PLENTY = 10_000
_IDS = count(1)


class Noted:
    """Notes all that an ear tells, in order. `heard` are the names that are listened to now."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.heard: set[str] = set()
        self.times_opened = 0

    def listening(self, names: Sequence[str]) -> None:
        """Note it."""
        self.heard |= set(names)
        self.told += [("listening", name) for name in names]

    def deaf(self, names: Sequence[str]) -> None:
        """Note it."""
        self.heard -= set(names)
        self.told += [("deaf", name) for name in names]

    def arrived(self, name: str, epoch: str, publication: Publication) -> None:
        """Note it."""
        self.told.append(("arrived", name, Position(epoch, publication.offset), publication.id, publication.data))

    def marked(self, name: str, mark: str) -> None:
        """Note it."""
        self.told.append(("marked", name, mark))

    def foreign(self, name: str, message: bytes) -> None:
        """Note it."""
        self.told.append(("foreign", name, message))

    def ingested(self, name: str, mark: str, number: int) -> None:
        """Note it."""
        self.told.append(("ingested", name, mark, number))

    def woken(self, name: str) -> None:
        """Note it."""
        self.told.append(("woken", name))

    def opened(self) -> None:
        """Note it."""
        self.times_opened += 1

    def of(self, name: str, *kinds: str) -> list[tuple[Any, ...]]:
        """What was told of a channel, without its name; of these kinds only, if there are any."""
        return [(kind, *rest) for kind, of, *rest in self.told if of == name and (not kinds or kind in kinds)]

    def data(self, name: str) -> list[bytes]:
        """What arrived on a channel."""
        return [each[-1] for each in self.of(name, "arrived")]


class ChannelNode:
    """One node's channels."""

    def __init__(self, store: ValkeyStore, options: ChannelOptions) -> None:
        self.store = store
        self.now = asyncio.get_running_loop().time
        self.channels = ValkeyChannels.of(store, options, self.now, os.urandom)
        self._proofs_forgotten_at: dict[ServerProbe, int] = {}
        self.noted = Noted()
        self.channels.hears = self.noted

    def services(self) -> Sequence[Any]:
        """All that must run."""
        return (*self.store.services(), *self.channels.services())

    @property
    def open(self) -> bool:
        """Whether the store can be used and every ear has opened."""
        shards = self.store._topology.shards
        return self.store.connected and all(shard.ear.opened_at is not None for shard in shards)

    async def listen(self, *names: str) -> None:
        """Listen to channels, from when this returns."""
        for name in names:
            self.channels.ear.listen(channel(name))
        await self.hears(*names)

    async def hears(self, *names: str, within_s: float = 5.0) -> None:
        """Wait until they are listened to."""
        await until(lambda: set(names) <= self.noted.heard, within_s, what="listening")

    async def has_told(self, *what: object) -> None:
        """Wait until this was told."""
        await until(lambda: what in self.noted.told, what=f"{what} among {self.noted.told[-20:]}")

    async def has_heard(self, name: str, data: bytes) -> None:
        """Wait until this has arrived."""
        await until(lambda: data in self.noted.data(name), what=f"{data!r} among {self.noted.told[-20:]}")

    def proven(self) -> bool:
        """Whether every server's ear has heard of itself since it began, or since the proofs were forgotten."""
        probes = self.channels._probe._probes.values()
        return bool(probes) and all(each._heard > self._proofs_forgotten_at.get(each, 0) for each in probes)

    def forget_proofs(self) -> None:
        """Only what is said from now on proves anything."""
        self._proofs_forgotten_at = {each: each._said for each in self.channels._probe._probes.values()}

    async def publish(self, name: str, *data: bytes) -> list[Published]:
        """Publish messages in one call."""
        return await self.send(*(Publish(channel(name), f"m{next(_IDS)}", each) for each in data))

    async def send(self, *messages: Publish) -> list[Published]:
        """Publish messages in one call."""
        answers = [each for each in await self.channels.publish(messages) if not isinstance(each, StoreAway)]
        assert len(answers) == len(messages)
        return answers

    async def recall(self, name: str, since: Position | None = None, **changes: Any) -> Recalled:
        """Read a stream, from its start unless a position is given. `changes` are other fields of the Recall."""
        since = Position("", 0) if since is None and "mark" not in changes else since
        fields = {"limit": PLENTY, "bytes_max": BYTES_MAX, **changes}
        (answer,) = await self.channels.recall([Recall(channel=channel(name), since=since, **fields)])
        assert isinstance(answer, Recalled), answer
        return answer

    async def ingest(
        self, name: str, mark: str, number: int, *data: bytes, gone: tuple[str, int] | None = None
    ) -> None:
        """Ask for offsets."""
        messages = tuple((f"f{next(_IDS)}", each) for each in data)
        assert await self.channels.ingest([Ingest(channel(name), mark, number, messages, gone)]) == [True]


def channel(name: str) -> ChannelName:
    """A channel by its name."""
    kid, partition = locate(name)
    return ChannelName(name, kid, partition)


def names_in(partition: int) -> Iterator[str]:
    """Channels of one partition."""
    assert 0 <= partition < PARTITIONS
    return (name for name in (f"channel-{number}" for number in count()) if locate(name)[1] == partition)


def server_of(server: Server, name: str) -> ValkeyServer:
    """The server that keeps a channel's stream."""
    return server.of(OWNERS[locate(name)[1]]) if isinstance(server, ValkeyCluster) else server


def data_of(recalled: Recalled) -> list[bytes]:
    """The data of what a stream still has."""
    return [each.data for each in recalled.publications]


@asynccontextmanager
async def node_on(
    server: Server | None,
    *,
    url: str = "",
    incarnation: str = "node-1",
    scripts: Mapping[str, Script] | None = None,
    **options: int,
) -> AsyncIterator[ChannelNode]:
    """A node whose lanes are open and whose ears listen. `options` are fields of the ChannelOptions."""
    assert server is not None or url
    fields = {"history_size": 1000, "history_ms": 300_000, "once_ms": 60_000, **options}
    store = made(url or (server.unix_url if server else ""))
    store._scripts.update(scripts or {})
    node = ChannelNode(store, ChannelOptions(incarnation=incarnation, **fields))
    async with running(node):
        await until(lambda: node.open and node.noted.times_opened, what="the node's lanes and ears")
        yield node


@contextmanager
def foreigner(server: ValkeyServer, *, pattern: bool = False, to: str | bytes) -> Iterator[Callable[[], bytes | None]]:
    """Another Redis client that subscribes; call what this gives to get the next message."""
    with raw_client(server) as client, client.pubsub() as pubsub:
        (pubsub.psubscribe if pattern else pubsub.subscribe)(to)
        assert pubsub.get_message(timeout=1.0) is not None

        def heard() -> bytes | None:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=0.2)
            return None if message is None else message["data"]

        yield heard


async def joined_all(node: ChannelNode, *names: str, bytes_max: int) -> list[Recalled]:
    """Read streams from their starts, with a mark, in one call."""
    start = Position("", 0)
    recalls = [
        Recall(channel=channel(name), since=start, limit=PLENTY, bytes_max=bytes_max, mark="m") for name in names
    ]
    answers = [each for each in await node.channels.recall(recalls) if isinstance(each, Recalled)]
    assert len(answers) == len(names)
    return answers


async def report(node: ChannelNode, name: str, people: int, *, whole: bool = False) -> bool:
    """Say how many listen to one channel; gives whether the store knew the rest."""
    of = channel(name)
    (known,) = await node.channels.report([Report(of.partition, ((of.kid, people),), whole)])
    assert isinstance(known, bool)
    return known


async def confirm(node: ChannelNode, name: str) -> bool:
    """Say that what was said of the channel's partition still holds."""
    (known,) = await node.channels.report([Report(channel(name).partition, (), False)])
    assert isinstance(known, bool)
    return known


async def ends(task: asyncio.Task[Any]) -> None:
    """End a task of the test's own."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
