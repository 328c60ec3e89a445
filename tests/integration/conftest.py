"""Fixtures of the tests that work with the real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.store import Hand, connected
from tests.support.valkey import ValkeyServer, redis_binary


@pytest.fixture
async def hand(any_store: ValkeyServer) -> AsyncIterator[Hand]:
    """A node's hand on an empty store, once on Valkey and once on Redis 7.0."""
    async with connected(any_store) as store:
        yield Hand(any_store, store)


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
