"""The benchmark's publishes: `POST /api/queue/publish` as prepared bytes of constant length.

Message n goes onto channel n modulo `CHANNELS`, and has n in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from msgspec import Raw, Struct

PATH = "/api/queue/publish"
CHANNELS = 100
PUBLISHED = {
    "message": "Mensaje publicado",
    "channel": "bench-000000",
    "subscribers": 0,
    "id": "0" * 26,
    "offset": 1000,
    "epoch": "0" * 12,
}
"""What a publish is answered, in length: for the handler that does nothing."""


class PublishSpec(Struct, frozen=True, kw_only=True, tag="publish"):
    """Messages onto all channels in turn."""


class Body(Struct, frozen=True):
    """What is posted, as a server has to see it."""

    message: Raw
    channel: str | None = None


def channel_of(number: int) -> str:
    """The channel of message `number`."""
    return f"bench-{number % CHANNELS:06d}"


def builder(port: int) -> Callable[[int], bytes]:
    """A function from a message's number to its whole HTTP request."""
    document = {"channel": "%s", "message": {"event": "update", "producto_id": "%09d"}}
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body % (channel_of(0).encode(), 0))}\r\n\r\n"
    )
    template = head.encode() + body
    return lambda number: template % (channel_of(number).encode(), number)
