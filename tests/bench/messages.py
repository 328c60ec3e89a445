"""The requests of the benchmark: `POST /api/v1/message` as prepared bytes of constant length.

Shaped like the first example of the README, with a key and ids that change from request to request.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from msgspec import Struct

PATH = "/api/v1/message"
ID_PREFIX = "bench-"


class MessageSpec(Struct, frozen=True, kw_only=True, tag="message"):
    """What the messages ask for. Message n goes to key n modulo `keys`, which waits `waits[key modulo their number]`.

    `waits` are seconds as JSON numbers of one length. Merged by `aggregate` (the field of the example), else enveloped.
    """

    sink: str
    tag: str
    keys: int
    max_size: int
    waits: tuple[str, ...] = ("3600",)
    aggregate: bool = True
    webhook_timeout_s: int = 30


def message_id(tag: str, number: int) -> str:
    """The id of message `number`."""
    return f"{ID_PREFIX}{tag}-{number:09d}"


def message_number(identifier: str) -> int:
    """The number that `message_id` put into an id."""
    return int(identifier.rpartition("-")[2])


def builder(spec: MessageSpec, port: int) -> Callable[[int], bytes]:
    """A function from a message's number to its whole HTTP request."""
    template = _template(spec, port)
    keys, waits = spec.keys, [wait.encode() for wait in spec.waits]
    assert len({len(wait) for wait in waits}) == 1, "waits of one length keep Content-Length constant"

    def build(number: int) -> bytes:
        key = number % keys
        return template % (key, waits[key % len(waits)], number, number)

    return build


def _template(spec: MessageSpec, port: int) -> bytes:
    aggregate = {"aggregate_field": "json.input.data.query"} if spec.aggregate else {}
    document = {
        "webhook": {
            "url": spec.sink,
            "headers": {"Authorization": "Bearer token123"},
            "timeout": spec.webhook_timeout_s,
        },
        "buffer": {"key": f"{spec.tag}-@KEY@domain.net", "wait_time": "@WAIT", "max_size": spec.max_size, **aggregate},
        "payload": {"json": {"input": {"data": {"query": "mensaje de ejemplo @NUMBER"}}}},
        "message_id": f"{ID_PREFIX}{spec.tag}-@NUMBER",
    }
    text = json.dumps(document, separators=(",", ":"))
    assert "%" not in text, "a percent sign would be taken for a placeholder"
    body = text.replace("@KEY@", "%06d@").replace('"@WAIT"', "%b").replace("@NUMBER", "%09d").encode()
    length = len(body % (0, spec.waits[0].encode(), 0, 0))
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    return head.encode() + body
