"""Egress: sends one request to a webhook or to Evolution API and reports what came back.

Owns the ClientSession through which anything leaves for one of them. Never follows a redirect, never retries,
never keeps a cookie, never uses a proxy, never inflates an answer.
Invariants: `send` returns a value whatever the other side does, within the request's timeout; at most 64 KiB of an
answer are read unless more is wanted; the text of a failure is the same for a refused address and for one that cannot
be reached.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import ContextVar
from io import BytesIO
from time import perf_counter
from typing import Any

import aiohttp

from actors.adapters.http.dialing import GuardedResolver, Lookup, guarded_sockets, system_lookup
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest, Withheld

CONNECT_S = 3.0
"""Lookup, TCP and TLS together."""
IDLE_CONNECTION_S = 4.0
"""Below the 5 s after which Node and uvicorn close an idle connection: a POST that crosses their FIN is lost."""
ANSWER_BYTES_MAX = 64 * 1024
EXCERPT_BYTES_MAX = 1024
READ_BUFFER_BYTES = 16 * 1024
WHOLE_BODY_BYTES_MAX = 1024 * 1024
"""Above this aiohttp wants a body that it can write piece by piece, so that the loop is not held up."""
LOOKUP_CACHE_S = 10

UNREACHABLE = "unreachable"
PHRASE_BY_ERRNO = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
}
PHRASE_BY_KIND: tuple[tuple[type[BaseException], str], ...] = (  # the first that fits: the special before the general
    (aiohttp.ConnectionTimeoutError, "connect timeout"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientSSLError, "tls error"),
    (aiohttp.ClientConnectorError, UNREACHABLE),
    (aiohttp.InvalidURL, UNREACHABLE),
    (aiohttp.ClientConnectionError, "disconnected"),
    (aiohttp.ClientError, "bad response"),
    (asyncio.CancelledError, "shutting down"),
)


class _Leaving:
    """A request on its way out: whether it may still go, and whether any of it has."""

    __slots__ = ("may_start", "written")

    def __init__(self, may_start: Callable[[], bool]) -> None:
        self.may_start = may_start
        self.written = False


_leaving: ContextVar[_Leaving] = ContextVar("leaving")


class _Forbidden(aiohttp.ClientError):
    """The caller may not start this request any more."""


class _GuardedRequest(aiohttp.ClientRequest):
    """Asks whether it may go right before its first byte is written: a process can be frozen while it connects, and
    between any two turns of its loop. A head waits in memory for its body, and the body is written by a task of its
    own, in a later turn; the loop hands what is written to the kernel at once."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Hand the request to its connection."""
        if not _leaving.get().may_start():
            raise _Forbidden
        return await super().send(conn)

    async def write_bytes(self, writer: Any, conn: Any, content_length: int | None = None) -> None:
        """Write head and body, or nothing."""
        leaving = _leaving.get()
        if leaving.may_start():
            leaving.written = True
            await super().write_bytes(writer, conn, content_length)
        else:
            conn.protocol.set_exception(_Forbidden())
            conn.close()


class HttpEgress:
    """`ports.Egress` over aiohttp. `lookup` stands in for the system's name service."""

    def __init__(self, guard: Guard, *, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None
        self._resolver: GuardedResolver | None = None

    async def start(self) -> None:
        """Make the session; needs a running loop."""
        self._resolver = GuardedResolver(self._guard, self._lookup)
        connector = aiohttp.TCPConnector(
            limit=0,  # callers bound their concurrency, per host
            ttl_dns_cache=LOOKUP_CACHE_S,
            keepalive_timeout=IDLE_CONNECTION_S,
            resolver=self._resolver,
            socket_factory=guarded_sockets(self._guard),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            request_class=_GuardedRequest,
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
        )
        # aiohttp sends a PUT again by itself when a kept-alive connection breaks. An attempt is one request: what
        # follows a failure is decided, counted and logged by the delivery. (There is no public switch.)
        self._session._retry_connection = False

    async def aclose(self) -> None:
        """Cut what is open and under way."""
        if self._session is not None:
            await self._session.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Send and read the answer's beginning. Never raises for what the other side does."""
        if self._session is None:
            raise RuntimeError("the egress has not been started")
        began = perf_counter()
        leaving = _Leaving(request.may_start)
        _leaving.set(leaving)
        answer: aiohttp.ClientResponse | None = None
        kept = bytearray()
        try:
            async with asyncio.timeout(request.timeout_s):
                body = request.body
                answer = await self._session.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=body if len(body) <= WHOLE_BODY_BYTES_MAX else BytesIO(body),
                    allow_redirects=False,
                )
                await _read_beginning(answer, kept, request.keep_bytes)
        except _Forbidden:
            return Withheld()
        except (aiohttp.ClientError, TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _caller_gave_up():
                raise
            # The status line decides: an answer that breaks off or drips after it has still been given, and to
            # call a 200 a failure would deliver twice.
            if answer is None:
                return Failed(_phrase(error), _since(began), leaving.written)
        finally:
            if answer is not None:
                answer.close()
        retry_after = answer.headers.get("Retry-After")
        readable = "Content-Encoding" not in answer.headers
        text = printable(kept[:EXCERPT_BYTES_MAX]) if readable else ""
        if not request.keep_bytes or not readable:
            return Answered(answer.status, retry_after, text, _since(began))
        return Answered(
            answer.status,
            retry_after,
            text,
            _since(began),
            bytes(kept[: request.keep_bytes]),
            answer.headers.get("Content-Type"),
        )


async def _read_beginning(answer: aiohttp.ClientResponse, kept: bytearray, keep_bytes: int) -> None:
    """Read to the end or to the cap, keeping the first bytes. Reading to the end lets the connection be used again."""
    read = 0
    keep_bytes = max(keep_bytes, EXCERPT_BYTES_MAX)
    while read < max(ANSWER_BYTES_MAX, keep_bytes):
        piece = await answer.content.readany()
        if not piece:
            return
        if read < keep_bytes:
            kept += piece[: keep_bytes - read]
        read += len(piece)


def printable(excerpt: bytes | bytearray) -> str:
    """Give text of at most 1 KiB without control characters; line ends and tabs become spaces."""
    text = excerpt.decode(errors="replace")
    if text.isascii() and text.isprintable():
        return text
    spaced = " ".join(text.split())
    plain = "".join(filter(str.isprintable, spaced))
    return plain.encode()[:EXCERPT_BYTES_MAX].decode(errors="ignore")


def _caller_gave_up() -> bool:
    """Tell a cancelled caller from a cancellation of aiohttp's own: closing it cancels its look-ups and waiters."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _phrase(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientOSError) and error.errno in PHRASE_BY_ERRNO:
        return PHRASE_BY_ERRNO[error.errno]
    return next(phrase for kind, phrase in PHRASE_BY_KIND if isinstance(error, kind))


def _since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 3)
