"""Times to live: exact to the millisecond, never negative, and readable again as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.durations import format_duration, format_duration_ms, parse_duration_ns
from actors.core.ttl import (
    FOR_EVER,
    NONE,
    TTL_MS_MAX,
    Ttl,
    as_duration,
    as_seconds,
    as_whole_seconds,
    parse_ttl_ms,
)

GOOD: list[tuple[Ttl, int]] = [
    (1, 1000),
    (3600, 3_600_000),
    (0.001, 1),
    (0.1, 100),
    (1.001, 1001),
    (0.0019, 1),
    (1e3, 1_000_000),
    ("1h30m", 5_400_000),
    ("90s", 90_000),
    ("100ms", 100),
    ("1.5h", 5_400_000),
    (".5s", 500),
    ("1ms", 1),
    ("1500us", 1),
    ("1000µs", 1),
    ("none", FOR_EVER),
    (9_223_372_036, 9_223_372_036_000),
    ("2562047h47m16.854s", TTL_MS_MAX),
]
BAD: list[Ttl] = [
    *(0, -1, 0.0, -0.0, 0.0009, -0.5, 9_223_372_037, 2**63 - 1, 1e18, 1e308, float("inf"), float("nan")),
    *("", "0", "0s", "999us", "1", "3600", "1.5", "-1s", "+1s", "1 h", "1H", "1d", "1h ", "h", "NONE", "None", "never"),
    *("1e3s", "\u0661s", "2562047h47m16.855s", "9" * 63 + "h", "1s" * 40, "ns", "1hh", "1\n", "1s\n", "\0"),
]


@pytest.mark.parametrize(("ttl", "ms"), GOOD)
def test_what_is_taken(ttl: Ttl, ms: int) -> None:
    """Numbers are seconds, text is Go's; what is below a millisecond is cut off."""
    assert parse_ttl_ms(ttl) == ms


@pytest.mark.parametrize("ttl", BAD)
def test_what_is_refused(ttl: Ttl) -> None:
    """With a sentence that does not repeat it."""
    with pytest.raises(ValueError, match=r"^must be ") as refused:
        parse_ttl_ms(ttl)
    assert len(str(refused.value)) < 100


@given(st.integers(1, TTL_MS_MAX))
def test_a_duration_is_read_as_it_was_written(ms: int) -> None:
    """To the millisecond, for each that can be."""
    assert parse_duration_ns(as_duration(ms)) == ms * 1_000_000
    assert parse_ttl_ms(as_duration(ms)) == ms


@given(st.integers(1, 10**12))
def test_seconds_are_read_as_they_were_written(ms: int) -> None:
    """As a number; whole ones have no fraction, and what is left is never shown as 0."""
    assert parse_ttl_ms(as_seconds(ms)) == ms
    assert isinstance(as_seconds(ms), int) == (ms % 1000 == 0)
    assert ms / 1000 <= as_whole_seconds(ms) < ms / 1000 + 1


@given(st.integers(0, 10**12))
def test_both_ways_to_write_a_duration_agree(ms: int) -> None:
    """Of seconds and of milliseconds."""
    assert format_duration(ms / 1000) == format_duration_ms(ms)


def test_for_ever_has_its_own_words() -> None:
    """Both as a ttl of a write (0) and as what is left (-1)."""
    assert [as_duration(ms) for ms in (FOR_EVER, -1)] == [NONE, NONE]
    assert [as_seconds(ms) for ms in (FOR_EVER, -1)] == [-1, -1]
    assert [as_whole_seconds(ms) for ms in (FOR_EVER, -1)] == [-1, -1]
