"""Coherence checker: whether any read of the cache was older than it may be. Pure.

What each key held when is known only as far as somebody outside can know it: a write took effect between its begin and
its acknowledgement, or, without one, at any time after its begin or never. So one state has *certainly* been replaced
only by a write that began after its own acknowledgement, and the age of a read is the time from the earliest
acknowledgement of such a write to the begin of the read. All of this errs on the side of the system under test: an
observer that is slow notes acknowledgements later and begins earlier than they were, which makes ages smaller.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from tests.chaos.coherence_ledger import (
    FOR_EVER,
    FOREIGN,
    LINK_LOSS_S,
    NOTHING,
    TOLD_S,
    Ledger,
    Looked,
    Loosened,
    Stall,
    Wrote,
)

NEVER = float("inf")
CLOCK_S = 0.002
"""The store counts in whole milliseconds of another clock."""
LOAD_S_MAX = 1.2
"""What is left of an entry is counted from when the node asked for it."""
ARRIVES_S_MAX = 5.0
"""A request that was held up, or its retransmission, takes effect by then or never."""
SAMPLES_MAX = 5
STEPS_S = (0.001, 0.005, 0.010, 0.020, 0.050, 0.100, 0.250, 0.500, 1.050)


class State(Struct, kw_only=True):
    """What a key held from some instant in `began` … `acked` on. `ttl_s`: how long it lasts by itself.

    `replaced` says, for each way of writing, when a write was acknowledged that had certainly replaced it.
    """

    number: int
    via: str
    began: float
    acked: float
    ttl_s: float = NEVER
    replaced: Mapping[str, float] = {}

    @property
    def gone_by(self) -> float:
        """By then it has expired."""
        return self.acked + self.ttl_s

    def replaced_by(self, via: str) -> float:
        """When this way of writing had acknowledged its successor."""
        return self.replaced.get(via, NEVER)

    def replaced_by_others(self, via: str) -> float:
        """When any other had."""
        return min((at for each, at in self.replaced.items() if each != via), default=NEVER)


class Age(Struct, frozen=True, order=True):
    """How far a state was out of date when it was read; the order is that of how bad it is."""

    expired_s: float
    own_s: float
    others_s: float
    replaced_at: float

    def allowed(self, bound_s: float) -> bool:
        """Whether it may be so old, when others' writes may be unknown for `bound_s`."""
        return self.expired_s <= CLOCK_S and self.own_s <= 0 and self.others_s <= bound_s


class Ages(Struct):
    """How old the reads of one kind of stretch were, of those that were out of date at all."""

    reads: int = 0
    late_s: list[float] = []

    def line(self) -> str:
        """In words."""
        if not self.late_s:
            return f"{self.reads:,} reads, none out of date"
        ordered = sorted(self.late_s)
        p99, most = ordered[int(len(ordered) * 0.99)], ordered[-1]
        steps = Counter(next((step for step in STEPS_S if each <= step), NEVER) for each in ordered)
        shown = ", ".join(f"≤{step * 1e3:g} ms: {steps[step]}" for step in (*STEPS_S, NEVER) if steps[step])
        figures = f"p99/max {p99 * 1e3:.1f}/{most * 1e3:.1f} ms"
        return f"{self.reads:,} reads, {len(ordered)} out of date, {figures} ({shown})"


class Report(Struct, kw_only=True):
    """What was found. `usual`, `loosened` and `marked` (as stale) share the reads of nodes among them."""

    reads: int = 0
    writes: int = 0
    unknown: int = 0
    usual: Ages
    loosened: Ages
    marked: Ages
    stalled: int = 0
    """Reads beyond their bound by no more than the node, or its way to the store, was measured to stand still."""
    problems: Counter[str]
    samples: list[str] = []

    def found(self, what: str, sample: str) -> None:
        """Something is wrong; the first few of each kind are told."""
        self.problems[what] += 1
        if self.problems[what] <= SAMPLES_MAX:
            self.samples.append(f"{what}: {sample}")


def check(ledger: Ledger) -> Report:
    """Judge every read of a ledger."""
    ages = [Ages(late_s=[]) for _ in range(3)]
    report = Report(usual=ages[0], loosened=ages[1], marked=ages[2], problems=Counter(), samples=[])
    report.writes = sum(len(each.slots) for each in ledger.wrote)
    report.unknown = sum(len(each.slots) for each in ledger.wrote if each.acked is None)
    slots = histories(ledger.wrote)
    untouched = History([])
    judge = Judge(ledger, report)
    for read in ledger.looked:
        terms = judge.terms(read)
        lefts = read.lefts or (FOR_EVER,) * len(read.slots)
        for slot, number, left_ms in zip(read.slots, read.numbers, lefts, strict=True):
            judge.read(read, terms, slots.get(slot, untouched), Seen(slot, number, left_ms))
    return report


