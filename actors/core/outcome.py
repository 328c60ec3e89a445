"""Outcome: how one request to a webhook ended, as a value."""

from __future__ import annotations

from msgspec import Struct


class Answered(Struct, frozen=True):
    """The webhook answered. `retry_after` is the raw header value; `excerpt` at most 1 KiB of the body."""

    status: int
    retry_after: str | None
    excerpt: str
    latency_ms: float


class Failed(Struct, frozen=True):
    """No answer. `error` is one short phrase that never tells a denied address from an unreachable one."""

    error: str
    latency_ms: float
