"""Tasks in the real store: how they are taken in, who is before whom, and what waits for its time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from actors.core.partition import line_of
from actors.ports import Claimed, NothingOpen
from actors.task_ports import Enqueued
from tests.support.store import Hand, dump, entry, store_ms, stored
from tests.support.tasks import ANA, BETO, HOUR_MS, INSTANCE, PARTITION, TEXT, TaskHand, policy, ready_now, task


@pytest.fixture
def at_work(hand: Hand) -> TaskHand:
    """A node at work with tasks."""
    return TaskHand(hand)


async def test_a_task_is_stored_with_all_that_its_send_needs(at_work: TaskHand) -> None:
    """Text, policy, trace, when it was received; and nobody has tried it."""
    before = await store_ms(at_work.hand.server)
    new = task(trace="00-abc", policy=policy(on_unknown="dead"))

    (outcome,) = await at_work.enqueue(new)

    assert (outcome.duplicate, outcome.startable, outcome.due_in_ms) == (False, True, 0)
    assert before <= outcome.received_us // 1000 <= await store_ms(at_work.hand.server)
    record = await at_work.record(new)
    assert (record.state, record.attempts, record.log, record.result) == ("PENDING", 0, [], b"")
    assert record.created_ms == record.updated_ms == outcome.received_us // 1000
    assert (record.eta_ms, record.next_attempt_ms, record.receipt) == (None, None, None)
    claimed = await at_work.hand.claimed(new.task_id)
    assert (claimed.key, claimed.policy, claimed.trace) == (f"{INSTANCE}:{ANA}", new.policy, "00-abc")
    assert claimed.messages == [(new.task_id, record.created_ms, TEXT.encode())]
    assert (claimed.attempt, claimed.failures, claimed.cut_off) == (1, 0, False)


async def test_an_id_is_stored_once(at_work: TaskHand) -> None:
    """In one call and in a later one, whatever else differs; also when it has ended."""
    new = task()
    first, again = await at_work.enqueue(new, replace(new, payload=b"another"))
    assert (first.duplicate, again.duplicate, again.startable) == (False, True, False)
    before = dump(at_work.hand.server)

    (third,) = await at_work.enqueue(replace(new, due_ms=2_000_000_000_000))

    assert third == Enqueued(True, False, 0, third.received_us)
    assert dump(at_work.hand.server) == before
    await at_work.sent(new)
    (fourth,) = await at_work.enqueue(new)
    assert fourth.duplicate
    assert await at_work.startable() == []


async def test_a_contact_gets_its_messages_in_order(at_work: TaskHand) -> None:
    """One after the other, whatever becomes of each; another contact of the instance waits for nobody."""
    first, second, third = task(), task(), task()
    other = task(BETO)
    outcomes = await at_work.enqueue(first, second, other, third)
    assert [outcome.startable for outcome in outcomes] == [True, False, True, False]
    assert set(await at_work.startable()) == {first.task_id, other.task_id}
    assert await at_work.hand.claim(second.task_id) == NothingOpen()

    assert await at_work.ended(first, "retrying") is None
    assert await at_work.hand.claim(second.task_id) == NothingOpen()
    assert await at_work.ended(first, "dead") == ready_now(second)
    assert await at_work.sent(second) == ready_now(third)
    assert await at_work.sent(third) is None
    assert await at_work.states(first, second, third, other) == ["FAILURE", "SUCCESS", "SUCCESS", "PENDING"]
    assert await at_work.states(task()) == [None]


async def test_instances_have_lines_of_their_own(at_work: TaskHand) -> None:
    """The same contact, written to by two of them."""
    one, other = task(), task(instance="soporte")
    assert line_of(INSTANCE, ANA) != line_of("soporte", ANA)
    assert [outcome.startable for outcome in await at_work.enqueue(one, other)] == [True, True]


async def test_a_later_task_is_not_in_its_line_before_its_time(at_work: TaskHand) -> None:
    """Nobody waits behind it, and it is claimed only then."""
    due_ms = await store_ms(at_work.hand.server) + HOUR_MS
    later = task(due_ms=due_ms)
    (outcome,) = await at_work.enqueue(later)
    assert not outcome.duplicate
    assert outcome.startable
    assert HOUR_MS - 5000 < outcome.due_in_ms <= HOUR_MS
    now = await at_work.queued()

    assert await at_work.startable() == [now.task_id]
    assert await at_work.hand.claim(later.task_id) == NothingOpen()
    record = await at_work.record(later)
    assert (record.state, record.eta_ms) == ("PENDING", due_ms)
    assert [row.delivery_id for row in await at_work.hand.ready(PARTITION, ahead_ms=HOUR_MS)] == [
        now.task_id,
        later.task_id,
    ]
    assert await at_work.sent(now) is None
    assert (await at_work.hand.claimed(later.task_id)).attempt == 1


async def test_a_time_that_has_passed_is_now(at_work: TaskHand) -> None:
    """It stands in its line like any other."""
    past = task(due_ms=await store_ms(at_work.hand.server) - 1000)
    second = task()
    first, other = await at_work.enqueue(past, second)
    assert (first.startable, first.due_in_ms, other.startable) == (True, 0, False)
    assert (await at_work.record(past)).eta_ms is None


async def test_a_task_whose_time_has_come_waits_behind_who_is_there(at_work: TaskHand) -> None:
    """It joins the end of its line when it is claimed first, and is called when its turn comes."""
    later = task(due_ms=await store_ms(at_work.hand.server) + HOUR_MS)
    await at_work.enqueue(later)
    first, second = await at_work.queued(), await at_work.queued()
    await at_work.hand.make_due(later.task_id)

    assert await at_work.hand.claim(later.task_id) == NothingOpen()

    last = await at_work.queued()
    assert await at_work.startable() == [first.task_id]
    assert await at_work.sent(first) == ready_now(second)
    assert await at_work.sent(second) == ready_now(later)
    assert isinstance(await at_work.hand.claim(later.task_id), Claimed)
    assert await at_work.startable() == []
    await at_work.settle(later, 1, "delivered")
    assert await at_work.startable() == [last.task_id]


async def test_who_comes_after_a_task_whose_time_has_come_waits(at_work: TaskHand) -> None:
    """While it is being sent it is the first of its line."""
    later = task(due_ms=await store_ms(at_work.hand.server) + HOUR_MS)
    await at_work.enqueue(later)
    await at_work.hand.claimed(later.task_id)

    (outcome,) = await at_work.enqueue(task())

    assert not outcome.startable


async def test_a_task_that_waits_for_its_time_may_go_at_once(at_work: TaskHand) -> None:
    """Somebody asks for it; it stands in its line then, and in it once."""
    later = task(due_ms=await store_ms(at_work.hand.server) + HOUR_MS)
    await at_work.enqueue(later)
    await at_work.hand.requeue(later.task_id)
    assert await at_work.startable() == [later.task_id]
    second = await at_work.queued()
    assert await at_work.hand.claim(later.task_id) == NothingOpen()
    assert await at_work.drain() == [second.task_id, later.task_id]


async def test_a_task_that_waits_for_its_time_can_be_revoked(at_work: TaskHand) -> None:
    """Who stands in its line does not notice."""
    later = task(due_ms=await store_ms(at_work.hand.server) + HOUR_MS)
    await at_work.enqueue(later)
    first, second = await at_work.queued(), await at_work.queued()

    await at_work.hand.discard(later.task_id)

    assert await at_work.states(later) == ["REVOKED"]
    await at_work.hand.make_due(later.task_id)
    assert await at_work.drain() == [first.task_id, second.task_id]


async def test_a_clock_that_is_turned_back_leaves_the_time_that_was_named(at_work: TaskHand) -> None:
    """A retry moves back with it."""
    retrying = await at_work.queued()
    await at_work.ended(retrying, "retrying", retry_in_ms=HOUR_MS)
    later = task(BETO, due_ms=await store_ms(at_work.hand.server) + HOUR_MS)
    await at_work.enqueue(later)

    await at_work.hand.store.partitions.turn_back([(PARTITION, at_work.hand.epochs[PARTITION], HOUR_MS)])

    assert await at_work.startable() == [retrying.task_id]
    assert (await at_work.record(later)).eta_ms == later.due_ms


async def test_batches_of_messages_and_tasks_share_a_partition_and_nothing_else(at_work: TaskHand) -> None:
    """Also under keys that look alike."""
    key = f"{INSTANCE}:{ANA}"
    new = await at_work.queued()
    stored(await at_work.hand.store.batches.append([entry(key, "m1")]))
    delivery = await at_work.hand.frozen(key, "m2")
    assert (await at_work.hand.claimed(delivery)).key == (await at_work.hand.claimed(new.task_id)).key == key
