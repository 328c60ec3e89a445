"""A rig whose cache has a server of its own: it may be emptied, killed and filled, and the nodes lose no message.

Each node reaches it through a proxy of its own. It keeps nothing on disk: when it comes back it is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Row
from tests.support.valkey import ValkeyServer

VOLATILE = ("--appendonly", "no")


def cache_proxy(name: str) -> str:
    """The proxy between a node and the cache's server."""
    return f"cache-{name}"


class CacheRig(Rig):
    """`cache` is that server."""

    cache: ValkeyServer

    def __init__(self, directory: Path, row: Row) -> None:
        super().__init__(directory, row)
        self._cache_ports: dict[str, int] = {}

    async def make_store(self) -> ValkeyServer:
        """Both servers, running."""
        self.cache = await self.engine(ValkeyServer(tcp=True), *VOLATILE)
        return await super().make_store()

    async def start_node(
        self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None
    ) -> float:
        """It is told of the cache's server."""
        own = {"CACHE_REDIS_URL": f"redis://127.0.0.1:{await self.cache_port(node)}/0"}
        return await super().start_node(node, failpoints=failpoints, environment=own | dict(environment or {}))

    async def cache_port(self, node: Node) -> int:
        """The port of a node's proxy to the cache's server."""
        if node.name not in self._cache_ports:
            self._cache_ports[node.name] = await self.toxics.add(cache_proxy(node.name), self.cache.port)
        return self._cache_ports[node.name]

    async def cache_up(self) -> None:
        """Start the cache's server, empty. Nodes reach it as soon as it listens."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.cache.start, *VOLATILE))
        await asyncio.gather(*(self.toxics.listen(cache_proxy(node.name)) for node in self.nodes))
        await starting
