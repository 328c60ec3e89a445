"""One host's line of deliveries: what may start when, and how long a breaker may hold anything back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.breaker import FAILURES_TO_OPEN, OPEN_S_MAX, OPEN_S_MIN, PROBE_LOST_S
from actors.core.outcome import Answered, Failed
from actors.host import STARTED_DOUBTFUL, STARTED_FIRST, STARTED_MAX, WAITING_MAX, Host, Start, Wait
from actors.ports import Ready

HOLD_S = 10.0
OK = Answered(200, None, "", 1.0)
NOT_FOUND = Answered(404, None, "", 1.0)
UNREACHABLE = Failed("connection refused", 1.0)


def ready(name: object) -> Ready:
    """A delivery of that name."""
    return Ready(0, str(name), "a.example", 0)


def line(*names: object, now: float = 0.0) -> Host:
    """A host with these deliveries in its line since `now`."""
    host = Host("a.example", HOLD_S)
    for name in names:
        assert host.offer(ready(name), now)
    return host


def started(host: Host, now: float) -> str:
    """The delivery that may start now."""
    decision = host.next(now)
    assert isinstance(decision, Start)
    return decision.ready.delivery_id


def opened(now: float = 0.0) -> Host:
    """A host whose breaker has just opened: nothing waits or runs."""
    host = line(*range(FAILURES_TO_OPEN), now=now)
    for _ in range(FAILURES_TO_OPEN):
        name = started(host, now)
        host.report(UNREACHABLE, now, probe=False)
        host.finished(name)
    assert host.is_open
    return host


def test_deliveries_start_in_the_order_of_the_line() -> None:
    """When the line is empty there is nothing to do."""
    host = line("a", "b", "c")
    assert [started(host, 0.0) for _ in range(3)] == ["a", "b", "c"]
    assert host.next(0.0) is None
    assert host.running == 3


def test_a_delivery_is_known_once() -> None:
    """Offered again while it waits or runs it is no second one; after it has ended it is a new one."""
    host = line("a")
    assert host.offer(ready("a"), 0.0)
    assert started(host, 0.0) == "a"
    assert host.offer(ready("a"), 0.0)
    assert host.next(0.0) is None
    host.finished("a")
    assert host.offer(ready("a"), 0.0)
    assert started(host, 0.0) == "a"


def test_a_host_that_failed_has_little_room_until_it_answers() -> None:
    """Each answer doubles it, a failure takes it: hosts that hang take little of what all share."""
    host = line(*range(3 * STARTED_FIRST))
    first = [started(host, 0.0) for _ in range(STARTED_FIRST)]
    assert host.next(0.0) is None
    host.report(OK, 0.0, probe=False)
    host.finished(first[0])
    assert len([started(host, 0.0) for _ in range(STARTED_FIRST + 1)]) == STARTED_FIRST + 1
    assert host.next(0.0) is None
    host.report(UNREACHABLE, 0.0, probe=False)
    host.finished(first[1])
    assert host.next(0.0) is None
    assert host.room == STARTED_DOUBTFUL
    host.report(OK, 0.0, probe=False)
    assert host.room == 2 * STARTED_DOUBTFUL


def test_attempts_at_one_host_are_bounded() -> None:
    """The rest wait until one has ended."""
    host = line(*range(STARTED_MAX + 2))
    for _ in range(10):
        host.report(OK, 0.0, probe=False)
    names = [started(host, 0.0) for _ in range(STARTED_MAX)]
    assert host.next(0.0) is None
    host.finished(names[3])
    assert started(host, 0.0) == str(STARTED_MAX)
    assert host.next(0.0) is None


def test_the_line_is_bounded() -> None:
    """One more is refused and not known; those that run don't count."""
    host = line(*range(WAITING_MAX))
    assert not host.offer(ready("one more"), 0.0)
    assert host.offer(ready(0), 0.0), "one that is in the line already is not refused"
    started(host, 0.0)
    assert host.offer(ready("one more"), 0.0)


