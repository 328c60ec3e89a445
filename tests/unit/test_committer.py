"""Group commit: who waits for whom, what is bounded, and that everybody is answered once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.committer import (
    BATCH_BYTES_MAX,
    BATCH_REQUESTS_MAX,
    CALLS_MAX,
    GATHER_S,
    QUEUE_AGE_S_MAX,
    QUEUE_BYTES_MAX,
)
from actors.ports import Overloaded, StoreAway
from tests.support.commit_rig import Rig
from tests.support.doubles import Stage, observed
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

pytestmark = pytest.mark.usefixtures("tells")


class Refused(Exception):
    """What a store raises that waiting does not mend."""


@in_virtual_time
async def test_a_request_alone_goes_at_once() -> None:
    """No timer stands between it and the store."""
    async with Stage() as stage:
        rig = Rig(stage)
        began = stage.clock.monotonic()
        answer = await rig.committer.ask(5)
        assert answer == -5
        assert rig.store.called_at == [began]


@in_virtual_time
async def test_what_arrives_in_one_turn_leaves_together() -> None:
    """In the order in which it came, and is answered in that order."""
    async with Stage() as stage:
        rig = Rig(stage)
        for request in range(1, 51):
            rig.submit(request)
        await rig.committer.drained()
        assert rig.store.batches == [list(range(1, 51))]
        assert rig.answers == [(request, -request) for request in range(1, 51)]


@in_virtual_time
async def test_while_a_call_is_under_way_the_next_ones_gather() -> None:
    """They leave together when it is answered, if that is soon."""
    async with Stage() as stage:
        rig = Rig(stage, takes_s=GATHER_S / 2)
        rig.submit(1)
        await passing(GATHER_S / 4)
        rig.submit(2)
        rig.submit(3)
        await rig.committer.drained()
        assert rig.store.batches == [[1], [2, 3]]
        assert rig.store.called_at[1] - rig.store.called_at[0] == pytest.approx(GATHER_S / 2)
        assert rig.store.under_way_max == 1


@in_virtual_time
async def test_a_slow_call_holds_nobody_for_longer_than_the_gathering() -> None:
    """The next call starts beside it."""
    async with Stage() as stage:
        rig = Rig(stage, takes_s=0.5)
        rig.submit(1)
        await passing(0.1)
        asked_at = stage.clock.monotonic()
        rig.submit(2)
        rig.submit(3)
        await passing(0.1)
        assert rig.store.batches == [[1], [2, 3]]
        assert rig.store.called_at[1] - asked_at == pytest.approx(GATHER_S)
        await rig.committer.drained()


@in_virtual_time
async def test_calls_under_way_are_bounded() -> None:
    """What cannot leave waits, and leaves with the first call that comes back."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.fill_calls()
        for request in range(100, 110):
            rig.submit(request)
        await passing(0.5)
        assert rig.store.under_way == CALLS_MAX
        rig.store.gate.set()
        await rig.committer.drained()
        assert rig.store.under_way_max == CALLS_MAX
        assert rig.store.batches[CALLS_MAX:] == [list(range(100, 110))]
        assert len(rig.answers) == CALLS_MAX + 10


