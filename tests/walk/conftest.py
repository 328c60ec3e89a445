"""Fixtures of the walks: one real node on one real Valkey for all of them, a webhook and a key for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from tests.conftest import NODES
from tests.support.client import DELIVERIES, Client
from tests.support.forked import Fork
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.until import until
from tests.support.valkey import ValkeyServer, served

RETRY_DELAY_S = 0.1
MAX_RETRIES = 3
WEBHOOK_TIMEOUT_S = 1.0
SETTINGS = {
    "RETRY_DELAY": f"{RETRY_DELAY_S}s",
    "MAX_RETRIES": f"{MAX_RETRIES}",
    "WEBHOOK_TIMEOUT": f"{WEBHOOK_TIMEOUT_S}s",
    "NODE_ID": "walked",
    "LOG_LEVEL": "debug",
}


@pytest.fixture(scope="session")
def walk_store() -> Iterator[ValkeyServer]:
    """The store of the walked node: nobody empties it while a test runs."""
    yield from served(ValkeyServer())


@pytest.fixture(scope="session")
def walked(walk_store: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The one node; use `node`."""
    yield from running(tmp_path_factory.mktemp("walk") / "data", SETTINGS, walk_store)


@pytest.fixture
def node(walked: NodeProcess, request: pytest.FixtureRequest) -> NodeProcess:
    """The node that all walks share. Its output is shown when the test fails. Don't crash or stop it."""
    request.node.stash.setdefault(NODES, []).append(walked)
    return walked


@pytest.fixture
async def client(node: NodeProcess, http: aiohttp.ClientSession) -> AsyncIterator[Client]:
    """A client of it. Leaves nothing behind that could go out later, to a port that is another test's by then."""
    client = Client(http, node.url)
    yield client

    async def nothing_left() -> bool:
        for batch in await client.buffers(limit=1000):
            await client.drop(batch["key"])
        undelivered = [await client.deliveries(status=status) for status in ("pending", "retrying", "delivering")]
        for delivery in (*undelivered[0], *undelivered[1]):
            await client.call("DELETE", f"{DELIVERIES}/{delivery['id']}")
        return not any(undelivered)

    await until(nothing_left, 5, what="nothing waits on the shared node")


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook of the test's own, and so a host of its own."""
    async with Sink() as receiver:
        yield receiver


@pytest.fixture
def key() -> str:
    """A key that nobody else uses."""
    return f"k-{uuid4().hex}"


def running(data_dir: Path, settings: dict[str, str], store: ValkeyServer) -> Iterator[NodeProcess]:
    """A started node, ended afterwards."""
    node = NodeProcess(data_dir, settings, redis_url=store.url)
    node.begin = Fork
    try:
        with asyncio.Runner() as runner:
            runner.run(node.start())
        yield node
    finally:
        node.close()
