"""Exchange: one request and the beginning of its answer, over a connection of aiohttp's.

aiohttp finds, secures and keeps the connections and parses what comes back. Its session makes each request out of
dictionaries, cookies, redirects and a task of its own, none of which is wanted here: that would be a third of what a
whole delivery costs [measured]. Ours are the head, the writing, and one deadline.
Invariants: nothing is written unless it may start, asked in the same turn of the loop; nothing is sent twice; a
connection is used again only after a whole answer to a whole request. Knows aiohttp 3.14's `ResponseHandler`.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from msgspec import Struct
from yarl import URL

from actors.egress_ports import OutboundRequest

CONNECT_S = 3.0
"""Lookup, TCP and TLS together."""
READ_BUFFER_BYTES = 16 * 1024
SMALL_BYTES_MAX = 16 * 1024
"""The kernel takes at once what is no longer than that, and one piece is cheaper to write than two."""
PIECE_BYTES = 256 * 1024
"""So much of a long body is written, and over TLS encrypted, before others have their turn."""
CONNECTIONS_TRIED = 3
"""So many connections on which the other side speaks unasked, and then it is given up."""
DESTINATIONS_MAX = 1024
"""Of so many URLs it is remembered what they mean."""

_DEFAULTS = {"accept": "Accept: */*\r\n", "accept-encoding": "Accept-Encoding: identity\r\n"}
_ALL_DEFAULTS = "".join(_DEFAULTS.values())
_SCHEMES = frozenset(("http", "https"))
_BODYLESS = frozenset(("GET", "HEAD", "DELETE"))
"""Methods that say nothing of a body which they do not have."""
_INTERIM = frozenset(range(100, 200)) - {101}
"""What only says that there will be an answer; 101 is one."""


class Forbidden(Exception):
    """The caller may not start this request any more; nothing of it was written."""


class Destination(Struct, frozen=True):
    """What a URL means: `dialled` tells the connector where to connect, `target` and `host` stand in the head."""

    dialled: aiohttp.ClientRequest
    target: str
    host: str


def destination(url: str, loop: asyncio.AbstractEventLoop) -> Destination:
    """Look at a URL. Raises aiohttp.InvalidURL."""
    try:
        parsed = URL(url)
        dialled = aiohttp.ClientRequest("GET", parsed, loop=loop)
    except ValueError as error:
        raise aiohttp.InvalidURL(url) from error
    host = parsed.host_port_subcomponent
    if parsed.scheme not in _SCHEMES or host is None:
        raise aiohttp.InvalidURL(url)
    return Destination(dialled, parsed.raw_path_qs, host)


class Keep(Struct, frozen=True):
    """How much of an answer's body is read at most, and how much of that is kept."""

    bytes: int
    read_bytes: int


def head_of(request: OutboundRequest, to: Destination) -> bytes:
    """The head as it is sent. Raises ValueError for a header that would end its line."""
    headers = request.headers
    lines = "\r\n".join(map(": ".join, headers.items()))
    ends = max(len(headers) - 1, 0)
    if lines.count("\n") != ends or lines.count("\r") != ends or "\0" in lines:
        raise ValueError("a line end in a header")
    if lines:
        lines += "\r\n"
    if not _DEFAULTS.keys().isdisjoint(map(str.lower, headers)):
        said = set(map(str.lower, headers))
        lines += "".join([line for name, line in _DEFAULTS.items() if name not in said])
    else:
        lines += _ALL_DEFAULTS
    size = len(request.body)
    length = f"Content-Length: {size}\r\n" if size or request.method not in _BODYLESS else ""
    return f"{request.method} {to.target} HTTP/1.1\r\nHost: {to.host}\r\n{lines}{length}\r\n".encode()


