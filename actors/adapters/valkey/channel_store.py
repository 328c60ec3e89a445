"""Channel store: streams in the store, and who listens to them; implements ChannelStore. `ear` hears what is told.

One script call writes many messages. What writes, and a mark, go the hot way, in one order; what only looks goes the
cold one. Owns no state but its options. Made from a ValkeyStore, whose lanes it uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Self

from actors.adapters.valkey import channel_calls as calls
from actors.adapters.valkey.channel_calls import ChannelOptions as ChannelOptions  # noqa: PLC0414  of the constructor
from actors.adapters.valkey.channel_calls import Publishes
from actors.adapters.valkey.channel_ear import ValkeyEar
from actors.adapters.valkey.channel_probe import ChannelProbe
from actors.adapters.valkey.keys import OWNERS, side_channel
from actors.adapters.valkey.runner import present
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.store import ValkeyStore
from actors.adapters.valkey.store_shard import StoreShard
from actors.adapters.valkey.topology import Service, Topology
from actors.channel_ports import (
    Audience,
    ChannelName,
    Ear,
    Hears,
    Ingest,
    Publish,
    Published,
    Recall,
    Recalled,
    Report,
)
from actors.core.channel_names import name_fault
from actors.ports import StoreAway

COUNTED_MAX = 256
"""Channels of one question."""


class ValkeyChannels:
    """The channels of one store. `entropy` gives random bytes."""

    def __init__(
        self,
        topology: Topology[StoreShard],
        ear: ValkeyEar,
        options: ChannelOptions,
        probe: ChannelProbe,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._topology = topology
        self._runner = topology.runner
        self._hooks = ear.hooks
        self._writes = Publishes(options, entropy, self._others)
        self._report = calls.reporting(options.incarnation)
        self._probe = probe
        self.ear: Ear = ear
        self.others: Callable[[], Sequence[str]] = lambda: ()
        """The incarnations of the other nodes that live; set once, by the composition root."""
        self.unverified: Callable[[], Sequence[Recall]] = lambda: ()
        """What a server that came back must be asked before anybody uses it; set once, by the composition root."""

    @classmethod
    def of(
        cls,
        store: ValkeyStore,
        options: ChannelOptions,
        now: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> Self:
        """The channels of a store. `now` is the loop's clock."""
        topology = store._topology
        probe = ChannelProbe(lambda: topology.shards, store._scripts["publish"], options.incarnation, now)
        channels = cls(topology, store.ear, options, probe, entropy)
        store.verifying = partial(channels._verifying, store._scripts["mark"])
        return channels

    @property
    def hears(self) -> Hears:
        """Who is told what the ears hear; set once, by the composition root. Before that they do not connect."""
        return self._hooks.hears

    @hears.setter
    def hears(self, hears: Hears) -> None:
        self._hooks.hears = hears
        self._hooks.wanted.set()

    def services(self) -> Sequence[Service]:
        """What must be kept running beside the store's lanes."""
        return (("channel-probe", self._probe.run),)

    def age_s(self, now: float) -> float:
        """How long ago each server is known to have been heard; 0 before the first start."""
        return self._probe.age_s(now)

    def publish(self, messages: Sequence[Publish]) -> Awaitable[Sequence[Published | StoreAway]]:
        """Publish each, in order. Of other clients those are counted that are connected to the stream's server."""
        return self._runner.begin(self._writes.publish, messages)

    async def ingest(self, batches: Sequence[Ingest]) -> Sequence[bool | StoreAway]:
        """Give offsets to what was heard."""
        return await self._runner.each(self._writes.ingest, batches)

    async def recall(self, recalls: Sequence[Recall]) -> Sequence[Recalled | StoreAway]:
        """Read streams. Those with a mark are on their way when this first waits."""
        marked = [recall for recall in recalls if recall.mark]
        begun: Awaitable[Sequence[Recalled | StoreAway]] | None = None
        if marked:
            begun = self._runner.begin(self._writes.mark, marked)
        plain = iter(await asyncio.gather(*(self._read(recall) for recall in recalls if not recall.mark)))
        answers = iter(await begun if begun else ())
        return [next(answers if recall.mark else plain) for recall in recalls]

    async def report(self, reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
        """Tell how many listen here."""
        return await self._runner.each(self._report, reports)

    async def audiences(self, channels: Sequence[ChannelName]) -> Sequence[Audience]:
        """Who listens elsewhere. Redis clients that subscribe to patterns are not counted: no server tells of them."""
        counted = [self._foreign(channels[at : at + COUNTED_MAX]) for at in range(0, len(channels), COUNTED_MAX)]
        people = await self._attended(self.others(), channels)
        foreign = [count for part in counted for count in await part]
        return [Audience(elsewhere, count) for (elsewhere, _), count in zip(people, foreign, strict=True)]

    async def active(self, pattern: str) -> Sequence[str]:
        """The names that match of channels that somebody or some node listens to."""
        glob = pattern.encode("utf-8", "surrogatepass")
        asked = [shard.cold.call("PUBSUB", "CHANNELS", glob) for shard in self._topology.all_in_order()]
        return list({name for reply in asked for name in map(_name, await reply) if not name_fault(name)})

    async def awake(self, channels: Sequence[ChannelName], kept_ms: int) -> None:
        """Say that somebody listens to these channels of the router's own."""
        for answer in await self._runner.each(calls.awakening(kept_ms), channels):
            if isinstance(answer, StoreAway):
                raise answer

    async def are_awake(self, channels: Sequence[ChannelName]) -> Sequence[bool]:
        """Of which that still holds."""
        return [awake for _, awake in await self._attended((), channels)]

    def _others(self) -> Sequence[str]:
        return self.others()

    def _verifying(self, script: Script, partitions: Collection[int]) -> list[tuple[Any, ...]]:
        """The commands that have a server look whether it still has what is known of the streams it holds."""
        together: dict[int, list[Recall]] = {}
        for recall in self.unverified():
            if recall.partition in partitions:
                together.setdefault(recall.partition, []).append(recall)
        return [
            ("EVALSHA", script.sha, 1, OWNERS[partition], *self._writes.mark.arguments(recalls))
            for partition, recalls in together.items()
        ]

    async def _read(self, recall: Recall) -> Recalled | StoreAway:
        try:
            arguments = calls.recall_arguments(recall)
            return calls.recalled(await self._runner.cold("recall", (OWNERS[recall.partition],), arguments))
        except StoreAway as error:
            return error

    async def _attended(self, others: Sequence[str], channels: Sequence[ChannelName]) -> list[tuple[int, bool]]:
        """Of each channel how many people listen on these nodes, and whether it is awake."""
        places: dict[int, list[int]] = {}
        for place, channel in enumerate(channels):
            places.setdefault(channel.partition, []).append(place)

        def of(partitions: Sequence[int]) -> list[int]:
            return [place for partition in partitions for place in places[partition]]

        def arguments(partitions: Sequence[int]) -> list[Any]:
            return calls.attended_arguments(others, [channels[place] for place in of(partitions)])

        found: dict[int, tuple[int, bool]] = {}
        for partitions, flat in present(await self._runner.spread("attended", list(places), arguments), whole=True):
            answers = zip(flat[::2], (flag == 1 for flag in flat[1::2]), strict=True)
            found.update(zip(of(partitions), answers, strict=True))
        return [found[place] for place in range(len(channels))]

    def _foreign(self, channels: Sequence[ChannelName]) -> Awaitable[list[int]]:
        """How many Redis clients listen to each that are no nodes, over all servers; asked when this returns. A node
        has two subscriptions for each channel, on the one connection."""
        names = [name for each in channels for name in (each.name, side_channel(each.partition, each.kid))]
        asked = [shard.cold.call("PUBSUB", "NUMSUB", *names) for shard in self._topology.all_in_order()]
        return _differences(len(channels), asked)


async def _differences(how_many: int, asked: Sequence[Awaitable[Any]]) -> list[int]:
    totals = [0] * how_many
    for reply in asked:
        counts = (await reply)[1::2]
        for place in range(how_many):
            totals[place] += counts[2 * place] - counts[2 * place + 1]
    return [max(total, 0) for total in totals]


def _name(raw: bytes) -> str:
    """A name as text; "", which is none, for what is no text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""
