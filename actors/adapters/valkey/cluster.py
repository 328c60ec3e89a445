"""Cluster: a store on many servers, each with some of the slots.

Keeps a shard for every master, and knows which has which partition. Asks the masters about once a second who they
think has what, at once when one says that something has moved; whoever is in the newest epoch is believed.
Invariants: a partition is used only on a server that was greeted for it; a server that is no master any more is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, Generic

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection
from redis.cluster import parse_cluster_slots
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from actors.adapters.valkey.cluster_runner import ClusterRunner
from actors.adapters.valkey.dialling import Address, Dialler, StoreUrl
from actors.adapters.valkey.keys import CONFIG, OWNERS
from actors.adapters.valkey.lane import HANDSHAKE_DEADLINE_S
from actors.adapters.valkey.question import ask_all, connect
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import S, Shard, ShardMaker
from actors.adapters.valkey.topology import NONE, Service
from actors.core.partition import PARTITIONS
from actors.ports import StoreAway

PERIOD_S = 1.0
AWAY_PERIOD_S = 0.4
PAUSE_S = 0.05
"""Between two looks, however much moves."""
SLOTS = tuple(key_slot(owner.encode()) for owner in OWNERS)
"""The slot of each partition."""
NOWHERE = "no server of the cluster is known"
HOME_SLOT = key_slot(CONFIG.encode())
_QUESTIONS = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))


class View(Struct, frozen=True):
    """Who has which slots, as one server sees it. `epoch` says how new that is; -1: the server is not well itself."""

    epoch: int
    ranges: Sequence[tuple[int, int, Address]]


class Cluster(Generic[S]):
    """The masters of a Redis Cluster."""

    def __init__(
        self,
        url: StoreUrl,
        dialler: Dialler,
        maker: ShardMaker[S],
        scripts: Mapping[str, Script],
        jitter: Callable[[], float],
    ) -> None:
        self._seeds = url.seeds
        self._dialler = dialler
        self._maker = maker
        self._jitter = jitter
        self._shards: dict[Address, S] = {}
        self._slots: list[S | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._tags = slot_tags()
        self._view: View | None = None
        self._covered = False
        """Whether every slot that is of interest has a master."""
        self._lanes: dict[Address, list[asyncio.Task[None]]] = {}
        self._wanted = asyncio.Event()
        self._looked: asyncio.Future[None] | None = None
        self._nowhere = maker.make(self.connect, frozenset(), False)
        """Stands for a server that nobody knows; its lanes never run."""
        for lane in self._nowhere.lanes.values():
            lane.why_down = NOWHERE
        self.runner = ClusterRunner(self, scripts)
        self.speaker = self

    @property
    def home(self) -> S:
        """The server that has the store's own record."""
        return self._slots[HOME_SLOT] or self._nowhere

    @property
    def shards(self) -> Sequence[S]:
        """Every master that is known."""
        return tuple(self._shards.values())

    @property
    def whole(self) -> bool:
        """Whether every partition has a server that can be used now."""
        return self._covered and all(shard.up for shard in self._shards.values())

    def of(self, partition: int) -> S:
        """The server that has the partition."""
        return self._slots[SLOTS[partition]] or self._nowhere

    def of_key(self, key: str) -> S:
        """The server that has the key."""
        return self._slots[key_slot(key.encode())] or self._nowhere

    def tag_of(self, key: str) -> str:
        """A hash tag of the key's slot, which holds nothing that a user wrote."""
        return self._tags[key_slot(key.encode())]

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[int]]:
        """The places of keys, those of one slot together."""
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key_slot(key.encode()), []).append(place)
        return tuple(places.values())

    def all_in_order(self) -> Sequence[S]:
        """All masters, by their addresses. Raises StoreAway when a slot has none."""
        if None in self._slots:
            raise StoreAway(self._nowhere.hot.why_down)
        return [shard for _, shard in sorted(self._shards.items())]

    def away(self) -> Collection[int]:
        """The partitions whose servers are away, or that have none."""
        if self.whole:
            return NONE
        return frozenset(partition for partition in range(PARTITIONS) if not self.of(partition).up)

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command that any server can do. Raises StoreAway when none is there."""
        shard = self.home if self.home.cold.up.is_set() else self._any()
        return shard.cold.call(*command)

    def connect(self) -> AbstractConnection:
        """A connection to some server."""
        for address, shard in self._shards.items():
            if shard.up:
                return self._dialler.dial(address)
        raise NotConnected(NOWHERE)

    def services(self) -> Sequence[Service]:
        """All lanes, and the watch, in one."""
        return ((f"{self._maker.name}-cluster", self.run),)

    async def run(self) -> None:
        """Keep the lanes of all masters, as the cluster changes. A service: ends only by cancellation."""
        self._lanes.clear()
        async with asyncio.TaskGroup() as group:
            for address in self._shards:
                self._start(address, group)
            while True:
                self._wanted.clear()
                looked, self._looked = self._looked, None
                view = await self._look()
                if view is not None and view != self._view:
                    self._arrange(view, group)
                    self._view = view
                if looked is not None and not looked.done():
                    looked.set_result(None)
                await self._pause()

    def look(self) -> asyncio.Future[None]:
        """Look soon at who has what; the future ends when that is done."""
        if self._looked is None:
            self._looked = asyncio.get_running_loop().create_future()
        self._wanted.set()
        return self._looked

    def _start(self, address: Address, group: asyncio.TaskGroup) -> None:
        shard = self._shards[address]
        self._lanes[address] = [group.create_task(lane.run()) for lane in shard.lanes.values()]

    async def _pause(self) -> None:
        await asyncio.sleep(PAUSE_S)
        period_s = PERIOD_S if self.whole else AWAY_PERIOD_S
        try:
            async with asyncio.timeout(period_s * (0.5 + self._jitter() / 2)):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _look(self) -> View | None:
        """What the newest of the masters says; of the URL's servers the first that answers, when none is open."""
        there = [(address, shard) for address, shard in self._shards.items() if shard.cold.up.is_set()]
        views = await asyncio.gather(*(self._seen_by(address, shard) for address, shard in there))
        known = [view for view in views if view is not None]
        for address in (*self._shards, *self._seeds) if not known else ():
            try:
                known.append(await self._asked(address))
            except (RedisError, OSError, StoreAway) as error:
                self._nowhere.hot.why_down = self._nowhere.cold.why_down = f"{NOWHERE}: {error}"
                continue
            break
        return max(known, key=lambda view: view.epoch, default=None)

    async def _seen_by(self, address: Address, shard: Shard) -> View | None:
        try:
            return _view(address, *[await reply for reply in [shard.cold.call(*each) for each in _QUESTIONS]])
        except StoreAway:
            return None

    async def _asked(self, address: Address) -> View:
        connection = self._dialler.dial(address)
        try:
            async with asyncio.timeout(HANDSHAKE_DEADLINE_S):
                await connect(connection)
                return _view(address, *await ask_all(connection, _QUESTIONS))
        finally:
            await connection.disconnect(nowait=True)

    def _arrange(self, view: View, group: asyncio.TaskGroup) -> None:
        """Make the shards what the cluster is."""
        masters: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in view.ranges:
            masters[first : last + 1] = [address] * (last - first + 1)
        held = {
            address: frozenset(partition for partition, slot in enumerate(SLOTS) if masters[slot] == address)
            for address in set(masters)
            if address is not None
        }
        for address in [address for address in self._shards if address not in held]:
            del self._shards[address]
            for lane in self._lanes.pop(address):
                lane.cancel()
        for address, partitions in held.items():
            home = masters[HOME_SLOT] == address
            if address in self._shards:
                self._shards[address].holds(partitions, home)
            else:
                dial = self._dial_to(address)
                self._shards[address] = self._maker.make(dial, partitions, home)
                self._start(address, group)
        self._slots = [None if address is None else self._shards[address] for address in masters]
        self._covered = all(self._slots[slot] is not None for slot in (HOME_SLOT, *SLOTS))
        self._maker.arranged()

    def _dial_to(self, address: Address) -> Callable[[], AbstractConnection]:
        return lambda: self._dialler.dial(address)

    def _any(self) -> S:
        return next((shard for shard in self._shards.values() if shard.cold.up.is_set()), self._nowhere)


@cache
def slot_tags() -> tuple[str, ...]:
    """A hash tag for each slot, as short as can be found. Takes a tenth of a second, once."""
    tags: dict[int, str] = {}
    for number in count():
        tags.setdefault(key_slot(b"%d" % number), f"{{{number}}}")
        if len(tags) == REDIS_CLUSTER_HASH_SLOTS:
            return tuple(tags[slot] for slot in range(REDIS_CLUSTER_HASH_SLOTS))
    raise AssertionError("numbers end")


def _view(asked: Address, info: bytes, slots: Any) -> View:
    lines = dict(line.split(":", 1) for line in info.decode().split())
    epoch = int(lines["cluster_current_epoch"]) if lines["cluster_state"] == "ok" else -1
    found = parse_cluster_slots(slots, current_host=asked.host)
    return View(epoch, [(first, last, Address(*of["primary"])) for (first, last), of in found.items()])
