"""Errand: what is done for a claimed delivery, as the attempt sees it, and how that ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from actors.core.outcome import Answered, Failed
from actors.core.rendering import rfc3339
from actors.egress_ports import Withheld
from actors.ports import Attempt, Claimed, Clock, Settled


class Tried(Struct, frozen=True, kw_only=True):
    """How one try ended: what the other side did, and what follows. `retry_in_ms`, `result` and `mark` as in Settle.
    `blames_line`: whether a failure says something about those that wait behind it."""

    outcome: Answered | Failed
    blames_line: bool = True
    status: Settled
    retry_in_ms: int = 0
    result: bytes = b""
    mark: str = ""


class Errand(Protocol):
    """One kind of delivery."""

    async def run(self, claimed: Claimed, may_start: Callable[[], bool]) -> Tried | Withheld:
        """Try once. `may_start` is asked right before anything leaves. Never raises for what the other side does."""
        ...


def log_line(outcome: Answered | Failed, clock: Clock) -> bytes:
    """The line of a delivery's log, as JSON."""
    at = rfc3339(int(clock.wall() * 1000))
    latency_ms = round(outcome.latency_ms, 2)
    if isinstance(outcome, Failed):
        return msgspec.json.encode(Attempt(at=at, latency_ms=latency_ms, error=outcome.error))
    excerpt = outcome.excerpt or None
    return msgspec.json.encode(
        Attempt(at=at, latency_ms=latency_ms, status_code=outcome.status, response_excerpt=excerpt)
    )
