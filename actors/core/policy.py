"""Policy: what one message asks of its buffer and of its webhook.

The Structs here decode requests, describe them in the OpenAPI document and are stored with each batch, so a
field exists once. They carry limits, never behaviour. Source of every limit: the HTTP contract, section 2.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

KEY_CHARACTERS_MAX = 256
PRINTABLE_ASCII = r"^[\x20-\x7e]+(?![\s\S])"
"""Python's `$` would let a line end through; this means the same to Python and to JSON Schema."""
MESSAGE_ID_CHARACTERS_MAX = 128
BATCH_MESSAGES_MAX = 1000
BATCH_BYTES_MAX = 16 * 1024 * 1024
BATCH_BYTES_DEFAULT = 1024 * 1024
WAIT_S_MIN = 0.05
WAIT_S_MAX = 86_400.0
DEBOUNCE_WAITS_MAX = 5
"""`max_wait` of a debounced batch when the caller names none: five times its `wait_time`."""

MessageId = Annotated[str, Meta(min_length=1, max_length=MESSAGE_ID_CHARACTERS_MAX, pattern=PRINTABLE_ASCII)]
Seconds = Annotated[float, Meta(ge=WAIT_S_MIN, le=WAIT_S_MAX)]
Method = Literal["POST", "PUT", "PATCH"]
Mode = Literal["window", "debounce"]
Aggregate = Literal["join", "list", "first", "last"]
Format = Literal["merged", "envelope"]
Reason = Literal["size", "bytes", "timeout", "manual"]


class Webhook(Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a batch is delivered and how hard to try. `timeout` in seconds; `secret` signs (Standard Webhooks)."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    method: Method = "POST"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    timeout: Annotated[float, Meta(gt=0, le=120)] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=20)] | None = None
    secret: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class BufferOptions(Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the messages of one key are gathered and put together. Times in seconds, sizes in messages or bytes."""

    key: Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX)]
    wait_time: Seconds = 20.0
    aggregate_field: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    max_size: Annotated[int, Meta(ge=1, le=BATCH_MESSAGES_MAX)] = 5
    mode: Mode = "window"
    max_wait: Seconds | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=BATCH_BYTES_MAX)] | None = None
    separator: Annotated[str, Meta(max_length=64)] = "\n"
    aggregate: Aggregate = "join"
    format: Format | None = None


class Message(Struct, frozen=True, gc=False, kw_only=True):
    """`POST /api/v1/message`. `payload` stays the caller's bytes; it is always a JSON object."""

    webhook: Webhook
    buffer: BufferOptions
    payload: Raw
    message_id: MessageId | None = None


class Terms(Struct, frozen=True, gc=False, kw_only=True, cache_hash=True):
    """What the messages of one key have in common while they say the same of their webhook and buffer: where they are
    gathered, when that is full or due, where it goes.

    `max_wait_ms` is 0 for a window (the first message's deadline stands) and the cap for a debounce. `policy` is the
    stored form of a `Policy`; `host` is the delivery lane.
    """

    partition: int
    kid: str
    key: str
    wait_ms: int
    max_wait_ms: int
    max_size: int
    max_bytes: int
    policy: bytes
    host: str


class Conversation(Struct, frozen=True, gc=False, omit_defaults=True):
    """Whose messages a batch holds when they are WhatsApp's. `contact` is the JID that a reply goes to; `reply` says
    where the webhook's answer has one: a dotted path, "" for the usual places; None when nothing is sent back."""

    instance: str
    contact: str
    reply: str | None = None


class Policy(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The newest message's webhook and options: they hold for the whole open batch and are frozen with it.
    With a `conversation` the batch is of its messages, in WhatsApp's order (`message_order`)."""

    webhook: Webhook
    buffer: BufferOptions
    conversation: Conversation | None = None
