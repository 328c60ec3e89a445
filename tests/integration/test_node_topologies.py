"""A node on each kind of store that a URL can name: a message goes in, and out to its webhook."""

from __future__ import annotations

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.client import Client
from tests.support.sentinels import Sentinels
from tests.support.sink import Sink
from tests.support.until import until
from tests.support.valkey_cluster import ValkeyCluster


@pytest.fixture(params=["sentinels", "cluster"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where the store is."""
    store: Sentinels | ValkeyCluster = request.getfixturevalue(request.param)
    return store.url


async def test_a_node_works_on_it(make_node: NodeFactory, store_url: str, http: aiohttp.ClientSession) -> None:
    """Two nodes share it; what one takes is seen by both and delivered once, and they stop in order."""
    nodes = [make_node({"RETRY_DELAY": "100ms"}, redis_url=store_url) for _ in range(2)]
    for node in nodes:
        await node.start()
    clients = [Client(http, node.url) for node in nodes]
    async with Sink() as sink:
        for number in range(40):
            await clients[number % 2].send(sink.url(), f"k{number % 10}", {"n": number}, max_size=4)
        await sink.wait_for_requests(10, 10)

        async def all_delivered() -> bool:
            return [len(await client.deliveries(status="delivered")) for client in clients] == [10, 10]

        await until(all_delivered, 10, what="both nodes see every delivery")
        for client in clients:
            assert (await client.call("GET", "/readyz")).status == 200
    for node in nodes:
        assert (await node.sigterm()).exit_code == 0
