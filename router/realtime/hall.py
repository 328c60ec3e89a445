"""Hall: all listeners of a node: who may come in, their one wheel of deadlines, and how they are sent home.

Owns the counts of connections, by client address too. Knows nothing of what is said to anybody.
Invariants: connections are counted from their handshake until their transport is gone; while the node drains nobody
comes in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from actors.channel_ports import ChannelService
from actors.ports import Counter, Gauge
from actors.runtime.clock import Clock
from actors.runtime.supervisor import Supervisor
from actors.runtime.wheel import Wheel
from router.edge.detached import Inbox
from router.edge.errors import Problem, TryLater
from router.realtime.codes import SHUTDOWN, SLOW, Close
from router.realtime.connection import Connection
from router.realtime.limits import RealtimeLimits

DRAIN_STEPS = 20
RETRY_AFTER_S = 1


class RealtimeMeters(Protocol):
    """What is counted of listeners."""

    connections: Gauge
    """Listening connections now."""
    channel_slow: Counter
    """Connections closed because their readers were too slow."""


class Realtime:
    """The listeners of one node. `jitter` gives numbers from 0 to 1."""

    def __init__(
        self,
        channels: ChannelService,
        supervisor: Supervisor,
        clock: Clock,
        meters: RealtimeMeters,
        jitter: Callable[[], float],
        limits: RealtimeLimits,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.channels = channels
        self.limits = limits
        self.jitter = jitter
        self.inbox = Inbox(loop)
        self.call_soon = loop.call_soon
        self.complain = loop.call_exception_handler
        self.monotonic = clock.monotonic
        self.draining = False
        self._supervisor = supervisor
        self._meters = meters
        self._wheel: Wheel[Connection] = Wheel(clock, Connection.due)
        self._connections: dict[Connection, None] = {}
        self._per_client: dict[str, int] = {}
        self._empty = asyncio.Event()
        """There is no connection."""
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connections)

    def check_room(self, client: str) -> None:
        """Raise 503 when no more connections can come in, 429 when no more of this client can."""
        if self.draining:
            raise TryLater("the node is going down; another one will take you", RETRY_AFTER_S)
        if len(self._connections) >= self.limits.connections_max:
            raise TryLater("the node has as many listeners as it may have", RETRY_AFTER_S)
        if self._per_client.get(client, 0) >= self.limits.connections_per_client_max:
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            raise Problem(429, "this address has as many connections as it may have", headers=retry)

    def came(self, connection: Connection) -> None:
        """A connection is there."""
        self._connections[connection] = None
        self._empty.clear()
        self._per_client[connection.client] = self._per_client.get(connection.client, 0) + 1
        self._meters.connections.set(len(self._connections))

    def ending(self, _connection: Connection, why: Close) -> None:
        """A connection was told its last word, or is gone."""
        if why is SLOW:
            self._meters.channel_slow.inc()

    def went(self, connection: Connection) -> None:
        """Its transport is gone."""
        del self._connections[connection]
        if not self._connections:
            self._empty.set()
        left = self._per_client[connection.client] - 1
        if left:
            self._per_client[connection.client] = left
        else:
            del self._per_client[connection.client]
        self._meters.connections.set(len(self._connections))

    def rearm(self, connection: Connection, slot: float, after_s: float) -> float:
        """Call its `due` then, instead of at `slot` (0: never). Gives the new slot."""
        self.disarm(connection, slot)
        return self._wheel.arm(connection, self.monotonic() + after_s)

    def disarm(self, connection: Connection, slot: float) -> None:
        """Do not call it."""
        if slot:
            self._wheel.disarm(connection, slot)

    def spawn(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        """Run a job for a connection. Raises Overloaded."""
        self._supervisor.spawn(name, job)

    async def drain(self, spread_s: float = 1.0, grace_s: float = 1.0) -> None:
        """Send everybody home, not all at once: they come back elsewhere. Who has not gone `grace_s` after that is let
        go of. Nobody comes in any more."""
        self.draining = True
        leaving = sorted(self._connections, key=lambda _each: self.jitter())
        for step in range(DRAIN_STEPS):
            for connection in leaving[step::DRAIN_STEPS]:
                connection.end(SHUTDOWN)
            if self._empty.is_set():
                return
            await asyncio.sleep(spread_s / DRAIN_STEPS)
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
