"""Server ear: subscribes at one server, on a lane of its own, which is used for nothing else.

What is subscribed or left in one loop tick goes out together, some hundred names a command; a ping behind it says when
the server has taken note, for that it says by pushes alone. While the connection is down everything is remembered, and
all of it is subscribed on the next one.
Invariants: a subscription is told that it is heard only on the connection it was made on; its channels are subscribed
in one command, so that no message is heard on one of them alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from hiredis import PushNotification
from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.channel_hearing import Nobody
from actors.adapters.valkey.keys import AWAKE_CHANNEL
from actors.adapters.valkey.lane import RECONNECT_S_MAX, Greeting, Lane
from actors.channel_ports import Hears
from actors.core.channel_names import is_event_channel
from actors.ports import StoreAway

SUBSCRIPTIONS_MAX = 256
"""Of one command: two channels each."""
UNDER_WAY_MAX = 4
"""Commands whose pings are unanswered: a ping must not wait for all of a hundred thousand channels."""

Hear = Callable[[bytes], None]


class EarHooks:
    """What all ears of a node share."""

    def __init__(self) -> None:
        self.hears: Hears = Nobody()
        """Who is told; set once, by the composition root."""
        self.wanted = asyncio.Event()
        """Set when somebody is to be told: before that no ear connects."""


class Subscription:
    """Some Redis channels that belong together, and what hears each of them. `own`: nobody is told that it is heard.
    Used once: whoever leaves and comes back brings another."""

    __slots__ = ("name", "own", "parts")

    def __init__(self, name: str, parts: Mapping[bytes, Hear], *, own: bool = False) -> None:
        self.name = name
        self.parts = parts
        self.own = own


class ServerEar:
    """One server's. `refused` is awaited by its lane after a connection on which nothing could be subscribed."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        greet: Greeting,
        jitter: Callable[[], float],
        hooks: EarHooks,
    ) -> None:
        self._hooks = hooks
        self._wanted: dict[str, Subscription] = {}
        self._subscribed: dict[str, Subscription] = {}
        """On this connection, told or on its way."""
        self._heard: dict[str, Subscription] = {}
        """Those of which the server has taken note."""
        self._coming: dict[bytes, Hear] = {}
        """By channel, whoever hears it from the moment in which the server takes note: what comes before is for whoever
        left, and may be half of something."""
        self._by_channel: dict[bytes, Hear] = {}
        self._touched: dict[str, None] = {}
        """Names of which something is to be sent, in order."""
        self._under_way = 0
        self._flushing = False
        self._refused = False
        """Whether nothing has been heard yet on this connection, or the last one."""
        self.lane = Lane(connect, greet, self._opened, jitter)
        self.lane.on_push = self._pushed
        self.lane.on_down = self._ended
        self.opened_at: float | None = None
        """When the connection opened, on the loop's clock; None while there is none."""
        self.listen(Subscription(AWAKE_CHANNEL, {AWAKE_CHANNEL.encode(): self._woken}, own=True))

    def listen(self, subscription: Subscription) -> None:
        """Subscribe, in place of what has had that name."""
        self._wanted[subscription.name] = subscription
        self._heard.pop(subscription.name, None)
        self._touch(subscription.name)

    def leave(self, name: str) -> bool:
        """Subscribe no more; gives whether it was heard until now."""
        self._wanted.pop(name, None)
        self._touch(name)
        return self._heard.pop(name, None) is not None

    async def wanted(self) -> None:
        """Wait until there is a reason to connect."""
        await self._hooks.wanted.wait()
        if self._refused:  # a server that ends every subscription at once must not be asked for the next at once
            await asyncio.sleep(RECONNECT_S_MAX)

    def _touch(self, name: str) -> None:
        if self.lane.up.is_set():
            self._touched[name] = None
            self._flush_soon()

    def _opened(self) -> None:
        self.opened_at = asyncio.get_running_loop().time()
        self._refused = True
        self._touched = dict.fromkeys(self._wanted)
        self._flush_soon()

    def _ended(self) -> None:
        self.opened_at = None
        heard = self._told(self._heard)
        for of_connection in (self._heard, self._subscribed, self._coming, self._by_channel, self._touched):
            of_connection.clear()
        if heard:
            self._hooks.hears.deaf(heard)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        try:
            while self._touched and self._under_way < UNDER_WAY_MAX:
                names = list(islice(self._touched, SUBSCRIPTIONS_MAX))
                for name in names:
                    del self._touched[name]
                self._send(names)
        except StoreAway:
            return  # all is subscribed again on the next connection

    def _send(self, names: list[str]) -> None:
        joined: list[bytes] = []
        left: list[bytes] = []
        fresh: list[Subscription] = []
        for name in names:
            before, after = self._subscribed.pop(name, None), self._wanted.get(name)
            for channel in before.parts if before else ():
                self._coming.pop(channel, None)
                self._by_channel.pop(channel, None)
                left.append(channel)
            if after is not None:
                joined += after.parts
                self._subscribed[name] = after
                self._coming.update(after.parts)
                fresh.append(after)
        if left:
            self.lane.tell("UNSUBSCRIBE", *left)
        if fresh:
            self.lane.tell("SUBSCRIBE", *joined)
            noted = self.lane.call("PING")
            self._under_way += 1
            noted.add_done_callback(partial(self._noted, fresh))

    def _noted(self, fresh: list[Subscription], answer: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if answer.cancelled() or answer.exception() is not None:
            return  # the connection ended, or ends now: a refusal to subscribe takes the place of an answer
        now = {
            each.name: each for each in fresh if self._subscribed.get(each.name) is self._wanted.get(each.name) is each
        }
        self._refused = False
        self._heard |= now
        if AWAKE_CHANNEL in now:
            self._hooks.hears.opened()
        if told := self._told(now):
            self._hooks.hears.listening(told)
        self._flush_soon()

    def _told(self, subscriptions: Mapping[str, Subscription]) -> list[str]:
        return [name for name, each in subscriptions.items() if not each.own]

    def _pushed(self, push: PushNotification) -> None:
        if push[0] == b"message":
            hear = self._by_channel.get(push[1])
            if hear is not None:
                hear(push[2])
        elif push[0] == b"subscribe" and (hear := self._coming.pop(push[1], None)):
            self._by_channel[push[1]] = hear

    def _woken(self, message: bytes) -> None:
        name = message.decode(errors="replace")
        if is_event_channel(name):
            self._hooks.hears.woken(name)
