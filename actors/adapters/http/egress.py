"""Egress: sends one request to a webhook or to Evolution API and reports what came back.

Owns the connections through which anything leaves for one of them. Never follows a redirect, never retries,
never keeps a cookie, never uses a proxy, never inflates an answer.
Invariants: `send` returns a value whatever the other side does, within the request's timeout; at most 64 KiB of an
answer are read unless more is wanted; the text of a failure is the same for a refused address and for one that cannot
be reached.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import lru_cache, partial
from time import perf_counter

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from actors.adapters.http.dialing import GuardedResolver, Lookup, guarded_sockets, system_lookup
from actors.adapters.http.exchange import DESTINATIONS_MAX, Destination, Exchange, Forbidden, Keep, destination
from actors.core.addresses import Guard
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest, Withheld

IDLE_CONNECTION_S = 4.0
"""Below the 5 s after which Node and uvicorn close an idle connection: a POST that crosses their FIN is lost."""
ANSWER_BYTES_MAX = 64 * 1024
EXCERPT_BYTES_MAX = 1024
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
    (HttpProcessingError, "bad response"),
    (OSError, "disconnected"),
    (asyncio.CancelledError, "shutting down"),
)


class HttpEgress:
    """`ports.Egress` over aiohttp. `lookup` stands in for the system's name service."""

    def __init__(self, guard: Guard, *, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._connector: aiohttp.TCPConnector | None = None
        self._resolver: GuardedResolver | None = None
        self._destination: Callable[[str], Destination]

    async def start(self) -> None:
        """Open for requests; needs a running loop."""
        loop = asyncio.get_running_loop()
        self._resolver = GuardedResolver(self._guard, self._lookup)
        self._connector = aiohttp.TCPConnector(
            limit=0,  # callers bound their concurrency, per host
            ttl_dns_cache=LOOKUP_CACHE_S,
            keepalive_timeout=IDLE_CONNECTION_S,
            resolver=self._resolver,
            socket_factory=guarded_sockets(self._guard),
        )
        self._destination = lru_cache(maxsize=DESTINATIONS_MAX)(partial(destination, loop=loop))

    async def aclose(self) -> None:
        """Cut what is open and under way."""
        if self._connector is not None:
            await self._connector.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Send and read the answer's beginning. Never raises for what the other side does."""
        if self._connector is None:
            raise RuntimeError("the egress has not been started")
        began = perf_counter()
        exchange = Exchange()
        keep_bytes = max(request.keep_bytes, EXCERPT_BYTES_MAX)
        keep = Keep(keep_bytes, max(ANSWER_BYTES_MAX, keep_bytes))
        try:
            await exchange.run(self._connector, self._destination(request.url), request, keep)
        except Forbidden:
            return Withheld()
        except (aiohttp.ClientError, HttpProcessingError, OSError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _caller_gave_up():
                raise
            # The status line decides: an answer that breaks off or drips after it has still been given, and to
            # call a 200 a failure would deliver twice.
            if not exchange.answered:
                return Failed(_phrase(error), _since(began), exchange.written)
        answer, kept = exchange.answer, exchange.kept
        retry_after = answer.headers.get("Retry-After")
        readable = "Content-Encoding" not in answer.headers
        text = printable(kept[:EXCERPT_BYTES_MAX]) if readable else ""
        if not request.keep_bytes or not readable:
            return Answered(answer.code, retry_after, text, _since(began))
        return Answered(
            answer.code,
            retry_after,
            text,
            _since(began),
            bytes(kept[: request.keep_bytes]),
            answer.headers.get("Content-Type"),
        )


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
    if isinstance(error, OSError) and error.errno in PHRASE_BY_ERRNO:
        return PHRASE_BY_ERRNO[error.errno]
    return next(phrase for kind, phrase in PHRASE_BY_KIND if isinstance(error, kind))


def _since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 3)