def test_waits_says_what_is_still_in_the_line() -> None:
    """Neither what has started nor what it never heard of."""
    host = line("a", "b")
    started(host, 0.0)
    assert not host.waits("a")
    assert host.waits("b")
    assert not host.waits("c")
    started(host, 0.0)
    host.finished("b")
    assert not host.waits("b")


def test_a_breaker_holds_the_line_until_a_probe() -> None:
    """One attempt goes ahead; the others wait for what it brings."""
    host = opened(now=100.0)
    for name in ("a", "b"):
        host.offer(ready(name), 100.0)
    assert host.next(100.0) == Wait(100.0 + OPEN_S_MIN)
    assert host.next(100.5) == Wait(100.0 + OPEN_S_MIN)
    assert host.next(101.0) == Start(ready("a"), True)
    assert host.next(101.0) == Wait(100.0 + HOLD_S)
    host.report(OK, 101.2, probe=True)
    host.finished("a")
    assert host.next(101.2) == Start(ready("b"), False)


def test_a_failed_probe_holds_the_line_for_longer() -> None:
    """Twice as long each time."""
    host = opened()
    for name in ("a", "b", "c"):
        host.offer(ready(name), 0.0)
    assert host.next(1.0) == Start(ready("a"), True)
    host.report(UNREACHABLE, 1.0, probe=True)
    host.finished("a")
    assert host.next(1.0) == Wait(3.0)
    assert host.next(3.0) == Start(ready("b"), True)
    host.report(UNREACHABLE, 3.0, probe=True)
    host.finished("b")
    assert host.next(3.0) == Wait(7.0)


def test_nothing_is_held_for_longer_than_its_due() -> None:
    """After `hold_s` in the line a delivery is attempted whatever the breaker says, so that it comes to its end."""
    host = opened()
    host.offer(ready("probe"), 0.0)
    host.offer(ready("a"), 0.5)
    host.offer(ready("b"), 2.0)
    assert host.next(1.0) == Start(ready("probe"), True)
    assert host.next(1.0) == Wait(0.5 + HOLD_S)
    assert host.next(0.5 + HOLD_S) == Start(ready("a"), False)
    assert host.next(0.5 + HOLD_S) == Wait(2.0 + HOLD_S)
    host.report(UNREACHABLE, 11.0, probe=False)
    assert host.next(11.0) == Wait(2.0 + HOLD_S)


def test_a_probe_that_ends_without_an_outcome_is_none() -> None:
    """Its delivery was gone, or the node's own store was away: the next one may be the probe at once."""
    host = opened()
    host.offer(ready("a"), 0.0)
    host.offer(ready("b"), 0.0)
    assert host.next(1.0) == Start(ready("a"), True)
    host.finished("a")
    assert host.next(1.1) == Start(ready("b"), True)
    host.report(UNREACHABLE, 1.2, probe=True)
    host.finished("b")
    host.offer(ready("c"), 1.2)
    assert host.next(1.2) == Wait(1.2 + 2 * OPEN_S_MIN), "as if the first had never been"


def test_an_attempt_that_is_no_probe_gives_no_probe_back() -> None:
    """Only the probe's own end counts, not that of others beside it."""
    host = line("early", now=0.0)
    assert started(host, 0.0) == "early"
    for _ in range(FAILURES_TO_OPEN):
        host.report(UNREACHABLE, 0.0, probe=False)
    host.offer(ready("a"), 0.0)
    host.offer(ready("b"), 0.0)
    assert host.next(1.0) == Start(ready("a"), True)
    host.finished("early")
    assert host.next(1.0) == Wait(HOLD_S)


@pytest.mark.parametrize(
    ("outcome", "open_after"), [(UNREACHABLE, True), (Answered(503, None, "", 1.0), True), (NOT_FOUND, False)]
)
def test_only_what_says_not_now_counts(outcome: Answered | Failed, *, open_after: bool) -> None:
    """A 404 proves that the host is alive."""
    host = line()
    for _ in range(FAILURES_TO_OPEN):
        host.report(outcome, 0.0, probe=False)
    assert host.is_open is open_after