@in_virtual_time
async def test_a_batch_is_bounded_in_requests_and_bytes() -> None:
    """More than fits goes in several calls, in order; one request larger than the bound goes alone with its likes."""
    async with Stage() as stage:
        rig = Rig(stage)
        for request in range(BATCH_REQUESTS_MAX + 1):
            rig.submit(request)
        await rig.committer.drained()
        assert [len(batch) for batch in rig.store.batches] == [BATCH_REQUESTS_MAX, 1]
        rig.store.batches.clear()
        for request in range(6):
            rig.submit(request, BATCH_BYTES_MAX // 2)
        rig.submit(6, 3 * BATCH_BYTES_MAX)
        rig.submit(7, 1)
        await rig.committer.drained()
        assert rig.store.batches == [[0, 1], [2, 3], [4, 5], [6], [7]]


@in_virtual_time
async def test_the_queue_is_bounded_in_bytes() -> None:
    """Beyond it the answer is an honest Overloaded and nothing was queued; when it has emptied there is room."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.fill_calls()
        rig.submit(100, QUEUE_BYTES_MAX - 10)
        rig.submit(101, 10)
        with pytest.raises(Overloaded, match="append"):
            rig.submit(102, 1)
        rig.store.gate.set()
        await rig.committer.drained()
        assert [request for batch in rig.store.batches for request in batch] == [*range(CALLS_MAX), 100, 101]
        rig.submit(103, 10)
        await rig.committer.drained()
        assert rig.answers[-1] == (103, -103)


@in_virtual_time
async def test_a_batch_that_gathers_is_bounded_with_the_queue() -> None:
    """Who joins a batch that is about to leave is looked at like who begins one."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.submit(1, QUEUE_BYTES_MAX - 100)
        rig.submit(2, 50)
        with pytest.raises(Overloaded):
            rig.submit(3, 51)
        rig.submit(4, 50)
        await rig.committer.drained()
        assert rig.store.batches == [[1], [2, 4]]


@in_virtual_time
async def test_many_batches_at_once_are_bounded_in_calls() -> None:
    """Those for which there is no call wait until one has ended."""
    async with Stage() as stage:
        rig = Rig(stage)
        for request in range(BATCH_REQUESTS_MAX * (CALLS_MAX + 2)):
            rig.submit(request)
        await rig.committer.drained()
        assert rig.store.under_way_max == CALLS_MAX
        assert [len(batch) for batch in rig.store.batches] == [BATCH_REQUESTS_MAX] * (CALLS_MAX + 2)


@in_virtual_time
async def test_a_batch_that_waits_for_a_call_is_bounded_too() -> None:
    """However long it has to wait, it goes in calls of the usual size."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.fill_calls()
        for request in range(100, 100 + BATCH_REQUESTS_MAX + 1):
            rig.submit(request)
        rig.store.gate.set()
        await rig.committer.drained()
        assert [len(batch) for batch in rig.store.batches[CALLS_MAX:]] == [BATCH_REQUESTS_MAX, 1]


@in_virtual_time
async def test_an_empty_queue_takes_any_size() -> None:
    """What is larger than the bound would never find room otherwise."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.submit(1, QUEUE_BYTES_MAX + 1)
        await rig.committer.drained()
        assert rig.answers == [(1, -1)]


@in_virtual_time
async def test_the_queue_is_bounded_in_age() -> None:
    """While the oldest has waited for a second nobody may join; those that wait are answered when the store is back."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.fill_calls()
        rig.submit(100)
        await passing(QUEUE_AGE_S_MAX)
        rig.submit(101)
        await passing(0.001)
        with pytest.raises(Overloaded):
            await rig.committer.ask(102)
        rig.store.gate.set()
        await rig.committer.drained()
        assert await rig.committer.ask(103) == -103
        assert rig.answers[CALLS_MAX:] == [(100, -100), (101, -101)]


@in_virtual_time
async def test_a_store_that_is_away_is_everybodys_answer() -> None:
    """All of that call are told, the next call is another matter; nothing counts as committed."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.store.failing = StoreAway("gone")
        rig.submit(1)
        rig.submit(2)
        await rig.committer.drained()
        rig.store.failing = None
        rig.submit(3)
        await rig.committer.drained()
        assert rig.answers == [(1, rig.answers[0][1]), (2, rig.answers[0][1]), (3, -3)]
        assert isinstance(rig.answers[0][1], StoreAway)
        assert stage.crashes == []
        assert observed(stage.meters.commit_operations) == [1]
        assert observed(stage.meters.commit_seconds) == pytest.approx([0.001])


@in_virtual_time
async def test_what_nobody_thought_of_is_a_crash_and_still_an_answer() -> None:
    """Callers cannot know whether it was written; the supervisor is told of the bug; the committer goes on."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.store.failing = Refused("WRONGTYPE")
        with pytest.raises(StoreAway, match="WRONGTYPE"):
            await rig.committer.ask(1)
        await ticks()
        assert stage.crash_names() == ["append"]
        rig.store.failing = None
        assert await rig.committer.ask(2) == -2


@in_virtual_time
async def test_a_caller_that_goes_away_does_not_take_its_write_with_it() -> None:
    """Neither before the call nor while it is under way; its neighbours notice nothing."""
    async with Stage() as stage:
        rig = Rig(stage)
        early, late, stays = [stage.supervisor.spawn("caller", _asking(rig, request)) for request in range(1, 4)]
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rig.store.under_way == 1
        late.cancel()
        await rig.committer.drained()
        await ticks()
        assert rig.store.batches == [[1, 2, 3]]
        assert early.cancelled()
        assert late.cancelled()
        assert stays.done()
        assert rig.answers == [(3, -3)]
        assert stage.crashes == []


async def _asking(rig: Rig, request: int) -> None:
    rig.answers.append((request, await rig.committer.ask(request)))


@in_virtual_time
async def test_drained_waits_for_all_that_was_asked() -> None:
    """For calls under way, for what is queued behind them and for what an answer asks next; idle, it is at once."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.committer.drained()
        await rig.fill_calls()

        def ask_on(_outcome: Any) -> None:
            rig.submit(101)

        rig.committer.submit(100, 1, ask_on)
        drained = stage.supervisor.spawn("drain", rig.committer.drained())
        await passing(5.0)
        assert not drained.done()
        rig.store.gate.set()
        await drained
        assert rig.store.batches[CALLS_MAX:] == [[100], [101]]
        assert rig.answers[-1] == (101, -101)


@in_virtual_time
async def test_the_depth_is_what_has_no_answer_yet() -> None:
    """What is queued and what is under way, whatever becomes of it."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert rig.committer.depth == 0
        await rig.fill_calls()
        for request in range(100, 103):
            rig.submit(request)
        assert rig.committer.depth == CALLS_MAX + 3
        rig.store.failing = StoreAway("gone")
        rig.store.gate.set()
        await rig.committer.drained()
        assert rig.committer.depth == 0


@in_virtual_time
async def test_who_watches_commits_is_told_before_the_callers() -> None:
    """With requests and answers, in order; of a failed call it hears nothing."""
    async with Stage() as stage:
        rig = Rig(stage)
        heard: list[tuple[list[int], list[int | StoreAway], int]] = []
        rig.committer.on_committed = lambda requests, answers: heard.append(
            (list(requests), list(answers), len(rig.answers))
        )
        rig.submit(1)
        rig.submit(2)
        await rig.committer.drained()
        rig.store.failing = StoreAway("gone")
        rig.submit(3)
        await rig.committer.drained()
        assert heard == [([1, 2], [-1, -2], 0)]


Step = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 40), st.sampled_from([0, 1, 1000, BATCH_BYTES_MAX // 3, 2_000_000])),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 3, 20, 400, 1100]), st.just(0)),
    st.tuples(st.just("takes"), st.sampled_from([0, 1, 3, 50, 900]), st.just(0)),
    st.tuples(st.just("fails"), st.sampled_from([0, 1, 2]), st.just(0)),
    st.tuples(st.just("gate"), st.sampled_from([0, 1]), st.just(0)),
)
FAILURES = (None, StoreAway("away"), Overloaded("full"))


class Model:
    """What a committer owes: every request that it took."""

    def __init__(self, rig: Rig, sizes: dict[int, int]) -> None:
        self.rig = rig
        self.sizes = sizes
        self.accepted: list[int] = []

    def submit(self, count: int, size_bytes: int) -> None:
        """Submit so many, and note which were taken."""
        for _ in range(count):
            request = len(self.sizes)
            self.sizes[request] = size_bytes
            try:
                self.rig.submit(request, size_bytes)
            except Overloaded:
                continue
            self.accepted.append(request)

    def queued(self) -> list[int]:
        """What was taken and has not gone to the store."""
        return self.accepted[sum(map(len, self.rig.store.batches)) :]

    def check(self) -> None:
        """The bounds, at any time."""
        assert self.rig.store.under_way <= CALLS_MAX
        queued = self.queued()
        assert sum(self.sizes[request] for request in queued[1:]) <= QUEUE_BYTES_MAX
        for batch in self.rig.store.batches:
            assert 1 <= len(batch) <= BATCH_REQUESTS_MAX
            assert sum(self.sizes[request] for request in batch[:-1]) < BATCH_BYTES_MAX


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(Step, max_size=25))
@in_virtual_time
async def test_order_is_kept_and_everyone_is_answered_once(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes when, however slow or far away the store is: the store sees all that was taken, once, in order,
    in bounded batches; each request gets exactly one answer, its own or what stands for the failure."""
    async with Stage() as stage:
        rig = Rig(stage)
        model = Model(rig, {})
        for name, amount, size_bytes in steps:
            if name == "submit":
                model.submit(amount, size_bytes)
            elif name == "wait":
                await passing(amount / 1000)
            elif name == "takes":
                rig.store.takes_s = amount / 1000
            elif name == "fails":
                rig.store.failing = FAILURES[amount]
            elif amount:
                rig.store.gate.set()
            else:
                rig.hold()
            model.check()
        rig.store.gate.set()
        await rig.committer.drained()
        assert [request for batch in rig.store.batches for request in batch] == model.accepted
        assert sorted(request for request, _ in rig.answers) == model.accepted
        assert all(outcome == -request or outcome in FAILURES for request, outcome in rig.answers)
        assert rig.store.finished == len(rig.store.batches)
