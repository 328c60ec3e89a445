"""Recent: what is used stays, what is not goes, and it never holds more than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.core.recent import Recent

MAX = 4


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_it_gives_what_was_put_there_or_nothing(steps: list[tuple[int, bool]]) -> None:
    """Never another value; never more than two generations; what was put there last is there."""
    recent: Recent[int, str] = Recent(MAX)
    for turn, (key, put) in enumerate(steps):
        if put:
            recent.remember(key, f"{key}.{turn}")
            assert recent[key] == f"{key}.{turn}"
        else:
            newest = [f"{k}.{t}" for t, (k, was_put) in enumerate(steps[:turn]) if was_put and k == key]
            assert recent[key] in (None, *newest[-1:])
        assert len(recent) <= MAX
        assert len(recent._old) <= MAX


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    """However many others come by."""
    recent: Recent[str, int] = Recent(MAX)
    recent.remember("used", 1)
    recent.remember("unused", 1)
    for number in range(10 * MAX):
        recent.remember(f"k{number}", number)
        assert recent["used"] == 1
    assert recent["unused"] is None


def test_a_generation_is_as_heavy_as_it_may_be() -> None:
    """By weight, and what is too heavy for any is not kept, nor does it push others out."""
    recent: Recent[str, bytes] = Recent(100, len)
    recent.remember("a", b"x" * 60)
    recent.remember("b", b"x" * 40)
    assert (len(recent), len(recent._old)) == (2, 0)
    recent.remember("c", b"x")
    assert (len(recent), len(recent._old)) == (1, 2)
    recent.remember("d", b"x" * 101)
    assert recent["d"] is None
    assert recent["a"] == b"x" * 60
    assert recent._weight == 61


def test_what_is_kept_anew_weighs_once() -> None:
    """However often: it pushes nothing out."""
    recent: Recent[str, bytes] = Recent(100, len)
    recent.remember("other", b"x" * 30)
    for number in range(50):
        recent.remember("a", b"y" * (number % 40))
    assert (len(recent), len(recent._old), recent._weight) == (2, 0, 30 + 49 % 40)


def test_what_is_kept_anew_replaces_what_was_there() -> None:
    """In whichever generation that was; also when it is too heavy now."""
    recent: Recent[str, bytes] = Recent(100, len)
    recent.remember("a", b"1")
    recent.remember("a", b"2")
    assert recent["a"] == b"2"
    recent.remember("fill", b"x" * 99)
    recent.remember("a", b"3")
    assert recent["a"] == b"3"
    recent.remember("a", b"x" * 101)
    assert recent["a"] is None
    recent.remember("a", b"4")
    recent.remember("fill", b"x" * 100)
    recent.remember("a", b"x" * 101)
    assert recent["a"] is None
