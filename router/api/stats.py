"""Stats: what the cache's server says of itself (the HTTP contract, section 8; the older Redis service's route)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from actors.cache_ports import ServerStats
from router.api.cache import TAG
from router.edge.handlers import endpoint
from router.edge.openapi import Operation
from router.edge.usecase import Call, Reply

PATH = "/stats"


class CacheServers(Protocol):
    """What must be asked of the cache's store."""

    async def server_stats(self) -> ServerStats: ...


class Stats(Struct, frozen=True, kw_only=True):
    """The server; where many share the keys, the one with the router's own record. `keyspace` tells of each database
    how many keys it holds; channels of the router's own are not counted."""

    status: Literal["connected"] = "connected"
    redis_version: str
    uptime_in_seconds: int
    connected_clients: int
    used_memory_human: str
    total_commands_processed: int
    keyspace: Mapping[str, Mapping[str, int]]
    pubsub_channels: int


class StatsRoutes:
    """The use case of this file."""

    def __init__(self, servers: CacheServers) -> None:
        self._servers = servers

    @Operation(
        summary="Show the numbers of the cache's server",
        tag=TAG,
        operation_id="server_stats",
        responses={200: Stats},
        errors=(503,),
    )
    async def stats(self, _call: Call) -> Reply:
        """Answer `GET /stats`."""
        found = await self._servers.server_stats()
        stats = Stats(**{name: getattr(found, name) for name in found.__struct_fields__})
        return Reply(200, msgspec.json.encode(stats), {hdrs.CACHE_CONTROL: "no-store"})


def register(app: web.Application, routes: StatsRoutes) -> None:
    """Add the route."""
    app.router.add_get(PATH, endpoint(routes.stats))
