"""Trace context: the W3C rules for reading, continuing and starting a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.trace import Trace, child, derived, fresh, parse

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-01", 1),
        (f"00-{TRACE_ID}-{SPAN_ID}-00", 0),
        (f"00-{TRACE_ID}-{SPAN_ID}-03", 3),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", 255),
        (f"01-{TRACE_ID}-{SPAN_ID}-01", 1),
        (f"01-{TRACE_ID}-{SPAN_ID}-01-and-more", 1),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-", 1),
    ],
)
def test_a_valid_header_is_read(header: str, flags: int) -> None:
    """Any flags are taken; later versions may be longer."""
    assert parse(header) == Trace(TRACE_ID, SPAN_ID, flags)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-extra",
        f"00-{TRACE_ID}-{SPAN_ID}-01-",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
        f" 00-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        f"00-{TRACE_ID[:-1]}٣-{SPAN_ID}-01",
    ],
)
def test_anything_else_is_no_trace(header: str | None) -> None:
    """A bad header is never an error: the caller starts a new trace."""
    assert parse(header) is None


@given(st.text())
def test_no_text_makes_reading_fail(header: str) -> None:
    """Whatever the header holds, reading gives a trace or nothing."""
    found = parse(header)
    assert found is None or header.startswith(f"{header[:2]}-{found.trace_id}-{found.span_id}-")


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(0, 255))
def test_what_is_written_can_be_read(trace: int, span: int, flags: int) -> None:
    """Every fresh trace is valid, also when the random bits are all zero."""
    made = fresh(trace, span, flags)
    assert parse(made.header) == made


@given(st.integers(0, 2**64 - 1))
def test_a_child_stays_in_its_trace(span: int) -> None:
    """Continuing keeps the trace id and the flags and changes the position."""
    continued = child(Trace(TRACE_ID, SPAN_ID, 3), span)
    assert (continued.trace_id, continued.flags) == (TRACE_ID, 3)
    assert parse(continued.header) == continued


def test_the_trace_of_a_seed_is_always_the_same() -> None:
    """All attempts of a delivery that came without a trace share one."""
    assert derived("dlv_1") == derived("dlv_1")
    assert derived("dlv_1").trace_id != derived("dlv_2").trace_id
    assert parse(derived("dlv_1").header) == derived("dlv_1")
