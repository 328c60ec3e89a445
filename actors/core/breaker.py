"""Breaker: keeps a host that does not answer from costing more than a probe now and then.

Closed lets everything through; five failures in a row open it for 1 s, then one probe at a time is let through:
a failed one opens it for twice as long (at most 30 s), any success closes it. Other `Limits` are for other hosts than
those of webhooks. Time is an argument, in seconds of one monotonic clock.
What counts against a host: no answer at all (connect, timeout, reset, TLS, broken HTTP) and 429, 502, 503, 504, which
say "not now". Every other answer, also 500 and 404, proves that the host is alive and counts as a success here.
Invariants: while not closed at most one probe is under way; a probe that never reports is given up after a bound.
"""

from __future__ import annotations

from msgspec import Struct

from actors.core.outcome import Answered, Failed

FAILURES_TO_OPEN = 5
OPEN_S_MIN = 1.0
OPEN_S_MAX = 30.0
PROBE_LOST_S = 125.0
"""Longer than any attempt may take (a webhook's timeout is at most 120 s)."""


class Limits(Struct, frozen=True, kw_only=True):
    """So many failures in a row open a breaker, for so long at first and at the most; a probe that has not reported
    after `probe_lost_s` is given up."""

    failures_to_open: int = FAILURES_TO_OPEN
    open_s_min: float = OPEN_S_MIN
    open_s_max: float = OPEN_S_MAX
    probe_lost_s: float = PROBE_LOST_S


OF_WEBHOOKS = Limits()
OVERLOADED = frozenset((429, 502, 503, 504))


class Closed(Struct, frozen=True):
    """All is well, but for `failures` in a row."""

    failures: int = 0


class Open(Struct, frozen=True):
    """Nobody may start before `until`; it had to be opened for `open_s`."""

    until: float
    open_s: float


class HalfOpen(Struct, frozen=True):
    """One probe is under way; it is taken for lost at `lost_at`."""

    lost_at: float
    open_s: float


Breaker = Closed | Open | HalfOpen
CLOSED = Closed()


class Allow(Struct, frozen=True):
    """Start; the state stays as it is."""


class Probe(Struct, frozen=True):
    """Start, as the one probe: keep `state` from now on and say `probe=True` if it fails."""

    state: HalfOpen


class Hold(Struct, frozen=True):
    """Don't start before `until`. A probe's report may change that earlier: ask again after each report."""

    until: float


ALLOW = Allow()


def counts_against(outcome: Answered | Failed) -> bool:
    """Say whether an attempt's outcome is a failure of its host."""
    return isinstance(outcome, Failed) or outcome.status in OVERLOADED


def may_start(state: Breaker, now: float, limits: Limits = OF_WEBHOOKS) -> Allow | Probe | Hold:
    """Say whether an attempt may start now."""
    match state:
        case Closed():
            return ALLOW
        case Open(until, open_s) | HalfOpen(until, open_s):
            return Probe(HalfOpen(now + limits.probe_lost_s, open_s)) if now >= until else Hold(until)


def on_success(_state: Breaker) -> Breaker:
    """Any answer that proves the host alive closes the breaker, whoever got it."""
    return CLOSED


def on_failure(state: Breaker, now: float, *, probe: bool = False, limits: Limits = OF_WEBHOOKS) -> Breaker:
    """Take note of a failure; `probe` says that the attempt was started as one.

    Attempts that were under way when the breaker opened tell nothing new: only a probe's failure doubles the wait.
    """
    match state:
        case Closed(failures) if failures + 1 < limits.failures_to_open:
            return Closed(failures + 1)
        case Closed():
            return Open(now + limits.open_s_min, limits.open_s_min)
        case HalfOpen(_, open_s) if probe:
            longer_s = min(2 * open_s, limits.open_s_max)
            return Open(now + longer_s, longer_s)
        case Open() | HalfOpen():
            return state
