"""Two nodes, one with the fast lane: the same requests give the same answers, and under load nobody gets another's.

`SECONDS=60 make test ARGS="tests/integration/test_fast_lane.py"` plays for a minute, with 10,000 idle connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from time import monotonic
from typing import NamedTuple

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.client import Client, raw_connection
from tests.support.lane_stand import parsed
from tests.support.node import NodeProcess
from tests.support.until import until
from tests.support.valkey import ValkeyServer, served

SECONDS = float(os.environ.get("SECONDS", "2"))
IDLE = 10_000 if SECONDS >= 60 else 500
TALKERS = 40
RSS_PER_CONNECTION_MAX = 20 * 1024
NEW_EACH_TIME = re.compile(
    rb'req_[0-9a-f]{20}|(?<="task_id":")[^"]+|(?<="message_id":")msg_[^"]+|(?<="id":")[^"]+|(?<="epoch":")[^"]+'
    rb'|(?<="time_remaining":)[0-9.]+|(?<="(?:created|updated)_at":")[^"]+|(?<="expires_at":")[^"]+'
    rb'|(?<="remaining_ttl":")[^"]+|ttl=[0-9]+'
)
MESSAGE = {
    "webhook": {"url": "http://127.0.0.1:9/nowhere"},
    "buffer": {"key": "k", "wait_time": 3600, "max_size": 100},
    "payload": {"n": 1},
}


class Pair(NamedTuple):
    """The two nodes."""

    fast: NodeProcess
    plain: NodeProcess


@pytest.fixture
def other_store() -> Iterator[ValkeyServer]:
    """Of the second node."""
    yield from served(ValkeyServer())


@pytest.fixture
async def pair(make_node: NodeFactory, own_valkey: ValkeyServer, other_store: ValkeyServer) -> Pair:
    """Started."""
    settings = {"EVOLUTION_API_URL": "http://127.0.0.1:9", "EVOLUTION_API_KEY": "k", "NODE_ID": "one"}
    nodes = [
        make_node({**settings, "FAST_LANE": fast_lane}, redis_url=store.url)
        for fast_lane, store in (("on", own_valkey), ("off", other_store))
    ]
    await asyncio.gather(*(node.start() for node in nodes))
    return Pair(*nodes)


def request(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """As curl would send it."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + content


