"""Answer: a finished answer, written in one piece.

aiohttp builds each answer's head out of a dictionary of headers, through five methods; ours have always the same ones,
so the head is one string, with the use case's own lines in it. Anything unusual (HTTP/1.0, HEAD) goes aiohttp's way.
`written` is the same for the fast lane, which has no request.
Knows aiohttp 3.14's `StreamResponse`. Measured: a twelfth of what an accepted message costs.
"""

from __future__ import annotations

from http import HTTPStatus
from math import floor
from time import time

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

from router.edge.usecase import JSON, Reply

SERVER = "buzon"
X_REQUEST_ID = "X-Request-ID"

_NOT_MODIFIED = 304
_JSON_LINE = f"Content-Type: {JSON}\r\n"
_SERVER_AND_ID = f"Server: {SERVER}\r\n{X_REQUEST_ID}: "
_CLOSING = "Connection: close\r\n"
_LINES: dict[int, str] = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_FRONTS: dict[int, str] = {status: f"{line}{_JSON_LINE}Content-Length: " for status, line in _LINES.items()}


class _Stamp:
    """The rest of a head, up to the request's id: the same from the beginning of a second to its end."""

    __slots__ = ("since", "text", "until")

    def __init__(self) -> None:
        self.text = ""
        self.since = self.until = 0.0

    def renewed(self, now: float) -> str:
        """The stamp of this second (Unix time)."""
        self.since = floor(now)
        self.until = self.since + 1
        self.text = f"Date: {rfc822_formatted_time()}\r\n{_SERVER_AND_ID}"
        return self.text


_stamp = _Stamp()


class JsonAnswer(web.Response):
    """A body of JSON and in the head what every answer has, and `head`: finished lines, as in `Reply`. A 304 has no
    body and says nothing of one. `request_id` is printable ASCII."""

    def __init__(self, status: int, body: bytes, head: str = "") -> None:
        # Not aiohttp's own: what it prepares is a thirteenth of a hot read [measured], and only its way needs it.
        self._state = {}
        self._status = status
        self._bytes = body
        self._lines = head
        self.request_id = ""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it. Raises ClientConnectionResetError when the client has gone."""
        if request.version != HttpVersion11 or request.method == hdrs.METH_HEAD:
            super().__init__(status=self.status, body=self._bytes)
            self.headers.update({hdrs.SERVER: SERVER, X_REQUEST_ID: self.request_id})
            if self.status != _NOT_MODIFIED:
                self.headers[hdrs.CONTENT_TYPE] = JSON
            self.headers.extend(header_lines(self._lines))
            return await super().prepare(request)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client has gone")
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        transport.write(self._head().encode("ascii") + self._bytes)
        self._eof_sent = True
        await request.writer.drain()
        return None

    def _head(self) -> str:
        status = self.status
        content = _JSON_LINE if status != _NOT_MODIFIED else ""
        return _head(status, len(self._bytes), content + self._lines, self.request_id, closing=not self._keep_alive)


class Ready(Reply, frozen=True, gc=False):
    """An answer of JSON that may be given again and again: `front` is its head up to what differs each time."""

    front: str = ""


def ready(status: int, body: bytes, head: str = "") -> Ready:
    """Make one; the words are those of `Reply`. Not for a 304."""
    return Ready(status, body, None, head, _front(status, len(body), head))


def written(reply: Reply, request_id: str, *, closing: bool) -> bytes:
    """A reply as it goes out over HTTP/1.1. Raises ValueError for a header that would end its line."""
    status, body = reply.status, reply.body
    if reply.headers is None and status != _NOT_MODIFIED and not closing:  # most
        front = reply.front if type(reply) is Ready else _front(status, len(body), reply.head)
        now = time()
        stamp = _stamp.text if _stamp.since <= now < _stamp.until else _stamp.renewed(now)
        return f"{front}{stamp}{request_id}\r\n\r\n".encode("ascii") + body
    lines = reply.head
    if reply.headers is not None:
        more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        if more.count("\r") != len(reply.headers) or more.count("\n") != len(reply.headers):
            raise ValueError("a line end in a header")
        lines = more + lines
    if status != _NOT_MODIFIED and (reply.headers is None or hdrs.CONTENT_TYPE not in reply.headers):
        lines = _JSON_LINE + lines
    return _head(status, len(body), lines, request_id, closing=closing).encode() + body


def _front(status: int, length: int, lines: str) -> str:
    return f"{_FRONTS[status]}{length}\r\n{lines}"


def _head(status: int, length: int, lines: str, request_id: str, *, closing: bool) -> str:
    content = f"Content-Length: {length}\r\n" if status != _NOT_MODIFIED else ""
    return (
        f"{_LINES[status]}{content}{lines}Date: {rfc822_formatted_time()}\r\n"
        f"{_SERVER_AND_ID}{request_id}\r\n{_CLOSING if closing else ''}\r\n"
    )


def header_lines(head: str) -> list[tuple[str, str]]:
    """Finished lines taken apart again."""
    named = (line.partition(": ") for line in head.split("\r\n") if line)
    return [(name, value) for name, _, value in named]
