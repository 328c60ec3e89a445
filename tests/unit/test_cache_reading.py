"""Reading: an answer that was kept says what a new one would say, and is given to nobody who asked for another."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.cache_ports import NEVER, Proof
from actors.core.cache_names import CacheNames
from actors.near_cache import Entry, left_ms
from router.api import cache_durations, cache_seconds
from router.api.cache import EXACT_MS, SHOWN_VALUE_BYTES_MAX, Entries, Reading, Render
from router.edge.answer import Ready
from router.edge.errors import NotFound, Problem
from router.edge.usecase import Reply, RequestHeaders

DEADLINE = 100_000.0
PLAIN = RequestHeaders(path="/k", request_id="")
RENDERS = (cache_durations.render, cache_seconds.render)
LEFT_MS = st.integers(1, EXACT_MS + 5000)


class Near:
    """A cache that holds one entry."""

    def __init__(self, entry: Entry) -> None:
        self.entry: Entry | None = entry
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def read_now(self, _key: str, _now: float) -> Entry | None:
        return self.entry

    def left_ms(self, entry: Entry) -> int:
        return left_ms(entry, self.time)


def entry(value: bytes | None = b'{"a":1}', deadline: float = DEADLINE) -> Entry:
    """What a key holds."""
    expires_ms = NEVER if deadline == float("inf") else 1_800_000_000_000
    return Entry(
        value=value,
        stored=value,
        expires_ms=expires_ms,
        deadline=deadline,
        fresh_until=deadline,
        proof=Proof(deadline),
    )


def reading(near: Near, render: Render) -> Reading:
    """One that has kept nothing yet."""
    return Reading(Entries(cast(Any, near), cast(Any, None), CacheNames(()), 0), render)


@pytest.mark.parametrize("render", RENDERS)
@given(lefts=st.lists(LEFT_MS | st.integers(EXACT_MS, 10**9), min_size=1, max_size=12))
def test_what_was_kept_says_what_a_new_answer_would(render: Render, lefts: list[int]) -> None:
    """At any time, in the body and in the head."""
    near = Near(entry())
    kept = reading(near, render)
    for left in sorted(lefts, reverse=True):
        near.time = DEADLINE - left / 1000
        assert kept.now("k", PLAIN)() == reading(near, render).now("k", PLAIN)()


@pytest.mark.parametrize("render", RENDERS)
@pytest.mark.parametrize(
    ("left", "later", "again"),
    [(100_900, 100_001, True), (100_900, 100_000, False), (EXACT_MS - 1, EXACT_MS - 1, False), (None, None, True)],
)
def test_an_answer_is_given_again_while_it_is_true(
    render: Render, left: int | None, later: int | None, *, again: bool
) -> None:
    """The very same bytes: for the rest of the second, with a minute left or more; for ever, of what never expires."""
    near = Near(entry() if left else entry(deadline=float("inf")))
    kept = reading(near, render)
    near.time = DEADLINE - (left or 0) / 1000
    first = kept.now("k", PLAIN)()
    near.time = DEADLINE - (later or 0) / 1000
    assert (kept.now("k", PLAIN)() is first) == again


def test_another_entry_is_another_answer() -> None:
    """What was kept of the one before is not shown, however the new one came."""
    near = Near(entry())
    near.time = 0.5
    kept = reading(near, RENDERS[0])
    before = kept.now("k", PLAIN)()
    near.entry = entry(b'{"a":2}')
    after = kept.now("k", PLAIN)()
    assert before is not None
    assert after is not None
    assert b'{"a":2}' in after.body
    near.entry = None
    assert kept.now("k", PLAIN)() is None
    near.entry = entry(None)
    with pytest.raises(NotFound):
        kept.now("k", PLAIN)()


def test_preconditions_are_looked_at_whatever_was_kept() -> None:
    """304 for whoever has it, 412 for whoever wants another."""
    near = Near(entry())
    near.time = 0.5
    kept = reading(near, RENDERS[0])
    shown = kept.now("k", PLAIN)()
    assert isinstance(shown, Ready)
    tag = shown.head.partition("\r\n")[0].removeprefix("ETag: ")
    has = kept.now("k", replace(PLAIN, if_none_match=tag))()
    assert isinstance(has, Reply)
    assert (has.status, has.body) == (304, b"")
    with pytest.raises(Problem) as raised:
        kept.now("k", replace(PLAIN, if_match='"other"'))()
    assert raised.value.status == 412
    assert kept.now("k", PLAIN)() is shown


def test_long_values_are_not_kept() -> None:
    """However often they are asked for."""
    near = Near(entry(b'"%b"' % (b"x" * SHOWN_VALUE_BYTES_MAX)))
    near.time = 0.5
    kept = reading(near, RENDERS[0])
    assert kept.now("k", PLAIN)() is not kept.now("k", PLAIN)()
    assert not kept._shown


def test_what_is_true_for_a_moment_is_not_kept() -> None:
    """It would be in the way of what is asked for again."""
    near = Near(entry())
    near.time = DEADLINE - 59
    kept = reading(near, RENDERS[0])
    assert kept.now("k", PLAIN)() == kept.now("k", PLAIN)()
    assert not kept._shown


def test_answers_take_no_more_room_than_they_are_counted_for() -> None:
    """By the allocator's count, with entries that are kept by nobody else."""
    near = Near(entry())
    near.time = 0.5
    kept = reading(near, RENDERS[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000):
            near.entry = entry(b'"%010d"' % number)
            kept.now(f"key-{number:06d}", PLAIN)()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept._shown) == 1000
    assert 0.7 * kept._shown._weight < taken <= kept._shown._weight


def test_the_time_left_is_exact_below_a_minute_and_in_whole_seconds_above() -> None:
    """Rounded up, as `expires_at` is exact anyway."""
    near = Near(entry())
    for left, said in ((59_999, b'"59.999s"'), (60_000, b'"1m0s"'), (60_001, b'"1m1s"'), (3_599_123, b'"1h0m0s"')):
        near.time = DEADLINE - left / 1000
        shown = reading(near, RENDERS[0]).now("k", PLAIN)()
        assert shown is not None
        assert shown.body.endswith(b'"remaining_ttl":%b}' % said)
