"""Where time comes from: the manual clock of tests, and the loop's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.clock import LoopClock, ManualClock, Timer


def test_a_manual_clock_stands_still() -> None:
    """Both times move by what it is advanced and by nothing else."""
    clock = ManualClock(wall=datetime(2026, 11, 22, tzinfo=UTC).timestamp())
    assert clock.monotonic() == 0.0
    clock.advance(90.0)
    assert clock.monotonic() == 90.0
    assert datetime.fromtimestamp(clock.wall(), UTC) == datetime(2026, 11, 22, 0, 1, 30, tzinfo=UTC)


def test_a_callback_runs_at_its_own_time() -> None:
    """In order of time, those for one instant in the order in which they were scheduled."""
    clock = ManualClock()
    ran: list[tuple[str, float]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: ran.append((name, clock.monotonic()))

    clock.call_at(2.0, note("c"))
    clock.call_at(1.0, note("a"))
    clock.call_at(1.0, note("b"))
    clock.call_at(3.0, note("not yet"))
    clock.advance(2.5)
    assert ran == [("a", 1.0), ("b", 1.0), ("c", 2.0)]
    assert clock.monotonic() == 2.5


def test_what_a_callback_schedules_runs_too_if_it_falls_into_the_time() -> None:
    """A chain of timers is run to where the time ends."""
    clock = ManualClock()
    ran: list[float] = []

    def again() -> None:
        ran.append(clock.monotonic())
        clock.call_at(clock.monotonic() + 1.0, again)

    clock.call_at(1.0, again)
    clock.advance(4.5)
    assert ran == [1.0, 2.0, 3.0, 4.0]


def test_a_timer_can_be_taken_back() -> None:
    """Before it fires, by a callback of the same instant, and, without harm, after it fired."""
    clock = ManualClock()
    ran: list[str] = []
    timers: list[Timer] = []
    first = clock.call_at(1.0, lambda: timers.pop().cancel())
    timers.append(clock.call_at(1.0, lambda: ran.append("second")))
    clock.call_at(2.0, lambda: ran.append("third")).cancel()
    clock.call_at(2.0, lambda: ran.append("fourth"))
    clock.advance(5.0)
    assert ran == ["fourth"]
    first.cancel()


def test_time_never_goes_back() -> None:
    """A callback for a time that has passed runs at once, at the time of now."""
    clock = ManualClock()
    ran: list[float] = []
    clock.advance(10.0)
    clock.call_at(3.0, lambda: ran.append(clock.monotonic()))
    assert ran == []
    clock.advance(0.0)
    assert ran == [10.0]


@given(whens=st.lists(st.floats(0.0, 100.0), max_size=30), steps=st.lists(st.floats(0.0, 50.0), max_size=8))
def test_every_callback_runs_once_and_in_time(whens: list[float], steps: list[float]) -> None:
    """However time is cut into steps."""
    clock = ManualClock()
    ran: list[tuple[float, float]] = []
    for when in whens:
        clock.call_at(when, partial(lambda when: ran.append((when, clock.monotonic())), when))
    for step in steps:
        clock.advance(step)
        assert [when for when, _ in ran] == sorted(when for when in whens if when <= clock.monotonic())
    assert all(when == at for when, at in ran)


def test_the_loops_wall_is_the_systems() -> None:
    """Unix seconds of now."""
    clock = LoopClock(lambda: 5.0, lambda _when, _callback: ManualClock().call_at(0.0, lambda: None))
    before = time.time()
    assert before <= clock.wall() <= time.time()
    assert clock.monotonic() == 5.0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_the_loops_timers_are_half_a_millisecond_early_at_most(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop rounds to milliseconds, half of them down. Who must not be early looks at the time, and adds that."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        late_s = runner.run(_lateness())
    assert len(late_s) == LOOP_TIMERS
    assert min(late_s) >= -0.000_501


LOOP_TIMERS = 200


async def _lateness() -> list[float]:
    """By how much each of many timers, all within some milliseconds, was late."""
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop.time, loop.call_at)
    late_s: list[float] = []
    done = asyncio.Event()

    def fired(when: float) -> None:
        late_s.append(clock.monotonic() - when)
        if len(late_s) == LOOP_TIMERS:
            done.set()

    began = clock.monotonic()
    for number in range(LOOP_TIMERS):
        when = began + number * 0.000_137
        clock.call_at(when, partial(fired, when))
    async with asyncio.timeout(5.0):
        await done.wait()
    return late_s


def test_the_loops_timers_can_be_taken_back() -> None:
    """`call_at` gives the loop's own handle."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop.time, loop.call_at)
        ran: list[str] = []
        done = asyncio.Event()
        clock.call_at(clock.monotonic() + 0.001, lambda: ran.append("taken back")).cancel()
        clock.call_at(clock.monotonic() + 0.002, done.set)
        async with asyncio.timeout(5.0):
            await done.wait()
        return ran

    assert asyncio.run(run()) == []
