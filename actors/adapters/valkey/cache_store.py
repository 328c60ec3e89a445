"""Cache store: the cache's entries, plain strings on a store that may be the router's own or another.

Connections of its own, so that a large value never stands in front of what is durable. Every change is one script call
for each server (for each slot of a Cluster), whose keys are all judged and changed in one step; what a server says it
has not done because keys have moved is sent once more, and nothing else is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from actors.adapters.valkey.cache_calls import LOOK_KEYS_MAX, Look, Mode, Once, write_arguments, write_outcome
from actors.adapters.valkey.cache_link import Interest
from actors.adapters.valkey.cache_shard import CacheGreeter, CacheShard
from actors.adapters.valkey.cache_walk import CacheWalk
from actors.adapters.valkey.cluster_runner import Call, Sending
from actors.adapters.valkey.dialling import StoreUrl
from actors.adapters.valkey.greeting import facts_of
from actors.adapters.valkey.keys import RESERVED_PREFIX
from actors.adapters.valkey.lane import Begun, Lane
from actors.adapters.valkey.layout import laid_out
from actors.adapters.valkey.scripts import CACHE_NAMES, Script, load_all
from actors.adapters.valkey.shard import Connect, ShardMaker
from actors.adapters.valkey.topology import Service
from actors.cache_ports import (
    CacheWrite,
    Loaded,
    OtherType,
    ServerStats,
    Slice,
    SliceCursor,
    TooLong,
    WriteOutcome,
)
from actors.core.cache_names import NEAR_PREFIX
from actors.ports import StoreAway

LOOK_S = 0.01
_NEAR = NEAR_PREFIX.encode()
NOT_ASKED = StoreAway("the store was not asked")


class CacheOptions(Struct, frozen=True, kw_only=True):
    """Where the cache is. Names that begin with one of `reserved` are never listed. `near`: what was read may be kept,
    so somebody must listen. What is done once is remembered `once_ms`."""

    url: str
    client_name: str
    reserved: Sequence[str] = (RESERVED_PREFIX,)
    near: bool = True
    once_ms: int = 600_000


class ValkeyCache:
    """The cache's store for one node. `boottime` gives seconds of a clock that runs in sleep too; `jitter` 0…1."""

    def __init__(self, options: CacheOptions, jitter: Callable[[], float], boottime: Callable[[], float]) -> None:
        self._boottime = boottime
        self._jitter = jitter
        self._near = options.near
        self._interest = Interest(boottime)
        self._scripts = load_all(CACHE_NAMES)
        self._greeter = CacheGreeter(self._scripts)
        maker = ShardMaker("cache", self._shard)
        self._servers = laid_out(StoreUrl.read(options.url), options.client_name, maker, {}, jitter)
        self._reserved = tuple(prefix.encode() for prefix in options.reserved)
        self._once = Once(options.once_ms, self._servers.tag_of)
        self._walk = CacheWalk(self._servers, options.reserved)
        self.on_invalidated: Callable[[Sequence[bytes] | None], None] = lambda _names: None
        """Told the names of entries that changed, None for everything; set once by the composition
        root."""
        self.unfit: Callable[[], object | None] = lambda: None
        """Why the store must not be used though it can be reached; set by the composition root where it is the
        router's own."""

    @property
    def connected(self) -> bool:
        """Whether all of the store can be used now."""
        return self.unfit() is None and self._servers.whole

    @property
    def usable(self) -> bool:
        """Whether some of it can."""
        return self.unfit() is None and any(shard.up for shard in self._servers.shards)

    @property
    def why_away(self) -> str:
        """Why the store, or some of it, is away; "" while all of it is there."""
        if self.connected:
            return ""
        down = [shard for shard in self._servers.shards if not shard.up] or [self._servers.home]
        return str(self.unfit() or down[0].hot.why_down)

    def services(self) -> Sequence[Service]:
        """What must be kept running for the cache to be there."""
        return self._servers.services()

    async def reached(self) -> None:
        """Wait until all of it can be used. Raises StoreAway as soon as it must not be."""
        while not self.connected:
            self._refuse_unfit()
            await asyncio.sleep(LOOK_S)

    def listen(self) -> None:
        """Open the links, if they are not, because somebody reads."""
        if self._near:
            self._interest.show()

    async def load(self, keys: Sequence[str], bytes_max: int = 0) -> Sequence[Loaded | TooLong | StoreAway]:
        """Look at keys, which are all different; one question for each server unless the values are very large."""
        self._refuse_unfit()
        self.listen()
        answers: list[Loaded | TooLong | StoreAway] = [NOT_ASKED] * len(keys)
        rest = self._servers.together(keys)
        while rest:
            looks = [
                Look(self._scripts["cache_load"], self._servers.of_key, self._boottime, keys, part)
                for places in rest
                for part in _parts(places)
            ]
            replies = await Sending(self._servers, [look.call() for look in looks]).replies()
            left = [look.take(reply, answers) for look, reply in zip(looks, replies, strict=True)]
            rest = [places for places in left if places]
            if rest and bytes_max and (read := _size(answers)) > bytes_max:
                for place in (place for places in rest for place in places):
                    answers[place] = TooLong(read)
                break
        return answers

    async def write(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome | StoreAway]:
        """Do each write by itself."""
        self._refuse_unfit()
        groups = self._servers.together([write.key for write in writes])
        outcomes: list[WriteOutcome | StoreAway] = [NOT_ASKED] * len(writes)
        calls = [self._writing("each", [writes[place] for place in places]) for places in groups]
        for places, reply in zip(groups, await Sending(self._servers, calls).replies(), strict=True):
            if isinstance(reply, StoreAway):
                for place in places:
                    outcomes[place] = reply
            else:
                for place, said in zip(places, reply, strict=True):
                    outcomes[place] = write_outcome(said)
        return outcomes

    async def write_all(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome] | OtherType:
        """Do all writes, or none when one of the keys is no string. Atomic where the keys are on one server; over
        many servers all are looked at first, and when one is lost on the way StoreAway does not say which are done."""
        self._refuse_unfit()
        keys = [write.key for write in writes]
        groups = self._servers.together(keys)
        if len(groups) == 1:
            return await self._write_together(writes)
        if (odd := await self._odd(keys, groups)) is not None:
            return OtherType(odd)
        done = []
        for outcome in await self.write(writes):
            if isinstance(outcome, StoreAway):
                raise outcome
            done.append(outcome)
        return done

    async def slice(self, pattern: str, cursor: SliceCursor, limit: int) -> Slice:
        """Look at a bounded part of all names; it may hold none, never more than `limit`."""
        self._refuse_unfit()
        return await self._walk.slice(pattern, cursor, limit)

    async def server_info(self) -> Mapping[str, str]:
        """What the cache's home server says of itself."""
        return facts_of(await self._servers.home.cold.call("INFO"))

    async def server_stats(self) -> ServerStats:
        """The same, in parts. Raises StoreAway."""
        cold = self._servers.home.cold
        asked = cold.call("INFO"), cold.call("PUBSUB", "CHANNELS", f"{RESERVED_PREFIX}*")
        info, own = facts_of(await asked[0]), await asked[1]
        return ServerStats(
            redis_version=info.get("redis_version", ""),
            uptime_in_seconds=int(info.get("uptime_in_seconds", 0)),
            connected_clients=int(info.get("connected_clients", 0)),
            used_memory_human=info.get("used_memory_human", ""),
            total_commands_processed=int(info.get("total_commands_processed", 0)),
            keyspace={name: _numbers(text) for name, text in info.items() if name[:2] == "db" and name[2:].isdigit()},
            pubsub_channels=max(int(info.get("pubsub_channels", 0)) - len(own), 0),
        )

    async def _write_together(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome] | OtherType:
        mode: Mode = "sets" if any(write.op == "set" for write in writes) else "all"
        (reply,) = await Sending(self._servers, [self._writing(mode, writes)]).replies()
        if isinstance(reply, StoreAway):
            raise reply
        if reply[0] == -1:
            return OtherType(writes[reply[1] - 1].key)
        done = []
        for outcome in map(write_outcome, reply):
            if isinstance(outcome, StoreAway):
                raise outcome
            done.append(outcome)
        return done

    async def _odd(self, keys: Sequence[str], groups: Sequence[Sequence[int]]) -> str | None:
        """A key that is no string, if there is one."""
        named = [[keys[place] for place in places] for places in groups]
        calls = [self._calling(self._scripts["cache_types"], of, ()) for of in named]
        for of, reply in zip(named, await Sending(self._servers, calls).replies(), strict=True):
            if isinstance(reply, StoreAway):
                raise reply
            if reply != 0:
                odd: str = of[reply - 1]
                return odd
        return None

    def _writing(self, mode: Mode, writes: Sequence[CacheWrite]) -> Call:
        arguments = write_arguments(mode, writes, self._once)
        return self._calling(self._scripts["cache_write"], [write.key for write in writes], arguments)

    def _calling(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Call:
        return Call(partial(self._hot_of, keys[0]), partial(_run, script, keys, arguments))

    def _hot_of(self, key: str) -> Lane:
        return self._servers.of_key(key).hot

    def _refuse_unfit(self) -> None:
        why = self.unfit()
        if why is not None:
            raise StoreAway(str(why))

    def _shard(self, connect: Connect, _partitions: frozenset[int], _home: bool) -> CacheShard:
        return CacheShard(connect, self._greeter, self._jitter, self._boottime, self._tell, self._interest)

    def _tell(self, names: Sequence[bytes] | None) -> None:
        """The router's own names change all the time on a store they share with the cache, and are no entries."""
        told = None if names is None else [name for name in names if self._is_entry(name)]
        if told != []:
            self.on_invalidated(told)

    def _is_entry(self, name: bytes) -> bool:
        return not name.startswith(self._reserved) or name.startswith(_NEAR)


def _run(script: Script, keys: Sequence[str], arguments: Sequence[Any], lane: Lane) -> Begun:
    return lane.script(script, keys, arguments)


def _size(answers: Sequence[Loaded | TooLong | StoreAway]) -> int:
    return sum(len(each.value) for each in answers if isinstance(each, Loaded) and each.value is not None)


def _parts(places: Sequence[int]) -> Sequence[Sequence[int]]:
    return [places[at : at + LOOK_KEYS_MAX] for at in range(0, len(places), LOOK_KEYS_MAX)]


def _numbers(text: str) -> dict[str, int]:
    """`keys=1,expires=0`, read."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
