"""Rendering: the body that a webhook gets for one frozen batch.

A pure function of what is stored, called for every attempt, so every attempt sends the same bytes. Payloads and
values are spliced as the caller wrote them; nothing of a payload is decoded and encoded again.
Invariant: a batch always has a body. The newest message's policy holds for all, so an older message may lack the field
or hold something that cannot be joined there: it adds nothing to the aggregate (an envelope still carries all of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from actors.core.aggregation import aggregate, joinable, parse_path
from actors.core.json_span import replace, value_at
from actors.core.message_order import in_order
from actors.core.policy import BufferOptions, Policy, Reason

StoredMessage = tuple[str, int, bytes]
"""Message id, when it was received (Unix ms), payload."""

_encode = msgspec.json.Encoder().encode


def render(policy: Policy, *, key: str, reason: Reason, messages: Sequence[StoredMessage]) -> bytes:
    """The body for a batch of at least one message, oldest first, under its newest message's policy.

    `merged`: the newest payload with the field replaced by the aggregate. `envelope`: every message. Without a
    `format` a batch with an `aggregate_field` is merged, any other enveloped. If the newest payload itself has no such
    field, which no accepted message does, the envelope loses nothing and goes instead. A conversation's messages are
    put in WhatsApp's order first; its newest message is the one that was sent last.
    """
    options = policy.buffer
    if policy.conversation is not None:
        messages = in_order(messages)
    newest = messages[-1][2]
    if options.aggregate_field is None:
        return newest if options.format == "merged" else _envelope(key, reason, messages, None)
    path = parse_path(options.aggregate_field)
    values = [value_at(payload, path) for _, _, payload in messages]
    aggregated = _aggregated(options, values)
    if aggregated is not None and options.format != "envelope":
        merged = replace(newest, path, aggregated, values[-1])
        if merged is not None:
            return merged
    return _envelope(key, reason, messages, aggregated)


def rfc3339(instant_ms: int) -> str:
    """A Unix instant in UTC with milliseconds: `2026-11-22T16:50:00.123Z`."""
    second, ms = divmod(instant_ms, 1000)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    """A lot of what is written close together lies in the same few seconds."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def _aggregated(options: BufferOptions, values: Sequence[bytes | None]) -> bytes | None:
    found = [value for value in values if value is not None]
    if options.aggregate == "join":
        found = [value for value in found if joinable(value)]
    return aggregate(found, options.aggregate, options.separator) if found else None


def _envelope(key: str, reason: Reason, messages: Sequence[StoredMessage], aggregated: bytes | None) -> bytes:
    return b'{"key":%b,"reason":"%b","count":%d,%b"messages":[%b]}' % (
        _encode(key),
        reason.encode(),
        len(messages),
        b"" if aggregated is None else b'"aggregated":%b,' % aggregated,
        b",".join(
            [
                b'{"message_id":%b,"received_at":"%b","payload":%b}'
                % (_encode(message_id), rfc3339(received_ms).encode(), payload)
                for message_id, received_ms, payload in messages
            ]
        ),
    )
