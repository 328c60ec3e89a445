"""Store shard: one server of the store, with an ear beside its two lanes.

The ear's lane is greeted like the cold one. Invariant: it listens to the run of the server that the hot lane writes to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.channel_server_ear import EarHooks, ServerEar
from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.shard import Connect, Greets, Shard
from actors.ports import StoreAway


class StoreShard(Shard):
    """One server of the store."""

    def __init__(
        self,
        connect: Connect,
        greeter: Greets,
        jitter: Callable[[], float],
        partitions: frozenset[int],
        home: bool,
        hooks: EarHooks,
    ) -> None:
        super().__init__(connect, greeter, jitter, partitions, home)
        self.ear = ServerEar(connect, self._greet_ear, jitter, hooks)
        self.ear.lane.ready = self._ear_wanted
        self._heard_run = ""

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """All lanes, each to be kept running."""
        return {**super().lanes, "ear": self.ear.lane}

    async def _greet(self, connection: AbstractConnection) -> None:
        try:
            await super()._greet(connection)
        except StoreAway as error:
            self.ear.lane.drop(str(error))  # a server that is no master any more hears late of what is published
            raise
        if self.server is not None and self._heard_run != self.server.run_id:
            self.ear.lane.drop("the store has changed")

    async def _ear_wanted(self) -> None:
        await self.ear.wanted()
        await self._hot_is_up()

    async def _greet_ear(self, connection: AbstractConnection) -> None:
        await self._greet_cold(connection)
        self._heard_run = "" if self.server is None else self.server.run_id
