"""The server: aiohttp's, with the edge as its last resort.

What no handler foresaw (a crash, bytes that are no HTTP) ends in aiohttp's `handle_error`, which would answer in plain
text; here it becomes a problem like any other. The edge stands around the whole application instead of being one of
its middlewares, which saves two of three wrappers on every request (9 microseconds became 5) and lets it see what
aiohttp refuses before any middleware. The only file that knows how aiohttp 3.14 joins its parts.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp import web

from router.edge.http import Edge

KEEPALIVE_S = 75.0


class EdgeProtocol(web.RequestHandler):
    """One connection."""

    __slots__ = ("_edge",)

    def __init__(self, manager: EdgeServer, edge: Edge, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self._edge = edge

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
    """Makes one `EdgeProtocol` per connection."""

    def __init__(self, plain: web.Server, edge: Edge) -> None:
        super().__init__(
            partial(edge.handle, handler=plain.request_handler),
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )
        self._edge = edge

    def __call__(self) -> EdgeProtocol:
        return EdgeProtocol(self, self._edge, loop=self._loop, **self._kwargs)


class EdgeRunner(web.AppRunner):
    """Runs an application behind an edge. The application needs no middleware of its own."""

    __slots__ = ("_edge",)

    def __init__(self, app: web.Application, edge: Edge, **options: Any) -> None:
        # Bodies that are compressed are refused, so nothing may inflate them while they arrive.
        defaults = {"access_log": None, "auto_decompress": False, "keepalive_timeout": KEEPALIVE_S}
        super().__init__(app, **{**defaults, **options})
        self._edge = edge

    async def _make_server(self) -> EdgeServer:
        return EdgeServer(await super()._make_server(), self._edge)
