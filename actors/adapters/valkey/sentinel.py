"""Sentinel: one server, but which one it is the sentinels say.

Asks all sentinels about once a second, more often while the store is away; whoever knows the newest configuration is
believed. Invariant: no connection outlives the news that its server is not the master any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from actors.adapters.valkey.dialling import Address, Dialler, StoreUrl
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import S, ShardMaker
from actors.adapters.valkey.topology import OneServer, Service

ANSWER_S = 0.5
"""A sentinel that takes longer is not asked any more this time."""
PERIOD_S = 1.0
AWAY_PERIOD_S = 0.2


class SentinelServer(OneServer[S]):
    """The master of a service."""

    def __init__(
        self,
        url: StoreUrl,
        dialler: Dialler,
        maker: ShardMaker[S],
        scripts: Mapping[str, Script],
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(dialler, maker, scripts)
        self._service = url.service
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it without types
            [(seed.host, seed.port) for seed in url.seeds],
            sentinel_kwargs={
                **url.sentinel,
                "retry": Retry(NoBackoff(), 0),
                "socket_timeout": ANSWER_S,
                "socket_connect_timeout": ANSWER_S,
            },
        )
        self._jitter = jitter
        self._why = "no sentinel has been asked yet"
        self.master: Address | None = None
        """As the sentinels last said."""

    def services(self) -> Sequence[Service]:
        """All lanes, and the watch."""
        return (*super().services(), (f"{self._name}-sentinel", self.watch))

    def connect(self) -> AbstractConnection:
        """A connection to the master."""
        if self.master is None:
            raise NotConnected(self._why)
        return self._dialler.dial(self.master)

    async def watch(self) -> None:
        """Ask the sentinels for ever. A service."""
        try:
            while True:
                await self.ask_around()
                period_s = PERIOD_S if self.whole else AWAY_PERIOD_S
                await asyncio.sleep(period_s * (0.5 + self._jitter() / 2))
        finally:
            await self._sentinel.aclose()

    async def ask_around(self) -> None:
        """Ask the sentinels once, and leave a server that is not the master any more."""
        answers = await asyncio.gather(*(self._ask(each) for each in self._sentinel.sentinels))
        known = [answer for answer in answers if answer is not None]
        if not known:
            self._why = f"no sentinel knows a master of {self._service}"
            return
        _, self.master = max(known)
        for lane in self.home.lanes.values():
            if lane.peer != (self.master.host, self.master.port):
                lane.drop(f"the master is {self.master} now")

    async def _ask(self, sentinel: Any) -> tuple[int, Address] | None:
        """What one sentinel knows: the age of its configuration, and the master."""
        try:
            masters = await sentinel.sentinel_masters()
        except (RedisError, OSError):
            return None
        state = masters.get(self._service)
        if state is None or not self._sentinel.check_master_state(state, self._service):
            return None
        return state["config-epoch"], Address(state["ip"], state["port"])
