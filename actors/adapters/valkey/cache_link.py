"""Link: hears what changes in one server, on a connection of its own, and says until when it is sure to have heard.

RESP3's CLIENT TRACKING in broadcast mode tells the name of every key that changes, whoever changed it. A ping goes out
every `PING_S`; all that was told before its answer has been heard by then, so its answer proves nothing younger than
the ping. Tracking begins only when the connection's bytes are read here: what came before would be lost in a greeting.
Invariants: a proof never lasts longer than `PROVEN_S` after the last ping that was answered; a connection that ends
ends its proof, and the next begins another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hiredis import PushNotification
from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.lane import Greeting, Lane
from actors.cache_ports import UNPROVEN, Proof
from actors.ports import StoreAway

PING_S = 0.3
PROVEN_S = 0.9
"""Three pings: one that is late is no reason to ask the store for everything again."""

IDLE_S = 900.0
"""A link closes when nobody has loaded anything for so long. No entry is believed for as long without a load."""

OnInvalidated = Callable[[Sequence[bytes] | None], None]


class Interest:
    """Whether anybody reads. A server in broadcast mode tells of every key, also of those that nobody ever cached: a
    node whose cache is not used must not pay for that."""

    def __init__(self, boottime: Callable[[], float]) -> None:
        self._boottime = boottime
        self._shown_at = float("-inf")
        self._shown = asyncio.Event()

    def show(self) -> None:
        """Somebody reads."""
        self._shown_at = self._boottime()
        self._shown.set()

    def lasts(self) -> bool:
        """Whether somebody has read lately."""
        if self._boottime() - self._shown_at >= IDLE_S:
            self._shown.clear()
        return self._shown.is_set()

    async def awaited(self) -> None:
        """Wait until somebody reads."""
        await self._shown.wait()


class Link:
    """Listens to one server, while there is interest. `boottime` gives seconds of a clock that runs in sleep too, read
    anew at each call."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        greet: Greeting,
        jitter: Callable[[], float],
        boottime: Callable[[], float],
        on_invalidated: OnInvalidated,
        interest: Interest,
    ) -> None:
        self._boottime = boottime
        self._interest = interest
        self._on_invalidated = on_invalidated
        self._timer: asyncio.TimerHandle | None = None
        self.lane = Lane(connect, greet, self._opened, jitter)
        self.lane.on_push = self._heard
        self.lane.on_down = self._ended
        self.proof = UNPROVEN
        """The proof of what is read from now on."""

    def renew(self) -> None:
        """End what is proven, and begin anew on the same connection: the server may not have all that it had."""
        if self.proof is not UNPROVEN:
            self.proof.until = min(self.proof.until, self._boottime())
            self.proof = Proof(float("-inf"))

    def _opened(self) -> None:
        self._ask(("CLIENT", "TRACKING", "ON", "BCAST"), self._listening)

    def _listening(self, asked_at: float, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            # What is refused once may be allowed later; a connection that has ended says so itself.
            self._again(self._opened)
            return
        self.proof = Proof(asked_at + PROVEN_S)
        self._again(self._ping)

    def _ping(self) -> None:
        if not self._interest.lasts():
            self.lane.drop("nobody reads")
            return
        self._ask(("PING",), partial(self._answered, self.proof))
        self._again(self._ping)

    def _answered(self, proof: Proof, asked_at: float, reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled() and reply.exception() is None and proof is self.proof:
            proof.until = max(proof.until, asked_at + PROVEN_S)

    def _ask(self, command: tuple[str, ...], answered: Callable[[float, asyncio.Future[Any]], None]) -> None:
        asked_at = self._boottime()
        try:
            reply = self.lane.call(*command)
        except StoreAway:
            return
        reply.add_done_callback(partial(answered, asked_at))

    def _again(self, step: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PING_S, step) if self.lane.up.is_set() else None

    def _heard(self, push: PushNotification) -> None:
        if push[0] == b"invalidate":
            self._on_invalidated(push[1])

    def _ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.renew()
        self.proof = UNPROVEN
