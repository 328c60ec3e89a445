"""Requests that don't come, or come byte by byte: their connections end in time, and nobody else notices them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from statistics import median

import msgspec
import pytest
from aiohttp import ClientSession, web

from router.edge.handlers import body_endpoint, endpoint
from router.edge.openapi import Operation
from router.edge.server import KEEPALIVE_S, LOOK_S, EdgeServer
from router.edge.usecase import Call, Reply, RequestHeaders
from tests.support import edge
from tests.support.until import passing, until

LIMIT_S = 0.3
LATE_S = LOOK_S + 0.4
"""How late an end may come: the server's own allowance and a busy machine's."""
DRIP_S = 0.02
HEAD = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
CHUNKED_HEAD = b"POST /take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HEALTHY = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


async def take(body: bytes, _headers: RequestHeaders) -> Reply:
    """Answer the body."""
    return Reply(200, body)


async def find(call: Call) -> Reply:
    """Answer the body."""
    return Reply(200, call.body)


def add_routes(app: web.Application) -> None:
    """Both kinds of route that read a body."""
    for name, handler in (("take", body_endpoint(take)), ("find", endpoint(find))):
        described = Operation(summary=name, tag="operations", operation_id=name, responses={200: None})
        app.router.add_post(f"/{name}", described(handler))


class Talk:
    """One raw connection, and how it ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._opened_at = time.monotonic()
        self.ended_after_s: float | None = None

    def say(self, data: bytes) -> None:
        """Send, without waiting for anything."""
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """The next answer: its status and body. The connection may live on."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head.split(b" ", 2)[1]), await self._reader.readexactly(int(length))

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        got = b""
        try:
            async with asyncio.timeout(10):
                while data := await self._reader.read(1 << 16):
                    got += data
        except ConnectionError:
            pass  # closed in the middle of our own words
        self.ended_after_s = time.monotonic() - self._opened_at
        return got

    async def drip(self, data: bytes) -> bytes:
        """Send byte by byte until the server closes, and give all that came back."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self.rest())
            for byte in data:
                self.say(bytes([byte]))
                await passing(DRIP_S)
                if listening.done():
                    break
        return listening.result()

    async def close(self) -> None:
        """Leave."""
        self._writer.transport.abort()


@asynccontextmanager
async def running(request_s: float = LIMIT_S, keepalive_timeout: float = KEEPALIVE_S) -> AsyncIterator[edge.EdgeServer]:
    """An edge with small limits."""
    server = edge.EdgeServer(add_routes)
    await server.start_server(request_s=request_s, keepalive_timeout=keepalive_timeout)
    try:
        yield server
    finally:
        await server.close()


@pytest.fixture(name="server")
async def fixture_server() -> AsyncIterator[edge.EdgeServer]:
    """A running server."""
    async with running() as server:
        yield server


