"""Echo: whether what is published comes back, and what other nodes ring. Readiness asks how old the last proof is.

Owns a subscriber connection of its own, to two channels of this node's own. Once a second a number is published on one
by the store's cold lane; hearing it proves the whole way round, which no open connection does: a half-open one looks
healthy. The other is this node's bell. Never raises for what the server does or anybody publishes.
Invariant: a subscriber that hears nothing for `LATE_S` is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from actors.adapters.valkey import bell
from actors.adapters.valkey.keys import RESERVED_PREFIX
from actors.adapters.valkey.lane import RECONNECT_S_MAX, RECONNECT_S_MIN
from actors.adapters.valkey.question import connect
from actors.adapters.valkey.store import ValkeyStore
from actors.adapters.valkey.topology import Speaker
from actors.node_ports import Hint
from actors.ports import StoreAway

PERIOD_S = 1.0
LATE_S = 3.0
GREETING_S = 1.0
"""To connect and be greeted: half of that would never do on a network that takes 200 ms."""
REFUSED_S = 0.1
"""Until the next try when the cold lane is down: a store that is back is soon known to be."""
DIGITS_MAX = 18
"""Anybody may publish here, and Python refuses to read numbers of thousands of digits."""
_INCOMPLETE = object()


class Ear(asyncio.Protocol):
    """A connection that subscribes to channels and tells what is said on which, until its own end."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        channels: Sequence[str],
        hear: Callable[[Any, Any], None],
    ) -> None:
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._unconfirmed = len(channels)
        self._hear = hear
        self.subscribed: asyncio.Future[None] = loop.create_future()
        """Resolved when the server has confirmed every subscription: what is published before is not heard."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Resolved when the connection is of no more use."""
        transport.set_protocol(self)
        subscribe: tuple[Any, ...] = ("SUBSCRIBE", *channels)
        transport.write(pack_command(subscribe))

    def data_received(self, data: bytes) -> None:
        """Tell every message; anything but a push is the server's refusal to subscribe."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            if not isinstance(reply, PushNotification):
                self.end()
            elif reply[0] == b"message":
                self._hear(reply[1], reply[2])
            elif reply[0] == b"subscribe":
                self._unconfirmed -= 1
                if self._unconfirmed == 0 and not self.subscribed.done():
                    self.subscribed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed the connection, or it broke."""
        self.end()

    def end(self) -> None:
        """The connection is of no more use."""
        if not self.ended.done():
            self.ended.set_result(None)


class Echo:
    """The echo of one node. `now` is a monotonic clock, `jitter` gives 0…1."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        lane: Speaker,
        node: str,
        now: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._lane = lane
        self._channel = f"{RESERVED_PREFIX}echo:{node}"
        self._bell = bell.channel(node)
        self._now = now
        self._jitter = jitter
        self._said = 0
        self._heard = 0
        self._heard_at: float | None = None
        self.on_hints: Callable[[Sequence[Hint]], None] = lambda _hints: None
        """Told what other nodes ring; set once by the composition root."""

    @classmethod
    def of(cls, store: ValkeyStore, node: str, now: Callable[[], float], jitter: Callable[[], float]) -> Self:
        """The echo of the node that uses this store."""
        return cls(store._connection, store.speaker, node, now, jitter)

    def age_s(self, now: float) -> float:
        """For how long no echo has come; before the first, since the service was started."""
        return 0.0 if self._heard_at is None else now - self._heard_at

    async def run(self) -> None:
        """Say and hear for ever. A service: ends only by cancellation."""
        if self._heard_at is None:
            self._heard_at = self._now()
        pause_s = RECONNECT_S_MIN
        while True:
            heard_before = self._heard
            with suppress(RedisError, OSError):  # the lanes, which speak to the same server, say why
                await self._talk()
            # A server that ends every subscription at once must not be asked for the next at once.
            pause_s = RECONNECT_S_MIN if self._heard > heard_before else min(pause_s * 2, RECONNECT_S_MAX)
            await asyncio.sleep(pause_s * (0.5 + self._jitter() / 2))

    async def _talk(self) -> None:
        """Use one connection for as long as it echoes."""
        connection = self._connect()
        try:
            async with asyncio.timeout(GREETING_S):
                await connect(connection)
            writer = connection._writer
            if writer is not None and not writer.transport.is_closing():
                ear = Ear(writer.transport, asyncio.get_running_loop(), [self._channel, self._bell], self._hear)
                await self._say_while_heard(ear)
        finally:
            await connection.disconnect(nowait=True)

    async def _say_while_heard(self, ear: Ear) -> None:
        either = asyncio.FIRST_COMPLETED
        await asyncio.wait([ear.subscribed, ear.ended], timeout=GREETING_S, return_when=either)
        opened_at = self._now()
        while ear.subscribed.done() and not ear.ended.done():
            late_in_s = max(opened_at, self._heard_at or 0.0) + LATE_S - self._now()
            if late_in_s <= 0:
                return
            pause_s = PERIOD_S if self._say() else REFUSED_S
            await asyncio.wait([ear.ended], timeout=min(pause_s, late_in_s))

    def _say(self) -> bool:
        """Publish the next number; false while the lane is down. Nobody waits for the reply: the echo is one."""
        try:
            self._lane.call("PUBLISH", self._channel, self._said + 1)
        except StoreAway:
            return False
        self._said += 1
        return True

    def _hear(self, channel: bytes, message: bytes) -> None:
        if channel == self._channel.encode():
            self._hear_echo(message)
        elif hints := bell.decode_hints(message):
            self.on_hints(hints)

    def _hear_echo(self, message: bytes) -> None:
        """Note an echo. What is no number of ours, or one that was heard before, proves nothing."""
        number = int(message) if message.isdigit() and len(message) <= DIGITS_MAX else 0
        if self._heard < number <= self._said:
            self._heard = number
            self._heard_at = self._now()
