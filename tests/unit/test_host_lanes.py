"""A line of deliveries with a lane: what holds it, how fast it goes, and what becomes of those it had no room for."""

from __future__ import annotations

import pytest

from actors.core.breaker import FAILURES_TO_OPEN
from actors.core.outcome import Failed
from actors.host import STARTED_FIRST, WAITING_MAX, Host, Lane, Start, Wait
from actors.ports import Ready
from tests.unit.test_host import HOLD_S, OK, UNREACHABLE, ready, started

NAME = "evolution:i"


class Gate:
    """A lane that a test can hold."""

    def __init__(self) -> None:
        self.held = False

    def lane(self, pace_s: float | None = None, *, alone: bool = False) -> Lane:
        """The lane of it."""
        return Lane(held=lambda: self.held, pace=None if pace_s is None else lambda: pace_s, alone=alone)


def line(lane: Lane, count: int = 40) -> Host:
    """A host with so many deliveries in its line."""
    host = Host(NAME, HOLD_S, lane)
    for name in range(count):
        assert host.offer(ready(name), 0.0)
    return host


def test_nothing_starts_while_its_lane_is_held() -> None:
    """However long; what is offered waits in its place, and what runs comes to its end."""
    gate = Gate()
    host = line(gate.lane(), 2)
    assert started(host, 0.0) == "0"
    gate.held = True
    assert host.next(0.0) is None
    assert host.next(1e6) is None
    assert host.offer(ready("later"), 1.0)
    host.report(OK, 1.0, probe=False)
    host.finished("0")
    assert host.next(1.0) is None
    gate.held = False
    assert [started(host, 2.0) for _ in range(2)] == ["1", "later"]


def test_a_held_lane_forces_nothing_out() -> None:
    """Not even what a breaker has held for as long as it may."""
    gate = Gate()
    host = line(gate.lane(), FAILURES_TO_OPEN + 1)
    for _ in range(FAILURES_TO_OPEN):
        name = started(host, 0.0)
        host.report(UNREACHABLE, 0.0, probe=False)
        host.finished(name)
    gate.held = True
    assert host.next(2 * HOLD_S) is None
    gate.held = False
    assert isinstance(host.next(2 * HOLD_S), Start)


def test_a_paced_line_starts_one_at_a_time() -> None:
    """From one start to the next, whatever becomes of the first; the pace is asked for each."""
    paces = iter([3.0, 1.0, 2.0])
    host = line(Lane(pace=lambda: next(paces)), 3)
    assert started(host, 10.0) == "0"
    assert host.next(10.0) == Wait(13.0)
    assert host.next(12.999) == Wait(13.0)
    assert started(host, 13.0) == "1"
    assert host.next(13.5) == Wait(14.0)
    assert started(host, 20.0) == "2"
    assert host.next(20.0) is None
    assert host.running == 3


def test_a_paced_line_is_not_forgotten_before_its_next_may_start() -> None:
    """Else that one would start at once."""
    host = line(Gate().lane(3.0), 1)
    started(host, 0.0)
    host.report(OK, 0.0, probe=False)
    host.finished("0")
    assert host.quiet
    assert not host.idle(2.9)
    assert host.idle(3.0)
    assert host.offer(ready("next"), 1.0)
    assert host.next(1.0) == Wait(3.0)


@pytest.mark.parametrize("outcome", [OK, UNREACHABLE, Failed("timeout", 1.0)])
def test_a_line_that_is_alone_has_one_under_way(outcome: object) -> None:
    """At first, after answers and after failures."""
    host = line(Gate().lane(alone=True))
    for at in range(2 * FAILURES_TO_OPEN):
        now = 1000.0 * at
        name = started(host, now)
        assert host.next(now) is None
        host.report(OK if outcome is OK else UNREACHABLE, now, probe=at >= FAILURES_TO_OPEN and outcome is not OK)
        assert host.next(now) is None
        host.finished(name)
        assert host.room == 1


def test_a_free_lane_changes_nothing() -> None:
    """As many start as ever."""
    host = line(Gate().lane())
    assert len([started(host, 0.0) for _ in range(STARTED_FIRST)]) == STARTED_FIRST
    assert host.next(0.0) is None
    assert line(Lane(), 0).idle(0.0)


def test_a_line_remembers_whom_it_had_no_room_for() -> None:
    """By partition; and wants them when half of it is free, once."""
    host = line(Gate().lane(), WAITING_MAX)
    assert host.wants_more() == set()
    for partition in (3, 3, 7):
        assert not host.offer(Ready(partition, f"more {partition}", NAME, 0), 0.0)
    assert host.offer(Ready(9, "0", NAME, 0), 0.0), "it is there already"
    for _ in range(WAITING_MAX // 2 - 1):
        host.finished(started(host, 0.0))
    assert host.wants_more() == set()
    host.finished(started(host, 0.0))
    assert host.wants_more() == {3, 7}
    assert host.wants_more() == set()


def test_a_line_that_was_taken_over_begins_when_it_may() -> None:
    """Its former owner may have started something right before."""
    host = Host("i", 10.0, Lane(begins_at=5.0))
    host.offer(ready("a"), 1.0)
    assert host.next(1.0) == Wait(5.0)
    assert not host.idle(4.9)
    assert started(host, 5.0) == "a"
