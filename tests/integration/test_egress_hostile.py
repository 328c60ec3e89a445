"""The egress against receivers that misbehave: hang, drip, reset, flood, and answers that are not HTTP."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.adapters.http import exchange as exchange_module
from actors.adapters.http.egress import ANSWER_BYTES_MAX, HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest
from tests.support.behaviours import Drip, Flood, GzipBomb, Hang, Raw, Reply, Reset
from tests.support.certificate import self_signed
from tests.support.sink import Sink

PAGE_BYTES = 4096


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


def post(sink: Sink, body: bytes = b"{}", timeout_s: float = 2.0) -> OutboundRequest:
    """A request to the sink."""
    return OutboundRequest(method="POST", url=sink.url(), headers={}, body=body, timeout_s=timeout_s)


async def test_a_hang_is_cut_at_the_timeout(egress: HttpEgress, sink: Sink) -> None:
    """The timeout bounds the whole exchange, and the connection is closed."""
    sink.next(Hang())

    outcome = await egress.send(post(sink, timeout_s=0.2))

    assert isinstance(outcome, Failed)
    assert outcome.error == "timeout"
    assert 190 <= outcome.latency_ms < 1000
    await sink.wait_until_idle()


async def test_a_dripping_head_is_cut_at_the_timeout(egress: HttpEgress, sink: Sink) -> None:
    """Each byte comes soon enough; a timeout for single reads would never fire."""
    sink.next(Drip(part="head", every_s=0.02))

    outcome = await egress.send(post(sink, timeout_s=0.2))

    assert isinstance(outcome, Failed)
    assert outcome.error == "timeout"
    assert outcome.latency_ms < 1000
    await sink.wait_until_idle()


@pytest.mark.parametrize("status", [200, 500])
async def test_a_dripping_body_is_cut_and_the_status_stands(egress: HttpEgress, sink: Sink, status: int) -> None:
    """The status line has been given: to call a 200 a failure would deliver twice."""
    sink.next(Drip(status=status, every_s=0.02))

    outcome = await egress.send(post(sink, timeout_s=0.2))

    assert isinstance(outcome, Answered)
    assert outcome.status == status
    assert set(outcome.excerpt) == {"x"}
    assert 190 <= outcome.latency_ms < 1000
    await sink.wait_until_idle()


async def test_a_reset_at_connect(egress: HttpEgress, sink: Sink) -> None:
    """The next attempt gets a connection of its own."""
    sink.reset_connections(1)

    outcome = await egress.send(post(sink))

    assert isinstance(outcome, Failed)
    assert outcome.error in ("connection reset", "disconnected")
    assert isinstance(await egress.send(post(sink)), Answered)


async def test_a_reset_in_the_middle_of_our_body(egress: HttpEgress, sink: Sink) -> None:
    """A large body is still being written."""
    sink.next(Reset())

    outcome = await egress.send(post(sink, b"x" * 8_000_000))

    assert isinstance(outcome, Failed)
    assert outcome.error in ("connection reset", "disconnected")
    assert isinstance(await egress.send(post(sink)), Answered)


async def test_a_reset_in_the_middle_of_the_answer(egress: HttpEgress, sink: Sink) -> None:
    """The status line decides here too."""
    sink.next(Reset("answer"))

    outcome = await egress.send(post(sink))

    assert isinstance(outcome, Answered)
    assert outcome.status == 200
    assert "only so much".startswith(outcome.excerpt)


def resident_bytes() -> int:
    """How much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.mark.parametrize("behaviour", [Flood(300_000_000), GzipBomb()], ids=["300 MB", "gzip bomb"])
async def test_a_huge_answer_is_cut_at_the_cap(egress: HttpEgress, sink: Sink, behaviour: Flood | GzipBomb) -> None:
    """Read to 64 KiB, then closed; nothing is inflated and nothing piles up, in us or in the sink."""
    sink.on("/hook", behaviour)
    await egress.send(post(sink))  # warms up what is allocated once
    before = resident_bytes()

    for _ in range(5):
        outcome = await egress.send(post(sink))
        assert isinstance(outcome, Answered)
        assert outcome.status == 200
        assert outcome.excerpt == ("x" * 1024 if isinstance(behaviour, Flood) else "")

    assert resident_bytes() - before < 4 * 1024 * 1024
    await sink.wait_until_idle()
    assert sink.connections == 6


async def test_an_answer_below_the_cap_keeps_its_connection(egress: HttpEgress, sink: Sink) -> None:
    """And one above it is worth a new one."""
    sink.next(Reply(body=b"x" * (ANSWER_BYTES_MAX - 1)), Reply(body=b"x" * (4 * ANSWER_BYTES_MAX)), Reply())
    for expected in (1, 1, 2):
        assert isinstance(await egress.send(post(sink)), Answered)
        assert sink.connections == expected


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        (b"", {"disconnected"}),
        (b"HTTP/1.1 200", {"disconnected", "bad response"}),
        (b"HTTP/1.1 200 OK\r\nA: b", {"disconnected", "bad response"}),
        (b"hello\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello", {"bad response"}),
        (b"HTTP/9.9 200 OK\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 99999 Eh\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n", {"bad response"}),
    ],
)
async def test_answers_that_are_not_http(egress: HttpEgress, sink: Sink, data: bytes, errors: set[str]) -> None:
    """A short phrase, no exception and nothing of the peer's text."""
    sink.next(Raw(data))

    outcome = await egress.send(post(sink))

    assert isinstance(outcome, Failed)
    assert outcome.error in errors
    assert isinstance(await egress.send(post(sink)), Answered)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"HTTP/1.0 503 No\r\n\r\nuntil the end", 503),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 204),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes of x", 101),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Smuggled\r\n\r\n", 200),
    ],
)
async def test_odd_answers_are_answers(egress: HttpEgress, sink: Sink, data: bytes, status: int) -> None:
    """Broken bodies, interim and old answers: the status counts, and the connection is not used again."""
    sink.next(Raw(data))

    outcome = await egress.send(post(sink))

    assert isinstance(outcome, Answered)
    assert outcome.status == status
    second = await egress.send(post(sink))
    assert isinstance(second, Answered)
    assert (second.status, sink.connections) == (200, 2)


async def test_endless_interim_answers_are_cut(egress: HttpEgress, sink: Sink) -> None:
    """100 Continue for ever is a hang like any other."""
    sink.next(Raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, close=False))
    outcome = await egress.send(post(sink, timeout_s=0.2))
    assert isinstance(outcome, Failed)
    assert outcome.error == "timeout"


async def test_a_tls_handshake_that_hangs(egress: HttpEgress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part of the connect, and bounded with it."""
    monkeypatch.setattr(exchange_module, "CONNECT_S", 0.2)
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as impatient, Sink() as silent:
        await impatient.start()
        request = OutboundRequest(
            method="POST", url=silent.url().replace("http:", "https:"), headers={}, body=b"", timeout_s=5
        )
        outcome = await impatient.send(request)
    assert isinstance(outcome, Failed)
    assert outcome.error in ("connect timeout", "tls error")
    assert outcome.latency_ms < 1500


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
async def test_an_untrusted_certificate(egress: HttpEgress, tmp_path: Path) -> None:
    """Certificates are checked: nothing is sent to a host that cannot prove its name."""
    context, _ = self_signed(tmp_path)
    async with Sink(tls=context) as sink:
        outcome = await egress.send(post(sink))
        assert isinstance(outcome, Failed)
        assert outcome.error == "tls error"
        assert sink.count == 0
