"""Durations in Go's grammar: what is read, what is refused, and that writing and reading agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.durations import format_duration, parse_duration_ns

MS_NS = 1_000_000
S_NS = 1000 * MS_NS


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("10s", 10 * S_NS),
        ("1h30m", 5400 * S_NS),
        ("1.5h", 5400 * S_NS),
        (".5s", 500 * MS_NS),
        ("1.s", S_NS),
        ("100ms", 100 * MS_NS),
        ("0.1s", 100 * MS_NS),
        ("1us", 1000),
        ("1µs", 1000),
        ("1μs", 1000),
        ("7ns", 7),
        ("1s1s", 2 * S_NS),
        ("9007199254740993ns", 9_007_199_254_740_993),
    ],
)
def test_go_durations_are_read_exactly(text: str, nanoseconds: int) -> None:
    """Sums of decimals with units, in whole nanoseconds."""
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "1.5",
        "s",
        ".s",
        "-1s",
        "+1s",
        "1 s",
        "1s ",
        "1d",
        "1S",
        "1e3s",
        "1s,2s",
        "1s!2s",
        "٣s",
        "1\n",
        "9" * 99,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A bare number too: what it counts would be a guess."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (90, "1m30s"),
        (5400.25, "1h30m0.25s"),
        (604_800, "168h0m0s"),
    ],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    """Rounded to the millisecond; from a minute on, every smaller unit is named."""
    assert format_duration(seconds) == text


@given(st.integers(0, 10**12))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    """To the millisecond."""
    assert parse_duration_ns(format_duration(milliseconds / 1000)) == milliseconds * MS_NS


@given(st.text(alphabet="0123456789.nµmush+- ", max_size=70))
def test_any_text_is_a_duration_that_is_not_negative_or_refused(text: str) -> None:
    """Nothing in between, and nothing slow."""
    assert outcome(text) == "refused" or parse_duration_ns(text) >= 0


def outcome(text: str) -> str:
    """Whether the text is a duration, or the refusal's words are those for it."""
    try:
        parse_duration_ns(text)
    except ValueError as error:
        return "refused" if str(error).startswith("expected a duration") else str(error)
    return "read"
