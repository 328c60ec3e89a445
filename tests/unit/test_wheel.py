"""The wheel: one timer for any number of deadlines."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st

from actors.runtime.clock import LoopClock, ManualClock
from actors.runtime.wheel import BITE, COARSE_S, EARLY_S, FAR_S, FINE_S, Wheel
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock, complaints_expected, in_virtual_time

LATE_S_MAX = FINE_S + EARLY_S + 1e-9
"""A slot, what is added so that no timer is early, and what floating point may be off by."""


class Timers(ManualClock):
    """A manual clock that counts the timers that are set."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def pending(self) -> int:
        """Timers that have neither fired nor been taken back."""
        return sum(not timer.cancelled for _, _, timer, _ in self._timers)


class Rig:
    """A wheel on a manual clock; `due` is what it handed out and when."""

    def __init__(self) -> None:
        self.clock = Timers()
        self.due: list[tuple[str, float]] = []
        self.wheel: Wheel[str] = Wheel(self.clock, lambda item: self.due.append((item, self.clock.monotonic())))


def test_an_item_is_handed_out_once_at_its_time() -> None:
    """Not before, and at most a slot later."""
    rig = Rig()
    rig.wheel.arm("a", 2.0012)
    rig.clock.advance(2.0)
    assert rig.due == []
    rig.clock.advance(1.0)
    [(item, at)] = rig.due
    assert item == "a"
    assert 2.0012 <= at <= 2.0012 + LATE_S_MAX
    rig.clock.advance(100.0)
    assert len(rig.due) == 1
    assert len(rig.wheel) == 0


def test_a_time_that_has_passed_is_now() -> None:
    """Handed out in the next turn of the clock, not inside `arm`."""
    rig = Rig()
    rig.clock.advance(5.0)
    rig.wheel.arm("late", 1.0)
    assert rig.due == []
    rig.clock.advance(LATE_S_MAX)
    assert [item for item, _ in rig.due] == ["late"]


def test_a_far_deadline_comes_early_once_to_be_armed_finely() -> None:
    """So that a day of deadlines needs no more slots than it has seconds."""
    rig = Rig()
    for number in range(1000):
        rig.wheel.arm(f"day{number}", 86_000.0 + number / 100)
    assert len(rig.wheel._slots) == 10
    rig.clock.advance(86_400.0)
    assert len(rig.due) == 1000
    for item, at in rig.due:
        when = 86_000.0 + int(item.removeprefix("day")) / 100
        assert when - COARSE_S < at <= when + EARLY_S


def test_disarmed_is_forgotten() -> None:
    """Also twice, also after its slot has gone, and without harm to others of the slot."""
    rig = Rig()
    slot = rig.wheel.arm("a", 1.0)
    assert rig.wheel.arm("b", 1.0) == slot
    rig.wheel.disarm("a", slot)
    rig.wheel.disarm("a", slot)
    assert len(rig.wheel) == 1
    rig.clock.advance(2.0)
    assert [item for item, _ in rig.due] == ["b"]
    rig.wheel.disarm("b", slot)


def test_one_timer_for_all() -> None:
    """Ten thousand deadlines in any order, far and near, set one timer; none is left when all have gone."""
    rig = Rig()
    for number in range(10_000):
        rig.wheel.arm(f"{number}", (number * 7919) % 10_007 / 100)
        assert rig.clock.pending == 1
    assert len(rig.wheel) == 10_000
    rig.clock.advance(101.0)
    assert len(rig.due) == 10_000
    assert rig.clock.pending == 0
    assert len(rig.wheel) == 0
    assert rig.wheel._slots == {}


def test_what_is_handed_out_may_arm_and_disarm() -> None:
    """For now (also in the very slot that is being emptied), for later, and neighbours of the same slot."""
    clock = ManualClock()
    got: list[tuple[str, float]] = []
    slots: dict[str, float] = {}

    def on_due(item: str) -> None:
        got.append((item, clock.monotonic()))
        if item == "again" and len(got) < 4:
            wheel.arm("again", clock.monotonic())
        elif item == "again":
            wheel.arm("later", clock.monotonic() + 1.0)
            wheel.disarm("unlucky", slots["unlucky"])

    wheel: Wheel[str] = Wheel(clock, on_due)
    wheel.arm("again", 1.0)
    slots["unlucky"] = wheel.arm("unlucky", 1.5)
    clock.advance(5.0)
    assert [item for item, _ in got] == ["again", "again", "again", "again", "later"]
    assert got[-1][1] == pytest.approx(got[3][1] + 1.0, abs=LATE_S_MAX)


def test_an_item_is_not_early_by_a_rounding_error() -> None:
    """A turn that comes late may fall exactly onto a slot. Who is woken then, sees that it is not time by a trillionth
    of a second, and asks again would be handed out again and again in that turn."""
    clock = ManualClock()
    due_at = math.nextafter(3 * FINE_S, 1.0)
    early: list[float] = []

    def on_due(item: str) -> None:
        if item == "a" and clock.monotonic() < due_at:
            early.append(clock.monotonic())

    wheel: Wheel[str] = Wheel(clock, on_due)
    wheel.arm("a", due_at)
    wheel.arm("b", 2 * FINE_S)
    clock._now = 3 * FINE_S  # the loop was busy until then
    clock.advance(0.0)
    assert early == []
    clock.advance(1.0)
    assert len(wheel) == 0


