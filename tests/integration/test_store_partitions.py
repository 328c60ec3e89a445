"""Ownership in the real store: one owner a partition, epochs that only grow, and a fence in front of every write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Struct

from actors.core.ids import partition_of
from actors.core.partition import PARTITIONS, locate
from actors.ports import Census, ClosedBatch, DueBatch, Fenced, Next, Owner, Ready
from tests.support.store import HOST, Hand, connected, dump, keys_in, ready_now, store_ms
from tests.support.until import until
from tests.support.valkey import ValkeyServer

KEY = "k"
PARTITION = locate(KEY)[1]
HIGH = 9_000_000_000_000_000
"""An epoch that the microseconds of our time don't reach, and that a double still holds exactly."""


async def test_nobody_owns_a_new_partition(hand: Hand) -> None:
    """Its epoch is 0, under which no owner's write is done."""
    assert await hand.store.partitions.owners([0, 255]) == [Owner(0, ""), Owner(0, "")]

    hand.epochs[PARTITION] = 0

    await hand.append(KEY, "m1")
    assert await hand.close(KEY) == Fenced(0, "")
    assert await hand.open_ids(KEY) == ["m1"]


async def test_an_epoch_is_above_the_stored_one_the_highest_seen_and_the_time(hand: Hand) -> None:
    """So it never repeats, whatever of the three went back."""
    before = await store_ms(hand.server)
    (first,) = await hand.store.partitions.acquire("node-1", 0, [(1, 0)])
    assert before * 1000 <= first.epoch <= await store_ms(hand.server) * 1000 + 1000

    (second,) = await hand.store.partitions.acquire("node-1", HIGH, [(1, first.epoch)])
    assert second == Owner(HIGH + 1, "node-1")

    (third,) = await hand.store.partitions.acquire("node-2", 0, [(1, second.epoch)])
    assert third == Owner(HIGH + 2, "node-2")
    assert await hand.store.partitions.owners([1]) == [third]


async def test_of_two_that_reach_for_a_partition_one_gets_it(hand: Hand) -> None:
    """The other is told who did, and under which epoch."""
    (seen,) = await hand.store.partitions.owners([5])
    won, lost = await asyncio.gather(
        hand.store.partitions.acquire("node-1", 0, [(5, seen.epoch)]),
        hand.store.partitions.acquire("node-2", 0, [(5, seen.epoch)]),
    )

    assert won == lost
    assert won[0].node == "node-1"
    before = dump(hand.server)
    assert await hand.store.partitions.acquire("node-2", 0, [(5, won[0].epoch - 1)]) == won
    assert dump(hand.server) == before


async def test_two_nodes_that_reach_for_everything_share_it_without_overlap(own_valkey: ValkeyServer) -> None:
    """Each over its own connection, in the same moment, again and again: of each partition exactly one gets it, and
    both are told the same."""
    async with connected(own_valkey) as one, connected(own_valkey) as other:
        for _ in range(10):
            seen = await one.partitions.owners(range(PARTITIONS))
            wanted = [(partition, owner.epoch) for partition, owner in enumerate(seen)]
            calls = [
                store.partitions.acquire(node, 0, chunk)
                for chunk in (wanted[start : start + 8] for start in range(0, PARTITIONS, 8))
                for store, node in ((one, "node-1"), (other, "node-2"))
            ]
            answers = await asyncio.gather(*calls)
            assert answers[::2] == answers[1::2]
            told = [owner for answer in answers[::2] for owner in answer]
            assert await one.partitions.owners(range(PARTITIONS)) == told
            assert all(owner.epoch > before.epoch for owner, before in zip(told, seen, strict=True))


async def test_all_partitions_are_taken_in_one_call(hand: Hand) -> None:
    """Those that are another's stay so, the rest is ours."""
    await hand.store.partitions.acquire("node-2", 0, [(7, 0)])

    taken = await hand.store.partitions.acquire("node-1", 0, [(partition, 0) for partition in range(PARTITIONS)])

    assert [owner.node for owner in taken].count("node-1") == PARTITIONS - 1
    assert taken[7].node == "node-2"
    assert await hand.store.partitions.owners(range(PARTITIONS)) == taken


async def test_a_partition_that_was_given_up_is_nobodys(hand: Hand) -> None:
    """Its epoch stays, so whoever comes next takes it by that; giving up what is another's changes nothing."""
    (first,) = await hand.take(1)
    other = Hand(hand.server, hand.store, "node-2")
    (theirs,) = await other.take(2)

    await hand.store.partitions.resign([(1, first), (2, theirs - 1)])

    assert await hand.store.partitions.owners([1, 2]) == [Owner(first, ""), Owner(theirs, "node-2")]
    (second,) = await other.take(1)
    assert second > first


