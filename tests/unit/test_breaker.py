"""The breaker of one host: closed, open, half open."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.core.breaker import (
    ALLOW,
    CLOSED,
    FAILURES_TO_OPEN,
    OPEN_S_MAX,
    OPEN_S_MIN,
    PROBE_LOST_S,
    Breaker,
    Closed,
    HalfOpen,
    Hold,
    Limits,
    Open,
    Probe,
    counts_against,
    may_start,
    on_failure,
    on_success,
)
from actors.core.outcome import Answered, Failed


def failed(times: int, now: float = 0.0) -> Breaker:
    """A breaker after so many failures in a row."""
    state: Breaker = CLOSED
    for _ in range(times):
        state = on_failure(state, now)
    return state


def probing(state: Breaker, now: float) -> HalfOpen:
    """The state once the probe that is due has started."""
    decision = may_start(state, now)
    assert isinstance(decision, Probe)
    return decision.state


def test_stays_closed_below_five_failures_in_a_row() -> None:
    """A success in between starts the count anew."""
    assert may_start(failed(4), 0.0) == ALLOW
    assert on_failure(on_success(failed(4)), 0.0) == Closed(1)


def test_opens_at_the_fifth() -> None:
    """Nobody starts for a second."""
    state = failed(5, now=10.0)
    assert state == Open(11.0, 1.0)
    assert may_start(state, 10.0) == Hold(11.0)
    assert may_start(state, 10.999) == Hold(11.0)


def test_one_probe_at_a_time() -> None:
    """The first to ask after the wait is the probe, all others hold until it reports."""
    half_open = probing(failed(5), 1.0)
    assert may_start(half_open, 1.0) == Hold(1.0 + PROBE_LOST_S)
    assert on_success(half_open) == CLOSED


def test_each_failed_probe_doubles_the_wait() -> None:
    """1 s, 2, 4, 8, 16, then 30 s for ever."""
    state, now, waits = failed(5), 0.0, []
    for _ in range(8):
        assert isinstance(state, Open)
        waits.append(state.open_s)
        assert state.until == now + state.open_s
        now = state.until
        state = on_failure(probing(state, now), now, probe=True)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_stragglers_change_nothing() -> None:
    """Attempts that were under way when it opened fail in a row: neither the wait nor the probe is touched."""
    state = failed(5)
    assert on_failure(state, 0.5) == state
    half_open = probing(state, 1.0)
    assert on_failure(half_open, 1.5) == half_open
    assert on_success(state) == CLOSED


def test_a_probe_that_never_reports_is_given_up() -> None:
    """A lost probe must not close a host for ever."""
    half_open = probing(failed(5), 1.0)
    assert isinstance(may_start(half_open, 1.0 + PROBE_LOST_S), Probe)


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Failed("timeout", 1.0), True),
        (Failed("unreachable", 1.0), True),
        *((Answered(status, None, "", 1.0), True) for status in (429, 502, 503, 504)),
        *((Answered(status, None, "", 1.0), False) for status in (200, 204, 301, 400, 401, 404, 410, 422, 500, 501)),
    ],
)
def test_what_counts_against_a_host(outcome: Answered | Failed, *, counts: bool) -> None:
    """No answer, or one that says "not now"; any other answer proves the host alive."""
    assert counts_against(outcome) is counts


class OneHost(RuleBasedStateMachine):
    """Attempts against a host that is up or down, as a delivery lane makes them."""

    @initialize()
    def begin(self) -> None:
        """A new host."""
        self.now = 0.0
        self.state: Breaker = CLOSED
        self.up = True
        self.running: list[bool] = []  # one entry an attempt under way: is it the probe?
        self.row = 0
        self.probes_under_way = 0
        self.probe_started = 0.0
        self.starts_while_down: list[float] = []

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def flip(self) -> None:
        """The host goes down or comes back."""
        self.up = not self.up

    @precondition(lambda self: len(self.running) < 8)
    @rule()
    def start(self) -> None:
        """An attempt asks to start."""
        match may_start(self.state, self.now):
            case Hold(until):
                assert until > self.now
                assert not isinstance(self.state, Closed)
            case Probe(state):
                lost = self.now >= self.probe_started + PROBE_LOST_S
                assert self.probes_under_way == 0 or lost
                self.state = state
                self.probes_under_way += 1
                self.probe_started = self.now
                self.running.append(True)
            case _:
                assert isinstance(self.state, Closed)
                self.running.append(False)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 7))
    def finish(self, which: int) -> None:
        """An attempt reports what the host did."""
        probe = self.running.pop(which % len(self.running))
        if self.up:
            self.state = on_success(self.state)
            self.probes_under_way = 0
            assert may_start(self.state, self.now) == ALLOW
        else:
            was = self.state
            self.state = on_failure(self.state, self.now, probe=probe)
            if probe:
                self.probes_under_way = 0
            if isinstance(was, Closed) and was.failures + 1 >= FAILURES_TO_OPEN:
                assert may_start(self.state, self.now) == Hold(self.now + OPEN_S_MIN)

    @invariant()
    def never_held_for_longer_than_the_bounds(self) -> None:
        """Whatever happened, an attempt may start within 30 s, or once the probe is reported or given up."""
        match self.state:
            case Open(until, open_s):
                assert OPEN_S_MIN <= open_s <= OPEN_S_MAX
                assert until <= self.now + OPEN_S_MAX
            case HalfOpen(lost_at, open_s):
                assert OPEN_S_MIN <= open_s <= OPEN_S_MAX
                assert lost_at <= self.now + PROBE_LOST_S
            case Closed(failures):
                assert failures < FAILURES_TO_OPEN


TestOneHost = OneHost.TestCase
TestOneHost.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_other_limits() -> None:
    """What holds for webhooks is only the default."""
    limits = Limits(failures_to_open=2, open_s_min=0.25, open_s_max=0.6, probe_lost_s=3.0)
    state: Breaker = on_failure(CLOSED, 10.0, limits=limits)
    assert may_start(state, 10.0, limits) == ALLOW
    state = on_failure(state, 10.0, limits=limits)
    for wait_s in (0.25, 0.5, 0.6, 0.6):
        assert state == Open(10.0 + wait_s, wait_s)
        probe = may_start(state, 10.0 + wait_s, limits)
        assert probe == Probe(HalfOpen(13.0 + wait_s, wait_s))
        state = on_failure(HalfOpen(13.0, wait_s), 10.0, probe=True, limits=limits)
