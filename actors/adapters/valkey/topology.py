"""Topology: which servers a store consists of. One server here; `sentinel` and `cluster` beside it.

Owns the shards and the runner that finds its way among them. Decides nothing about what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.dialling import Dialler
from actors.adapters.valkey.greeting import Greeter
from actors.adapters.valkey.runner import Runner
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import ALL, Shard

NONE: frozenset[int] = frozenset()
Service = tuple[str, Callable[[], Awaitable[None]]]
"""Something that must be kept running, and what it is called."""


class Speaker(Protocol):
    """Something that commands can be sent with. Raises StoreAway at once when it is down."""

    def call(self, *command: Any) -> asyncio.Future[Any]: ...


class Topology(Protocol):
    """The servers of a store. There may be none yet, or fewer than there should be."""

    @property
    def runner(self) -> Runner: ...
    @property
    def home(self) -> Shard:
        """Where the store's own record is."""
        ...

    @property
    def shards(self) -> Sequence[Shard]: ...
    @property
    def speaker(self) -> Speaker:
        """For commands that any server can do."""
        ...

    @property
    def whole(self) -> bool:
        """Whether every partition can be reached now."""
        ...

    def services(self) -> Sequence[Service]: ...
    def connect(self) -> AbstractConnection:
        """A connection, not made yet, to any server. Raises redis-py's ConnectionError when none is known."""
        ...

    def away(self) -> Collection[int]:
        """The partitions that cannot be reached now."""
        ...


class OneServer:
    """The server that the URL names. It may be away, come back as another run, or be another one next time."""

    def __init__(
        self, dialler: Dialler, greeter: Greeter, scripts: Mapping[str, Script], jitter: Callable[[], float]
    ) -> None:
        self._dialler = dialler
        self.home = Shard(self.connect, greeter, jitter)
        self.shards: Sequence[Shard] = (self.home,)
        self.speaker: Speaker = self.home.cold
        self.runner = Runner(self.home.hot, self.home.cold, scripts)

    @property
    def whole(self) -> bool:
        """Whether the server can be used now."""
        return self.home.up

    def services(self) -> Sequence[Service]:
        """Both lanes."""
        return (("store-hot", self.home.hot.run), ("store-cold", self.home.cold.run))

    def connect(self) -> AbstractConnection:
        """A connection to the server."""
        return self._dialler.dial()

    def away(self) -> Collection[int]:
        """All partitions or none."""
        return NONE if self.home.up else ALL
