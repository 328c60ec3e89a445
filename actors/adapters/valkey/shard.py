"""Shard: one server of the store, through its two lanes.

The hot lane carries what writes, in one order; the cold one all else. The hot one greets the server closely, the cold
one follows it. A server that is given more of the store than it was greeted for is greeted again. A topology makes
its shards by a `ShardMaker`, and need not know what is special about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.greeting import Server, info_of
from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.wire import REPLY_DEADLINE_S
from actors.core.partition import PARTITIONS
from actors.ports import StoreAway

ALL = frozenset(range(PARTITIONS))
MOVED = "the cluster's slots have moved"
Connect = Callable[[], AbstractConnection]


class Greets(Protocol):
    """Looks at a server before anybody else uses a connection to it."""

    async def greet(
        self, connection: AbstractConnection, partitions: frozenset[int], home: bool
    ) -> tuple[Server, bool]:
        """Gives what the server is and whether it has changed; raises StoreAway when it must not be used now."""
        ...

    def opened(self) -> None:
        """A changed server opens for callers."""
        ...


class Shard:
    """`partitions` are those the server holds; at `home` is the store's own record."""

    def __init__(
        self,
        connect: Connect,
        greeter: Greets,
        jitter: Callable[[], float],
        partitions: frozenset[int] = ALL,
        home: bool = True,
    ) -> None:
        self._greeter = greeter
        self._changed = False
        self.partitions = partitions
        self.home = home
        self.server: Server | None = None
        self.hot = Lane(connect, self._greet, self._opened, jitter)
        self.cold = Lane(connect, self._greet_cold, lambda: None, jitter)
        self.cold.ready = self._hot_is_up

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """All lanes, each to be kept running."""
        return {"hot": self.hot, "cold": self.cold}

    @property
    def up(self) -> bool:
        """Whether both lanes are open now."""
        return self.hot.up.is_set() and self.cold.up.is_set()

    def holds(self, partitions: frozenset[int], home: bool) -> None:
        """Take note of what the server holds from now on."""
        gained = not self._covers(partitions, home)
        self.partitions, self.home = partitions, home
        if gained:
            self.drop(MOVED)

    def drop(self, why: str) -> None:
        """End all connections; the next ones are greeted anew."""
        for lane in self.lanes.values():
            lane.drop(why)

    def _covers(self, partitions: frozenset[int], home: bool) -> bool:
        return partitions <= self.partitions and home <= self.home

    async def _greet(self, connection: AbstractConnection) -> None:
        partitions, home = self.partitions, self.home
        self.server, changed = await self._greeter.greet(connection, partitions, home)
        self._changed |= changed
        if not (self.partitions <= partitions and self.home <= home):
            raise StoreAway(MOVED)

    async def _hot_is_up(self) -> None:
        """While the hot lane is down nobody else knocks: a server in trouble is asked by one."""
        await self.hot.up.wait()

    async def _greet_cold(self, connection: AbstractConnection) -> None:
        try:
            async with asyncio.timeout(REPLY_DEADLINE_S):
                await self.hot.up.wait()
        except TimeoutError:
            raise StoreAway(self.hot.why_down) from None
        info = await info_of(connection)
        if not self.hot.up.is_set():
            raise StoreAway(self.hot.why_down)
        if self.server is None or info.get("run_id") != self.server.run_id or info.get("role") != "master":
            raise StoreAway("the store has changed")

    def _opened(self) -> None:
        if self._changed:
            self._changed = False
            self._greeter.opened()


S = TypeVar("S", bound=Shard)


class ShardMaker(Struct, Generic[S], frozen=True):
    """Makes the shards of one store, with the partitions each holds and whether it is the home. `name` begins what the
    services are called that keep their lanes running. `arranged` is told whenever other shards hold something."""

    name: str
    make: Callable[[Connect, frozenset[int], bool], S]
    arranged: Callable[[], None] = lambda: None