async def test_the_new_owner_takes_over_what_was_in_hand(hand: Hand) -> None:
    """Deliveries under way may start again at once, under the new epoch; what was waiting waits on."""
    first, second, third = keys_in(PARTITION, 3)
    fresh, failed, waiting = [await hand.frozen(key, "m1") for key in (first, second, third)]
    await hand.claimed(waiting)
    await hand.settle(waiting, 1, "retrying", retry_in_ms=60_000)
    await hand.ended(failed, "retrying")
    await hand.claimed(failed)
    await hand.claimed(fresh)

    other = Hand(hand.server, hand.store, "node-2")
    await other.take(PARTITION)

    assert {ready.delivery_id for ready in await other.ready(PARTITION)} == {fresh, failed}
    assert [(await hand.record(name)).status for name in (fresh, failed)] == ["pending", "retrying"]
    assert isinstance(await hand.settle(fresh, 1, "delivered"), Fenced)
    again = await other.claimed(fresh)
    assert again.attempt == 2
    assert (await other.claimed(failed)).failures == 1


async def test_a_planned_move_makes_another_node_the_owner(hand: Hand) -> None:
    """Under a new epoch, so the one before is fenced from that moment on; the new owner takes it under its own."""
    (before,) = await hand.take(PARTITION)
    (kept,) = await hand.take((PARTITION + 1) % PARTITIONS)

    (given,) = await hand.store.partitions.hand_over([(PARTITION, before, "node-2")])

    assert isinstance(given, Owner)
    assert given.node == "node-2"
    assert given.epoch > before
    assert await hand.store.partitions.owners([PARTITION, (PARTITION + 1) % PARTITIONS]) == [
        given,
        Owner(kept, "node-1"),
    ]
    await hand.append(KEY, "m1")
    assert await hand.close(KEY) == Fenced(given.epoch, "node-2")
    other = Hand(hand.server, hand.store, "node-2")
    (taken,) = await other.take(PARTITION)
    assert taken > given.epoch
    assert isinstance(await other.close(KEY), ClosedBatch)
    assert await hand.store.partitions.hand_over([]) == []


async def test_a_move_under_an_old_epoch_is_refused_and_changes_nothing(hand: Hand) -> None:
    """Each of the partitions for itself; under the name of the present owner too."""
    first, second, third = (PARTITION, (PARTITION + 1) % PARTITIONS, (PARTITION + 2) % PARTITIONS)
    await hand.frozen(KEY, "m1")
    (old, good, other_old) = await hand.take(first, second, third)
    (now,) = await Hand(hand.server, hand.store, "node-2").take(first)
    (again,) = await hand.take(third)
    before = dump(hand.server)

    answers = await hand.store.partitions.hand_over(
        [(first, old, "node-3"), (third, other_old, "node-3"), (second, 0, "node-3")]
    )

    assert answers == [Fenced(now, "node-2"), Fenced(again, "node-1"), Fenced(good, "node-1")]
    assert dump(hand.server) == before
    mixed = await hand.store.partitions.hand_over([(first, old, "node-3"), (second, good, "node-3")])
    assert [type(answer) for answer in mixed] == [Fenced, Owner]


async def test_a_moves_epoch_is_above_the_stored_one_and_the_time(hand: Hand) -> None:
    """As an acquired one is: it never repeats, whatever went back."""
    (first,) = await hand.take(1)
    await until(lambda: _is_past(hand, first), what="a later time")
    before = await store_ms(hand.server)
    (given,) = await hand.store.partitions.hand_over([(1, first, "node-2")])
    assert first + 1 < before * 1000 <= given.epoch <= await store_ms(hand.server) * 1000 + 1000

    (high,) = await hand.store.partitions.acquire("node-1", HIGH, [(1, given.epoch)])
    assert await hand.store.partitions.hand_over([(1, high.epoch, "node-2")]) == [Owner(HIGH + 2, "node-2")]


async def _is_past(hand: Hand, epoch: int) -> bool:
    return await store_ms(hand.server) * 1000 > epoch + 1


async def test_what_was_in_hand_at_a_move_may_start_again(hand: Hand) -> None:
    """A claim that came in just before: it is ready for the new owner, and its outcome is refused to the old one."""
    fresh, waiting = [await hand.frozen(key, "m1") for key in keys_in(PARTITION, 2)]
    await hand.claimed(waiting)
    await hand.settle(waiting, 1, "retrying", retry_in_ms=60_000)
    await hand.claimed(fresh)

    await hand.store.partitions.hand_over([(PARTITION, hand.epochs[PARTITION], "node-2")])

    assert [ready.delivery_id for ready in await hand.ready(PARTITION)] == [fresh]
    assert (await hand.record(fresh)).status == "pending"
    assert (await hand.store.partitions.census([PARTITION])).claimed == ()
    assert isinstance(await hand.settle(fresh, 1, "delivered"), Fenced)


