"""Store: joins servers, scripts and parts to one store.

Knows the store by its URL; what kind of store that is (one server, Sentinel, Cluster) is the topology's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.batches import ValkeyBatches
from actors.adapters.valkey.channel_ear import ValkeyEar
from actors.adapters.valkey.deliveries import Kept, ValkeyDeliveries
from actors.adapters.valkey.dialling import StoreUrl
from actors.adapters.valkey.event_stream import ValkeyEventStream
from actors.adapters.valkey.greeting import Greeter, Hooks, Server
from actors.adapters.valkey.identity import Identity, StoreUnfit
from actors.adapters.valkey.inbound_records import ValkeyInboundRecords
from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.layout import laid_out
from actors.adapters.valkey.membership import ValkeyMembership
from actors.adapters.valkey.partitions import ValkeyPartitions
from actors.adapters.valkey.records import ValkeyRecords
from actors.adapters.valkey.replay import Replay
from actors.adapters.valkey.scripts import load_all
from actors.adapters.valkey.shard import Connect, ShardMaker
from actors.adapters.valkey.store_shard import StoreShard
from actors.adapters.valkey.tasks import ValkeyHealth, ValkeyTasks
from actors.adapters.valkey.topology import Service, Speaker

LOOK_S = 0.01


class StoreOptions(Struct, frozen=True, kw_only=True):
    """`window_ms`: how long message ids are remembered. A store is one cluster's, told apart by `cluster_name`."""

    url: str
    client_name: str
    window_ms: int
    kept: Kept
    cluster_name: str = "buzon"


class ValkeyStore(Hooks):
    """The store of one node; the hooks are set by the composition root."""

    def __init__(self, options: StoreOptions, jitter: Callable[[], float]) -> None:
        super().__init__()
        self._scripts = load_all()
        self._identity = Identity(options.cluster_name, self._scripts)
        url = StoreUrl.read(options.url)
        replay = Replay(self._scripts, options.window_ms, apart=url.kind == "cluster")
        self._greeter = Greeter(self, self._identity, self._scripts, replay)
        self.ear = ValkeyEar(lambda partition: self._topology.of(partition).ear)
        maker = ShardMaker("store", partial(self._shard, jitter), self.ear.rearranged)
        self._topology = laid_out(url, options.client_name, maker, self._scripts, jitter)
        self._greeter.shut = self._shut
        runner = self._topology.runner
        self.batches = ValkeyBatches(runner, options.window_ms)
        self.deliveries = ValkeyDeliveries(runner, options.kept)
        self.tasks = ValkeyTasks(runner, options.kept)
        self.health = ValkeyHealth(runner)
        self.events = ValkeyEventStream(runner)
        self.partitions = ValkeyPartitions(runner)
        self.membership = ValkeyMembership(runner, lambda: self.cluster, self.reject)
        self.records = ValkeyRecords(runner)
        self.inbound = ValkeyInboundRecords(runner)

    @property
    def connected(self) -> bool:
        """Whether all of the store can be used now."""
        return self._topology.whole

    @property
    def usable(self) -> bool:
        """Whether some of the store can be used now. One server is there whole or not at all."""
        return any(shard.up for shard in self._topology.shards)

    @property
    def unfit(self) -> StoreUnfit | None:
        """Why the store must not be used though it can be reached, None while it may."""
        return self._greeter.unfit

    @property
    def refusal(self) -> str:
        """Why a server refuses to write now, "" if none does: its memory or its disk is full."""
        return next((shard.hot.refusal for shard in self._topology.shards if shard.hot.refusal), "")

    @property
    def why_away(self) -> str:
        """Why the store, or some of it, is away; "" while all of it is there."""
        if self.connected:
            return ""
        down = [shard for shard in self._topology.shards if not shard.up] or [self._topology.home]
        return str(self.unfit or down[0].hot.why_down)

    @property
    def cluster(self) -> str:
        """The id of the cluster whose data the store holds, empty before the first greeting."""
        return self._identity.cluster

    @property
    def secret(self) -> bytes:
        """What the cluster's nodes know each other by, empty before the first greeting. Never to be logged."""
        return self._identity.secret

    @property
    def server(self) -> Server | None:
        """What is known of the servers, as if they were one; None while nothing is."""
        servers = [shard.server for shard in self._topology.shards if shard.server is not None]
        if not servers:
            return None
        unsafe = dict.fromkeys(setting for server in servers for setting in server.unsafe)
        return Server(servers[0].run_id, servers[0].name, tuple(unsafe))

    @property
    def server_name(self) -> str:
        """The servers' kind and version, empty while none has been reached."""
        return "" if self.server is None else self.server.name

    @property
    def hot(self) -> Lane:
        """The lane that writes to the server with the store's own record."""
        return self._topology.home.hot

    @property
    def cold(self) -> Lane:
        """The other lane to that server."""
        return self._topology.home.cold

    @property
    def speaker(self) -> Speaker:
        """For commands that any server can do."""
        return self._topology.speaker

    def services(self) -> Sequence[Service]:
        """What must be kept running for the store to be there."""
        return self._topology.services()

    def away(self) -> Collection[int]:
        """The partitions that cannot be reached now."""
        return self._topology.away()

    async def reached(self) -> None:
        """Wait until all of the store can be used. Raises StoreUnfit as soon as it must not be."""
        while not self.connected:
            if self.unfit is not None:
                raise self.unfit
            await asyncio.sleep(LOOK_S)

    def reject(self, reason: str) -> None:
        """Nobody may use the store any more, until a greeting finds it fit again."""
        self._greeter.refuse(StoreUnfit(reason))

    def _shut(self, reason: str) -> None:
        for shard in self._topology.shards:
            shard.drop(reason)

    def _connection(self) -> AbstractConnection:
        """A connection, not made yet, to some server. Raises redis-py's ConnectionError when none is known."""
        return self._topology.connect()

    def _shard(
        self, jitter: Callable[[], float], connect: Connect, partitions: frozenset[int], home: bool
    ) -> StoreShard:
        return StoreShard(connect, self._greeter, jitter, partitions, home, self.ear.hooks)
