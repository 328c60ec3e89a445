"""What follows from an attempt: delivered, another try after a while, or dead."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.outcome import Answered, Failed
from actors.core.retry import Dead, Delivered, RetryIn, Verdict, decide

NOW = 1_800_000_000.0
MIDDLE = 0.5
OUTCOMES = st.one_of(
    st.builds(Failed, st.sampled_from(["timeout", "connection refused"]), st.just(1.0)),
    st.builds(Answered, st.integers(100, 599), st.none() | st.text(max_size=40), st.just(""), st.just(1.0)),
)


def answered(status: int, retry_after: str | None = None) -> Answered:
    """An answer with this status."""
    return Answered(status, retry_after, "", 1.0)


def verdict(outcome: Answered | Failed, failures: int = 0, jitter: float = MIDDLE, max_retries: int = 3) -> Verdict:
    """Decide with the default delay of 5 s."""
    return decide(outcome, failures=failures, max_retries=max_retries, retry_delay_s=5.0, now_wall=NOW, jitter=jitter)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_success(status: int) -> None:
    """Whatever came before, and whatever Retry-After says."""
    assert verdict(answered(status, "60"), failures=3) == Delivered()


@pytest.mark.parametrize(
    "status", [100, 101, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 418, 429, 500, 503, 599]
)
def test_anything_else_is_a_failure(status: int) -> None:
    """Redirects too: they are not followed."""
    assert verdict(answered(status)) == RetryIn(5.0)


def test_no_answer_is_a_failure() -> None:
    """Retried like an error answer."""
    assert verdict(Failed("timeout", 10_000.0)) == RetryIn(5.0)


def test_410_ends_at_once() -> None:
    """Also when retries are left."""
    assert verdict(answered(410, "5")) == Dead("gone")


def test_the_schedule() -> None:
    """The first try and MAX_RETRIES more, the wait doubles from one to the next."""
    assert [verdict(answered(500), failures) for failures in range(5)] == [
        RetryIn(5.0),
        RetryIn(10.0),
        RetryIn(20.0),
        Dead("exhausted"),
        Dead("exhausted"),
    ]
    assert verdict(answered(500), max_retries=0) == Dead("exhausted")


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 8.0), (0.25, 9.0), (0.5, 10.0), (0.75, 11.0)])
def test_the_jitter(jitter: float, seconds: float) -> None:
    """±20 %, spread evenly."""
    assert verdict(Failed("timeout", 1.0), failures=1, jitter=jitter) == RetryIn(seconds)


def date(offset_s: float) -> str:
    """An HTTP date so many seconds from now."""
    return format_datetime(datetime.fromtimestamp(NOW + offset_s, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        *(("3", 3.0), (" 3 ", 3.0), ("120", 120.0), ("1.5", 1.5), ("3600", 3600.0), ("0", 1.0), ("0.2", 1.0)),
        *(("3601", 3600.0), ("1e9", 3600.0), ("1E9", 3600.0), ("1e999", 3600.0), ("9" * 60, 3600.0)),
        *((date(30), 30.0), (date(7200), 3600.0), (date(0), 1.0)),
        *(("6m5s", 365.0), ("1h", 3600.0), ("500ms", 1.0), ("1m30.5s", 90.5), ("2m", 120.0), ("90s", 90.0)),
        *(("1h30m", 3600.0), ("0s", 1.0), ("5s6m", 365.0)),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri Jan 15 08:00:30 2027", 30.0),
    ],
)
def test_retry_after_is_obeyed(retry_after: str, seconds: float) -> None:
    """Seconds, dates in the three forms of RFC 9110, durations; within 1 s and 1 h, without jitter."""
    for status in (429, 503, 301, 500):
        assert verdict(answered(status, retry_after), jitter=0.9) == RetryIn(seconds)


@pytest.mark.parametrize(
    "retry_after",
    [
        *(
            "",
            " ",
            "-1",
            "-0.5",
            "soon",
            "NaN",
            "inf",
            "-inf",
            "Infinity",
            "1,5",
            "٣",
            "0x10",
            "1_000",
            "--",
            "5 s",
            "s",
            "h",
        ),
        *("1d", "1e", "e9", "9" * 65, "1" * 5000, date(-30), "Fri, 99 Foo 2027 99:99:99 GMT", "\x00", ";" * 64),
        *("Fri, 15 Jan 99999 08:00:30 GMT", "Fri, 15 Jan 2027 08:00:30 +99999999", "0001-01-01"),
    ],
)
def test_unusable_retry_after_is_ignored(retry_after: str) -> None:
    """Garbage, negative numbers and dates that have passed leave the normal schedule."""
    assert verdict(answered(503, retry_after), failures=1) == RetryIn(10.0)


def test_retry_after_gives_no_extra_tries() -> None:
    """When the retries are used up it does not matter."""
    assert verdict(answered(429, "5"), failures=3) == Dead("exhausted")


@given(
    outcome=OUTCOMES, failures=st.integers(0, 30), retries=st.integers(0, 20), jitter=st.floats(0, 1, exclude_max=True)
)
def test_every_outcome_has_one_verdict(outcome: Answered | Failed, failures: int, retries: int, jitter: float) -> None:
    """Success only for 2xx, an end exactly at 410 or when the retries are used up, else a wait within bounds."""
    result = verdict(outcome, failures, jitter, retries)
    status = outcome.status if isinstance(outcome, Answered) else None
    match result:
        case Delivered():
            assert status is not None
            assert status // 100 == 2
        case Dead("gone"):
            assert status == 410
        case Dead():
            assert failures >= retries
        case RetryIn(seconds):
            assert failures < retries
            base = 5.0 * 2**failures
            normal = 0.8 * base <= seconds <= 1.2 * base
            assert normal or (isinstance(outcome, Answered) and outcome.retry_after and 1 <= seconds <= 3600)


@given(asked=st.floats(0, 1e6), failures=st.integers(0, 2), jitter=st.floats(0, 1, exclude_max=True))
def test_never_sooner_than_asked(asked: float, failures: int, jitter: float) -> None:
    """Up to an hour, whatever the schedule says."""
    result = verdict(answered(429, f"{asked:.3f}"), failures, jitter)
    assert isinstance(result, RetryIn)
    assert result.seconds >= min(asked - 0.001, 3600.0)


@given(st.text(max_size=70) | st.binary(max_size=64).map(lambda raw: raw.decode("latin-1")))
def test_any_header_value_is_survived(retry_after: str) -> None:
    """The value comes from the other side: no text of theirs raises or leaves the bounds."""
    result = verdict(answered(503, retry_after))
    assert isinstance(result, RetryIn)
    assert 1.0 <= result.seconds <= 3600.0


@given(failures=st.integers(0, 10_000))
def test_the_wait_stays_a_number(failures: int) -> None:
    """Even with a MAX_RETRIES that nobody should set."""
    result = verdict(Failed("timeout", 1.0), failures, max_retries=20_000)
    assert isinstance(result, RetryIn)
    assert result.seconds * 1000 < 2**63
