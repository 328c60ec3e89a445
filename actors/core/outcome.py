"""Outcome: how one request to a webhook ended, as a value."""

from __future__ import annotations

from msgspec import Struct


class Answered(Struct, frozen=True):
    """The other side answered. `retry_after` is the raw header value; `excerpt` at most 1 KiB of the body as text.
    `body` and `content_type` are there only when the request asked for them."""

    status: int
    retry_after: str | None
    excerpt: str
    latency_ms: float
    body: bytes = b""
    content_type: str | None = None


class Failed(Struct, frozen=True):
    """No answer. `error` is one short phrase that never tells a denied address from an unreachable one. `written` is
    whether the request, or a part of it, had left."""

    error: str
    latency_ms: float
    written: bool = False
