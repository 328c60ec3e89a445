"""What the figures are compared with: aiohttp handlers that do nothing, `python -m tests.bench.baseline PORT`.

A POST reads the body, decodes it with msgspec into Structs like the node's and answers a constant of the node's size;
a GET only answers. They take the same bytes at the same paths.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from actors.core.policy import Message
from tests.bench import inventory_requests, publish_requests, task_requests
from tests.bench.cache_requests import sample_answer, sample_write_answer
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
READ_ANSWER = sample_answer()
WRITE_ANSWER = sample_write_answer()
TASK_ANSWER = msgspec.json.encode(task_requests.ACCEPTED)
PUBLISHED_ANSWER = msgspec.json.encode(publish_requests.PUBLISHED)
MADE_ANSWER = inventory_requests.sample_made()
ADDED_ANSWER = inventory_requests.sample_added()
LIST_ANSWER = inventory_requests.sample_list()
ONE_ANSWER = inventory_requests.sample_one()


class CacheBody(msgspec.Struct):
    """What is posted to the cache."""

    key: str
    value: msgspec.Raw
    ttl: float | str | None = None


decode = msgspec.json.Decoder(Message).decode
decode_cache = msgspec.json.Decoder(CacheBody).decode
decode_task = msgspec.json.Decoder(task_requests.Body).decode
decode_publish = msgspec.json.Decoder(publish_requests.Body).decode
decode_inventory = msgspec.json.Decoder(inventory_requests.NewInventory).decode
decode_line = msgspec.json.Decoder(inventory_requests.NewLine).decode


async def accept(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode(await request.read())
    return web.Response(body=ANSWER, content_type="application/json")


async def read(request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(body=READ_ANSWER, content_type="application/json")


async def write(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode_cache(await request.read())
    return web.Response(body=WRITE_ANSWER, content_type="application/json", status=201)


async def queue(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode_task(await request.read())
    return web.Response(body=TASK_ANSWER, content_type="application/json", status=202)


async def publish(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode_publish(await request.read())
    return web.Response(body=PUBLISHED_ANSWER, content_type="application/json")


async def make(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode_inventory(await request.read())
    return web.Response(body=MADE_ANSWER, content_type="application/json", status=201)


async def add_line(request: web.Request) -> web.Response:
    """Decode and answer."""
    decode_line(await request.read())
    return web.Response(body=ADDED_ANSWER, content_type="application/json", status=201)


async def page(request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(body=LIST_ANSWER, content_type="application/json")


async def one(request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(body=ONE_ANSWER, content_type="application/json")


async def ready(request: web.Request) -> web.Response:
    """Answer at all."""
    return web.Response()


async def serve(port: int) -> None:
    """Serve until killed."""
    application = web.Application()
    application.router.add_post(PATH, accept)
    application.router.add_get("/api/v1/cache/{key}", read)
    application.router.add_post("/api/cache/", write)
    application.router.add_post(task_requests.PATH, queue)
    application.router.add_post(publish_requests.PATH, publish)
    application.router.add_post(inventory_requests.PATH, make)
    application.router.add_post(inventory_requests.PATH + "/{id}/linea", add_line)
    application.router.add_get(inventory_requests.PATH, page)
    application.router.add_get(inventory_requests.PATH + "/{id}", one)
    application.router.add_get("/readyz", ready)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
