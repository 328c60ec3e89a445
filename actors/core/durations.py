"""Durations: how people write them and how we read and write them. Go's grammar (`1h30m`, `90s`, `100ms`, `1.5h`).

Exact: sums are made in whole nanoseconds, never in floats, so `0.1s` is 100 ms. No sign: nothing goes back in time.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter; Go takes both
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
DIGITS_MAX = 64
"""Longer texts are refused before any arithmetic: nobody means them."""


def parse_duration_ns(text: str) -> int:
    """Read a Go duration as nanoseconds, fractions of one cut off; `ValueError` for all else, a bare number too."""
    if text == "0":
        return 0
    if len(text) > DIGITS_MAX or not _WHOLE.fullmatch(text):
        raise ValueError("expected a duration such as 10s, 1h30m or 250ms")
    return int(sum(Decimal(number) * _UNIT_NS[unit] for number, unit in _PART.findall(text)))


def format_duration(seconds: float) -> str:
    """Write seconds as Go does, rounded to the millisecond: `1h30m0s`, `10s`, `1.5s`, `250ms`, `0s`."""
    return format_duration_ms(round(seconds * 1000))


def format_duration_ms(total_ms: int) -> str:
    """The same of whole milliseconds."""
    total_s, rest_ms = divmod(total_ms, 1000)
    if not rest_ms:
        return _whole(total_s) + "s"
    return _whole(total_s) + _FRACTIONS[rest_ms] if total_s else f"{rest_ms}ms"


_FRACTIONS = tuple(f".{ms:03}".rstrip("0") + "s" for ms in range(1000))


@lru_cache(maxsize=4096)
def _whole(total_s: int) -> str:
    """Whole seconds without their unit: what is the same for a thousand times in a row."""
    total_minutes, second = divmod(total_s, 60)
    hours, minutes = divmod(total_minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{second}"
    return f"{minutes}m{second}" if minutes else str(second)
