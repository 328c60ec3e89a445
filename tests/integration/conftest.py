"""Fixtures of the tests that work with the real store."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.inventory_rig import Inventory, opened
from tests.support.postgres import MadeCluster, PostgresServer
from tests.support.sentinels import Sentinels
from tests.support.store import Hand, connected
from tests.support.valkey import ValkeyServer, redis_binary, served
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
    yield from served(ValkeyServer(binary))


@pytest.fixture
def own_cluster() -> Iterator[ValkeyCluster]:
    """A cluster of the test's own, to be tormented."""
    cluster = ValkeyCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def sentinels(request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    """A primary, a replica and three sentinels of the test's own; of Valkey unless the test says "redis"."""
    kind = getattr(request, "param", "valkey")
    binary = redis_binary() if kind == "redis" else None
    if kind == "redis" and binary is None:
        pytest.skip("redis-server is not installed")
    found = Sentinels(binary)
    try:
        found.start()
        yield found
    finally:
        found.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which PostgreSQL's socket has room beside the data; pytest's own are too deep for it."""
    with tempfile.TemporaryDirectory(prefix="buzon-pg-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def made_cluster() -> Iterator[MadeCluster]:
    """A folder of the embedded PostgreSQL to begin with."""
    made = MadeCluster()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def shared_postgres(made_cluster: MadeCluster) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this worker; use `database_url`."""
    server = PostgresServer(made_cluster)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def database_url(shared_postgres: PostgresServer) -> str:
    """A database with the inventory's empty tables. Don't crash its engine, don't change its tables."""
    return shared_postgres.emptied()


@pytest.fixture
async def inventory(database_url: str) -> AsyncIterator[Inventory]:
    """The inventory's store on empty tables."""
    async with opened(database_url) as store:
        yield store
