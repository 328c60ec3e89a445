"""The egress against a receiver that behaves: what is sent, what is reported, how connections are used."""

from __future__ import annotations

import ast
import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.adapters.http.egress import HttpEgress, printable
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.core.policy import Webhook
from actors.core.signing import Dispatch, delivery_headers
from actors.egress_ports import OutboundRequest, Withheld
from tests.support.behaviours import OK, Hang, Reply, Reset, redirect
from tests.support.child import ROOT
from tests.support.sink import Sink

LOOPBACK = Guard(loopback_allowed=True)
HEADERS = {"Content-Type": "application/json", "X-Mine": "1"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A receiver for one test."""
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(LOOPBACK)) as egress:
        await egress.start()
        yield egress


def post(url: str, body: bytes = b"{}", *, method: str = "POST", timeout_s: float = 5.0) -> OutboundRequest:
    """A request to a webhook."""
    return OutboundRequest(method=method, url=url, headers=HEADERS, body=body, timeout_s=timeout_s)


def status(outcome: Answered | Failed | Withheld) -> int:
    """The status of what must be an answer."""
    assert isinstance(outcome, Answered), outcome
    return outcome.status


async def test_what_is_sent_arrives_as_it_is(egress: HttpEgress, sink: Sink) -> None:
    """Method, path with its query (no fragment), body and every header; of its own it adds four and no more."""
    url = sink.url("/hook/é?a=1&b=%20#top")

    assert status(await egress.send(post(url, b'{"n":1}'))) == 200

    (request,) = sink.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook/%C3%A9?a=1&b=%20", b'{"n":1}')
    sent = {name.lower() for name, _ in request.raw_headers}
    assert sent - {"host", "accept", "accept-encoding", "content-length", "user-agent"} == {"content-type", "x-mine"}
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-length"] == "7"
    assert request.headers["x-mine"] == "1"


async def test_all_headers_of_a_delivery_arrive(egress: HttpEgress, sink: Sink) -> None:
    """Whatever the key holds: same names, same values, same number of lines."""
    hook = Webhook(url=sink.url(), headers={"Authorization": "Bearer x"}, secret="c2VjcmV0")
    key = "a b\r\nX-Evil: 1\x00é😀/:@%"
    facts = Dispatch(delivery_id="dlv_1", attempted_at_s=1, attempt=1, key=key, size=2, reason="size")
    headers = delivery_headers(hook, facts, b"{}", "buzon/1")

    await egress.send(OutboundRequest(method="POST", url=hook.url, headers=headers, body=b"{}", timeout_s=5))

    (request,) = sink.requests
    pairs = [pair for pair in request.raw_headers if pair[0] not in ("Host", "Accept", "Accept-Encoding")]
    assert pairs == [*headers.items(), ("Content-Length", "2")]


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576, 1_048_577, 5_000_000])
async def test_bodies_of_all_sizes(egress: HttpEgress, sink: Sink, size: int) -> None:
    """Byte for byte and never chunked; above 1 MiB written piece by piece."""
    body = bytes(index % 251 for index in range(min(size, 251))) * (size // 251 + 1)
    body = body[:size]

    assert status(await egress.send(post(sink.url(), body))) == 200

    assert sink.requests[0].body == body
    assert sink.requests[0].headers["content-length"] == str(size)
    assert "transfer-encoding" not in sink.requests[0].headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_method_is_the_callers(egress: HttpEgress, sink: Sink, method: str) -> None:
    """All three that a webhook may name."""
    assert status(await egress.send(post(sink.url(), method=method))) == 200
    assert sink.requests[0].method == method


@pytest.mark.parametrize("code", [200, 201, 204, 304, 400, 404, 410, 429, 500, 503])
async def test_every_status_is_an_answer(egress: HttpEgress, sink: Sink, code: int) -> None:
    """With its raw Retry-After and the beginning of its body."""
    sink.next(Reply(status=code, headers=(("Retry-After", "17"),), body=b"" if code == 304 else b"because"))

    answer = await egress.send(post(sink.url()))

    assert isinstance(answer, Answered)
    assert (answer.status, answer.retry_after) == (code, "17")
    assert answer.excerpt == ("" if code in (204, 304) else "because")
    assert answer.latency_ms > 0


async def test_an_answer_without_retry_after(egress: HttpEgress, sink: Sink) -> None:
    """None, not an empty text."""
    sink.next(Reply(status=503))
    answer = await egress.send(post(sink.url()))
    assert isinstance(answer, Answered)
    assert answer.retry_after is None


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(egress: HttpEgress, sink: Sink, code: int) -> None:
    """Neither elsewhere nor to the same place; the answer is reported."""
    async with Sink() as elsewhere:
        sink.next(redirect(elsewhere.url("/inside"), code))

        assert status(await egress.send(post(sink.url()))) == code

        await _prove_untouched(elsewhere)
    assert sink.count == 1


async def _prove_untouched(catcher: Sink) -> None:
    """Connections are accepted in order: if ours is the first one seen, none came before."""
    _, writer = await asyncio.open_connection(*catcher.address)
    writer.close()
    await writer.wait_closed()
    await catcher.wait_for_connections(1)
    assert catcher.connections == 1


async def test_many_posts_one_connection(egress: HttpEgress, sink: Sink) -> None:
    """Sequential posts reuse the connection, whatever was answered."""
    sink.next(*(Reply(status=code) for code in (200, 500, 204, 302, 404) * 10))
    for _ in range(50):
        await egress.send(post(sink.url()))
    assert (sink.count, sink.connections) == (50, 1)


async def test_one_hanging_host_holds_up_no_other(egress: HttpEgress, sink: Sink) -> None:
    """There is no limit shared by all hosts: two hundred requests hang and the next one goes through."""
    async with Sink() as stuck, asyncio.TaskGroup() as group:
        stuck.on("/hook", Hang())
        hanging = [group.create_task(egress.send(post(stuck.url(), timeout_s=30))) for _ in range(200)]
        await stuck.wait_for_requests(200)

        assert status(await egress.send(post(sink.url(), timeout_s=2))) == 200

        assert not any(task.done() for task in hanging)
        await egress.aclose()
        await asyncio.wait(hanging, timeout=2)
        assert {type(task.result()) for task in hanging} == {Failed}


async def test_no_cookie_is_kept(egress: HttpEgress, sink: Sink) -> None:
    """Not even an odd one, and not for the same host."""
    sink.next(Reply(headers=(("Set-Cookie", "a=b; Path=/"), ("Set-Cookie", "\x01=;;;"), ("Set-Cookie", ""))))
    for _ in range(2):
        assert status(await egress.send(post(sink.url()))) == 200
    assert "cookie" not in sink.requests[1].headers


async def test_no_proxy_and_no_netrc(
    egress: HttpEgress, sink: Sink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment of the process decides nothing: a proxy would dial past the guard."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password it")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert status(await egress.send(post(sink.url()))) == 200

    assert "authorization" not in sink.requests[0].headers


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_attempt_is_one_request(egress: HttpEgress, sink: Sink, method: str) -> None:
    """A kept-alive connection that breaks is a failure: nothing is sent again behind the caller's back."""
    sink.on("/hook", OK, Reset(), OK)

    first = await egress.send(post(sink.url(), method=method))
    second = await egress.send(post(sink.url(), method=method))

    assert isinstance(first, Answered)
    assert isinstance(second, Failed)
    assert second.error == "connection reset"
    assert (sink.count, sink.connections) == (2, 1)


async def test_a_refused_connection(egress: HttpEgress) -> None:
    """Nobody listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        outcome = await egress.send(post(f"http://127.0.0.1:{port}/"))
    assert isinstance(outcome, Failed)
    assert outcome.error == "connection refused"


async def test_cancelling_passes_through(egress: HttpEgress, sink: Sink) -> None:
    """A cancelled send is cancelled, and its connection is cut, not kept."""
    sink.next(Hang())
    sending = asyncio.create_task(egress.send(post(sink.url())))
    await sink.wait_for_requests(1)

    sending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sending
    await sink.wait_until_idle()


async def test_an_egress_that_was_not_started() -> None:
    """Our own mistake is an exception, not a failed delivery."""
    with pytest.raises(RuntimeError, match="not been started"):
        await HttpEgress(LOOPBACK).send(post("http://127.0.0.1:9/"))


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"plain", "plain"),
        (b"two\r\nlines\tand  more\n", "two lines and more"),
        (b"\x1b[31mred\x00\x07\x7f", "[31mred"),
        ("ñandú 😀 \u202edlrow\u2028end".encode(), "ñandú 😀 dlrow end"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 5000, "x" * 1024),
        ("é".encode() * 1000, "é" * 512),
        (b"\xff" * 5000, "\ufffd" * 341),
        (b"", ""),
    ],
)
async def test_the_excerpt_is_short_and_printable(egress: HttpEgress, sink: Sink, body: bytes, excerpt: str) -> None:
    """At most 1 KiB of text that can stand in a log line or a page."""
    sink.next(Reply(status=500, body=body))
    answer = await egress.send(post(sink.url()))
    assert isinstance(answer, Answered)
    assert answer.excerpt == excerpt
    assert len(printable(body).encode()) <= max(1024, len(body))


def test_nothing_else_opens_a_way_out() -> None:
    """Who connects by itself would dial past the guard: only the egress does (and what is no node)."""
    tools = {Path("router/cli_healthcheck.py"), Path("router/fake_evolution/posting.py")}
    allowed = {Path("actors/adapters/http/egress.py"), *tools}
    found = {
        path.relative_to(ROOT)
        for folder in ("actors", "router")
        for path in (ROOT / folder).rglob("*.py")
        if _opens_a_way_out(ast.parse(path.read_text()))
    }
    assert Path("actors/adapters/http/egress.py") in found
    assert found <= allowed


def _opens_a_way_out(tree: ast.Module) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    theirs = {"ClientSession", "TCPConnector"}
    calls = {*theirs, *(f"aiohttp.{name}" for name in theirs), "aiohttp.request", "urlopen", "HTTPConnection"}
    return bool(calls & (names | attributes | imported))
