"""The exchange's connections: one is used again after a whole answer to a whole request, and never else."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from threading import Event

import aiohttp
import pytest

from actors.adapters.http.egress import HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest
from tests.support.behaviours import OK, Drip
from tests.support.certificate import self_signed
from tests.support.sink import Sink
from tests.support.until import passing

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
MORE_THAN_THE_KERNEL_TAKES = 64 * 1024 * 1024
MORE_THAN_TLS_SHOWS = 6 * 1024 * 1024
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as egress:
        await egress.start()
        yield egress


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of a server that treats each connection so."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls) as server:
        scheme = "https" if tls else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


def trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server shows, and the egress trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")
    server, certificate = self_signed(folder)
    client = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", client)
    return server


def post(url: str, body: bytes = b"{}", timeout_s: float = 5.0) -> OutboundRequest:
    """A request to a webhook."""
    return OutboundRequest(method="POST", url=url, headers={}, body=body, timeout_s=timeout_s)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_who_answers_before_the_body_has_left_gets_no_more_on_that_connection(
    egress: HttpEgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """What it reads next there would be the rest of that body, or nothing at all."""
    tls = trusted(tmp_path, monkeypatch) if secure else None
    connections = 0
    let_go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        await let_go.wait()

    async with serving(serve, tls) as url:
        for number in (1, 2):
            size = MORE_THAN_TLS_SHOWS if secure else MORE_THAN_THE_KERNEL_TAKES
            outcome = await egress.send(post(url, bytes(size)))
            assert isinstance(outcome, Answered)
            assert (outcome.status, connections) == (202, number)
        let_go.set()


async def test_an_answer_that_nobody_asked_for_is_nobodys(egress: HttpEgress) -> None:
    """What came while a connection was idle is not the answer to what is sent next, nor are those after it."""
    surplus = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(ACCEPTED)
        if connections == 1:
            await surplus.wait()
            writer.write(ACCEPTED.replace(b"202 Accepted", b"500 Surplus"))
        await reader.read()

    async with serving(serve) as url:
        assert isinstance(await egress.send(post(url)), Answered)
        surplus.set()
        await passing(0.05)
        second = await egress.send(post(url))
        assert isinstance(second, Answered)
        assert (second.status, connections) == (202, 2)


async def test_a_deadline_that_passes_while_the_loop_stands_still(egress: HttpEgress) -> None:
    """The head of the answer lies there when the deadline is noticed; the rest never comes, and is not waited for."""
    asked, frozen, over = Event(), Event(), Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                asked.set()
                frozen.wait(10)
                connection.sendall(ACCEPTED.replace(b"Length: 0", b"Length: 9"))
                over.wait(10)

        serving = asyncio.ensure_future(asyncio.to_thread(serve))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        sending = asyncio.ensure_future(egress.send(post(url, timeout_s=0.3)))
        await asyncio.to_thread(asked.wait)
        frozen.set()
        over.wait(0.5)  # nothing else happens in this loop meanwhile
        async with asyncio.timeout(2.0):
            outcome = await sending
        over.set()
        await serving
    assert isinstance(outcome, Answered)
    assert outcome.status == 202


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


async def test_a_trusted_certificate(egress: HttpEgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of any size arrive whole; only after a long one nobody can tell whether all of it has left."""
    async with Sink(tls=trusted(tmp_path, monkeypatch)) as sink:
        for size, connections in ((2, 1), (16_000, 1), (3_000_000, 1), (0, 2), (70_000, 2), (1, 3)):
            outcome = await egress.send(post(sink.url(), bytes(size)))
            assert isinstance(outcome, Answered), outcome
            assert (len(sink.requests[-1].body), sink.connections) == (size, connections)