def test_a_host_is_idle_when_there_is_nothing_to_remember() -> None:
    """Neither deliveries nor failures."""
    host = line()
    assert host.idle(0.0)
    host.offer(ready("a"), 0.0)
    assert not host.idle(0.0)
    started(host, 0.0)
    host.report(UNREACHABLE, 0.0, probe=False)
    host.finished("a")
    assert not host.idle(0.0)
    assert host.quiet
    host.offer(ready("b"), 0.0)
    assert not host.quiet
    started(host, 0.0)
    host.report(OK, 0.0, probe=False)
    host.finished("b")
    assert host.idle(0.0)


Step = st.one_of(
    st.tuples(st.just("offer"), st.integers(0, 60)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.sampled_from(["answers", "fails", "ends"]), st.integers(0, 40)),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.3, 1.0, 2.0, 9.9, 10.0, 31.0, 126.0])),
)


class Model:
    """What a line is in words: who waits since when, who runs, and whether as the probe."""

    def __init__(self) -> None:
        self.host = line()
        self.now = 0.0
        self.waiting: list[tuple[str, float]] = []
        self.running: dict[str, bool] = {}
        self.probe_at = -PROBE_LOST_S

    def offer(self, name: str) -> None:
        """A delivery is offered."""
        assert self.host.offer(ready(name), self.now)
        if name not in self.running and name not in [each for each, _ in self.waiting]:
            self.waiting.append((name, self.now))

    def start(self) -> None:
        """An attempt is wanted."""
        decision = self.host.next(self.now)
        if decision is None:
            assert not self.waiting or len(self.running) >= self.host.room
            return
        first, since = self.waiting[0]
        overdue = self.now >= since + HOLD_S
        if isinstance(decision, Wait):
            assert self.host.is_open
            assert not overdue
            assert self.now < decision.until <= min(since + HOLD_S, self.now + max(OPEN_S_MAX, PROBE_LOST_S))
            return
        assert decision.ready.delivery_id == first, "not the first of the line"
        if decision.probe:
            others = any(self.running.values())
            assert not others or self.now - self.probe_at >= PROBE_LOST_S, "two probes"
            self.probe_at = self.now
        else:
            assert overdue or not self.host.is_open
        self.waiting.pop(0)
        self.running[first] = decision.probe

    def end(self, how: str, which: int) -> None:
        """An attempt ends, with an outcome or without."""
        if not self.running:
            return
        name = list(self.running)[which % len(self.running)]
        probe = self.running.pop(name)
        if how != "ends":
            self.host.report(OK if how == "answers" else UNREACHABLE, self.now, probe=probe)
        self.host.finished(name)
        if how == "answers":
            assert not self.host.is_open
            self.running = dict.fromkeys(self.running, False)

    def check(self) -> None:
        """What holds at any time."""
        assert self.host.running == len(self.running) <= STARTED_MAX
        assert self.host.quiet is (not self.waiting and not self.running)
        assert all(self.host.waits(name) for name, _ in self.waiting)
        assert not any(self.host.waits(name) for name in self.running)


@settings(max_examples=200)
@given(steps=st.lists(Step, max_size=60))
def test_every_delivery_starts_once_in_order_and_within_its_time(steps: list[tuple[str, float]]) -> None:
    """Whatever outcomes come when: the line is served from its front; at most one probe is out; nobody waits beyond
    `hold_s`; and after a `Wait` something does start at the time it names."""
    model = Model()
    for name, value in steps:
        if name == "offer":
            model.offer(str(value))
        elif name == "start":
            model.start()
        elif name == "time":
            model.now += value
        else:
            model.end(name, int(value))
        model.check()
    while model.waiting:
        decision = model.host.next(model.now)
        if isinstance(decision, Wait):
            model.now = decision.until
            assert isinstance(model.host.next(model.now), Start)
            model.running[model.waiting.pop(0)[0]] = False
        elif decision is None:
            model.end("ends", 0)
        else:
            model.running[model.waiting.pop(0)[0]] = decision.probe
