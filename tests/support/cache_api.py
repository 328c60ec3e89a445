"""Cache API: a real server with the cache's routes, on a cache whose store is in memory.

Owns the wiring. `server` is what the store holds and `wire` the way to it, for a test to change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from actors.cache import Cache, CacheRules
from actors.cache_ports import ServerStats
from actors.cache_walks import CacheWalks
from actors.core.cache_names import CacheNames
from router.api import cache_batches, cache_durations, cache_seconds
from router.api import stats as stats_api
from router.api.cache import Entries
from router.edge.idempotency import Absent, Idempotency, InProgress, Mismatch, StoredAnswer
from tests.support.client import Client
from tests.support.doubles import Stage
from tests.support.edge import EdgeServer
from tests.support.memory_cache import CacheServer, CacheTallies, CacheWire

DEFAULT_TTL_MS = 3_600_000
RESERVED = "own!"
NEAR_BYTES_MAX = 1 << 20


class MemoryRecords:
    """First answers by idempotency key."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, bytes | None]] = {}

    async def begin(
        self, scope_key: str, fingerprint: bytes, _ttl_s: float
    ) -> Absent | Mismatch | InProgress | StoredAnswer:
        """As the store does it."""
        if scope_key not in self._kept:
            self._kept[scope_key] = (fingerprint, None)
            return Absent(b"t")
        known, answer = self._kept[scope_key]
        if known != fingerprint:
            return Mismatch()
        return InProgress(b"t") if answer is None else StoredAnswer(answer)

    async def finish(self, scope_key: str, _token: bytes, answer: bytes, _ttl_s: float) -> StoredAnswer | None:
        """As the store does it."""
        fingerprint, earlier = self._kept[scope_key]
        if earlier is not None:
            return StoredAnswer(earlier)
        self._kept[scope_key] = (fingerprint, answer)
        return None


class FixedStats:
    """A server that never changes."""

    async def server_stats(self) -> ServerStats:
        """Some numbers."""
        return ServerStats(
            redis_version="9.1.2",
            uptime_in_seconds=5,
            connected_clients=2,
            used_memory_human="1.00M",
            total_commands_processed=17,
            keyspace={"db0": {"keys": 3, "expires": 1, "avg_ttl": 10}},
            pubsub_channels=0,
        )


class CacheApi:
    """The parts that a test looks at. `client` calls the server."""

    def __init__(self, stage: Stage) -> None:
        self.server = CacheServer()
        self.wire = CacheWire(self.server)
        rules = CacheRules(near_bytes_max=NEAR_BYTES_MAX, stale_s=60.0)
        self.cache = Cache(self.wire, rules, stage.supervisor, stage.clock, CacheTallies())
        self.wire.on_invalidated = self.cache.on_invalidated
        self.entries = Entries(
            self.cache, CacheWalks(self.cache, self.wire, stage.clock), CacheNames([RESERVED]), DEFAULT_TTL_MS
        )
        self.idempotency = Idempotency(MemoryRecords(), 600.0)
        self.client: Client

    def register(self, app: web.Application) -> None:
        """Add all routes."""
        cache_seconds.register(app, cache_seconds.SecondsRoutes(self.entries, self.idempotency))
        cache_batches.register(app, cache_batches.BatchRoutes(self.entries, self.idempotency))
        cache_durations.register(app, cache_durations.DurationRoutes(self.entries))
        stats_api.register(app, stats_api.StatsRoutes(FixedStats()))

    def held(self) -> dict[str, bytes]:
        """Everything that the store holds."""
        found = {name: self.server.get(name) for name in self.server.names()}
        return {name: entry[0] for name, entry in found.items() if entry is not None}


@asynccontextmanager
async def cache_api() -> AsyncIterator[CacheApi]:
    """A running server with the cache's routes."""
    async with Stage() as stage:
        api = CacheApi(stage)
        async with EdgeServer(api.register) as server, ClientSession() as http:
            api.client = Client(http, str(server.make_url("")).rstrip("/"))
            yield api
        assert not stage.crashes