class Write(Struct, frozen=True):
    """An owner's write, as a node does it that does not own the partition any more."""

    name: str
    attempt: Callable[[Hand, dict[str, str]], Awaitable[object]]


async def _requeue_dead(hand: Hand, names: dict[str, str]) -> object:
    return await hand.requeue(names["dead"])


WRITES = [
    Write("close", lambda hand, _: hand.close(KEY)),
    Write("close at its deadline", lambda hand, _: hand.close(KEY, deadline_ms=2**52, reason="timeout")),
    Write("close again", lambda hand, names: hand.close(KEY, batch_id=names["pending"])),
    Write("close nothing", lambda hand, _: hand.close(keys_in(PARTITION, 7)[6])),
    Write("cancel", lambda hand, _: hand.cancel(KEY)),
    Write("claim", lambda hand, names: hand.claim(names["pending"])),
    Write("claim poison", lambda hand, names: hand.claim(names["poison"])),
    Write("settle delivered", lambda hand, names: hand.settle(names["delivering"], 2, "delivered")),
    Write("settle retrying", lambda hand, names: hand.settle(names["delivering"], 2, "retrying")),
    Write("settle dead", lambda hand, names: hand.settle(names["delivering"], 2, "dead")),
    Write("release claimed", lambda hand, names: hand.release(names["delivering"])),
    Write("release ready", lambda hand, names: hand.release(names["pending"], in_ms=9000)),
    Write("requeue dead", _requeue_dead),
    Write("requeue retrying", lambda hand, names: hand.requeue(names["retrying"])),
    Write("discard pending", lambda hand, names: hand.discard(names["pending"])),
    Write("discard dead", lambda hand, names: hand.discard(names["dead"])),
]


async def _every_state(hand: Hand) -> dict[str, str]:
    """One partition with an open batch and a delivery in each state."""
    keys = keys_in(PARTITION, 6)
    states = ("pending", "delivering", "retrying", "delivered", "dead", "poison")
    names = {state: await hand.frozen(key, "m1") for state, key in zip(states, keys, strict=True)}
    for _ in range(5):
        await hand.claimed(names["poison"])
        await hand.take(PARTITION)
    for state in ("retrying", "delivered", "dead"):
        await hand.ended(names[state], state)
    await hand.claimed(names["delivering"])
    await hand.append(KEY, "m1", "m2")
    return names


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)
async def test_a_write_under_an_old_epoch_is_refused_and_changes_nothing(hand: Hand, write: Write) -> None:
    """It answers who owns the partition now; not one key of the store differs afterwards.

    What was under way is under way again, as the new owner's second attempt, so only the epoch is in the way.
    """
    names = await _every_state(hand)
    other = Hand(hand.server, hand.store, "node-2")
    (epoch,) = await other.take(PARTITION)
    assert (await other.claimed(names["delivering"])).attempt == 2
    before = dump(hand.server)

    answer = await write.attempt(hand, names)

    assert answer == Fenced(epoch, "node-2")
    assert dump(hand.server) == before


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)
async def test_a_write_after_a_planned_move_is_refused_and_changes_nothing(hand: Hand, write: Write) -> None:
    """From the moment of the move on, also before the new owner has come."""
    names = await _every_state(hand)
    (given,) = await hand.store.partitions.hand_over([(PARTITION, hand.epochs[PARTITION], "node-2")])
    before = dump(hand.server)

    assert await write.attempt(hand, names) == Fenced(given.epoch, "node-2")

    assert dump(hand.server) == before


async def test_giving_up_under_an_old_epoch_changes_nothing(hand: Hand) -> None:
    """A node that comes too late to a planned stop leaves the new owner alone."""
    (old,) = await hand.take(PARTITION)
    await Hand(hand.server, hand.store, "node-2").take(PARTITION)
    before = dump(hand.server)

    await hand.store.partitions.resign([(PARTITION, old)])

    assert dump(hand.server) == before


async def test_the_owner_itself_is_refused_under_its_older_epoch(hand: Hand) -> None:
    """A node that took a partition twice may only use the newer epoch: the name is no key."""
    name = await hand.frozen(KEY, "m1")
    old = hand.epochs[PARTITION]
    (new,) = await hand.take(PARTITION)
    hand.epochs[PARTITION] = old

    assert await hand.claim(name) == Fenced(new, "node-1")


