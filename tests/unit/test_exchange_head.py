"""The head of an outgoing request: what it says, and that no header can say more than it should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from actors.adapters.http.exchange import Destination, destination, head_of
from actors.egress_ports import OutboundRequest


@pytest.fixture
def to() -> Iterator[Destination]:
    """A webhook."""
    loop = asyncio.new_event_loop()
    yield destination("https://example.com:8443/hook?a=b#top", loop)
    loop.close()


def request(headers: dict[str, str], body: bytes = b"{}", method: str = "POST") -> OutboundRequest:
    """A request with these headers."""
    return OutboundRequest(method=method, url="", headers=headers, body=body, timeout_s=1)


def test_it_says_where_it_goes_what_it_takes_and_how_long_it_is(to: Destination) -> None:
    """And what the caller wants said, in its words."""
    assert head_of(request({"x-Mine": "ñ"}), to).decode() == (
        "POST /hook?a=b HTTP/1.1\r\nHost: example.com:8443\r\nx-Mine: ñ\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nContent-Length: 2\r\n\r\n"
    )


def test_what_the_caller_says_itself_is_not_said_again(to: Destination) -> None:
    """However it spells the name."""
    head = head_of(request({"ACCEPT": "text/plain", "X": "y"}), to).lower()
    assert (head.count(b"accept:"), head.count(b"accept-encoding:")) == (1, 1)
    assert b"*/*" not in head


@pytest.mark.parametrize(("method", "says"), [("GET", 0), ("DELETE", 0), ("POST", 1), ("PUT", 1), ("PATCH", 1)])
def test_a_body_that_is_not_there(to: Destination, method: str, says: int) -> None:
    """Who usually has one says that it is empty (RFC 9110 §8.6)."""
    assert head_of(request({}, b"", method), to).count(b"Content-Length: 0\r\n") == says


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nb: c", "a\0b"])
def test_no_header_ends_its_line(to: Destination, value: str) -> None:
    """They are checked where they come in; this is the last door."""
    with pytest.raises(ValueError, match="line end"):
        head_of(request({"X": value}), to)
    with pytest.raises(ValueError, match="line end"):
        head_of(request({value: "x"}), to)


@pytest.mark.parametrize("url", ["", "/hook", "http://", "ftp://example.com/", "http://[::1/", "http://a:b/"])
def test_what_leads_nowhere(url: str) -> None:
    """Nobody is asked to connect there."""
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(aiohttp.InvalidURL):
            destination(url, loop)
    finally:
        loop.close()