class Terms(Struct, frozen=True):
    """How old a read may be as for what others wrote, and where its age is counted."""

    bound_s: float
    ages: Ages | None


class Seen(Struct, frozen=True):
    """One key of a read."""

    slot: int
    number: int
    left_ms: int


def histories(wrote: Sequence[Wrote]) -> dict[int, History]:
    """What happened to each slot."""
    states: dict[int, list[State]] = {}
    for each in wrote:
        acked = NEVER if each.acked is None else each.acked
        ttl_s = NEVER if each.op == "delete" or each.ttl_ms == FOR_EVER else each.ttl_ms / 1000
        numbers = each.numbers or (NOTHING,) * len(each.slots)
        for slot, number in zip(each.slots, numbers, strict=True):
            state = State(number=number, via=each.via, began=each.began, acked=acked, ttl_s=ttl_s)
            states.setdefault(slot, []).append(state)
    for each in wrote:
        if each.op == "expire" and each.acked is None:
            for slot in each.slots:
                states[slot] += _expired_late(each, states[slot])
    return {slot: History(of_slot) for slot, of_slot in states.items()}


def _expired_late(expire: Wrote, states: Sequence[State]) -> list[State]:
    """An expiry that nobody acknowledged may still reach whatever the key holds some time later."""
    return [
        State(number=state.number, via=expire.via, began=state.began, acked=NEVER, ttl_s=expire.ttl_ms / 1000)
        for state in states
        if state.number != NOTHING and expire.began < state.began <= expire.began + ARRIVES_S_MAX
    ]


