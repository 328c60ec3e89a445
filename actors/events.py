"""Events: what the router tells of itself, as messages of channels of its own.

Nobody pays for what nobody hears: a channel is awake while somebody, on any node, listens to it, and AWAKE_S longer, so
that whoever comes back finds what happened meanwhile. A channel that fell asleep begins a new epoch when it is woken.
Events are told after the fact and may be lost when a node dies or its store is away, and never hold anybody up; but for
those of `tell_once`, whose teller waits and tells again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from actors.channel_ports import ChannelName, ChannelStore
from actors.core.partition import locate
from actors.ports import Counter, Overloaded, StoreAway
from actors.runtime.clock import Clock

EventChannel = Literal["$buffers", "$deliveries", "$tasks", "$inventory", "$nodes"]
EVENT_CHANNELS: Final[tuple[EventChannel, ...]] = ("$buffers", "$deliveries", "$tasks", "$inventory", "$nodes")
REFRESH_S = 20.0
MARGIN_S = 5.0
"""A node goes on telling a little longer than the store says that somebody may come back."""
_NEVER = float("-inf")
_encode = msgspec.json.Encoder().encode


class Events:
    """The events of one node. `publish` puts JSON into a channel and does not wait."""

    def __init__(
        self,
        store: ChannelStore,
        publish: Callable[[ChannelName, bytes], None],
        awake_s: float,
        clock: Clock,
        dropped: Counter,
    ) -> None:
        self._store = store
        self._publish = publish
        self._awake_s = awake_s
        self._clock = clock
        self._dropped = dropped
        self._channels: dict[str, ChannelName] = {name: ChannelName(name, *locate(name)) for name in EVENT_CHANNELS}
        self._until: dict[str, float] = dict.fromkeys(EVENT_CHANNELS, _NEVER)
        self._listened: set[str] = set()
        self._missed = asyncio.Event()
        self.stamp: Callable[[float], Mapping[str, object]] = lambda _wall: {}
        """What each event says besides, of a Unix time in seconds; set once by the composition root."""
        self.publish_once: Callable[[ChannelName, bytes, str], Awaitable[object]] = _nowhere
        """Publishes under a name and waits; set once by whoever made this."""

    def wanted(self, name: EventChannel) -> bool:
        """Whether anybody may hear what is told there now."""
        return self._clock.monotonic() < self._until[name]

    def tell(self, name: EventChannel, what: str, fields: Mapping[str, object]) -> None:
        """Tell what happened, if anybody wants to know."""
        if not self.wanted(name):
            return
        try:
            self._publish(self._channels[name], self._event(what, fields))
        except Overloaded:
            self._dropped.inc()

    async def heard(self, name: EventChannel) -> bool:
        """Whether anybody may hear what is told there now; the store is asked when this node knows of nobody. Raises
        StoreAway."""
        if self.wanted(name):
            return True
        (awake,) = await self._store.are_awake([self._channels[name]])
        if awake:
            self.woken(name)
        return awake

    async def tell_once(self, name: EventChannel, what: str, fields: Mapping[str, object], once: str) -> None:
        """Tell what happened, under a name that makes it one message however often it is told. Raises StoreAway,
        Overloaded."""
        await self.publish_once(self._channels[name], self._event(what, fields), once)

    def _event(self, what: str, fields: Mapping[str, object]) -> bytes:
        return _encode({"type": what, **self.stamp(self._clock.wall()), **fields})

    def woken(self, name: str) -> None:
        """Somebody listens to a channel."""
        if name in self._until:
            self._until[name] = self._clock.monotonic() + self._awake_s + MARGIN_S

    def opened(self) -> None:
        """What was to be heard of `woken` meanwhile was missed."""
        self._missed.set()

    async def wake(self, name: str) -> None:
        """Somebody here is about to listen to a channel. Raises StoreAway."""
        if name not in self._channels:
            return
        self._listened.add(name)
        await self._store.awake([self._channels[name]], round(self._awake_s * 1000))
        self.woken(name)

    def left(self, name: str) -> None:
        """Nobody here listens to it any more."""
        self._listened.discard(name)

    async def run(self) -> None:
        """Keep awake what is listened to here. A service: ends only by cancellation."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._missed.wait()
            except TimeoutError:
                pass
            try:
                await self.run_once()
            except StoreAway:
                await asyncio.sleep(1.0)

    async def run_once(self) -> int:
        """Say once more what is listened to here, and look what is elsewhere if that was missed; gives how many
        channels are awake. Raises StoreAway."""
        channels: Sequence[ChannelName] = [self._channels[name] for name in EVENT_CHANNELS if name in self._listened]
        if channels:
            await self._store.awake(channels, round(self._awake_s * 1000))
            for channel in channels:
                self.woken(channel.name)
        if self._missed.is_set():
            self._missed.clear()
            try:
                awake_now = await self._store.are_awake(list(self._channels.values()))
            except StoreAway:
                self._missed.set()
                raise
            for name, awake in zip(EVENT_CHANNELS, awake_now, strict=True):
                if awake:
                    self.woken(name)
        return sum(self.wanted(name) for name in EVENT_CHANNELS)


async def _nowhere(_channel: ChannelName, _data: bytes, _once: str) -> object:
    raise RuntimeError("events have nowhere to go")
