"""Topology: which servers a store consists of. One server here; `sentinel` and `cluster` beside it.

Owns the shards and the runner that finds its way among them. Decides nothing about what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.dialling import Dialler
from actors.adapters.valkey.runner import Runner
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import ALL, S, Shard, ShardMaker

NONE: frozenset[int] = frozenset()
Service = tuple[str, Callable[[], Awaitable[None]]]
"""Something that must be kept running, and what it is called."""
S_co = TypeVar("S_co", bound=Shard, covariant=True)


class Speaker(Protocol):
    """Something that commands can be sent with. Raises StoreAway at once when it is down."""

    def call(self, *command: Any) -> asyncio.Future[Any]: ...


class Topology(Protocol[S_co]):
    """The servers of a store. There may be none yet, or fewer than there should be."""

    @property
    def runner(self) -> Runner: ...
    @property
    def home(self) -> S_co:
        """Where the store's own record is."""
        ...

    @property
    def shards(self) -> Sequence[S_co]: ...
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

    def of(self, partition: int) -> S_co:
        """The server that has the partition."""
        ...

    def of_key(self, key: str) -> S_co:
        """The server that has the key."""
        ...

    def tag_of(self, key: str) -> str:
        """What a name must hold so that one script may touch it and the key."""
        ...

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[int]]:
        """The places of keys, those together that one script may touch."""
        ...

    def all_in_order(self) -> Sequence[S_co]:
        """All servers, in an order that lasts. Raises StoreAway when some keys have none."""
        ...

    def look(self) -> asyncio.Future[None]:
        """Look soon at who has what; the future ends when that is done."""
        ...


class OneServer(Generic[S]):
    """The server that the URL names. It may be away, come back as another run, or be another one next time."""

    def __init__(self, dialler: Dialler, maker: ShardMaker[S], scripts: Mapping[str, Script]) -> None:
        self._dialler = dialler
        self._name = maker.name
        self.home = maker.make(self.connect, ALL, True)
        self.shards: Sequence[S] = (self.home,)
        self.speaker: Speaker = self.home.cold
        self.runner = Runner(self.home.hot, self.home.cold, scripts)

    @property
    def whole(self) -> bool:
        """Whether the server can be used now."""
        return self.home.up

    def services(self) -> Sequence[Service]:
        """All lanes."""
        return tuple((f"{self._name}-{name}", lane.run) for name, lane in self.home.lanes.items())

    def connect(self) -> AbstractConnection:
        """A connection to the server."""
        return self._dialler.dial()

    def away(self) -> Collection[int]:
        """All partitions or none."""
        return NONE if self.home.up else ALL

    def of(self, _partition: int) -> S:
        """It has all."""
        return self.home

    def of_key(self, _key: str) -> S:
        """It has all."""
        return self.home

    def tag_of(self, _key: str) -> str:
        """Nothing."""
        return ""

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[int]]:
        """All of them."""
        return (range(len(keys)),) if keys else ()

    def all_in_order(self) -> Sequence[S]:
        """The one."""
        return self.shards

    def look(self) -> asyncio.Future[None]:
        """There is nothing to find out."""
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        looked.set_result(None)
        return looked