class History:
    """All states that a key may have had."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = sorted(states, key=lambda state: state.began)
        self._begins = [state.began for state in self._states]
        self._earliest = list(_earliest_acknowledgements(self._states))
        self._by_number: dict[int, list[State]] = {}
        self._absent = [State(number=NOTHING, via="", began=-NEVER, acked=-NEVER)]
        for state in self._states:
            if state.number == NOTHING:
                self._absent.append(state)
            else:
                self._by_number.setdefault(state.number, []).append(state)
                self._absent += self._expiry(state)
        self._absent.sort(key=lambda state: state.began)
        for state in (*self._states, *self._absent):
            state.replaced = self._after(state.acked)
        self._absent_begins = [state.began for state in self._absent]

    def states(self, number: int, until: float) -> Iterator[State]:
        """The states with this number that may have begun by then, the latest first; NOTHING: those of absence."""
        if number == NOTHING:
            yield from reversed(self._absent[: bisect_right(self._absent_begins, until)])
        else:
            yield from (state for state in reversed(self._by_number.get(number, ())) if state.began <= until)

    def knows(self, number: int) -> bool:
        """Whether this was ever written here."""
        return number == NOTHING or number in self._by_number

    def _after(self, at: float) -> Mapping[str, float]:
        return self._earliest[bisect_right(self._begins, at)]

    def _expiry(self, state: State) -> Iterator[State]:
        """The absence that follows a state which lasts only so long, unless it was certainly replaced before."""
        begins = state.began + state.ttl_s - CLOCK_S
        if state.ttl_s < NEVER and min(self._after(state.acked).values(), default=NEVER) >= begins:
            yield State(number=NOTHING, via="", began=begins, acked=state.gone_by)


def _earliest_acknowledgements(states: Sequence[State]) -> Iterator[Mapping[str, float]]:
    """For each place in the order of begins: by way of writing, the first acknowledgement from there on."""
    earliest: list[Mapping[str, float]] = [{}]
    for state in reversed(states):
        after = earliest[-1]
        if state.acked < after.get(state.via, NEVER):
            after = {**after, state.via: state.acked}
        earliest.append(after)
    return reversed(earliest)


class Judge:
    """Holds reads against histories."""

    def __init__(self, ledger: Ledger, report: Report) -> None:
        self._evicts = ledger.evicts
        self._report = report
        self._loosened = sorted(ledger.loosened, key=lambda each: each.at)
        self._stalls: dict[str, Stretches] = {
            node: Stretches([each for each in ledger.stalls if each.node == node])
            for node in {each.node for each in ledger.stalls}
        }

    def terms(self, read: Looked) -> Terms:
        """What holds for all keys of a read."""
        report = self._report
        if read.via == FOREIGN:
            return Terms(0.0, None)
        if read.stale:
            return Terms(NEVER, report.marked)
        if any(each.node in (read.via, FOREIGN) and each.at <= read.began <= each.until for each in self._loosened):
            return Terms(TOLD_S + LINK_LOSS_S, report.loosened)
        return Terms(TOLD_S, report.usual)

    def read(self, read: Looked, terms: Terms, history: History, seen: Seen) -> None:
        """Judge one key of one read."""
        report = self._report
        report.reads += 1
        if seen.number != NOTHING and seen.left_ms != FOR_EVER and seen.left_ms <= 0:
            report.found("nothing left of an entry", _shown(read, seen))
        if not history.knows(seen.number):
            report.found("never written", _shown(read, seen))
            return
        if self._evicts and seen.number == NOTHING:
            return
        ages = [(self._age(read, state), state) for state in self._candidates(read, history, seen)]
        if not ages:
            report.found("read before it was written", _shown(read, seen))
            return
        age, state = min(ages, key=_badness)
        if terms.ages is not None:
            terms.ages.reads += 1
            if age.own_s > 0 or age.others_s > 0:
                terms.ages.late_s.append(max(age.own_s, age.others_s))
        self._judge_age(read, seen, age, terms.bound_s)
        fitting = [state for each, state in ages if each.allowed(terms.bound_s)] or [state]
        if read.lefts and seen.number != NOTHING and not any(_left(read, seen, each) for each in fitting):
            report.found("another time left than it was given", f"{_shown(read, seen)} of {state}")

    def _candidates(self, read: Looked, history: History, seen: Seen) -> Iterator[State]:
        """The states that the read may have seen, as far as they must be looked at."""
        for state in history.states(seen.number, read.ended):
            yield state
            if seen.number == NOTHING and self._age(read, state).allowed(0.0):
                return

    def _age(self, read: Looked, state: State) -> Age:
        if read.via == FOREIGN:
            replaced_at = min(state.replaced.values(), default=NEVER)
            own_s = 0.0
        else:
            replaced_at = state.replaced_by_others(read.via)
            own_s = max(0.0, read.began - state.replaced_by(read.via))
        expired_s = 0.0 if state.number == NOTHING else max(0.0, read.began - state.gone_by)
        expired_s = expired_s if expired_s > CLOCK_S else 0.0
        return Age(expired_s, own_s, max(0.0, read.began - replaced_at), replaced_at)

    def _judge_age(self, read: Looked, seen: Seen, age: Age, bound_s: float) -> None:
        report = self._report
        if age.expired_s > 0:
            report.found("served after it had expired", f"{_shown(read, seen)}, {age.expired_s * 1e3:.1f} ms after")
        if age.own_s > 0:
            shown = f"{_shown(read, seen)}, {age.own_s * 1e3:.1f} ms after"
            report.found("older than what the same node had acknowledged", shown)
        if age.others_s > bound_s:
            stood_s = self._stood_s(read.via, age.replaced_at, read.ended)
            if age.others_s - stood_s <= bound_s:
                report.stalled += 1
                return
            shown = f"{age.others_s * 1e3:.1f} ms, allowed {bound_s * 1e3:g}, stalls of {stood_s * 1e3:.0f} ms"
            report.found("older than what others had acknowledged", f"{_shown(read, seen)}: {shown}")

    def _stood_s(self, node: str, since: float, until: float) -> float:
        stalls = self._stalls.get(node)
        return stalls.within(since, until) if stalls is not None else 0.0


class Stretches:
    """Stretches of time, joined where they overlap."""

    def __init__(self, stretches: Sequence[Stall | Loosened]) -> None:
        self._joined: list[tuple[float, float]] = []
        for each in sorted(stretches, key=lambda stretch: stretch.at):
            if self._joined and each.at <= self._joined[-1][1]:
                self._joined[-1] = (self._joined[-1][0], max(self._joined[-1][1], each.until))
            else:
                self._joined.append((each.at, each.until))
        self._ends = [until for _, until in self._joined]

    def within(self, since: float, until: float) -> float:
        """How much of this time they cover."""
        covered_s = 0.0
        for began, ended in self._joined[bisect_left(self._ends, since) :]:
            if began >= until:
                break
            covered_s += min(until, ended) - max(since, began)
        return covered_s


def _badness(found: tuple[Age, State]) -> Age:
    return found[0]


def _left(read: Looked, seen: Seen, state: State) -> bool:
    """Whether this state had so much time left when it was read."""
    if state.ttl_s == NEVER or seen.left_ms == FOR_EVER:
        return (state.ttl_s == NEVER) == (seen.left_ms == FOR_EVER)
    left_s = seen.left_ms / 1000
    most_s = min(state.ttl_s, state.gone_by - read.began) + CLOCK_S
    return state.began + state.ttl_s - read.ended - LOAD_S_MAX <= left_s <= most_s


def _shown(read: Looked, seen: Seen) -> str:
    what = "nothing" if seen.number == NOTHING else f"number {seen.number} ({seen.left_ms} ms left)"
    return f"slot {seen.slot} at {read.via}, {read.began:.4f} to {read.ended:.4f}: {what}"
