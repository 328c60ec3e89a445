"""Which pages may open a connection that stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.edge.origins import may_open


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "may"),
    [
        ("", "a.example", (), True),
        ("http://a.example", "a.example", (), True),
        ("HTTP://A.example", "a.EXAMPLE", (), True),
        ("https://a.example", "a.example", (), True),
        ("http://a.example:8000", "a.example:8000", (), True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", (), True),
        ("http://[::1]:8000", "[::1]:8000", (), True),
        ("http://a.example:8001", "a.example:8000", (), False),
        ("http://a.example", "a.example:8000", (), False),
        ("http://a.example:8000", "a.example", (), False),
        ("http://b.example", "a.example", (), False),
        ("http://a.example.b.example", "a.example", (), False),
        ("http://a.example@b.example", "a.example", (), False),
        ("null", "a.example", (), False),
        ("null", "null", (), False),
        ("file://", "a.example", (), False),
        ("chrome-extension://a.example", "a.example", (), False),
        ("http://", "", (), False),
        ("http://:80", "", (), False),
        ("http://a.example:99999", "a.example", (), False),
        ("http://b.example", "a.example", ("http://b.example",), True),
        ("http://B.example", "a.example", ("http://b.example",), True),
        ("https://b.example", "a.example", ("http://b.example",), False),
        ("null", "a.example", ("*",), True),
    ],
)
def test_who_may(origin: str, host: str, allowed: tuple[str, ...], may: bool) -> None:
    """The server's own pages, those of listed origins, and whoever is no browser."""
    assert may_open(origin, host, allowed) is may


@given(st.text(max_size=60), st.text(max_size=40))
def test_nothing_raises(origin: str, host: str) -> None:
    """Whatever was sent."""
    assert may_open(origin, host, ()) in (True, False)
