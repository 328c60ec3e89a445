"""Time to live: how long an entry stays, as callers write it and as answers show it.

Whole milliseconds inside, `FOR_EVER` for what stays until somebody takes it away; never a float, so `0.1` is 100 ms.
What is left over below a millisecond is cut off: nothing stays longer than it was asked to.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

from actors.core.durations import format_duration_ms, parse_duration_ns

FOR_EVER = 0
NONE = "none"
"""How for ever is written, both ways."""
TTL_MS_MAX = (2**63 - 1) // 1_000_000
"""292 years: the longest duration that Go can hold."""

Ttl = int | float | str
_EXPECTED = 'must be seconds as a number, a duration such as "1h30m" or "100ms", or "none"'


def parse_ttl_ms(ttl: Ttl) -> int:
    """Milliseconds; `FOR_EVER` for `"none"`. ValueError, which says what is expected, for what can't be one."""
    if isinstance(ttl, str):
        ms = _written_ms(ttl)
        if ms == FOR_EVER:
            return ms
    elif isinstance(ttl, int):
        ms = ttl * 1000
    else:
        ms = int(Decimal(repr(ttl)) * 1000) if isfinite(ttl) else -1
    if not 1 <= ms <= TTL_MS_MAX:
        raise ValueError("must be at least a millisecond and at most 292 years")
    return ms


def as_duration(ttl_ms: int) -> str:
    """As Go writes it; anything below 1 is for ever."""
    return format_duration_ms(ttl_ms) if ttl_ms > FOR_EVER else NONE


def as_seconds(ttl_ms: int) -> int | float:
    """As a number, a whole one if it is; -1: for ever."""
    if ttl_ms <= FOR_EVER:
        return -1
    return ttl_ms / 1000 if ttl_ms % 1000 else ttl_ms // 1000


def as_whole_seconds(ttl_ms: int) -> int:
    """As a whole number, rounded up, so that what is there is never shown as 0; -1: for ever."""
    return -(-ttl_ms // 1000) if ttl_ms > FOR_EVER else -1


def _written_ms(text: str) -> int:
    if text == NONE:
        return FOR_EVER
    try:
        return parse_duration_ns(text) // 1_000_000 or -1
    except ValueError:
        raise ValueError(_EXPECTED) from None
