"""The owner of every task: services, jobs, restart limits and the quarantine of keys."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import Overloaded
from actors.runtime.clock import ManualClock
from actors.runtime.supervisor import (
    KEY_LIMIT,
    QUARANTINE_S,
    SERVICE_LIMIT,
    Limit,
    Quarantine,
    Restarts,
)
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks


class Poison(Exception):
    """What a crashing service or job raises."""


class Service:
    """Notes when it is started, and crashes after so many seconds each time; without further ones it runs on."""

    def __init__(self, stage: Stage, *crashes_after_s: float) -> None:
        self._clock = stage.clock
        self._crashes_after_s = list(crashes_after_s)
        self.started_at: list[float] = []
        self.cancelled = False

    async def run(self) -> None:
        """One life."""
        self.started_at.append(self._clock.monotonic())
        if self._crashes_after_s:
            await passing(self._crashes_after_s.pop(0))
            raise Poison
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


@in_virtual_time
async def test_a_service_that_crashes_is_started_again_after_a_growing_pause() -> None:
    """Each crash is reported once; the pause doubles and is a second at most."""
    async with Stage() as stage:
        began = stage.clock.monotonic()
        service = Service(stage, *[0.0] * 7)
        stage.supervisor.service("sweeper", service.run, Limit(100, 60.0))
        await passing(10.0)
        pauses = [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        due = [began + sum(pauses[:count]) for count in range(len(pauses) + 1)]
        assert service.started_at == pytest.approx(due)
        assert [(phrase, name) for phrase, name, _ in stage.crashes] == [("service crashed", "sweeper")] * 7
        assert stage.fatal == []
    assert service.cancelled


@in_virtual_time
async def test_a_service_that_crashes_too_often_ends_the_node() -> None:
    """Three restarts in a minute are allowed; at the next crash `on_fatal` is told, once, and the rest goes on."""
    async with Stage() as stage:
        service, neighbour = Service(stage, *[1.0] * 9), Service(stage)
        stage.supervisor.service("sweeper", service.run)
        stage.supervisor.service("ownership", neighbour.run)
        await passing(60.0)
        assert len(service.started_at) == SERVICE_LIMIT.restarts + 1
        assert stage.fatal == ["sweeper crashed too often: Poison()"]
        assert len(neighbour.started_at) == 1
        assert not neighbour.cancelled


@in_virtual_time
async def test_crashes_far_apart_are_forgiven() -> None:
    """The limit is about a span of time, not about a life."""
    async with Stage() as stage:
        service = Service(stage, *[21.0] * 20)
        stage.supervisor.service("sweeper", service.run)
        await passing(600.0)
        assert len(service.started_at) == 21
        assert stage.fatal == []


@in_virtual_time
async def test_a_service_whose_work_is_cancelled_by_others_has_crashed() -> None:
    """Only the supervisor's own cancellation ends a service: any other would end it unseen."""
    async with Stage() as stage:
        started: list[asyncio.Future[None]] = []

        async def run() -> None:
            started.append(asyncio.get_running_loop().create_future())
            await started[-1]

        stage.supervisor.service("sweeper", run)
        await ticks()
        started[0].cancel()
        await passing(1.0)
        assert len(started) == 2
        assert stage.crash_names() == ["sweeper"]


@in_virtual_time
async def test_a_service_that_returns_has_ended() -> None:
    """It is neither a crash nor a reason to start it again."""
    async with Stage() as stage:
        runs: list[None] = []

        async def run() -> None:
            runs.append(None)

        stage.supervisor.service("once", run)
        await passing(10.0)
        assert len(runs) == 1
        assert stage.crashes == []
        assert stage.fatal == []


@in_virtual_time
async def test_a_job_that_crashes_is_reported_and_its_neighbours_go_on() -> None:
    """It is not run again; a cancelled job has not crashed."""
    async with Stage() as stage:
        done: list[str] = []

        async def job(name: str, error: Exception | None) -> None:
            await passing(1.0)
            if error is not None:
                raise error
            done.append(name)

        stage.supervisor.spawn("a", job("a", None))
        stage.supervisor.spawn("b", job("b", Poison("no")))
        stage.supervisor.spawn("c", job("c", None)).cancel()
        stage.supervisor.spawn("d", job("d", None))
        await passing(5.0)
        assert done == ["a", "d"]
        assert [(phrase, name, str(error)) for phrase, name, error in stage.crashes] == [("job crashed", "b", "no")]


@in_virtual_time
async def test_jobs_are_bounded() -> None:
    """One more is refused and never starts; a finished job makes room."""
    async with Stage(jobs_max=2) as stage:
        ran: list[int] = []

        async def job(number: int) -> None:
            ran.append(number)
            await passing(1.0)

        stage.supervisor.spawn("job", job(0))
        stage.supervisor.spawn("job", job(1))
        with pytest.raises(Overloaded):
            stage.supervisor.spawn("job", job(2))
        await passing(2.0)
        stage.supervisor.spawn("job", job(3))
        await passing(2.0)
        assert ran == [0, 1, 3]


