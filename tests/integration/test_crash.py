"""kill -9 of the node and of its store, with and without load: what was acknowledged arrives, in order, the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from actors.host import STARTED_MAX
from tests.conftest import NodeFactory
from tests.support.client import Client, quoted
from tests.support.node import NodeProcess
from tests.support.sink import Received, Sink
from tests.support.talkers import Talkers
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

KEYS = [f"key {number}/ñ" for number in range(20)]
QUICK = {"RETRY_DELAY": "100ms"}
TAKES_OVER_S = 4.0
IN_FLIGHT_MAX = STARTED_MAX
"""Attempts that can be under way to one host: as many may come twice for each crash of the node."""


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes what comes."""
    async with Sink() as receiver:
        yield receiver


def ids_of(request: Received) -> list[str]:
    """The messages of an envelope."""
    return [message["message_id"] for message in msgspec.json.decode(request.body)["messages"]]


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody has buried yet has."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def aof_is(store: ValkeyServer) -> int:
    """The size of the append-only file: what an answered command wrote is in it."""
    newest = max(store.directory.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)
    return newest.stat().st_size


async def test_a_crash_between_two_messages_is_not_noticed(
    make_node: NodeFactory, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """With the embedded store: one aggregated request of three messages; no engine outlives its node."""
    node = make_node(QUICK)
    options = {"aggregate_field": "q", "max_size": 3, "wait_time": 60}
    engines = []
    for number in range(3):
        await node.start()
        engines.append(int((node.data_dir / "valkey/engine.lock").read_text()))
        answer = await Client(http, node.url).send(sink.url(), "k", {"q": f"{number}"}, **options)
        assert answer["buffer_info"]["current_size"] == number + 1
        if number < 2:
            node.kill9()

    (request,) = await sink.wait_for_requests(1)
    assert request.body == b'{"q":"0\\n1\\n2"}'
    assert (await node.sigterm()).exit_code == 0
    assert sink.count == 1
    await until(lambda: all(map(gone, engines)), 3, what="no engine is left")


@pytest.mark.parametrize("embedded", [False, True], ids=["external", "embedded"])
async def test_kill_9_of_a_node_under_load(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, embedded: bool
) -> None:
    """Nothing is lost; only what was out at the moment comes twice, under its webhook-id, the same."""
    node = make_node(QUICK, redis_url=None if embedded else valkey.url)
    await node.start()
    async with Talkers(Client(http, node.url), sink.url(), KEYS) as talkers:
        await talkers.more(300)
        node.kill9()
        await node.start()
        await talkers.more(300)

    findings = await talkers.settled(sink)

    assert findings.sound, findings
    assert sum(findings.repeated.values()) <= IN_FLIGHT_MAX
    assert {told.status for told in talkers.told} <= {200, 0, 503}


async def test_kill_9_of_the_store_under_load(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Requests meanwhile are put off quickly, with `Retry-After`; from two seconds after its return none is; nothing is
    lost and nothing comes twice, because the node that delivered it still knows."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    loop = asyncio.get_running_loop()
    async with Talkers(Client(http, node.url), sink.url(), KEYS) as talkers:
        await talkers.more(300)
        down_at = loop.time()
        own_valkey.kill9()
        await until(lambda: len(talkers.refused) > 40, what="requests are refused")
        known_at = loop.time()
        await passing(0.5)
        await asyncio.to_thread(own_valkey.start)
        up_at = loop.time()
        await passing(2)
        await talkers.more(300)

    findings = await talkers.settled(sink)

    assert findings.clean, findings
    assert not [each for each in talkers.refused if each.sent_at > up_at + 2]
    while_down = [each for each in talkers.told if down_at < each.sent_at < up_at - 0.3 and each.status != 200]
    assert {(each.status, each.retry_after is not None) for each in while_down} == {(503, True)}
    took_s = sorted(each.took_s for each in while_down if each.sent_at > known_at)
    assert took_s[-len(took_s) // 20] < 0.3, "a busy machine may hold up a few"
    assert max(each.took_s for each in while_down) < 1.2


async def test_a_store_that_forgot_its_last_second_is_told_again(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """kill -9 and an AOF without its tail, under load: the living node appends again what it acknowledged lately.
    Only what was rolled back may come twice, and never changed under the same webhook-id."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    async with Talkers(Client(http, node.url), sink.url(), KEYS, wait_time=0.1) as talkers:
        await talkers.more(300)
        safe_bytes = await aof_is(own_valkey)
        rolled_back_from = set(talkers.ledger.acknowledged)
        await talkers.more(150)
        own_valkey.kill9()
        own_valkey.cut_aof(await aof_is(own_valkey) - safe_bytes)
        await asyncio.to_thread(own_valkey.start)
        await talkers.more(200)

    findings = await talkers.settled(sink)
    open_at_the_cut = len(KEYS) * 5
    assert findings.lost | findings.phantom | findings.mutated == frozenset()
    assert len(findings.twice & rolled_back_from) <= open_at_the_cut


async def test_a_rolled_back_batch_comes_again_unchanged(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """A batch was delivered, then the store forgot that it ever existed: it is delivered again, and whoever compares
    the bytes of one webhook-id sees no difference."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    client = Client(http, node.url)
    safe_bytes = await aof_is(own_valkey)
    for number in range(3):
        await client.send(sink.url(), "k", {}, message_id=f"m{number}", max_size=3, wait_time=60)
    await client.until_status("k", "delivered")

    own_valkey.kill9()
    own_valkey.cut_aof(await aof_is(own_valkey) - safe_bytes)
    await asyncio.to_thread(own_valkey.start)
    await sink.wait_for_requests(2)
    await client.until_status("k", "delivered")

    first, second = sink.requests
    assert ids_of(first) == ids_of(second) == ["m0", "m1", "m2"]
    if first.headers["webhook-id"] == second.headers["webhook-id"]:
        assert first.body == second.body


async def test_the_node_and_its_store_crash_together(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """What the file system has is there; open batches, waiting deliveries and dead letters go on where they were, as
    soon as the new process has found the old one dead: it has another name."""
    node = make_node(QUICK | {"MAX_RETRIES": "0"}, redis_url=own_valkey.url)
    await node.start()
    client = Client(http, node.url)
    await client.send(sink.url("/status/500"), "dead", {}, max_size=1)
    await client.send(sink.url("/script/503,200"), "waiting", {}, max_size=1, webhook={"max_retries": 3})
    await client.send(sink.url(), "open", {}, wait_time=60)
    await client.until_status("dead", "dead")
    await client.until_status("waiting", "delivered")

    node.kill9()
    await asyncio.to_thread(own_valkey.restart)
    await node.start()

    assert (await client.buffer("open")).json["size"] == 1
    (dead,) = await client.deliveries(status="dead")
    assert dead["key"] == "dead"

    async def retried() -> bool:
        answer = await client.call("POST", f"/api/v1/deliveries/{quoted(dead['id'])}/retry")
        assert answer.status in (202, 503), answer
        return answer.status == 202

    await until(retried, TAKES_OVER_S, what="the dead node's partitions are taken over")
    await client.flush("open")
    await client.until_status("open", "delivered")


async def test_three_crashes_in_a_row(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """A batch whose time comes while nobody is there goes out at the next start, once."""
    node: NodeProcess = make_node(QUICK, redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    for number in range(30):
        await client.send(sink.url(), f"k{number}", {"n": number}, wait_time=0.3, message_id="m")
    node.kill9()
    await passing(0.4)
    assert sink.count == 0
    for _ in range(2):
        node.launch()
        await until(lambda: sink.count > 0 or node.child.exit_code is not None, what="the first one arrives")
        node.kill9()
    await node.start()

    await until(lambda: {each.headers["x-buffer-key"] for each in sink.requests} == {f"k{n}" for n in range(30)})
    ids = {(each.headers["x-buffer-key"], each.headers["webhook-id"]) for each in sink.requests}
    assert len(ids) == 30
    assert sink.count <= 30 + 2 * IN_FLIGHT_MAX