def conversation() -> Iterator[bytes]:
    """What is asked of both, in this order: every hot route, well and badly."""
    body: object
    for body in (
        MESSAGE,
        {**MESSAGE, "message_id": "m1"},
        {**MESSAGE, "message_id": "m1"},
        {},
        b"{",
        b"[]",
        b"",
        b'"\xff"',
    ):
        yield request("POST", "/api/v1/message", body)
    for key, body in (("i1", MESSAGE), ("i1", MESSAGE), ("i1", {**MESSAGE, "payload": 2}), ('"', MESSAGE)):
        yield request("POST", "/api/v1/message", body, Idempotency_Key=key)
    yield request("POST", "/api/v1/message", MESSAGE, X_Request_ID="mine", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    for at in ("/api/cache", "/api/v1/cache"):
        for key in ("a", "none", "x" * 513, "buzon:own"):
            yield request("GET", f"{at}/{key}")
            yield request("GET", f"{at}/{key}", If_None_Match="*")
    for body in (
        {"value": [1, {"a": None}]},
        {"value": 1, "ttl": "1h"},
        {"value": 1, "ttl": -5},
        {},
        b"nope",
    ):
        yield request("PUT", "/api/v1/cache/a", body)
        yield request("GET", "/api/v1/cache/a")
        yield request("GET", "/api/cache/a")
    for value in ("*", '"wrong"', "broken"):
        yield request("PUT", "/api/v1/cache/a", {"value": 2}, If_Match=value)
        yield request("GET", "/api/v1/cache/a", If_Match=value)
        yield request("PUT", "/api/v1/cache/b", {"value": 2}, If_None_Match=value)
    for body in (
        {"key": "c", "value": "ñ"},
        {"key": "c"},
        {"value": 1},
        {"key": "", "value": 1},
        {"key": "c", "value": 1, "ttl": 0},
    ):
        yield request("POST", "/api/cache/", body)
        yield request("POST", "/api/cache/", body, Idempotency_Key=f"key {len(json.dumps(body))}")
        yield request("GET", "/api/cache/c")
    for body in (
        {"channel": "c", "message": {"a": 1}},
        {"message": 1},
        {"channel": "$nodes", "message": 1},
        {"channel": "c"},
        b"x",
    ):
        yield request("POST", "/api/queue/publish", body)
        yield request("POST", "/api/queue/publish", body, Idempotency_Key="one")
    for body in (
        {"phone": "+52 1 234 567 890", "message": "Hola"},
        {"phone": "+52 1 234 567 890", "message": "Hola", "message_id": "m1"},
        {"phone": "+52 1 234 567 890", "message": "Hola", "message_id": "m1", "delay": 60},
        {"phone": "x", "message": "Hola"},
        {"phone": "1"},
        {},
    ):
        yield request("POST", "/messages", body)
        yield request("POST", "/messages", body, Idempotency_Key="two")
    for task_id in ("tsk_nothing", "x", "tsk_" + "0" * 40):
        yield request("GET", f"/tasks/{task_id}")
    yield request("GET", "/livez")
    yield request("POST", "/livez", {})


async def answer_to(node: NodeProcess, *requests: bytes) -> list[tuple[bytes, list[bytes], bytes]]:
    """All answers on one connection, which the last request closes."""
    async with raw_connection(node.port) as (reader, writer):
        for each in requests:
            writer.write(each)
            await writer.drain()
        writer.write(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            stream = await reader.read()
    answers = parsed(stream)
    return [(status, unlike(lines), NEW_EACH_TIME.sub(b"", body)) for status, lines, body in answers]


def unlike(lines: tuple[bytes, ...]) -> list[bytes]:
    """Header lines without what is new each time."""
    kept = (line for line in lines if not line.startswith((b"content-length", b"etag")))
    return [NEW_EACH_TIME.sub(b"", line) for line in kept]


async def test_every_answer_is_the_same(pair: Pair) -> None:
    """One request after the other, and all of them pipelined on one connection; the second time the lane knows all."""
    for turn in range(2):
        for each in conversation():
            fast, plain = [await answer_to(node, each) for node in pair]
            assert fast == plain, (turn, each)
    for node in pair:
        await answer_to(node, request("DELETE", "/api/v1/cache/"))
    asked = list(conversation())
    fast, plain = [await answer_to(node, *asked) for node in pair]
    assert len(fast) == len(asked) + 1
    for each, one, other in zip((*asked, b"the last"), fast, plain, strict=True):
        assert one == other, each


@pytest.mark.timeout(180)
async def test_nobody_gets_another_s_answer(pair: Pair, http: aiohttp.ClientSession) -> None:
    """Hot and cold requests with bodies of their own, pipelined on many connections beside very many idle ones."""
    client = Client(http, pair.fast.url)
    await client.call("PUT", "/api/v1/cache/warm", {"value": 1})
    before = resident(pair.fast.pid)
    async with AsyncExitStack() as held:
        idle = [await held.enter_async_context(raw_connection(pair.fast.port)) for _ in range(IDLE)]
        for _, writer in idle:
            writer.write(request("GET", "/livez"))
        for reader, _ in idle:
            await reader.readuntil(b'"alive"}')
        grown = resident(pair.fast.pid) - before
        ends_at = monotonic() + SECONDS
        counts = await asyncio.gather(*(talk(pair.fast, number, ends_at) for number in range(TALKERS)))
    assert sum(counts) > TALKERS
    assert grown < IDLE * RSS_PER_CONNECTION_MAX

    async def alone() -> bool:
        page = (await client.call("GET", "/metrics")).body.decode()
        found = re.search(r"^process_open_fds (\S+)", page, re.MULTILINE)
        return found is not None and float(found[1]) < IDLE

    await until(alone, 20, what="connections that ended are let go")
    assert (await client.call("GET", "/health")).status == 200


@pytest.mark.timeout(180)
async def test_two_workers_have_a_lane_each(make_node: NodeFactory, own_valkey: ValkeyServer) -> None:
    """Connections go to either, and what was asked of one is answered by it."""
    node = make_node({"WORKERS": "2", "NODE_ID": "two"}, redis_url=own_valkey.url)
    await node.start()
    ends_at = monotonic() + SECONDS
    counts = await asyncio.gather(*(talk(node, number, ends_at) for number in range(TALKERS)))
    assert min(counts) > 0


async def test_who_hears_only_is_answered_whole_or_not_at_all(pair: Pair, http: aiohttp.ClientSession) -> None:
    """A client that closes its side behind its request: as with aiohttp the connection ends, and what it asked is
    done."""
    asked = 10
    for node in pair:
        await answer_to(node, request("GET", "/livez"), request("POST", "/api/v1/message", MESSAGE))
        for each in [request("GET", "/livez"), request("POST", "/api/v1/message", MESSAGE)] * asked:
            async with raw_connection(node.port) as (reader, writer), asyncio.timeout(5):
                writer.write(each)
                writer.write_eof()
                stream = await reader.read()
            assert [status for status, _, _ in parsed(stream)] in ([], [b"HTTP/1.1 200 OK"])
        batch = await Client(http, node.url).call("GET", "/api/v1/buffers/k")
        assert batch.json["size"] == asked + 1


OTHER_AIOHTTP = "import aiohttp; aiohttp.__version__ = '3.99.0'; from router.cli import main; main()"


async def test_with_an_aiohttp_that_nobody_tested_it_is_off(valkey: ValkeyServer, tmp_path: Path) -> None:
    """The node says so, and answers all the same."""
    node = NodeProcess(tmp_path / "data", redis_url=valkey.url, program=("-c", OTHER_AIOHTTP, "serve"))
    try:
        await node.start()
        answers = await answer_to(node, request("GET", "/livez"), request("GET", "/livez"))
        assert [status for status, _, _ in answers] == [b"HTTP/1.1 200 OK"] * 3
        assert '"event":"fast lane is off"' in node.output()
        assert "aiohttp 3.99.0 is not one that it was tested with" in node.output()
    finally:
        node.close()


async def talk(node: NodeProcess, number: int, ends_at: float) -> int:
    """Ask until the time is over, a few at once; each answer must be that of its request. Some leave in the middle."""
    random = Random(number)  # noqa: S311  a test's own dice
    turn = asked = 0
    while monotonic() < ends_at:
        async with raw_connection(node.port) as (reader, writer):
            for _ in range(random.randint(1, 20)):
                wanted = [f"{number}-{(turn := turn + 1)}" for _ in range(random.randint(1, 6))]
                writer.write(b"".join(question(random, mark) for mark in wanted))
                for mark in wanted:
                    head = await reader.readuntil(b"\r\n\r\n")
                    found = re.search(rb"Content-Length: (\d+)", head)
                    assert found is not None, head
                    body = await reader.readexactly(int(found[1]))
                    assert f"X-Request-ID: {mark}\r\n".encode() in head, (mark, head)
                    assert re.search(rb"(?<![\d-])%b(?![\d-])" % mark.encode(), body), (mark, head, body)
                    asked += 1
            if random.random() < 0.5:
                writer.write(b"".join(question(random, f"{number}-gone") for _ in range(3)))
    return asked


def question(random: Random, mark: str) -> bytes:
    """One of the routes, hot or not, whose answer names what was asked."""
    method, path, body = random.choice(
        (
            ("POST", "/api/v1/message", {**MESSAGE, "message_id": mark}),
            ("PUT", f"/api/v1/cache/{mark}", {"value": mark}),
            ("POST", "/api/cache/", {"key": mark, "value": 1, "ttl": 60}),
            ("GET", f"/api/v1/cache/{mark}", None),  # not there: the problem names it, as the following ones do
            ("POST", "/api/queue/publish", {"channel": mark, "message": 1}),
            ("GET", f"/tasks/{mark}", None),
            ("GET", f"/api/v1/buffers/{mark}", None),  # cold
        )
    )
    return request(method, path, body, X_Request_ID=mark)


def resident(pid: int) -> int:
    """Bytes of a process that are really there."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client whose connections are not those that are counted."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session