async def test_an_epoch_of_another_partition_opens_nothing(hand: Hand) -> None:
    """Each partition has its own."""
    (one, other) = await hand.take(PARTITION, (PARTITION + 1) % PARTITIONS)
    await hand.append(KEY, "m1")
    await hand.store.partitions.acquire("node-1", other + 5, [(PARTITION, one)])
    hand.epochs[PARTITION] = other

    assert isinstance(await hand.close(KEY), Fenced)


async def test_anybody_may_append(hand: Hand) -> None:
    """A message needs no owner: not before the first, not while one is being replaced."""
    (outcome,) = await hand.append(KEY, "m1")
    await Hand(hand.server, hand.store, "node-2").take(PARTITION)
    (again,) = await hand.append(KEY, "m2")

    assert (outcome.size, again.size) == (1, 2)


async def test_a_sweep_finds_what_is_due_soon(hand: Hand) -> None:
    """Open batches by their deadline, deliveries by their time, only of the partitions asked for."""
    near, far = keys_in(20, 2)
    elsewhere = keys_in(21, 1)[0]
    (soon,) = await hand.append(near, "m1", wait_ms=500)
    await hand.append(far, "m1", wait_ms=5000)
    await hand.append(elsewhere, "m1", wait_ms=50)
    name = await hand.frozen(keys_in(22, 1)[0], "m1")

    due, ready = await hand.store.partitions.sweep([20, 22], 1000, 64)

    assert [(batch.partition, batch.kid, batch.deadline_ms) for batch in due] == [
        (20, locate(near)[0], soon.deadline_ms)
    ]
    assert 0 <= due[0].due_in_ms <= 500
    assert ready == [Ready(22, name, HOST, 0)]
    assert await hand.store.partitions.sweep([], 1000, 64) == ([], [])
    assert await hand.store.partitions.sweep([23], 1000, 64) == ([], [])


async def test_a_sweep_takes_the_most_urgent_first_and_no_more_than_asked(hand: Hand) -> None:
    """A backlog comes in bites; what was not in one is in a later one."""
    keys = keys_in(30, 5)
    for number, key in enumerate(keys):
        await hand.append(key, "m1", wait_ms=1000 - 100 * number)
    names = [await hand.frozen(key, "m2") for key in keys_in(31, 3)]

    due, ready = await hand.store.partitions.sweep([30, 31], 1000, 2)

    assert [batch.kid for batch in due] == [locate(key)[0] for key in (keys[4], keys[3])]
    assert [delivery.delivery_id for delivery in ready] == names[:2]


async def test_a_sweep_passes_over_ready_rows_that_are_known(hand: Hand) -> None:
    """So that a long line of one host does not hide what stands behind it; each partition has its own count."""
    one = [await hand.frozen(key, "m1") for key in keys_in(31, 4)]
    other = [await hand.frozen(key, "m1") for key in keys_in(32, 2)]

    _, ready = await hand.store.partitions.sweep([31, 32], 0, 2, {31: 2})
    _, nothing = await hand.store.partitions.sweep([31, 32], 0, 2, {31: 4, 32: 9})

    assert [delivery.delivery_id for delivery in ready] == [*one[2:], *other]
    assert nothing == []


async def test_an_overdue_batch_is_due_now(hand: Hand) -> None:
    """Neither its remaining time nor that of a delivery is ever negative."""
    (outcome,) = await hand.append(KEY, "m1", wait_ms=0)
    name = await hand.frozen("other", "m1")

    due, _ = await hand.store.partitions.sweep([PARTITION], 0, 64)

    assert due == [DueBatch(PARTITION, locate(KEY)[0], outcome.deadline_ms, 0)]
    assert await hand.ready(partition_of(name)) == [ready_now(name)]
    batch = await hand.store.batches.peek(KEY)
    assert batch is not None
    assert batch.remaining_ms == 0


async def test_the_census_counts_what_waits(hand: Hand) -> None:
    """Open batches; deliveries neither delivered nor dead; the age of the oldest of these; which are claimed."""
    everywhere = range(PARTITIONS)
    assert await hand.store.partitions.census(everywhere) == Census(0, 0, 0)
    names = await _every_state(hand)
    created = min([(await hand.record(name)).created_ms for name in names.values()])
    before = await store_ms(hand.server)

    counted = await hand.store.partitions.census(everywhere)

    assert (counted.open_batches, counted.undelivered) == (1, 4)
    assert list(counted.claimed) == [names["delivering"]]
    assert before - created <= counted.oldest_waiting_ms <= await store_ms(hand.server) - created
    assert await hand.store.partitions.census([]) == Census(0, 0, 0)
    assert await hand.store.partitions.census([(PARTITION + 1) % PARTITIONS]) == Census(0, 0, 0)
    assert await hand.discard(names["pending"]) == Next(None)
    assert (await hand.store.partitions.census(everywhere)).undelivered == 3
