"""The exchange's connections: one is used again after a whole answer to a whole request, and never else."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from actors.adapters.http.egress import HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest
from tests.support.behaviours import OK, Drip
from tests.support.certificate import self_signed
from tests.support.sink import Sink

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
MORE_THAN_THE_KERNEL_TAKES = 64 * 1024 * 1024
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as egress:
        await egress.start()
        yield egress


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The URL of a server that treats each connection so."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


def post(url: str, body: bytes = b"{}", timeout_s: float = 5.0) -> OutboundRequest:
    """A request to a webhook."""
    return OutboundRequest(method="POST", url=url, headers={}, body=body, timeout_s=timeout_s)


async def test_who_answers_before_the_body_has_left_gets_no_more_on_that_connection(egress: HttpEgress) -> None:
    """What it reads next there would be the rest of that body, or nothing at all."""
    connections = 0
    let_go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        await let_go.wait()

    async with serving(serve) as url:
        for number in (1, 2):
            outcome = await egress.send(post(url, bytes(MORE_THAN_THE_KERNEL_TAKES)))
            assert isinstance(outcome, Answered)
            assert (outcome.status, connections) == (202, number)
        let_go.set()


@pytest.mark.parametrize("patience_s", [0.1, None], ids=["too late", "cancelled"])
async def test_a_connection_that_owes_an_answer_is_not_used_again(egress: HttpEgress, patience_s: float | None) -> None:
    """An answer that comes when nobody waits for it is not the next request's."""
    asked, late = asyncio.Event(), asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n{}")
        if connections == 1:
            asked.set()
            await late.wait()
            writer.write(ACCEPTED.replace(b"202 Accepted", b"500 Late"))
        else:
            writer.write(ACCEPTED)

    async with serving(serve) as url:
        first = asyncio.ensure_future(egress.send(post(url, timeout_s=patience_s or 5.0)))
        await asked.wait()
        if patience_s is None:
            first.cancel()
        await asyncio.wait([first])
        assert first.cancelled() or isinstance(first.result(), Failed)
        late.set()
        second = await egress.send(post(url))
        assert isinstance(second, Answered)
        assert (second.status, connections) == (202, 2)


async def test_a_deadline_in_the_middle_of_an_answer_ends_its_connection(egress: HttpEgress) -> None:
    """The status stands; the rest of that answer is not the beginning of the next one."""
    async with Sink() as sink:
        sink.next(Drip(part="body", every_s=0.02), OK)
        first = await egress.send(post(sink.url(), timeout_s=0.2))
        assert isinstance(first, Answered)
        second = await egress.send(post(sink.url()))
        assert isinstance(second, Answered)
        assert sink.connections == 2


async def test_a_body_of_which_the_kernel_takes_a_part_arrives_whole(egress: HttpEgress) -> None:
    """The loop writes the rest as the other side reads."""
    body = bytes(range(256)) * (MORE_THAN_THE_KERNEL_TAKES // 256)
    arrived: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.append(await reader.readexactly(len(body)))
        writer.write(ACCEPTED)

    async with serving(serve) as url:
        outcome = await egress.send(post(url, body, timeout_s=20.0))
        assert isinstance(outcome, Answered)
    assert arrived == [body]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
async def test_a_trusted_certificate(egress: HttpEgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS all is the same: bodies of any size arrive whole, one after the other on one connection."""
    server, certificate = self_signed(tmp_path)
    client = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", client)
    async with Sink(tls=server) as sink:
        for size in (2, 3_000_000, 70_000, 0):
            outcome = await egress.send(post(sink.url(), bytes(size)))
            assert isinstance(outcome, Answered), outcome
        assert [len(request.body) for request in sink.requests] == [2, 3_000_000, 70_000, 0]
        assert sink.connections == 1
