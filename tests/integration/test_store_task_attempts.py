"""Attempts at tasks in the real store: how they end, what is counted, and what may still be changed."""

from __future__ import annotations

import pytest

from actors.adapters.valkey.deliveries import CRASHES_MAX
from actors.adapters.valkey.tasks import LINES_MAX
from actors.ports import Claimed, Next, NothingOpen, Poisoned, WrongState
from tests.support.store import LOG, Hand, dump, store_ms
from tests.support.tasks import HOUR_MS, MARK, PARTITION, RESULT, TaskHand, ready_now

FAILURE = b'{"success":false,"phone":"+52 1","error":"no"}'


@pytest.fixture
def at_work(hand: Hand) -> TaskHand:
    """A node at work with tasks."""
    return TaskHand(hand)


async def test_a_task_that_was_sent_keeps_its_result(at_work: TaskHand) -> None:
    """Its text is gone, its record says how it went."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    started = await at_work.record(new)
    assert (started.state, started.attempts, len(started.log)) == ("STARTED", 1, 1)
    assert isinstance(started.log[0], int)

    await at_work.settle(new, 1, "delivered", result=RESULT, mark=MARK)

    record = await at_work.record(new)
    assert (record.state, record.attempts, record.log, record.result) == ("SUCCESS", 1, [LOG], RESULT)
    assert (record.next_attempt_ms, record.updated_ms >= started.updated_ms) == (None, True)
    kept = {name.split(":")[2] for name in dump(at_work.hand.server) if not name.endswith("cfg")}
    assert kept == {"own", "d", "tdone", "k"}


async def test_a_failed_try_counts_and_waits(at_work: TaskHand) -> None:
    """The next claim says how many failed; nothing is kept of a result before there is one."""
    new = await at_work.queued()
    before = await store_ms(at_work.hand.server)
    await at_work.ended(new, "retrying", retry_in_ms=5000)

    record = await at_work.record(new)

    assert (record.state, record.result) == ("RETRY", b"")
    assert record.next_attempt_ms is not None
    assert before + 5000 <= record.next_attempt_ms <= await store_ms(at_work.hand.server) + 5000
    assert await at_work.hand.claim(new.task_id) == NothingOpen()
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.failures, claimed.cut_off) == (2, 1, False)


async def test_a_held_task_uses_up_no_retry(at_work: TaskHand) -> None:
    """However often: it is as new, and no node is taken for crashed by it."""
    new = await at_work.queued()
    for attempt in range(1, 2 * CRASHES_MAX):
        claimed = await at_work.hand.claimed(new.task_id)
        assert (claimed.attempt, claimed.failures, claimed.cut_off) == (attempt, 0, False)
        await at_work.settle(new, attempt, "held", retry_in_ms=1000)
        assert await at_work.states(new) == ["PENDING"]
    await at_work.ended(new, "retrying")
    assert (await at_work.hand.claimed(new.task_id)).failures == 1
    await at_work.settle(new, 2 * CRASHES_MAX + 1, "held", retry_in_ms=HOUR_MS)
    assert await at_work.states(new) == ["RETRY"]
    assert await at_work.startable() == []


async def test_a_held_task_keeps_its_place(at_work: TaskHand) -> None:
    """Nobody of its line overtakes it."""
    new, second = await at_work.queued(), await at_work.queued()
    await at_work.ended(new, "held", retry_in_ms=HOUR_MS)
    assert await at_work.hand.claim(second.task_id) == NothingOpen()
    assert await at_work.sent(new) == ready_now(second)


async def test_a_dead_task_can_be_tried_again(at_work: TaskHand) -> None:
    """With fresh retries, at the end of its line; its old result is gone, its log is not."""
    new = await at_work.queued()
    second = await at_work.queued()
    await at_work.ended(new, "retrying")
    await at_work.ended(new, "dead", result=FAILURE)
    record = await at_work.record(new)
    assert (record.state, record.result, record.attempts) == ("FAILURE", FAILURE, 2)

    assert await at_work.hand.requeue(new.task_id) == Next(None)

    record = await at_work.record(new)
    assert (record.state, record.result, record.log) == ("PENDING", b"", [LOG, LOG])
    assert await at_work.sent(second) == ready_now(new)
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.failures, claimed.cut_off) == (3, 0, False)
    assert claimed.created_ms == record.created_ms


async def test_a_task_that_waits_for_its_retry_goes_now(at_work: TaskHand) -> None:
    """Because somebody asked."""
    new = await at_work.queued()
    await at_work.ended(new, "retrying", retry_in_ms=HOUR_MS)
    assert await at_work.hand.requeue(new.task_id) == Next(ready_now(new))
    assert await at_work.startable() == [new.task_id]


@pytest.mark.parametrize(
    ("status", "kept_as"),
    [("retrying", "retrying"), ("dead", "dead"), ("delivered", "delivered"), ("", "delivering")],
)
async def test_only_a_task_that_has_not_started_is_revoked(at_work: TaskHand, status: str, kept_as: str) -> None:
    """What was tried may have been sent; nothing is changed."""
    new = await at_work.queued()
    if status:
        await at_work.ended(new, status)
    else:
        await at_work.hand.claimed(new.task_id)
    before = dump(at_work.hand.server)

    answer = await at_work.hand.discard(new.task_id)

    assert isinstance(answer, WrongState)
    assert answer.status == kept_as
    assert dump(at_work.hand.server) == before


async def test_a_revoked_task_never_starts_and_the_next_may(at_work: TaskHand) -> None:
    """It cannot be tried again either."""
    new, second = await at_work.queued(), await at_work.queued()
    assert await at_work.hand.discard(new.task_id) == Next(ready_now(second))
    assert await at_work.states(new) == ["REVOKED"]
    assert await at_work.hand.claim(new.task_id) == NothingOpen()
    assert await at_work.hand.requeue(new.task_id) == WrongState("discarded")
    assert await at_work.drain() == [second.task_id]


async def test_a_try_that_was_cut_off_is_told_to_the_next(at_work: TaskHand) -> None:
    """Its node went away; whether it was sent nobody knows. One more is cut off, and still nobody knows."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    for attempt in (2, 3):
        await Hand(at_work.hand.server, at_work.hand.store, f"node-{attempt}").take(PARTITION)
        await at_work.hand.take(PARTITION)
        assert await at_work.states(new) == ["PENDING"]
        claimed = await at_work.hand.claimed(new.task_id)
        assert (claimed.attempt, claimed.failures, claimed.cut_off) == (attempt, 0, True)
    await at_work.settle(new, 3, "retrying")
    assert not (await at_work.hand.claimed(new.task_id)).cut_off