@lru_cache
def _to_connect(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


class Exchange:
    """One of them. Once it is `answered`, `answer` holds status line and headers, whatever came of the rest, and `kept`
    the beginning of the body. `written`: whether any of the request has left."""

    __slots__ = ("_body", "_is_late", "_protocol", "answer", "answered", "kept", "written")

    def __init__(self) -> None:
        self.written = False
        self.answered = False
        self.answer: RawResponseMessage
        self.kept = bytearray()
        self._protocol: ResponseHandler
        self._body: StreamReader | None = None
        self._is_late = False

    async def run(
        self, connector: aiohttp.BaseConnector, to: Destination, request: OutboundRequest, keep: Keep
    ) -> None:
        """Send, and read what is to be read of the answer. Raises Forbidden, TimeoutError, OSError, aiohttp's
        ClientError and HttpProcessingError."""
        loop = to.dialled.loop
        ends_at = loop.time() + request.timeout_s
        head = head_of(request, to)
        connection, self._protocol, transport = await _connected(connector, to, request, ends_at)
        whole = False
        late = loop.call_at(ends_at, self._expire)
        try:
            # In the turn in which the first of it is written: a process can be frozen while it connects, and between
            # any two turns of its loop. What is written in a turn the loop hands to the kernel in the same.
            if not request.may_start():
                raise Forbidden
            self.written = True
            if len(request.body) <= SMALL_BYTES_MAX:
                transport.write(head + request.body)
            else:
                await self._write_long(transport, head, request.body)
            whole = await self._read(await self._awaited(), keep)
        finally:
            late.cancel()
            if whole and _has_left(request, to, transport):
                connection.release()
            else:
                if len(request.body) > SMALL_BYTES_MAX:
                    transport.abort()  # else it would stay in memory for as long as the other side does not read
                connection.close()

    async def _write_long(self, transport: asyncio.WriteTransport, head: bytes, body: bytes) -> None:
        transport.write(head)
        pieces = memoryview(body)
        for at in range(0, len(body), PIECE_BYTES):
            transport.write(pieces[at : at + PIECE_BYTES])
            await asyncio.sleep(0)
            if self._is_late or transport.is_closing():
                break  # whoever waits for the answer learns why

    async def _awaited(self) -> StreamReader:
        """Wait for the answer, past those that only say that there will be one; gives its body."""
        while True:
            message, body = await self._protocol.read()
            if message.code not in _INTERIM:
                self.answer, self.answered, self._body = message, True, body
                if self._is_late:
                    body.set_exception(TimeoutError())
                return body

    async def _read(self, body: StreamReader, keep: Keep) -> bool:
        """Read to the end or to the cap; whether that was the end, so that the connection can be used again."""
        kept, read = self.kept, 0
        while not body.at_eof():
            if read >= keep.read_bytes:
                return False
            piece = await body.readany()
            if read < keep.bytes:
                kept += piece[: keep.bytes - read]
            read += len(piece)
        return True

    def _expire(self) -> None:
        self._is_late = True
        error = TimeoutError()
        self._protocol.set_exception(error)
        if self._body is not None:
            self._body.set_exception(error)


async def _connected(
    connector: aiohttp.BaseConnector, to: Destination, request: OutboundRequest, ends_at: float
) -> tuple[Connection, ResponseHandler, asyncio.Transport]:
    """A connection on which nobody has said anything that was not asked for: it would be taken for the answer."""
    for _ in range(CONNECTIONS_TRIED):
        within_s = ends_at - to.dialled.loop.time()
        if within_s <= 0:
            raise TimeoutError
        try:
            connection = await connector.connect(to.dialled, [], _to_connect(min(CONNECT_S, within_s)))
        except TimeoutError as error:
            if request.timeout_s <= CONNECT_S:
                raise
            raise aiohttp.ConnectionTimeoutError from error
        protocol, transport = connection.protocol, connection.transport
        if protocol is not None and transport is not None:
            protocol.set_response_params(
                skip_payload=request.method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
            )
            if not protocol.should_close:
                return connection, protocol, transport
        connection.close()
    raise aiohttp.ServerDisconnectedError


def _has_left(request: OutboundRequest, to: Destination, transport: asyncio.WriteTransport) -> bool:
    """Whether the kernel has all of the request: who answers before it has read that may read no more. What TLS has of
    a long one nobody can tell."""
    if to.dialled.is_ssl():
        return len(request.body) <= SMALL_BYTES_MAX
    return not transport.is_closing() and not transport.get_write_buffer_size()
