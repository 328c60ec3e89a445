"""The fast lane changes nothing but the speed: whatever bytes arrive, in whatever pieces, all that can be seen is the
same with it and without it.

`EXAMPLES=20000 make test ARGS="tests/unit/test_edge_lane.py"` is the long form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.lane_stand import Seen, Stand

EXAMPLES = max(settings.get_profile("quick").max_examples, 300)
BODIES = (
    b"",
    b"{}",
    b"abc",
    b'{"key":"k","value":1}',
    b"away",
    b"bug",
    b"late",
    b"304",
    b"x" * 1999,
    b"x" * 2000,
    b"x" * 2001,
)
HOT = (
    *("/body", "/fails", "/keys/a", "/keys/near", "/keys/near-gone", "/keys/near-ready", "/keys/near-long"),
    *("/calls/7", "/now"),
)
COLD = (
    *("/cold", "/keys/all", "/nothing", "/body/", "/body?x=1", "/keys/a%20b", "/keys/a%", "/keys/a/b", "/keys/"),
    *("//now", "/now#x", "http://here/now", "*", "/keys/..", "/keys/Ñ"),
)
PLAIN = (
    *("Host: there", "User-Agent: curl/8", "Accept: */*", "Content-Type: application/json", "X-Request-ID: mine"),
    *("Idempotency-Key: k1", 'If-None-Match: "x"', "If-Match: *", "Connection: keep-alive", "Cookie: a=b; c=d"),
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
ODD = (
    *("Connection: close", "connection: Keep-Alive", "Connection: keep-alive, x", "Connection: Upgrade"),
    *("Upgrade: h2c", "Proxy-Connection: close", "HTTP2-Settings: x", "TE: trailers", "Trailer: x"),
    *("Transfer-Encoding: chunked", "transfer-encoding: identity", "Transfer-Encoding: x"),
    *("Content-Length: 2", "Content-Length: 0", "Content-Length: 3, 3", "Content-Length: +2", "Content-Length: 02"),
    *("Content-Length: 2 ", "Content-Length:", "Content-Length: x", "Content-Length: 99999999999999999999"),
    *("content-length: 1", "Content-Encoding: gzip", "Expect: 100-continue", "Expect: x", "Host: ", "Host: a, b"),
    *("X-Request-ID: ", "X-Request-ID: " + "i" * 129, "X-Request-ID: é", "traceparent: x", "Idempotency-Key: "),
    *("If-Match: ", "If-None-Match: x", "Range: bytes=0-1", "Authorization: Bearer t", "X-HTTP-Method-Override: PUT"),
    *("X : 1", " X: 1", "X: a\r\n b", "X: \x00", "X: a\rb", "X\x00: 1", "X: a\nY: b", ": 1", "X", "X:", "Ñ: 1"),
    *(
        "User-Agent: a\r\nUser-Agent: b",
        "Server: a\r\nServer: b",
        "ETag: a\r\nETag: b",
        "Max-Forwards: 1\r\nMax-Forwards: 1",
    ),
    *("Content-Location: a\r\nContent-Location: b", "Content-Range: a\r\nContent-Range: b", "Sec-WebSocket-Key1: x"),
    *("Cookie: a\r\nCookie: b", "Accept: a\r\nAccept: b", "Authorization: a\r\nAuthorization: b", "X-A: 1\r\nX-A: 2"),
    *("Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13", "Date: a\r\nDate: b", "X: " + "y" * 9000),
)
NOW = b"GET /now HTTP/1.1\r\nHost: here\r\n\r\n"
FAILS = b"POST /fails HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b"
SMUGGLED = b"%b /body HTTP/1.1\r\nHost: here\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get", "G@T", "CONNECT")
DAMAGE = (b"", b"\x00", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"%", b"\xff", b"0", b"GET ")
VERSIONS = ("HTTP/1.1",) * 12 + ("HTTP/1.0", "http/1.1", "HTTP/1.2", "HTTP/2.0", "HTTP/1.1 ", "")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request: mostly a plain one, with at most two odd things about it."""
    path = draw(st.sampled_from(HOT) | st.sampled_from(HOT + COLD))
    takes_body = path in ("/body", "/fails") or draw(st.integers(0, 4)) == 0
    method = ("POST" if "keys" not in path else "PUT") if takes_body else "GET"
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(METHODS))
    body = draw(st.sampled_from(BODIES)) if takes_body else b""
    lines = draw(st.lists(st.sampled_from(PLAIN), max_size=4, unique_by=lambda line: line.partition(":")[0].lower()))
    if draw(st.integers(0, 19)):
        lines = ["Host: here:80", *(line for line in lines if not line.startswith("Host"))]
    if takes_body:
        lines.insert(draw(st.integers(0, len(lines))), f"Content-Length: {len(body)}")
    for odd in draw(st.lists(st.sampled_from(ODD), max_size=2)) if draw(st.integers(0, 2)) == 0 else ():
        lines.insert(draw(st.integers(0, len(lines))), odd)
    head = "\r\n".join((f"{method} {path} {draw(st.sampled_from(VERSIONS))}", *lines, "", ""))
    return head.encode("utf-8") + body


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Requests one after the other, some bytes of them damaged, in pieces."""
    sent = draw(st.lists(requests(), min_size=1, max_size=4))
    stream = bytearray(b"".join(sent))
    if draw(st.integers(0, 3)) == 0:
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(stream)))
            damage = draw(
                st.sampled_from((b"", b"\x00", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"%", b"\xff", b"0", b"GET "))
            )
            stream[at : at + draw(st.integers(0, 3))] = damage
    if draw(st.booleans()):  # each request by itself, as most come
        pieces, at = [], 0
        for each in sent:
            pieces.append(bytes(stream[at : at + len(each)]))
            at += len(each)
        return [piece for piece in (*pieces, bytes(stream[at:])) if piece]
    cuts = sorted(draw(st.sets(st.integers(1, len(stream)), max_size=4))) if stream else []
    pieces = [bytes(stream[a:b]) for a, b in zip((0, *cuts), (*cuts, len(stream)), strict=True)]
    return [piece for piece in pieces if piece]


class Servers:
    """The same server thrice: without the lane, with it, and with it for use cases that need no task there."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.off = self._open(fast_lane=False)
        self.on = self._open(fast_lane=True)
        self.soon = self._open(fast_lane=True, soon=True)

    def _open(self, *, fast_lane: bool, soon: bool = False) -> Stand:
        return self.runner.run(Stand(fast_lane=fast_lane, soon=soon).open())

    def hears(self, stand: Stand, pieces: list[bytes], *, at_once: bool) -> Seen:
        """What comes of these bytes there."""

        async def play() -> Seen:
            stand.forget()
            connection = stand.connection()
            await connection.says(*pieces, at_once=at_once)
            seen = stand.seen(connection)
            await connection.hangs_up()
            return seen

        return self.runner.run(play())

    def close(self) -> None:
        """Stop all."""
        for stand in (self.on, self.soon, self.off):
            self.runner.run(stand.close())
        self.runner.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """One for all examples: what they leave behind must not matter."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=streams(), at_once=st.booleans())
@example(pieces=[b"POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n", NOW], at_once=False)
@example(pieces=[SMUGGLED % b"POST" + b"0\r\n\r\n" + NOW], at_once=False)
@example(
    pieces=[b"GET /keys/near HTTP/1.1\r\nHost: here\r\nContent-Length: 24\r\n\r\n" + NOW[:-2], b"\r\n" + NOW],
    at_once=False,
)
@example(
    pieces=[FAILS % (4, b"late"), FAILS % (4, b"away"), FAILS % (2, b"{}") + FAILS % (3, b"bug") + NOW], at_once=False
)
def test_all_that_can_be_seen_is_the_same(servers: Servers, pieces: list[bytes], *, at_once: bool) -> None:
    """Answers in their order, whether the connection closed, what the use cases got, what was counted and logged."""
    without = servers.hears(servers.off, pieces, at_once=at_once)
    assert servers.hears(servers.on, pieces, at_once=at_once) == without
    assert servers.hears(servers.soon, pieces, at_once=at_once) == without


def test_the_lane_has_its_share(servers: Servers) -> None:
    """Of plain requests it serves all, else the property above would prove nothing."""
    plain = [
        b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /keys/near HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /keys/a HTTP/1.1\r\nHost: h\r\nX-Request-ID: mine\r\n\r\n",
        b"PUT /keys/a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /calls/7 HTTP/1.1\r\nHost: h\r\n\r\n",
        NOW,
        FAILS % (4, b"away"),
    ]
    for stand in (servers.on, servers.soon):
        servers.hears(stand, plain, at_once=False)
        assert stand.lane_answers == len(plain)
        servers.hears(stand, [b"".join(plain)], at_once=False)
        assert stand.lane_answers == len(plain)
    servers.hears(servers.off, plain, at_once=False)
    assert servers.off.lane_answers == 0