@in_virtual_time
async def test_stop_leaves_no_task() -> None:
    """Services, jobs, a service in its pause, and jobs that are only started while it stops."""
    stage = Stage()
    others = asyncio.all_tasks()
    service = Service(stage)
    stage.supervisor.service("sweeper", service.run)
    stage.supervisor.service("crashing", Service(stage, 0.0).run)

    async def job(children: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if children:
                stage.supervisor.spawn("late", job(children - 1))

    stage.supervisor.spawn("job", job(3))
    await passing(0.02)
    assert len(asyncio.all_tasks() - others) == 3
    await stage.supervisor.stop()
    assert asyncio.all_tasks() == others
    assert service.cancelled
    assert stage.crash_names() == ["crashing"]
    await stage.supervisor.stop()


LIMITS = st.builds(Limit, st.integers(0, 5), st.sampled_from([0.5, 1.0, 30.0]))
GAPS = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 6.0, 29.9, 30.0, 31.0]), max_size=40)


@given(limit=LIMITS, gaps=GAPS)
def test_too_many_is_what_counting_would_say(limit: Limit, gaps: list[float]) -> None:
    """More crashes than the limit allows within its span, both ends included, this one counted."""
    restarts = Restarts(limit)
    now, times = 0.0, list[float]()
    for gap in gaps:
        now += gap
        times.append(now)
        recent = [time for time in times if time >= now - limit.within_s]
        assert restarts.too_many(now) is (len(recent) > limit.restarts)


def quarantine(keys_max: int = 10_000) -> tuple[Quarantine, ManualClock]:
    """A quarantine and its clock."""
    clock = ManualClock()
    return Quarantine(clock, keys_max=keys_max), clock


def test_a_key_that_crashes_again_and_again_is_left_alone() -> None:
    """Five crashes in 30 s are restarts, the sixth is one too many; its neighbours are not affected."""
    held, clock = quarantine()
    for _ in range(KEY_LIMIT.restarts):
        assert not held.crashed("poison")
        assert not held.holds("poison")
        clock.advance(5.0)
    assert not held.crashed("neighbour")
    assert held.crashed("poison")
    assert held.holds("poison")
    assert not held.holds("neighbour")
    assert len(held) == 1


def test_crashes_far_apart_are_no_poison() -> None:
    """Five in 30 s is the limit."""
    held, clock = quarantine()
    for _ in range(50):
        assert not held.crashed("unlucky")
        clock.advance(6.1)


def test_a_quarantine_ends_and_the_key_starts_anew() -> None:
    """After a minute it may work again, and crash as often as any other before it is left alone again."""
    held, clock = quarantine()
    for _ in range(KEY_LIMIT.restarts + 1):
        held.crashed("poison")
    clock.advance(QUARANTINE_S - 0.001)
    assert held.holds("poison")
    clock.advance(0.001)
    assert not held.holds("poison")
    assert [held.crashed("poison") for _ in range(KEY_LIMIT.restarts + 1)] == [False] * KEY_LIMIT.restarts + [True]


def test_only_what_is_left_alone_now_counts() -> None:
    """A key that nobody asks for any more leaves when its time is over."""
    held, clock = quarantine()
    for key in ("a", "b"):
        for _ in range(KEY_LIMIT.restarts + 1):
            held.crashed(key)
        clock.advance(QUARANTINE_S / 2)
    assert len(held) == 1
    assert not held.holds("a")
    assert held.holds("b")
    clock.advance(QUARANTINE_S)
    assert len(held) == 0


def test_the_quarantine_is_bounded() -> None:
    """Beyond its size the oldest go: both of those that crashed and of those that are held."""
    held, _ = quarantine(keys_max=100)
    for number in range(250):
        for _ in range(KEY_LIMIT.restarts + 1):
            held.crashed(f"key{number}")
    assert len(held) == 100
    assert not held.holds("key149")
    assert held.holds("key150")


def test_crashes_of_many_keys_are_remembered_within_bounds() -> None:
    """Of keys that crash once in a while only the newest are known: an old one's crashes are forgotten."""
    held, _ = quarantine(keys_max=100)
    for _ in range(KEY_LIMIT.restarts):
        held.crashed("old")
    for number in range(100):
        held.crashed(f"key{number}")
    assert not held.crashed("old")


@given(
    crashes=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([0.0, 1.0, 7.0, 31.0, 61.0])), max_size=60
    )
)
def test_keys_are_judged_by_their_own_crashes(crashes: list[tuple[str, float]]) -> None:
    """A key is held exactly for a minute after it crashed too often, whatever its neighbours do."""
    held, clock = quarantine()
    times: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    until: dict[str, float] = {}
    for key, gap in crashes:
        clock.advance(gap)
        now = clock.monotonic()
        for each, end in list(until.items()):
            if end <= now:
                del until[each]
                times[each].clear()
        for each in times:
            assert held.holds(each) is (each in until)
        assert len(held) == len(until)
        times[key].append(now)
        too_many = sum(time >= now - KEY_LIMIT.within_s for time in times[key]) > KEY_LIMIT.restarts
        if too_many:
            until[key] = now + QUARANTINE_S
        assert held.crashed(key) is too_many
