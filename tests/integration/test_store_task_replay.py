"""Tasks that the store had acknowledged and lost come back: once, and each where it belongs in its line."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec.structs import replace

from actors.adapters.valkey.keys import PREFIXES
from actors.task_ports import NewTask
from tests.support.store import Hand, dump, store_ms
from tests.support.tasks import ANA, BETO, HOUR_MS, PARTITION, TaskHand, task

PREFIX = PREFIXES[PARTITION]


@pytest.fixture
def at_work(hand: Hand) -> TaskHand:
    """A node at work with tasks."""
    return TaskHand(hand)


async def _three(at_work: TaskHand) -> tuple[NewTask, NewTask, NewTask]:
    """Three tasks of one contact, received one after the other."""
    return await at_work.queued(), await at_work.queued(), await at_work.queued()


def _lose(at_work: TaskHand, *tasks: NewTask) -> None:
    """Have the store be as if it had never heard of tasks that wait."""
    for of in tasks:
        server = at_work.hand.server
        was_first = server.command("LINDEX", f"{PREFIX}q:{of.kid}", 0) == of.task_id
        server.command("LREM", f"{PREFIX}q:{of.kid}", 1, of.task_id)
        server.command("ZREM", f"{PREFIX}ready", of.task_id)
        server.command("ZREM", f"{PREFIX}tlive", of.task_id)
        server.command("DEL", f"{PREFIX}d:{of.task_id}")
        server.command("DEL", f"{PREFIX}o:{of.task_id}")
        following = server.command("LINDEX", f"{PREFIX}q:{of.kid}", 0)
        if was_first and isinstance(following, str):
            server.command("ZADD", f"{PREFIX}ready", 1, following)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_lost_tasks_come_back_as_they_were(at_work: TaskHand, order: tuple[int, ...]) -> None:
    """Whoever brings which back first; and bringing them twice changes nothing."""
    made = await _three(at_work)
    before = {name: value for name, value in dump(at_work.hand.server).items() if not name.endswith("ready")}
    _lose(at_work, *made)

    assert [await at_work.restore(made[at]) for at in order] == [1, 1, 1]

    after = dump(at_work.hand.server)
    assert await at_work.restore(*made) == 0
    assert dump(at_work.hand.server) == after
    assert {name: value for name, value in after.items() if not name.endswith("ready")} == before
    assert await at_work.startable() == [made[0].task_id]
    assert await at_work.drain() == [of.task_id for of in made]


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 2), (1, 2)])
async def test_what_was_lost_goes_before_what_came_later(at_work: TaskHand, lost: tuple[int, ...]) -> None:
    """Of its contact; another contact does not notice."""
    made = await _three(at_work)
    other = await at_work.queued(BETO)
    _lose(at_work, *(made[at] for at in lost))

    assert await at_work.restore(*(made[at] for at in reversed(lost))) == len(lost)

    assert set(await at_work.startable()) == {made[0].task_id, other.task_id}
    order = await at_work.drain()
    assert [name for name in order if name != other.task_id] == [of.task_id for of in made]


async def test_nobody_goes_before_a_task_that_is_being_sent(at_work: TaskHand) -> None:
    """It was received later, but it is out already; the lost one is next."""
    first, second, third = await _three(at_work)
    _lose(at_work, first)
    await at_work.hand.claimed(second.task_id)

    assert await at_work.restore(first) == 1

    assert await at_work.startable() == []
    await at_work.settle(second, 1, "delivered")
    assert await at_work.drain() == [first.task_id, third.task_id]


async def test_a_task_that_waits_for_a_retry_lets_a_lost_one_go_first(at_work: TaskHand) -> None:
    """And is tried again after it, without being counted as tried."""
    first, second, _ = await _three(at_work)
    _lose(at_work, first)
    await at_work.ended(second, "retrying", retry_in_ms=HOUR_MS)

    await at_work.restore(first)

    assert await at_work.startable() == [first.task_id]
    await at_work.sent(first)
    assert await at_work.startable() == [second.task_id]
    assert (await at_work.hand.claimed(second.task_id)).failures == 1


async def test_a_task_that_is_wanted_later_waits_for_its_time_again(at_work: TaskHand) -> None:
    """Aside of its line, as before; one whose time has passed meanwhile is in it."""
    due_ms = await store_ms(at_work.hand.server) + HOUR_MS
    later = replace(task(due_ms=due_ms), received_us=1_000_000)
    past = replace(task(BETO, due_ms=1), received_us=1_000_000)
    assert await at_work.restore(later, past) == 2
    record = await at_work.record(later)
    assert (record.eta_ms, record.created_ms) == (due_ms, 1000)
    now = await at_work.queued()
    assert set(await at_work.startable()) == {past.task_id, now.task_id}


async def test_a_task_of_unknown_receipt_is_the_last(at_work: TaskHand) -> None:
    """It counts as received now."""
    first = await at_work.queued()
    new = task()
    assert await at_work.restore(new) == 1
    assert await at_work.drain() == [first.task_id, new.task_id]


async def test_what_has_ended_does_not_come_back(at_work: TaskHand) -> None:
    """Sent, failed, revoked or under way: its record says so."""
    made = [await at_work.queued(contact) for contact in (ANA, BETO, "1@g.us", "2@g.us")]
    await at_work.sent(made[0])
    await at_work.ended(made[1], "dead")
    await at_work.hand.discard(made[2].task_id)
    await at_work.hand.claimed(made[3].task_id)
    before = dump(at_work.hand.server)
    assert await at_work.restore(*made) == 0
    assert dump(at_work.hand.server) == before
