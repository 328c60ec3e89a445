"""Fixtures of the tests that work with the real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.store import Hand, connected
from tests.support.valkey import ValkeyServer, redis_binary
from tests.support.valkey_cluster import ValkeyCluster


@pytest.fixture
async def hand(any_topology: ValkeyServer | ValkeyCluster) -> AsyncIterator[Hand]:
    """A node's hand on an empty store: on Valkey, on Redis 7.0, and on a Valkey Cluster."""
    async with connected(any_topology) as store:
        yield Hand(any_topology, store)


@pytest.fixture(params=["valkey", "redis"])
def own_store(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """A server of the test's own, once each kind: to be killed, frozen, filled and set up wrongly."""
    binary = None if request.param == "valkey" else redis_binary()
    if request.param == "redis" and binary is None:
        pytest.skip("redis-server is not installed")
    server = ValkeyServer(binary)
    try:
        server.start()
        yield server
    finally:
        server.close()
