"""Keys and patterns of the cache: everything but what is too long or the router's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.cache_names import KEY_BYTES_MAX, PATTERN_STARS_MAX, CacheNames, pattern_fault, step

NAMES = CacheNames(["own!", ""])


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "a:b/c@d e",
        "\0",
        "\n",
        "ñ",
        "😀",
        "keys",
        "x" * 512,
        "é" * 256,
        "😀" * 128,
        "buzon",
        "xbuzon:",
        "Buzon:",
        "*",
    ],
)
def test_what_is_a_key(key: str) -> None:
    """Any Unicode of 1 to 512 bytes."""
    assert NAMES.fault(key) == ""


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "1 to 512"),
        ("x" * 513, "1 to 512"),
        ("é" * 256 + "x", "1 to 512"),
        ("😀" * 129, "1 to 512"),
        ("buzon:", "own"),
        ("buzon:{ab}:x", "own"),
        ("own!", "own"),
        ("own!ñ", "own"),
        ("a\ud800", "UTF-8"),
    ],
)
def test_what_is_none(key: str, why: str) -> None:
    """Too short, too long, the router's own, no text."""
    assert why in NAMES.fault(key)
    assert NAMES.first_fault(["a", key, ""]) == (1, key, NAMES.fault(key))


def test_no_fault_in_good_keys() -> None:
    """Nor in none."""
    assert NAMES.first_fault(["a", "b"]) is None
    assert NAMES.first_fault([]) is None


@pytest.mark.parametrize("pattern", ["*", "a?b[c-d]", "*" * PATTERN_STARS_MAX, "x" * 512, "buzon:*", "\n"])
def test_what_is_a_pattern(pattern: str) -> None:
    """Any glob; that of the router's own names finds nothing."""
    assert pattern_fault(pattern) == ""


@pytest.mark.parametrize("pattern", ["", "x" * 513, "é" * 257, "a*" * (PATTERN_STARS_MAX + 1), "\udcff"])
def test_what_is_no_pattern(pattern: str) -> None:
    """Nothing, too long, or too much work for the server."""
    assert pattern_fault(pattern)


@given(st.text(max_size=KEY_BYTES_MAX * 2))
def test_a_step_is_short_printable_ascii(key: str) -> None:
    """Whatever the key is; and it says which one unless that is very long."""
    shown = step(key)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 1000
    if len(key) <= 64:
        assert (shown[1:] if shown.startswith(".") else json.loads(shown[1:-1])) == key


def test_steps_as_they_look() -> None:
    """Plain ones without quotes."""
    assert [step(key) for key in ("a:b", "a b", "a.b", "")] == [".a:b", '["a b"]', '["a.b"]', '[""]']