@in_virtual_time
async def test_ten_thousand_at_once_are_handed_out_in_bites() -> None:
    """The loop gets a turn after each bite, and no time is lost between them."""
    clock = VirtualClock()
    loop = asyncio.get_running_loop()
    in_this_turn = 0
    bites: list[int] = []

    def on_due(_item: int) -> None:
        nonlocal in_this_turn
        if in_this_turn == 0:
            loop.call_soon(turn_over)
        in_this_turn += 1

    def turn_over() -> None:
        nonlocal in_this_turn
        bites.append(in_this_turn)
        in_this_turn = 0

    wheel: Wheel[int] = Wheel(clock, on_due)
    due_at = clock.monotonic() + 3.0
    for number in range(10_000):
        wheel.arm(number, due_at)
    await passing(3.0 + LATE_S_MAX)
    assert sum(bites) == 10_000
    assert max(bites) == BITE
    assert len(bites) == math.ceil(10_000 / BITE)


@in_virtual_time
async def test_an_item_that_fails_takes_no_other_with_it() -> None:
    """The error is logged by the loop; the rest of the slot and later slots are handed out in time."""
    clock = VirtualClock()
    got: list[tuple[str, float]] = []
    began = clock.monotonic()

    def on_due(item: str) -> None:
        if item.startswith("poison"):
            raise RuntimeError(item)
        got.append((item, clock.monotonic() - began))

    wheel: Wheel[str] = Wheel(clock, on_due)
    for item in ("a", "poison 1", "b", "poison 2", "c"):
        wheel.arm(item, began + 1.0)
    wheel.arm("later", began + 2.0)
    with complaints_expected() as complaints:
        await passing(3.0)
    assert sorted(str(each["exception"]) for each in complaints) == ["poison 1", "poison 2"]
    assert sorted(item for item, _ in got) == ["a", "b", "c", "later"]
    assert max(at for item, at in got if item != "later") <= 1.0 + LATE_S_MAX


Delay = st.one_of(
    st.floats(-1.0, 30.0),
    st.floats(FAR_S - 2 * FINE_S, FAR_S + 2 * COARSE_S),
    st.floats(100.0, 86_400.0),
    st.integers(0, 4000).map(lambda slot: slot * FINE_S),
    st.integers(0, 4000).map(lambda slot: math.nextafter(slot * FINE_S, math.inf)),
)
Operation = st.one_of(
    st.tuples(st.just("arm"), st.integers(0, 5), Delay),
    st.tuples(st.just("disarm"), st.integers(0, 5), st.just(0.0)),
    st.tuples(
        st.just("advance"), st.just(0), st.one_of(st.floats(0.0, 20.0), st.sampled_from([FINE_S, 1.0, 90_000.0]))
    ),
)


def test_no_turn_is_taken_too_early() -> None:
    """Also on uvloop, whose timers come up to half a millisecond early: a turn that finds nothing due is taken again
    at once, thousands of times."""
    turns = Counter[str]()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def schedule(when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
            turns["scheduled"] += 1
            return loop.call_at(when, callback)

        def on_due(item: int) -> None:
            turns["due"] += 1
            if item == LOOP_ITEMS - 1:
                done.set()

        clock = LoopClock(loop.time, schedule)
        wheel: Wheel[int] = Wheel(clock, on_due)
        for number in range(LOOP_ITEMS):
            wheel.arm(number, clock.monotonic() + number * FINE_S)
        async with asyncio.timeout(10.0):
            await done.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert turns["due"] == LOOP_ITEMS
    assert turns["scheduled"] <= LOOP_ITEMS + 5


LOOP_ITEMS = 40


class Armed:
    """The naive model of one item: when it is wanted and when it may come."""

    def __init__(self, now: float, when: float, slot: float) -> None:
        self.slot = slot
        far = when - now > FAR_S
        self.earliest = when - COARSE_S if far else max(when, now)
        self.latest = when + EARLY_S if far else max(when, now) + LATE_S_MAX


@given(operations=st.lists(Operation, max_size=60))
@example(operations=[("arm", 0, math.nextafter(0.015, 1.0)), ("advance", 0, 1.0)])
def test_the_wheel_is_as_good_as_a_list(operations: list[tuple[str, int, float]]) -> None:
    """Against a model that looks at every item: each one armed is handed out exactly once, never before its time (far
    ones up to a second before), at most a slot late; a disarmed one never is; one timer at the most."""
    clock = Timers()
    armed: dict[int, Armed] = {}
    came: Counter[int] = Counter()

    def on_due(item: int) -> None:
        of = armed.pop(item)  # a KeyError: nobody armed it, or it came twice
        assert of.earliest <= clock.monotonic() <= of.latest
        came[item] += 1

    wheel: Wheel[int] = Wheel(clock, on_due)
    for name, item, seconds in operations:
        now = clock.monotonic()
        if name == "advance":
            clock.advance(seconds)
            overdue = [item for item, of in armed.items() if of.latest < clock.monotonic()]
            assert overdue == []
        else:
            if item in armed:
                wheel.disarm(item, armed.pop(item).slot)
            if name == "arm":
                armed[item] = Armed(now, now + seconds, wheel.arm(item, now + seconds))
        assert clock.pending <= 1
        assert len(wheel) == len(armed)
    clock.advance(200_000.0)
    assert armed == {}
    assert clock.pending == 0
