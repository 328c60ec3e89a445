"""Payloads that crash what handles them: they end as dead letters, and their neighbours are served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from actors.adapters.valkey.deliveries import CRASHES_MAX
from tests.support import poison_node
from tests.support.behaviours import Reply
from tests.support.client import DELIVERIES, Client
from tests.support.forked import Fork
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.until import until
from tests.support.valkey import ValkeyServer

NEIGHBOURS = 30


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes its time, so that neighbours are out when the poison strikes."""
    async with Sink() as receiver:
        receiver.on("/hook", Reply(delay_s=0.1))
        yield receiver


@pytest.fixture
def node(valkey: ValkeyServer, tmp_path: Path) -> Iterator[NodeProcess]:
    """A node that can be poisoned (not started). It keeps its name, so it need not wait for its own death."""
    environment = {"RETRY_DELAY": "100ms", "NODE_ID": "poisoned"}
    node = NodeProcess(tmp_path / "data", environment, redis_url=valkey.url, program=poison_node.SERVE)
    node.begin = Fork
    yield node
    node.close()


async def test_a_payload_that_kills_its_node(node: NodeProcess, http: aiohttp.ClientSession, sink: Sink) -> None:
    """After five lives it is dead, whole, and can be discarded; all that waited beside it is delivered."""
    await node.start()
    client = Client(http, node.url)
    for number in range(NEIGHBOURS):
        await client.send(sink.url(), f"k{number}", {"n": number}, wait_time=1.5)
    await client.send(sink.url(), "poison", {"text": poison_node.EXIT.decode()}, wait_time=1.5)

    async def ended_or_dead() -> str:
        if node.child.exit_code is not None:
            return "ended"
        try:
            return "dead" if await client.deliveries(status="dead") else ""
        except aiohttp.ClientError:
            return ""

    deaths = 0
    # What was cut off four times comes back within 8 s (SPREAD_MS in _ownership.lua), and the node has to start.
    while await until(ended_or_dead, 12, what="the node dies or the delivery is dead") == "ended":
        assert node.child.exit_code == poison_node.EXIT_CODE, node.output()
        deaths += 1
        assert deaths <= CRASHES_MAX
        node.launch()

    (dead,) = await client.deliveries(status="dead")
    assert (deaths, dead["key"]) == (CRASHES_MAX, "poison")
    assert len(dead["attempts"]) == CRASHES_MAX
    assert all("interrupted" in attempt["error"] for attempt in dead["attempts"])
    for number in range(NEIGHBOURS):
        await client.until_status(f"k{number}", "delivered")
    assert (await client.call("DELETE", f"{DELIVERIES}/{dead['id']}")).status == 200


async def test_a_payload_that_raises(node: NodeProcess, http: aiohttp.ClientSession, sink: Sink) -> None:
    """The node lives, the delivery is dead with a reason that tells nothing, the next of its key goes out."""
    await node.start()
    client = Client(http, node.url)
    await client.send(sink.url(), "k", {"text": poison_node.RAISE.decode()}, max_size=1)
    await client.send(sink.url(), "k", {"text": "fine"}, max_size=1)
    await asyncio.gather(*(client.send(sink.url(), f"k{n}", {}, max_size=1) for n in range(NEIGHBOURS)))

    rows = await client.until_status("k", "dead", "delivered")
    await sink.wait_for_requests(1 + NEIGHBOURS)

    (dead,) = [row for row in rows if row["status"] == "dead"]
    assert [attempt["error"] for attempt in dead["attempts"]] == ["internal error"]
    assert "PoisonTaken" in node.output()
    assert node.child.exit_code is None
    assert (await client.call("DELETE", f"{DELIVERIES}/{dead['id']}")).status == 200
