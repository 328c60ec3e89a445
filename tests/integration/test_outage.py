"""A store that is away, full, forgetful or set up wrongly: honest refusals meanwhile, nothing lost afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest

from actors.buffer import Buffer
from tests.conftest import NodeFactory
from tests.support.behaviours import Reply
from tests.support.client import MESSAGE, Answer, Client, is_problem, message, raw_connection
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.talkers import Talkers
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

KEYS = [f"key {number}" for number in range(20)]
QUICK = {"RETRY_DELAY": "100ms"}
SUDDEN_S = 1.2
KNOWN_S = 0.3
VICTIM_S = 0.9
"""Whoever is made to find out whether the store is back waits a second; a busy machine alone is quicker."""


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes what comes."""
    async with Sink() as receiver:
        yield receiver


@pytest.fixture
async def node(make_node: NodeFactory, own_valkey: ValkeyServer) -> NodeProcess:
    """A node on a store that the test may torment."""
    node = make_node(QUICK, redis_url=own_valkey.url)
    await node.start()
    return node


@pytest.fixture
def client(node: NodeProcess, http: aiohttp.ClientSession) -> Client:
    """A client of it."""
    return Client(http, node.url)


async def timed(client: Client, method: str, path: str, body: object = None, **more: Any) -> tuple[Answer, float]:
    """An answer and how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await client.call(method, path, body, **more)
    return answer, loop.time() - began


def is_put_off(answer: Answer) -> bool:
    """A 503 that says when to come back."""
    return is_problem(answer, 503) and answer.headers["Retry-After"].isdigit()


async def test_a_frozen_store(client: Client, own_valkey: ValkeyServer, sink: Sink, node: NodeProcess) -> None:
    """Three seconds of silence: 503 within 1.2 s for whom it catches, within 300 ms once it is known (a busy machine
    may hold up one in fifty), always with
    `Retry-After`; then all goes on, and what was resent under its key is applied once."""
    keyed = {"Idempotency-Key": "caught"}
    caught_body = message(sink.url(), "caught", {"n": 1}, wait_time=60)
    epochs = own_valkey.command("HGET", "buzon:{00}:own", "ep"), own_valkey.command("HGET", "buzon:{ff}:own", "ep")
    async with Talkers(client, sink.url(), KEYS) as talkers:
        await talkers.more(200)
        own_valkey.freeze()
        frozen_at = asyncio.get_running_loop().time()
        caught, caught_s = await timed(client, "POST", MESSAGE, caught_body, headers=keyed)
        assert is_put_off(caught)
        assert caught_s < SUDDEN_S
        known_at = asyncio.get_running_loop().time()
        for method, path in (
            ("GET", "/api/v1/buffers"),
            ("GET", "/api/v1/buffers/k"),
            ("POST", "/api/v1/buffers/k/flush"),
            ("DELETE", "/api/v1/buffers/k"),
            ("GET", "/api/v1/deliveries"),
            ("GET", "/api/v1/deliveries/dlv_000123456789ab7cde8f0123456789abcd"),
            ("POST", "/api/v1/deliveries/dlv_000123456789ab7cde8f0123456789abcd/retry"),
            ("DELETE", "/api/v1/deliveries/dlv_000123456789ab7cde8f0123456789abcd"),
        ):
            answer, took_s = await timed(client, method, path)
            assert is_put_off(answer), path
            assert took_s < KNOWN_S, path
        assert (await client.call("GET", "/livez")).status == 200
        assert is_problem_free_503(await client.call("GET", "/readyz"), "the store is away")
        assert (await client.call("GET", "/health")).json["redis"] == "away"
        await passing(max(0.0, frozen_at + 3 - asyncio.get_running_loop().time()))
        own_valkey.thaw()
        thawed_at = asyncio.get_running_loop().time()
        await talkers.more(200, within_s=2)
        again, _ = await timed(client, "POST", MESSAGE, caught_body, headers=keyed)

    findings = await talkers.settled(sink)

    assert findings.clean, findings
    assert again.status == 200
    assert (await client.buffer("caught")).json["size"] == 1
    assert epochs == (
        own_valkey.command("HGET", "buzon:{00}:own", "ep"),
        own_valkey.command("HGET", "buzon:{ff}:own", "ep"),
    )
    assert {told.status for told in talkers.told} == {200, 503}
    assert all(told.retry_after for told in talkers.refused)
    assert max(told.took_s for told in talkers.refused) < SUDDEN_S
    later = sorted(told.took_s for told in talkers.refused if known_at < told.sent_at < thawed_at)
    assert later[-len(later) // 50] < KNOWN_S
    assert later[-1] < VICTIM_S


def is_problem_free_503(answer: Answer, reason: str) -> bool:
    """A node that is not ready says why in its own words, not as a problem."""
    assert answer.status == 503
    return any(reason in each for each in answer.json["reasons"])


async def test_a_full_mailbox(node: NodeProcess, client: Client, own_valkey: ValkeyServer, sink: Sink) -> None:
    """While the store hangs a key takes as many callers as its mailbox holds; one more is refused at once, and other
    keys are not refused for it. Nothing that was refused is applied, nothing that was taken is lost."""
    room, beyond = Buffer.asks_max, 50
    body = msgspec.json.encode(message(sink.url(), "k", {}, wait_time=60, max_size=1000))
    head = (
        f"POST {MESSAGE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(raw_connection(node.port)) for _ in range(room + beyond)]
        own_valkey.freeze()
        for _, writer in connections:
            writer.write(head.encode() + body)
        answers = [asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")) for reader, _ in connections]
        await until(lambda: sum(answer.done() for answer in answers) >= beyond, 0.8, what="some are refused")
        refused = [answer.result() for answer in answers if answer.done()]
        other = asyncio.ensure_future(client.call("POST", MESSAGE, message(sink.url(), "other", {}, wait_time=60)))
        own_valkey.thaw()
        taken = [head for head in await asyncio.gather(*answers) if head.startswith(b"HTTP/1.1 200 ")]

    assert len(refused) == beyond
    assert all(head.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in head for head in refused)
    assert (await other).status == 200
    assert len(taken) == room
    assert (await client.buffer("k")).json["size"] == room


async def test_a_store_that_forgets_its_scripts(client: Client, own_valkey: ValkeyServer, sink: Sink) -> None:
    """SCRIPT FLUSH without a pause: not one request fails."""
    reader, writer = await asyncio.open_unix_connection(own_valkey.socket_path)
    flushed = 0

    async def flush_for_ever() -> None:
        nonlocal flushed
        while True:
            writer.write(b"SCRIPT FLUSH SYNC\r\n")
            assert await reader.readline() == b"+OK\r\n"
            flushed += 1

    flushing = asyncio.ensure_future(flush_for_ever())
    async with Talkers(client, sink.url(), KEYS) as talkers:
        await talkers.more(400)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    writer.close()
    await writer.wait_closed()

    findings = await talkers.settled(sink)

    assert flushed > 200
    assert talkers.refused == []
    assert findings.clean, findings


async def test_a_store_that_cuts_every_connection(client: Client, own_valkey: ValkeyServer, sink: Sink) -> None:
    """CLIENT KILL of all, again and again: what it catches is put off, nothing is lost or doubled."""
    async with Talkers(client, sink.url(), KEYS) as talkers:
        for _ in range(6):
            await talkers.more(60)
            own_valkey.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await talkers.more(100)

    findings = await talkers.settled(sink)

    assert findings.clean, findings
    assert {told.status for told in talkers.told} <= {200, 503}
    assert all(told.took_s < SUDDEN_S for told in talkers.refused)


async def test_a_store_that_takes_no_more_connections(client: Client, own_valkey: ValkeyServer, sink: Sink) -> None:
    """maxclients: refused while it lasts, well again afterwards, and nobody hammers at the door meanwhile."""
    with own_valkey.client() as admin:
        admin.execute_command("CONFIG", "SET", "maxclients", 1)
        async with Talkers(client, sink.url(), KEYS) as talkers:
            before = int(admin.info("stats")["rejected_connections"])
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await passing(1.0)
            rejected = int(admin.info("stats")["rejected_connections"]) - before
            assert {told.status for told in talkers.told[-20:]} == {503}
            admin.execute_command("CONFIG", "SET", "maxclients", 100)
            await talkers.more(100, within_s=2)

    findings = await talkers.settled(sink)
    assert findings.clean, findings
    assert 2 <= rejected <= 20


async def backlog(client: Client, sink: Sink, count: int) -> None:
    """Deliveries that wait for a second try, so that there is something to drain."""
    for number in range(count):
        sink.on(f"/{number}", Reply(status=500, headers=(("Retry-After", "1"),)), Reply())
    await asyncio.gather(
        *(client.send(sink.url(f"/{number}"), f"b{number}", {"x": "y" * 2000}, max_size=1) for number in range(count))
    )
    await sink.wait_for_requests(count)


@pytest.mark.parametrize("and_cut_off", [False, True], ids=["connected", "reconnecting"])
async def test_a_full_store(client: Client, own_valkey: ValkeyServer, sink: Sink, and_cut_off: bool) -> None:
    """maxmemory: new messages are put off whole, what is stored goes out all the same, and as soon as there is room
    messages are taken again. Also when the node has to connect anew meanwhile."""
    await backlog(client, sink, 30)
    await client.send(sink.url("/open"), "open", {}, wait_time=0.5)
    own_valkey.command("CONFIG", "SET", "maxmemory", "1mb")
    if and_cut_off:
        own_valkey.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    refused = await client.call("POST", MESSAGE, message(sink.url("/new"), "new", {}, max_size=1))
    keyed = await client.call(
        "POST", MESSAGE, message(sink.url("/new"), "new", {}, max_size=1), headers={"Idempotency-Key": "k"}
    )
    assert is_put_off(refused)
    assert is_put_off(keyed)
    if not and_cut_off:  # else it may be away at this moment
        ready = await client.call("GET", "/readyz")
        assert ready.status == 503
        assert "the store refuses to write: OOM" in ready.json["reasons"][0]
    await sink.wait_for_requests(61, 5)
    async with asyncio.timeout(5):
        rows = await client.until_status("b0", "delivered")
    assert len(rows[0]["attempts"]) == 2
    assert "/new" not in {request.path for request in sink.requests}
    assert (await client.call("DELETE", f"/api/v1/deliveries/{rows[0]['id']}")).status == 409

    own_valkey.command("CONFIG", "SET", "maxmemory", "0")
    async with asyncio.timeout(2):
        await until(lambda: taken(client, sink), what="messages are taken again")
    await until(lambda: "/new" in {request.path for request in sink.requests}, what="the new message arrives")


async def taken(client: Client, sink: Sink) -> bool:
    """Whether a message is taken now."""
    return await client.try_send(sink.url("/new"), "new", {}, max_size=1, message_id="new") == 200


async def test_a_store_that_comes_back_full(client: Client, own_valkey: ValkeyServer, sink: Sink) -> None:
    """It restarted over its maxmemory: what it holds must go out, or it would stay full for ever."""
    await backlog(client, sink, 5)
    own_valkey.kill9()
    await asyncio.to_thread(own_valkey.start, "--maxmemory", "1mb")

    await sink.wait_for_requests(10, 6)
    for number in range(5):
        await client.until_status(f"b{number}", "delivered")
    assert is_put_off(await client.call("POST", MESSAGE, message(sink.url("/new"), "new", {}, max_size=1)))


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru, not noeviction"),
        ("--maxmemory-policy", "volatile-ttl", "maxmemory-policy is volatile-ttl, not noeviction"),
        ("--appendonly", "no", "appendonly is off"),
    ],
)
async def test_a_store_that_may_lose_messages_is_not_ready(
    make_node: NodeFactory,
    own_valkey: ValkeyServer,
    http: aiohttp.ClientSession,
    option: str,
    value: str,
    reason: str,
) -> None:
    """/readyz is red and names the setting, the log says it loudly; ALLOW_UNSAFE_STORE accepts it."""
    own_valkey.stop()
    await asyncio.to_thread(own_valkey.start, option, value)
    node = make_node(redis_url=own_valkey.url)
    node.launch()
    client = Client(http, node.url)

    async def reasons() -> list[str]:
        try:
            answer = await client.call("GET", "/readyz")
        except aiohttp.ClientError:
            return []
        assert answer.status == 503
        return [each for each in answer.json["reasons"] if each != "starting"]

    (said,) = await until(reasons, what="it says why it is not ready")
    assert said.startswith(reason)
    assert "ALLOW_UNSAFE_STORE" in said
    assert reason in node.output()
    assert (await node.sigterm()).exit_code == 0
    accepted = make_node({"ALLOW_UNSAFE_STORE": "yes"}, redis_url=own_valkey.url)
    await accepted.start()