async def test_who_wants_it_tried_again_takes_the_doubt_upon_himself(at_work: TaskHand) -> None:
    """A task whose tries stopped its nodes is dead; queued again on demand it is a task like any other."""
    new = await at_work.queued()
    for turn in range(CRASHES_MAX):
        await at_work.hand.claimed(new.task_id)
        await Hand(at_work.hand.server, at_work.hand.store, f"node-{turn}").take(PARTITION)
        await at_work.hand.take(PARTITION)
    await at_work.hand.requeue(new.task_id)  # or it would come back a while later
    await at_work.hand.claim(new.task_id)
    assert await at_work.states(new) == ["FAILURE"]
    await at_work.hand.requeue(new.task_id)
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.cut_off) == (CRASHES_MAX + 1, False)
    await at_work.release(new, untried=False)
    assert (await at_work.hand.claimed(new.task_id)).cut_off


async def test_a_claim_that_was_given_back_untried_was_none(at_work: TaskHand) -> None:
    """Nothing of it had left: no attempt is counted, none was cut off."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    await at_work.release(new, untried=True)

    record = await at_work.record(new)

    assert (record.state, record.attempts, record.log) == ("PENDING", 0, [])
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.cut_off) == (1, False)
    await at_work.settle(new, 1, "retrying")
    await at_work.hand.claimed(new.task_id)
    await at_work.release(new, untried=True)
    assert (await at_work.record(new)).log == [LOG]
    assert (await at_work.hand.claimed(new.task_id)).attempt == 2


async def test_a_claim_given_back_untried_forgets_no_doubt(at_work: TaskHand) -> None:
    """The try before it had been cut off: that is still so."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    await at_work.release(new, untried=False)
    assert (await at_work.hand.claimed(new.task_id)).cut_off
    await at_work.release(new, untried=True)
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.cut_off) == (2, True)


async def test_a_try_that_a_drain_gives_back_may_have_been_sent(at_work: TaskHand) -> None:
    """It stays in the log, and the next try knows."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    await at_work.release(new, untried=False)
    assert (await at_work.record(new)).attempts == 1
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.attempt, claimed.cut_off) == (2, True)


async def test_a_webhook_is_never_said_to_have_been_cut_off(at_work: TaskHand) -> None:
    """It is sent again in any case, and counts every attempt."""
    delivery = await at_work.hand.frozen("k", "m1")
    await at_work.hand.claimed(delivery)
    await at_work.hand.release(delivery)
    claimed = await at_work.hand.claimed(delivery)
    assert (claimed.attempt, claimed.cut_off) == (2, False)


async def test_a_task_that_stops_its_nodes_is_dead(at_work: TaskHand) -> None:
    """After as many as a batch; the next of its line may start."""
    new, second = await at_work.queued(), await at_work.queued()
    for _ in range(CRASHES_MAX):
        assert isinstance(await at_work.hand.claim(new.task_id), Claimed)
        await Hand(at_work.hand.server, at_work.hand.store, "node-2").take(PARTITION)
        await at_work.hand.take(PARTITION)
        await at_work.hand.make_due(new.task_id)
    assert await at_work.hand.claim(new.task_id) == Poisoned(ready_now(second))
    record = await at_work.record(new)
    assert (record.state, record.result, record.attempts) == ("FAILURE", b"", CRASHES_MAX)


async def test_a_log_is_bounded(at_work: TaskHand) -> None:
    """A held task may be tried for weeks: the last tries are shown, the first are forgotten."""
    new = await at_work.queued()
    lines = [b'{"at":"%d"}' % number for number in range(LINES_MAX + 10)]
    for line in lines:
        await at_work.ended(new, "held", log=line)

    record = await at_work.record(new)

    assert record.attempts == len(lines)
    assert record.log == lines[-LINES_MAX:]
    content = next(value for name, value in dump(at_work.hand.server).items() if f"d:{new.task_id}" in name)
    assert str(content).count('{"at"') == LINES_MAX


async def test_settling_twice_changes_nothing(at_work: TaskHand) -> None:
    """Nor does settling an attempt that was taken back."""
    new = await at_work.queued()
    await at_work.sent(new)
    before = dump(at_work.hand.server)
    assert await at_work.settle(new, 1, "dead", result=FAILURE, mark="x" * 22) == NothingOpen()
    assert dump(at_work.hand.server) == before
