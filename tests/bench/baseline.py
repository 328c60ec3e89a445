"""What the figures are compared with: an aiohttp handler that only decodes, `python -m tests.bench.baseline PORT`.

Reads the body, decodes it with msgspec into the Structs that the node uses, answers a constant of the node's size.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from actors.core.policy import Message
from tests.bench.messages import PATH, message_id

ANSWER = msgspec.json.encode(
    {
        "status": "success",
        "message_id": message_id("baseline", 0),
        "buffer_info": {"current_size": 100, "max_size": 1000, "time_remaining": 3599.123},
        "duplicate": False,
        "flushed": False,
    }
)
decode = msgspec.json.Decoder(Message).decode


async def accept(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode(await request.read())
    return web.Response(body=ANSWER, content_type="application/json")


async def ready(request: web.Request) -> web.Response:
    """Answer at all."""
    return web.Response()


async def serve(port: int) -> None:
    """Serve until killed."""
    application = web.Application()
    application.router.add_post(PATH, accept)
    application.router.add_get("/readyz", ready)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
