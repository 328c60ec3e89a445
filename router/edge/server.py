"""The server: aiohttp's, with the edge as its last resort.

What no handler foresaw (a crash, bytes that are no HTTP) ends in aiohttp's `handle_error`, which would answer in plain
text; here it becomes a problem like any other. The edge stands around the whole application instead of being one of
its middlewares, which saves two of three wrappers on every request (9 microseconds became 5) and lets it see what
aiohttp refuses before any middleware. Beside
`edge.lane` the only file that knows how aiohttp 3.14 joins its parts.

A connection gets `request_s` for the head of its first request, and as long for each body (`edge.handlers` waits for
those). Half a head on a connection that has been answered before looks like an idle one from here; the keep-alive
timeout ends both, 75 s after the last answer, and dripping bytes don't put that off.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import takewhile
from typing import Any

from aiohttp import web

from router.edge.http import Edge
from router.edge.lane import Heads, LaneConnection

KEEPALIVE_S = 75.0
REQUEST_S = 10.0
LOOK_S = 0.1
"""Between two looks at the connections that have not asked anything yet: how late the end of one can come."""


class EdgeProtocol(LaneConnection):
    """One connection. `request_s` bounds what it may take to send a request."""

    __slots__ = ("request_s",)

    def __init__(self, manager: EdgeServer, edge: Edge, heads: Heads | None, **options: Any) -> None:
        super().__init__(manager, edge, heads, **options)
        self.request_s = manager.request_s

    def close_after_answer(self) -> None:
        """Let the answer to the current request be the last thing that happens here; the rest of it is not read."""
        self._lingering_time = 0.0  # aiohttp would read on for 10 s to let the answer arrive
        self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what went wrong outside of every handler's foresight. `message` quotes the caller and is dropped."""
        under_way = request.writer.output_size > 0
        if under_way and isinstance(exc, ConnectionError):
            raise exc  # the client left, or a stream was cut on purpose: nothing to tell and nobody to tell it
        response = self._edge.unforeseen(request, status, exc)
        if under_way:
            raise ConnectionError("a stream broke off") from exc
        return response


class EdgeServer(web.Server):
    """Makes one `EdgeProtocol` per connection and ends those that don't ask anything.

    One timer serves all: a request costs nothing, a connection two entries in a dictionary.
    """

    def __init__(self, plain: web.Server, edge: Edge, heads: Heads | None, request_s: float) -> None:
        super().__init__(
            partial(edge.handle, handler=plain.request_handler),
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )
        self.request_s = request_s
        self._edge = edge
        self._heads = heads
        self._unproven: dict[web.RequestHandler, float] = {}
        """When the first request of each new connection is due, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> EdgeProtocol:
        return EdgeProtocol(self, self._edge, self._heads, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Give a new connection its time."""
        super().connection_made(handler, transport)
        due = self._unproven[handler] = self._loop.time() + self.request_s
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._unproven.pop(handler, None)
        super().connection_lost(handler, exc)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  aiohttp's own signature
        """Finish what is under way, end every connection."""
        if self._timer is not None:
            self._timer.cancel()
        await super().shutdown(timeout)

    def _look(self) -> None:
        """End each connection whose time is over without a request."""
        now = self._loop.time()
        over = [connection for connection, due in takewhile(lambda each: each[1] <= now, self._unproven.items())]
        for connection in over:
            del self._unproven[connection]
            if not connection._request_count:
                connection.force_close()
        next_due = next(iter(self._unproven.values()), None)
        self._timer = None if next_due is None else self._loop.call_at(max(next_due, now + LOOK_S), self._look)


class EdgeRunner(web.AppRunner):
    """Runs an application behind an edge, `edge.lane` before it. The application needs no middleware of its own."""

    __slots__ = ("_edge", "_heads", "_request_s")

    def __init__(
        self,
        app: web.Application,
        edge: Edge,
        *,
        fast_lane: bool = True,
        request_s: float = REQUEST_S,
        **options: Any,
    ) -> None:
        # Bodies that are compressed are refused, so nothing may inflate them while they arrive.
        defaults = {"access_log": None, "auto_decompress": False, "keepalive_timeout": KEEPALIVE_S}
        super().__init__(app, **{**defaults, **options})
        self._edge = edge
        self._heads = Heads(edge, app._client_max_size) if fast_lane else None
        self._request_s = request_s

    async def _make_server(self) -> EdgeServer:
        return EdgeServer(await super()._make_server(), self._edge, self._heads, self._request_s)
