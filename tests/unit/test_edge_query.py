"""Queries and paging: typed parameters, limits, and cursors that nobody can make up."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.edge.errors import BadInput
from router.edge.paging import Cursor, Page
from router.edge.query import Query


class Filtered(Page, frozen=True, kw_only=True):
    """A list with a filter."""

    key: str | None = None


FILTERED = Query(Filtered)
POSITIONS = Cursor(tuple[int, str])


def test_parameters_are_read_from_their_text() -> None:
    """Defaults hold, unknown parameters do not matter, and text stays text."""
    assert FILTERED.decode({}) == Filtered()
    assert FILTERED.decode({"limit": "1000", "key": "null", "other": "x"}) == Filtered(limit=1000, key="null")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "", "x", "1.5", "nan", "99999999999999999999999", "٣"])
def test_a_limit_out_of_range_is_named(limit: str) -> None:
    """400 naming `limit`, without the value."""
    with pytest.raises(BadInput) as raised:
        FILTERED.decode({"limit": limit})
    assert raised.value.pointer == "limit"
    assert raised.value.detail.startswith("limit: ")


@given(st.integers(-(2**63), 2**64 - 1), st.text())
def test_a_cursor_leads_back_to_its_position(number: int, text: str) -> None:
    """And it needs no escaping in a URL."""
    cursor = POSITIONS.encode((number, text))
    assert POSITIONS.decode(cursor) == (number, text)
    assert all(character.isalnum() or character in "-_" for character in cursor)


def test_no_cursor_is_the_first_page() -> None:
    """Absent and empty mean the same."""
    assert POSITIONS.decode(None) is None
    assert POSITIONS.decode("") is None


@pytest.mark.parametrize(
    "cursor",
    ["x", "!!!!", "AAAA", "ñ", "a b", "kgA", POSITIONS.encode((1, "a"))[:-1], POSITIONS.encode((1, "a")) + "AAAA"],
)
def test_a_made_up_cursor_is_named(cursor: str) -> None:
    """400 naming `cursor`."""
    with pytest.raises(BadInput) as raised:
        POSITIONS.decode(cursor)
    assert raised.value.detail == "cursor: is not one that this API gave out"


@given(st.text())
def test_no_cursor_crashes(cursor: str) -> None:
    """Whatever is sent is a position or a 400."""
    with contextlib.suppress(BadInput):
        position = POSITIONS.decode(cursor)
        assert position is None or isinstance(position[0], int)