@asynccontextmanager
async def talk(server: edge.EdgeServer) -> AsyncIterator[Talk]:
    """A connection to it."""
    connection = Talk(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        yield connection
    finally:
        await connection.close()


def problem_in(answer: bytes) -> dict[str, object]:
    """The problem in a raw answer that is the connection's last."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    decoded: dict[str, object] = msgspec.json.decode(body)
    return decoded


def inside(server: edge.EdgeServer) -> EdgeServer:
    """The server proper."""
    assert server.runner is not None
    inner = server.runner.server
    assert isinstance(inner, EdgeServer)
    return inner


@pytest.mark.parametrize("beginning", [b"", b"\r\n\r\n", b"POST /ta", HEAD[:-2]], ids=["no", "empty", "line", "head"])
async def test_a_connection_without_a_head_is_closed(server: edge.EdgeServer, beginning: bytes) -> None:
    """Not before its time is over, and soon afterwards."""
    async with talk(server) as connection:
        connection.say(beginning)
        assert await connection.rest() == b""
        assert connection.ended_after_s is not None
        assert LIMIT_S - 0.02 <= connection.ended_after_s <= LIMIT_S + LATE_S
    await until(lambda: not inside(server).connections, what="nothing is left of it")


async def test_a_dripping_head_is_closed_all_the_same(server: edge.EdgeServer) -> None:
    """Bytes that come don't buy time."""
    async with talk(server) as connection:
        assert await connection.drip(HEAD) == b""
        assert connection.ended_after_s is not None
        assert connection.ended_after_s <= LIMIT_S + LATE_S


@pytest.mark.parametrize("path", [b"/take", b"/find"])
@pytest.mark.parametrize("beginning", [HEAD + b'{"a":', CHUNKED_HEAD + b"5\r\n{}"], ids=["length", "chunked"])
async def test_a_partial_body_is_a_408(server: edge.EdgeServer, beginning: bytes, path: bytes) -> None:
    """The problem is the last thing that the connection says."""
    async with talk(server) as connection:
        connection.say(beginning.replace(b"/take", path))
        problem = problem_in(await connection.rest())
        assert connection.ended_after_s is not None
        assert LIMIT_S - 0.02 <= connection.ended_after_s <= LIMIT_S + LATE_S
    assert problem["type"] == "urn:buzon:problem:too-slow"
    assert (problem["status"], problem["title"]) == (408, "Request Timeout")
    assert problem["detail"] == f"the body took longer than {LIMIT_S} s"


async def test_a_dripping_body_is_a_408_all_the_same(server: edge.EdgeServer) -> None:
    """Also on a connection that was answered before; the rest of the body is not waited for."""
    async with talk(server) as connection:
        connection.say(HEALTHY)
        assert await connection.answer() == (200, b"{}")
        connection.say(HEAD)
        assert problem_in(await connection.drip(b" " * 90))["status"] == 408
        assert connection.ended_after_s is not None
        assert connection.ended_after_s <= LIMIT_S + LATE_S


async def test_a_body_that_comes_in_parts_but_in_time_is_taken(server: edge.EdgeServer) -> None:
    """Slow is not too slow; the connection lives on."""
    async with talk(server) as connection:
        for part in (HEALTHY[:10], HEALTHY[10:-2], HEALTHY[-2:-1], HEALTHY[-1:]):
            connection.say(part)
            await passing(LIMIT_S / 6)
        assert await connection.answer() == (200, b"{}")
        connection.say(HEALTHY)
        assert await connection.answer() == (200, b"{}")


async def test_an_idle_connection_that_was_answered_stays(server: edge.EdgeServer) -> None:
    """Keep-alive has its own, longer limit."""
    async with talk(server) as connection:
        connection.say(HEALTHY)
        assert await connection.answer() == (200, b"{}")
        await passing(3 * LIMIT_S)
        connection.say(HEALTHY)
        assert await connection.answer() == (200, b"{}")


async def test_half_a_head_after_an_answer_is_ended_by_the_keep_alive_limit() -> None:
    """Whether it comes at once, with the request before, or drips."""
    async with running(keepalive_timeout=LIMIT_S) as server, talk(server) as connection:
        connection.say(HEALTHY + HEAD[:20])
        assert await connection.answer() == (200, b"{}")
        assert await connection.drip(HEAD[20:]) == b""
        assert connection.ended_after_s is not None
        assert connection.ended_after_s <= LIMIT_S + LATE_S


async def test_hundreds_of_half_open_connections_hurt_nobody() -> None:
    """300 silent ones, half heads and half bodies: a healthy client is as quick as alone, and then they are gone."""
    limit_s = 5.0
    async with running(limit_s) as server, ClientSession(server.make_url("/")) as client:
        alone_s = median(await answer_times(client, 60))
        began = time.monotonic()
        talks = [Talk(*await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 12)) for _ in range(300)]
        for talker, beginning in zip(talks, _in_turn(b"", HEAD[:40], HEAD + b'{"a"'), strict=False):
            talker.say(beginning)
        async with asyncio.TaskGroup() as tasks:
            endings = [tasks.create_task(talker.rest()) for talker in talks]
            among_s = median(await answer_times(client, 60))
            assert not any(ending.done() for ending in endings)

        assert time.monotonic() - began <= limit_s + 1.0
        assert sorted(ending.result()[9:12] for ending in endings) == [b""] * 200 + [b"408"] * 100
        assert among_s <= 2 * alone_s + 0.002
        await until(lambda: len(inside(server).connections) == 1, what="only the healthy one is left")
        for talker in talks:
            await talker.close()


async def test_the_timer_ends_with_the_server() -> None:
    """And there is none while there is nothing to wait for."""
    async with running() as server:
        inner = inside(server)
        assert inner._timer is None
        async with talk(server) as connection:
            connection.say(HEALTHY)
            assert await connection.answer() == (200, b"{}")
            assert inner._timer is not None
            await until(lambda: inner._timer is None, what="the last look")
            async with talk(server):
                await until(lambda: inner._timer is not None, what="a new connection is waited for")
                await server.close()
                assert inner._timer is not None
                assert inner._timer.cancelled()


async def answer_times(client: ClientSession, count: int) -> list[float]:
    """How long each of so many requests took."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        async with client.post("/take", data=b"{}") as response:
            assert response.status == 200
            await response.read()
        took.append(time.perf_counter() - began)
    return took


def _in_turn(*values: bytes) -> Iterable[bytes]:
    while True:
        yield from values
