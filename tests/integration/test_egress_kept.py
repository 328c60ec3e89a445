"""The egress for whom it matters what an answer says, and whether a request that was not answered had left."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from actors.adapters.http.egress import ANSWER_BYTES_MAX, EXCERPT_BYTES_MAX, HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest, Withheld
from tests.support.behaviours import Hang, Raw, Reply, Reset
from tests.support.sink import Sink

JSON = (("Content-Type", "application/json"),)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A receiver for one test."""
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as egress:
        await egress.start()
        yield egress


def post(url: str, *, keep_bytes: int = 0, timeout_s: float = 5.0, body: bytes = b"{}") -> OutboundRequest:
    """A request of whose answer so much is to be kept."""
    return OutboundRequest(method="POST", url=url, headers={}, body=body, timeout_s=timeout_s, keep_bytes=keep_bytes)


async def failed(egress: HttpEgress, request: OutboundRequest) -> Failed:
    """How a request failed that must."""
    outcome = await egress.send(request)
    assert isinstance(outcome, Failed), outcome
    return outcome


async def answered(egress: HttpEgress, request: OutboundRequest) -> Answered:
    """The answer to a request that must get one."""
    outcome = await egress.send(request)
    assert isinstance(outcome, Answered), outcome
    return outcome


async def test_nothing_has_left_for_whom_nobody_listens(egress: HttpEgress) -> None:
    """Refused at the door, by its name, or by the guard."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/", "http://nobody.invalid/", "http://10.0.0.1/", "http://[::/"):
            assert not (await failed(egress, post(url, timeout_s=2.0))).written


async def test_nothing_has_left_for_whom_the_handshake_fails(egress: HttpEgress, sink: Sink) -> None:
    """The other side speaks no TLS: of the request it has seen nothing, however long one waits."""
    outcome = await failed(egress, post(sink.url().replace("http:", "https:"), timeout_s=0.3))
    assert not outcome.written


async def test_nothing_has_left_of_what_was_withheld(egress: HttpEgress, sink: Sink) -> None:
    """It is no failure at all, on a new connection and on a kept one."""
    request = post(sink.url())
    withheld = OutboundRequest(
        method="POST", url=sink.url(), headers={}, body=b"{}", timeout_s=5.0, may_start=lambda: False
    )
    assert await egress.send(withheld) == Withheld()
    await answered(egress, request)
    assert await egress.send(withheld) == Withheld()
    assert sink.count == 1


@pytest.mark.parametrize("size", [2, 2_000_000])
@pytest.mark.parametrize("behaviour", [Reset(), Raw(b""), Raw(b"SSH-2.0-x\r\n"), Hang()], ids=str)
async def test_a_request_that_was_read_and_not_answered_has_left(
    egress: HttpEgress, sink: Sink, behaviour: Reset | Raw | Hang, size: int
) -> None:
    """Whatever ended the wait: a reset, the end, nonsense, or the clock."""
    sink.next(behaviour)
    timeout_s = 0.3 if isinstance(behaviour, Hang) else 5.0
    assert (await failed(egress, post(sink.url(), body=b"x" * size, timeout_s=timeout_s))).written


async def test_each_request_has_its_own_word(egress: HttpEgress, sink: Sink) -> None:
    """One that had left says nothing of the next from the same caller."""
    sink.next(Reset())
    assert (await failed(egress, post(sink.url()))).written
    assert not (await failed(egress, post("http://nobody.invalid/"))).written


@pytest.mark.parametrize("keep_bytes", [1, 10, EXCERPT_BYTES_MAX, 5000, ANSWER_BYTES_MAX, 1_000_000])
async def test_an_answer_is_kept_as_far_as_it_is_wanted(egress: HttpEgress, sink: Sink, keep_bytes: int) -> None:
    """Byte for byte, with its type; the excerpt is what it is without."""
    body = bytes(range(256)) * 800
    sink.next(*(Reply(headers=JSON, body=body) for _ in range(2)))

    kept = await answered(egress, post(sink.url(), keep_bytes=keep_bytes))
    plain = await answered(egress, post(sink.url()))

    assert kept.body == body[:keep_bytes]
    assert kept.content_type == "application/json"
    assert (plain.body, plain.content_type) == (b"", None)
    assert kept.excerpt == plain.excerpt
    assert 0 < len(plain.excerpt.encode()) <= EXCERPT_BYTES_MAX


async def test_an_answer_that_came_in_pieces_is_kept_whole(egress: HttpEgress, sink: Sink) -> None:
    """Up to its end; and its type may be missing."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    sink.next(Raw(head + b"".join(b"4\r\nab%02d\r\n" % at for at in range(50)) + b"0\r\n\r\n"))
    kept = await answered(egress, post(sink.url(), keep_bytes=150))
    assert kept.body == b"".join(b"ab%02d" % at for at in range(50))[:150]
    assert kept.content_type is None


async def test_a_compressed_answer_is_not_kept(egress: HttpEgress, sink: Sink) -> None:
    """It was not asked for, and nobody here inflates it."""
    sink.next(Reply(headers=(*JSON, ("Content-Encoding", "gzip")), body=b"\x1f\x8b"))
    kept = await answered(egress, post(sink.url(), keep_bytes=100))
    assert (kept.status, kept.excerpt, kept.body) == (200, "", b"")
