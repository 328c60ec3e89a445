"""The tail: what was acknowledged in the last seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.ports import Entry
from actors.tail import ENTRY_OVERHEAD_BYTES, KEPT_BYTES_MAX, KEPT_S, Tail
from tests.support.doubles import make_entry


def entries(*names: str, payload: bytes = b"{}") -> list[Entry]:
    """Messages of these ids."""
    return [make_entry(message_id=name, payload=payload) for name in names]


def kept(tail: Tail) -> list[str]:
    """The ids of what the tail holds."""
    return [name for name, _ in timed(tail)]


def timed(tail: Tail) -> list[tuple[str, int]]:
    """The same, with when they were received."""
    return [(entry.message_id, entry.received_us) for entry in tail.entries() if isinstance(entry, Entry)]


def test_what_was_acknowledged_is_remembered_in_order() -> None:
    """The order within a key must be the same when it is appended again."""
    tail = Tail()
    assert kept(tail) == []
    tail.keep(entries("a", "b"), 10.0)
    tail.keep(entries("c"), 10.5)
    assert kept(tail) == ["a", "b", "c"]


def test_it_is_forgotten_when_the_store_cannot_have_lost_it() -> None:
    """After four seconds; at four it is still there."""
    tail = Tail()
    tail.keep(entries("a"), 10.0)
    tail.keep(entries("b"), 12.0)
    tail.trim(10.0 + KEPT_S)
    assert kept(tail) == ["a", "b"]
    tail.trim(10.001 + KEPT_S)
    assert kept(tail) == ["b"]
    tail.keep(entries("c"), 12.001 + KEPT_S)
    assert kept(tail) == ["c"]
    tail.trim(100.0)
    assert kept(tail) == []


def test_it_is_bounded_in_bytes() -> None:
    """The oldest go first; what is larger than all the room is not held at all."""
    tail = Tail()
    half = b" " * (KEPT_BYTES_MAX // 2 - ENTRY_OVERHEAD_BYTES)
    tail.keep(entries("a", payload=half), 0.0)
    tail.keep(entries("b", payload=half), 0.0)
    assert kept(tail) == ["a", "b"]
    tail.keep(entries("c"), 0.0)
    assert kept(tail) == ["b", "c"]
    tail.keep(entries("d", payload=b" " * KEPT_BYTES_MAX), 0.0)
    assert kept(tail) == []
    tail.keep(entries("e"), 0.0)
    assert kept(tail) == ["e"]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 4.0, 5.0]), st.integers(0, 3), st.sampled_from([2, 4_000_000])),
        max_size=40,
    )
)
def test_it_holds_the_newest_that_fit(steps: list[tuple[float, int, int]]) -> None:
    """Against a list of everything: always a tail of it, nothing older than its time, no more bytes than its bound,
    and nothing less than what those two allow."""
    tail = Tail()
    everything: list[tuple[float, int, list[str]]] = []
    now, made = 0.0, 0
    for pause_s, count, payload_bytes in steps:
        now += pause_s
        names = [f"m{made + number}" for number in range(count)]
        made += count
        everything.append((now, count * (payload_bytes + ENTRY_OVERHEAD_BYTES), names))
        tail.keep(entries(*names, payload=b" " * payload_bytes), now)
        expected: list[str] = []
        room = KEPT_BYTES_MAX
        for at, size, names_then in reversed(everything):
            room -= size
            if at < now - KEPT_S or room < 0:
                break
            expected = names_then + expected
        assert kept(tail) == expected


def test_each_entry_keeps_the_time_at_which_it_was_first_received() -> None:
    """The store's, so that several nodes can put together what they have in one order."""
    tail = Tail()
    tail.keep(entries("a", "b"), 10.0, [5, 6])
    tail.keep(entries("c"), 10.0)
    assert timed(tail) == [("a", 5), ("b", 6), ("c", 0)]


def test_while_a_store_is_away_nothing_of_it_gets_old() -> None:
    """Its end may be missing when it comes back, however long that takes; what is elsewhere is let go as always."""
    here, there = make_entry("k", "here"), make_entry("other", "there")
    assert here.partition != there.partition
    gone: set[int] = set()
    tail = Tail(lambda: frozenset(gone))
    tail.keep([here, there], 10.0, [1, 2])
    gone.add(there.partition)
    for now in range(11, 700):
        tail.trim(float(now))
    assert timed(tail) == [("there", 2)]
    gone.add(here.partition)
    tail.trim(700.0)
    gone.clear()
    tail.trim(700.1)
    assert kept(tail) == []


def test_what_waits_for_its_store_stands_before_what_came_later() -> None:
    """And is bounded like all the rest: the oldest goes first."""
    gone: set[int] = set()
    tail = Tail(lambda: frozenset(gone))
    old = make_entry(message_id="old")
    gone.add(old.partition)
    tail.keep([old], 10.0)
    tail.keep(entries("new"), 20.0)
    assert kept(tail) == ["old", "new"]
    tail.keep(entries("large", payload=b" " * (KEPT_BYTES_MAX - 2 * ENTRY_OVERHEAD_BYTES)), 20.0)
    assert kept(tail) == ["large"]
    assert tail._bytes <= KEPT_BYTES_MAX
    gone.clear()
    tail.trim(100.0)
    assert kept(tail) == []
    assert tail._bytes == 0
