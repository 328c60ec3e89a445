"""Retry: what follows from one attempt at a delivery.

Decides only; waiting, counting and writing down are done elsewhere. Randomness and time are arguments.
Invariants: 2xx alone is success; a wait is never shorter than the webhook asked for, as long as it asked for at most
an hour; after `max_retries` failed retries there is no next one.
Source: the HTTP contract, section 3; `Retry-After` per RFC 9110 §10.2.3, and Go durations, which some
APIs (those of language models among them) send there.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

from actors.core.durations import parse_duration_ns
from actors.core.outcome import Answered, Failed

JITTER = 0.2
RETRY_AFTER_S_MIN = 1.0
RETRY_AFTER_S_MAX = 3600.0
RETRY_AFTER_CHARACTERS_MAX = 64
DOUBLINGS_MAX = 32
"""Keeps a wait within what a 64-bit count of milliseconds holds; at 5 s this is 680 years."""
SUCCESS = range(200, 300)
GONE = 410

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE]\+?[0-9]{1,3})?")


class Delivered(Struct, frozen=True):
    """The webhook took it."""


class RetryIn(Struct, frozen=True):
    """Try again after so many seconds."""

    seconds: float


class Dead(Struct, frozen=True):
    """No further attempt: the webhook is `gone` (410) or the retries are `exhausted`."""

    reason: Literal["gone", "exhausted"]


Verdict = Delivered | RetryIn | Dead


def decide(
    outcome: Answered | Failed, *, failures: int, max_retries: int, retry_delay_s: float, now_wall: float, jitter: float
) -> Verdict:
    """Say what follows. `failures` came before this attempt, `now_wall` is Unix time in seconds, `jitter` in [0, 1)."""
    asked: str | None = None
    if isinstance(outcome, Answered):
        if outcome.status in SUCCESS:
            return Delivered()
        if outcome.status == GONE:
            return Dead("gone")
        asked = outcome.retry_after
    if failures >= max_retries:
        return Dead("exhausted")
    wait_s = asked_wait(asked, now_wall)
    if wait_s is None:
        wait_s = backoff(failures, retry_delay_s, jitter)
    return RetryIn(wait_s)


def backoff(failures: int, retry_delay_s: float, jitter: float) -> float:
    """The wait after `failures` earlier ones: the delay doubled for each, give or take 20 %."""
    spread = 1 + JITTER * (2 * jitter - 1)
    return retry_delay_s * 2.0 ** min(failures, DOUBLINGS_MAX) * spread


def asked_wait(retry_after: str | None, now_wall: float) -> float | None:
    """The seconds that `Retry-After` asks for, within 1 s and 1 h; None when it says nothing usable.

    Seconds (`120`, `1.5`), an HTTP date and a duration (`6m5s`) are understood. A negative number, a date that has
    passed and anything else are ignored, so that a wrong clock on their side doesn't turn into a hammering on ours.
    """
    text = (retry_after or "").strip()
    if not text or len(text) > RETRY_AFTER_CHARACTERS_MAX:
        return None
    wait_s = _seconds(text, now_wall)
    if wait_s is None or wait_s < 0:
        return None
    return min(max(wait_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)


def _seconds(text: str, now_wall: float) -> float | None:
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return parse_duration_ns(text) / 1e9
    except ValueError:
        return _until_date(text, now_wall)


def _until_date(text: str, now_wall: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_wall
    except (ValueError, IndexError, TypeError, OverflowError):  # the parser was written for mail and trips over noise
        return None
