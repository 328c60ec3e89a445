"""Running: puts a fake on sockets for as long as a context lasts.

Webhooks go out only while the caller runs `fake.poster.run()`: a context manager can own no task.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from router.fake_evolution import control, server
from router.fake_evolution.fake import Fake

SHUTDOWN_S = 0.1
"""How long answers that are never given are waited for."""


@asynccontextmanager
async def serving(fake: Fake, sockets: Sequence[socket.socket], origin: str) -> AsyncIterator[None]:
    """Answer on sockets that listen already, under the URL `origin`; closes them in the end."""
    fake.origin = origin
    app = web.Application(client_max_size=server.BODY_BYTES_MAX)
    app.add_routes([*control.routes(fake), *server.routes(fake)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        for listener in sockets:
            await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
