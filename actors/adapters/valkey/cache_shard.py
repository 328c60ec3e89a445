"""Cache shard: one server of the cache, through its lanes and the link that listens to it.

Hot: loads and writes, in one order, guarded. Cold: walks over all names. Nothing is asked of a server but that it is a
master of a version we know; what it forgets, it forgets.
Invariant: a proof is of the same run of the same server that the hot lane reads from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.cache_link import Interest, Link, OnInvalidated
from actors.adapters.valkey.greeting import Server, looked_at, taught
from actors.adapters.valkey.guarded_lane import GuardedLane
from actors.adapters.valkey.identity import StoreUnfit
from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import ALL, Connect, Shard
from actors.cache_ports import UNPROVEN, Proof
from actors.ports import StoreAway


class CacheGreeter:
    """Greets the servers of the cache."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts

    async def greet(
        self, connection: AbstractConnection, _partitions: frozenset[int], _home: bool
    ) -> tuple[Server, bool]:
        """Look at a server; a cache has nothing to bring back to one that has changed."""
        try:
            run_id, name = await looked_at(connection)
        except StoreUnfit as error:
            raise StoreAway(str(error)) from error
        await taught(connection, self._scripts)
        return Server(run_id, name, ()), False

    def opened(self) -> None:
        """Nobody wants to know."""


class CacheShard(Shard):
    """One server of the cache."""

    def __init__(
        self,
        connect: Connect,
        greeter: CacheGreeter,
        jitter: Callable[[], float],
        boottime: Callable[[], float],
        on_invalidated: OnInvalidated,
        interest: Interest,
    ) -> None:
        super().__init__(connect, greeter, jitter, ALL, True)
        self.hot: Lane = GuardedLane(connect, self._greet, self._opened, jitter)
        self.link = Link(connect, self._greet_link, jitter, boottime, on_invalidated, interest)
        self.link.lane.ready = self._wanted
        self._interest = interest
        self._linked_run = ""

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """All lanes, each to be kept running."""
        return {**super().lanes, "link": self.link.lane}

    @property
    def proof(self) -> Proof:
        """The proof of what is read from the server now."""
        same = self.server is not None and self._linked_run == self.server.run_id
        return self.link.proof if same else UNPROVEN

    def holds(self, _partitions: frozenset[int], _home: bool) -> None:
        """Something has moved: what was read from here may be another server's now."""
        self.link.renew()

    async def _greet(self, connection: AbstractConnection) -> None:
        try:
            await super()._greet(connection)
        except StoreAway as error:
            self.link.lane.drop(str(error))  # a server that is no master any more hears late of what changes
            raise
        if self.server is not None and self._linked_run != self.server.run_id:
            self.link.lane.drop("the store has changed")

    async def _wanted(self) -> None:
        """Nobody listens before somebody reads."""
        await self._interest.awaited()
        await self._hot_is_up()

    async def _greet_link(self, connection: AbstractConnection) -> None:
        await self._greet_cold(connection)
        self._linked_run = "" if self.server is None else self.server.run_id
