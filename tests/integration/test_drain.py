"""A planned stop: red first, then no new work, then an end in order within five seconds; the next start goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from actors.host import STARTED_MAX
from tests.conftest import NodeFactory
from tests.support.behaviours import Hang, Reply
from tests.support.client import Client, raw_connection
from tests.support.node import NodeProcess, answers_200
from tests.support.sink import Sink
from tests.support.talkers import Talkers
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

KEYS = [f"key {number}" for number in range(20)]
QUICK = {"RETRY_DELAY": "100ms"}
STOP_S = 5.0


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes what comes."""
    async with Sink() as receiver:
        yield receiver


@pytest.fixture
async def node(make_node: NodeFactory, valkey: ValkeyServer) -> NodeProcess:
    """A running node."""
    node = make_node(QUICK, redis_url=valkey.url)
    await node.start()
    return node


@pytest.fixture
def client(node: NodeProcess, http: aiohttp.ClientSession) -> Client:
    """A client of it."""
    return Client(http, node.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_under_load(node: NodeProcess, client: Client, sink: Sink, number: signal.Signals) -> None:
    """Nothing acknowledged is lost and nothing comes twice, whoever was in the middle of what; exit code 0."""
    sink.on("/hook", Reply(delay_s=0.05))
    async with Talkers(client, sink.url(), KEYS) as talkers:
        await talkers.more(300)
        began = time.monotonic()
        node.child.send_signal(number)
        assert await node.ended(STOP_S) == 0, node.output()
        took_s = time.monotonic() - began
        delivered_by_then = sink.count
        await passing(0.3)
        assert sink.count == delivered_by_then
        await node.start()
        await talkers.more(200)

    findings = await talkers.settled(sink)

    assert findings.clean, findings
    assert took_s < STOP_S
    assert "Traceback" not in node.output()


async def test_what_is_under_way_is_finished(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Messages that wait for the store when the stop comes are stored and acknowledged; nobody else gets in."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    client = Client(http, node.url)
    own_valkey.freeze()
    keys = [f"k{number}" for number in range(20)]
    sends = [asyncio.ensure_future(client.try_send(sink.url(), key, {}, wait_time=1)) for key in keys]
    await passing(0.2)

    node.child.send_signal(signal.SIGTERM)
    await until(lambda: refuses(node), 2, every_s=0.005, what="newcomers are refused")
    own_valkey.thaw()
    statuses = await asyncio.gather(*sends)

    assert set(statuses) <= {200, 0}, "0: the stop came before the node had taken the connection"
    assert statuses.count(200) > 10
    assert await node.ended(STOP_S) == 0
    assert sink.count == 0
    await node.start()
    taken = {key for key, status in zip(keys, statuses, strict=True) if status == 200}
    await until(lambda: {request.headers["x-buffer-key"] for request in sink.requests} >= taken)


async def refuses(node: NodeProcess) -> bool:
    """Whether /readyz is no longer green to a newcomer."""
    return not await answers_200(node.port, "/readyz")


async def test_green_never_comes_back(node: NodeProcess) -> None:
    """From the signal on no newcomer is told that the node is ready."""
    answers: list[bool] = []
    node.child.send_signal(signal.SIGTERM)
    while node.child.exit_code is None:
        answers.append(await answers_200(node.port, "/readyz"))

    assert False in answers or not answers
    first_red = answers.index(False) if answers else 0
    assert True not in answers[first_red:]
    assert node.child.exit_code == 0


async def test_a_slow_webhook_is_waited_for_then_given_back(node: NodeProcess, client: Client, sink: Sink) -> None:
    """What answers within the time that is left is delivered, once; what does not is tried again by the next start,
    under its webhook-id, and its interrupted attempt costs no retry."""
    sink.on("/slow", Reply(delay_s=1.0))
    sink.on("/hanging", Hang(), Reply())
    await client.send(sink.url("/slow"), "slow", {}, max_size=1)
    await client.send(sink.url("/hanging"), "hanging", {}, max_size=1, webhook={"max_retries": 0, "timeout": 60})
    await client.send(sink.url("/after"), "hanging", {}, max_size=1)
    await sink.wait_for_requests(2)

    stopped = await node.sigterm()
    assert stopped.exit_code == 0
    assert 1.0 <= stopped.seconds < STOP_S
    await node.start()

    (slow,) = await client.until_status("slow", "delivered")
    rows = await client.until_status("hanging", "delivered", "delivered")
    assert len(slow["attempts"]) == 1
    paths = [request.path for request in sink.requests]
    assert sorted(paths) == ["/after", "/hanging", "/hanging", "/slow"]
    assert paths[-2:] == ["/hanging", "/after"]
    first, second = (request for request in sink.requests if request.path == "/hanging")
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert sorted(len(row["attempts"]) for row in rows) == [1, 2]


async def test_waiting_retries_and_open_batches_wait_for_the_next_start(
    node: NodeProcess, client: Client, sink: Sink
) -> None:
    """A stop neither hurries nor forgets them."""
    sink.on("/later", Reply(status=503, headers=(("Retry-After", "2"),)), Reply())
    await client.send(sink.url("/later"), "later", {}, max_size=1)
    began = time.time()
    await client.send(sink.url("/open"), "open", {}, wait_time=1.5)
    await client.until_status("later", "retrying")

    assert (await node.sigterm()).exit_code == 0
    assert sink.count == 1
    await node.start()

    await client.until_status("later", "delivered")
    await client.until_status("open", "delivered")
    arrived = {request.path: request.at for request in sink.requests}
    assert arrived["/open"] >= began + 1.5
    assert arrived["/later"] >= sink.requests[0].at + 2


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "killed"])
async def test_a_stop_while_the_store_is_away(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, frozen: bool
) -> None:
    """Exit code 0 within five seconds all the same. A delivery that arrived but could not be written down may come
    again; nothing else does, and nothing is lost."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    sink.on("/slow", Reply(delay_s=0.3))
    async with Talkers(Client(http, node.url), sink.url("/slow"), KEYS) as talkers:
        await talkers.more(200)
        if frozen:
            own_valkey.freeze()
        else:
            own_valkey.kill9()
        stopped = await node.sigterm()
        if frozen:
            own_valkey.thaw()
        else:
            await asyncio.to_thread(own_valkey.start)
        assert (stopped.exit_code, stopped.seconds < STOP_S) == (0, True), node.output()
        await node.start()
        await talkers.more(100)

    findings = await talkers.settled(sink)

    assert findings.sound, findings
    assert sum(findings.repeated.values()) <= STARTED_MAX
    assert "Traceback" not in node.output()


async def test_a_second_signal_changes_nothing(node: NodeProcess, client: Client, sink: Sink) -> None:
    """An impatient Ctrl-C does not cut the drain short."""
    sink.on("/slow", Reply(delay_s=0.8))
    await client.send(sink.url("/slow"), "k", {}, max_size=1)
    await sink.wait_for_requests(1)

    node.child.send_signal(signal.SIGINT)
    await passing(0.1)
    node.child.send_signal(signal.SIGINT)
    node.child.send_signal(signal.SIGTERM)

    assert await node.ended(STOP_S) == 0
    await node.start()
    (row,) = await client.until_status("k", "delivered")
    assert (len(row["attempts"]), sink.count) == (1, 1)


async def test_a_stop_while_the_embedded_store_hangs(
    make_node: NodeFactory, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """The worst of all: deliveries out, callers waiting, a half-sent request, and an engine that answers nobody."""
    node = make_node(QUICK)
    await node.start()
    client = Client(http, node.url)
    engine = int((node.data_dir / "valkey/engine.lock").read_text())
    sink.on("/hanging", Hang())
    for number in range(20):
        await client.send(sink.url("/hanging"), f"k{number}", {}, max_size=1, webhook={"timeout": 60})
    await sink.wait_for_requests(1)
    async with raw_connection(node.port) as (_, half_sent):
        half_sent.write(b"POST /api/v1/message HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        os.kill(engine, signal.SIGSTOP)
        sends = [asyncio.ensure_future(client.try_send(sink.url(), f"n{number}", {})) for number in range(20)]
        assert (await client.call("GET", "/livez")).status == 200

        stopped = await node.sigterm()

    assert set(await asyncio.gather(*sends)) <= {503, 0}
    assert (stopped.exit_code, stopped.seconds < STOP_S) == (0, True), f"{stopped}\n{node.output()}"
    await until(lambda: not Path(f"/proc/{engine}").exists(), 1, what="the engine is gone")
