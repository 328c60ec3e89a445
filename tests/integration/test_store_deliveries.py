"""Frozen batches in the real store: who may be claimed, how an attempt ends, and what comes after it in line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from actors.adapters.valkey import deliveries as adapter
from actors.adapters.valkey.deliveries import CRASHES_MAX, Kept
from actors.core.partition import locate
from actors.ports import (
    Attempt,
    Claim,
    Claimed,
    DeliveryFilter,
    Fenced,
    Next,
    NothingOpen,
    Poisoned,
    Settle,
    WrongState,
)
from tests.support.store import (
    IDS,
    LOG,
    POLICY,
    Hand,
    all_deliveries,
    connected,
    dump,
    key_names,
    keys_in,
    ready_now,
    store_ms,
)
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITION = locate("k")[1]
NOBODY = IDS.delivery_id(PARTITION)


async def test_a_claim_gives_all_that_an_attempt_needs(hand: Hand) -> None:
    """Key, reason, policy, trace, when it was frozen, its messages in order, which attempt this is."""
    before = await store_ms(hand.server)
    (first, _) = await hand.append("k", "m1", "m2", payload=b'{"a":1}', trace="00-abc", wait_ms=5000)
    name = await hand.frozen("k", "m3", payload=b"[3]", trace="00-def", wait_ms=5000)

    claimed = await hand.claimed(name)

    assert before <= claimed.created_ms <= await store_ms(hand.server)
    received = first.deadline_ms - 5000
    assert claimed.messages[:2] == [("m1", received, b'{"a":1}'), ("m2", received, b'{"a":1}')]
    assert (claimed.messages[2][0], claimed.messages[2][2]) == ("m3", b"[3]")
    assert (claimed.delivery_id, claimed.key, claimed.reason) == (name, "k", "manual")
    assert (claimed.policy, claimed.trace, claimed.attempt, claimed.failures) == (POLICY, "00-def", 1, 0)


async def test_an_attempt_counts_from_its_claim(hand: Hand) -> None:
    """Before anything is known of how it ends: the record shows when it was claimed."""
    name = await hand.frozen("k", "m1")
    before = await store_ms(hand.server)

    await hand.claimed(name)

    record = await hand.record(name)
    assert record.status == "delivering"
    (claimed_ms,) = record.attempts
    assert isinstance(claimed_ms, int)
    assert before <= claimed_ms <= await store_ms(hand.server)


async def test_a_delivery_is_claimed_by_one(hand: Hand) -> None:
    """While it is under way, after it was delivered, or when nobody knows it, there is nothing to claim."""
    name = await hand.frozen("k", "m1")

    first, second = await hand.store.deliveries.work([await hand.named(name)] * 2)

    assert isinstance(first, Claimed)
    assert second == NothingOpen()
    await hand.settle(name, 1, "delivered")
    assert await hand.claim(name) == NothingOpen()
    assert await hand.claim(NOBODY) == NothingOpen()


async def test_only_the_head_of_a_line_can_be_claimed(hand: Hand) -> None:
    """The next batch of a key waits through attempts, failures and pauses of the one before it."""
    first = await hand.frozen("k", "m1")
    second = await hand.frozen("k", "m2")
    third = await hand.frozen("k", "m3")

    assert await hand.ready(PARTITION) == [ready_now(first)]
    assert await hand.claim(second) == NothingOpen()
    claimed = await hand.claimed(first)
    assert await hand.claim(second) == NothingOpen()
    assert await hand.ready(PARTITION) == []
    assert await hand.settle(first, claimed.attempt, "retrying", retry_in_ms=60_000) == Next(None)
    assert await hand.claim(second) == NothingOpen()

    assert await hand.ended(first, "delivered") == Next(ready_now(second))
    assert await hand.claim(third) == NothingOpen()
    assert await hand.ended(second, "dead") == Next(ready_now(third))
    assert await hand.ended(third, "delivered") == Next(None)


async def test_lines_of_different_keys_do_not_wait_for_each_other(hand: Hand) -> None:
    """Also in one partition."""
    one, other = [await hand.frozen(key, "m1") for key in keys_in(3, 2)]
    await hand.claimed(one)

    assert isinstance(await hand.claim(other), Claimed)


async def test_a_delivered_batch_leaves_its_record(hand: Hand) -> None:
    """Messages are gone; when, how and how often it was tried stays for a while."""
    name = await hand.frozen("k", "m1", "m2")
    await hand.ended(name, "retrying")
    await hand.ended(name, "delivered")

    record = await hand.record(name)

    assert (record.status, record.key, record.size, record.reason) == ("delivered", "k", 2, "manual")
    assert (record.url, record.attempts, record.next_attempt_ms) == ("https://example.org/hook", [LOG, LOG], None)
    kept = {name.split(":")[2] for name in dump(hand.server) if not name.endswith("cfg")}
    assert kept == {"own", "i", "d", "done"}


async def test_a_failed_attempt_is_tried_again_in_its_time(hand: Hand) -> None:
    """The pause is the store's; the next claim counts the attempt and the failure."""
    name = await hand.frozen("k", "m1")
    await hand.claimed(name)
    before = await store_ms(hand.server)

    answer = await hand.settle(name, 1, "retrying", retry_in_ms=5000)

    assert answer == Next(None)
    record = await hand.record(name)
    assert record.status == "retrying"
    assert record.next_attempt_ms is not None
    assert before + 5000 <= record.next_attempt_ms <= await store_ms(hand.server) + 5000
    assert await hand.ready(PARTITION, ahead_ms=1000) == []
    (later,) = await hand.ready(PARTITION, ahead_ms=5000)
    assert 4000 < later.due_in_ms <= 5000
    again = await hand.claimed(name)
    assert (again.attempt, again.failures) == (2, 1)
    assert (await hand.record(name)).next_attempt_ms is None


async def test_an_attempt_is_settled_once(hand: Hand) -> None:
    """Repeating an outcome, one of an older attempt or one that was never claimed changes nothing."""
    name = await hand.frozen("k", "m1")
    unclaimed = dump(hand.server) if await hand.epoch(PARTITION) else {}
    assert await hand.settle(name, 0, "delivered") == NothingOpen()
    assert await hand.settle(name, 1, "delivered") == NothingOpen()
    assert dump(hand.server) == unclaimed

    await hand.ended(name, "retrying")
    await hand.claimed(name)
    under_way = dump(hand.server)
    for attempt in (0, 1, 3):
        for status in ("delivered", "retrying", "dead"):
            assert await hand.settle(name, attempt, status) == NothingOpen()
    assert dump(hand.server) == under_way

    await hand.settle(name, 2, "delivered")
    settled = dump(hand.server)
    for status in ("delivered", "retrying", "dead"):
        assert await hand.settle(name, 2, status) == NothingOpen()
    assert dump(hand.server) == settled


async def test_a_dead_delivery_keeps_its_messages_and_can_be_tried_again(hand: Hand) -> None:
    """It comes back with the same content, a fresh budget of failures, and attempts that count on."""
    name = await hand.frozen("k", "m1", "m2", payload=b"[1]")
    first = await hand.claimed(name)
    await hand.settle(name, 1, "retrying")
    await hand.ended(name, "dead")
    assert (await hand.record(name)).status == "dead"
    assert await hand.claim(name) == NothingOpen()

    assert await hand.requeue(name) == Next(ready_now(name))

    assert (await hand.record(name)).status == "pending"
    again = await hand.claimed(name)
    assert (again.attempt, again.failures) == (3, 0)
    assert again.messages == first.messages
    assert (again.created_ms, again.reason, again.policy) == (first.created_ms, first.reason, first.policy)
    await hand.settle(name, 3, "delivered")
    assert (await hand.record(name)).attempts == [LOG] * 3


async def test_a_dead_delivery_that_comes_back_joins_the_end_of_its_line(hand: Hand) -> None:
    """Whoever waits meanwhile goes first."""
    dead = await hand.frozen("k", "m1")
    await hand.ended(dead, "dead")
    second = await hand.frozen("k", "m2")
    third = await hand.frozen("k", "m3")

    assert await hand.requeue(dead) == Next(None)

    assert await hand.claim(dead) == NothingOpen()
    assert await hand.ended(second, "delivered") == Next(ready_now(third))
    assert await hand.ended(third, "delivered") == Next(ready_now(dead))
    assert await hand.ended(dead, "delivered") == Next(None)


async def test_a_waiting_delivery_becomes_due_when_somebody_asks(hand: Hand) -> None:
    """Its pause is over, and the record says so; failures stay counted."""
    name = await hand.frozen("k", "m1")
    await hand.claimed(name)
    await hand.settle(name, 1, "retrying", retry_in_ms=60_000)

    assert await hand.requeue(name) == Next(ready_now(name))

    assert await hand.ready(PARTITION) == [ready_now(name)]
    due = (await hand.record(name)).next_attempt_ms
    assert due is not None
    assert due <= await store_ms(hand.server)
    assert (await hand.claimed(name)).failures == 1


async def test_asking_again_for_what_is_not_at_the_head_starts_nothing(hand: Hand) -> None:
    """It is queued already: yes, but not now."""
    first = await hand.frozen("k", "m1")
    second = await hand.frozen("k", "m2")
    before = dump(hand.server)

    assert await hand.requeue(second) == Next(None)

    assert dump(hand.server) == before
    assert await hand.ended(first, "delivered") == Next(ready_now(second))


@pytest.mark.parametrize("status", ["delivering", "delivered", "discarded"])
async def test_what_is_under_way_or_done_is_neither_retried_nor_discarded(hand: Hand, status: str) -> None:
    """The answer names the state, and nothing changes."""
    name = await hand.frozen("k", "m1")
    if status == "discarded":
        await hand.discard(name)
    else:
        await hand.claimed(name)
    if status == "delivered":
        await hand.settle(name, 1, "delivered")
    before = dump(hand.server)

    retried, discarded = await hand.requeue(name), await hand.discard(name)

    assert isinstance(retried, WrongState)
    assert retried.status == status
    assert discarded == retried
    assert dump(hand.server) == before


async def test_nobody_can_change_what_is_not_there(hand: Hand) -> None:
    """An unknown id, or one whose record has expired."""
    await hand.epoch(PARTITION)
    before = dump(hand.server)

    assert await hand.requeue(NOBODY) == NothingOpen()
    assert await hand.discard(NOBODY) == NothingOpen()
    assert await hand.release(NOBODY) == NothingOpen()
    assert await hand.settle(NOBODY, 1, "delivered") == NothingOpen()
    assert await hand.store.deliveries.get(NOBODY) is None
    assert dump(hand.server) == before


@pytest.mark.parametrize("state", ["pending", "retrying", "dead", "behind"])
async def test_a_discarded_delivery_never_starts_and_the_next_may(hand: Hand, state: str) -> None:
    """From any state in which it waits; its messages are gone, its record says discarded."""
    first = await hand.frozen("k", "m1")
    if state in {"retrying", "dead"}:
        await hand.ended(first, state)
    second = await hand.frozen("k", "m2")
    name, other = (second, first) if state == "behind" else (first, second)

    answer = await hand.discard(name)

    assert answer == Next(ready_now(second) if state in {"pending", "retrying"} else None)
    assert (await hand.record(name)).status == "discarded"
    assert await hand.claim(name) == NothingOpen()
    assert await hand.ready(PARTITION) == [ready_now(other)]
    assert not [key for key in dump(hand.server) if key.endswith(f":o:{name}")]
    assert await hand.ended(other, "delivered") == Next(None)


async def test_a_released_delivery_was_not_tried(hand: Hand) -> None:
    """However often a stopping node gives it back, it is no poison, and what failed before stays counted."""
    name = await hand.frozen("k", "m1")
    await hand.ended(name, "retrying")
    for _ in range(CRASHES_MAX + 1):
        await hand.claimed(name)
        assert await hand.release(name) == Next(None)
        assert (await hand.record(name)).status == "retrying"

    claimed = await hand.claimed(name)

    assert claimed.failures == 1
    assert claimed.attempt == CRASHES_MAX + 3


async def test_a_delivery_is_put_off(hand: Hand) -> None:
    """Whether claimed or only ready, it comes back after the time named, and the record says when."""
    fresh = await hand.frozen("k", "m1")
    (other_key,) = keys_in(PARTITION, 1)
    failed = await hand.frozen(other_key, "m1")
    await hand.ended(failed, "retrying")
    before = await store_ms(hand.server)

    for name in (fresh, failed):
        assert await hand.release(name, in_ms=5000) == Next(None)

    assert await hand.ready(PARTITION, ahead_ms=1000) == []
    waiting = await hand.ready(PARTITION, ahead_ms=5000)
    assert {ready.delivery_id for ready in waiting} == {fresh, failed}
    assert all(4000 < ready.due_in_ms <= 5000 for ready in waiting)
    due = (await hand.record(failed)).next_attempt_ms
    assert due is not None
    assert before + 5000 <= due <= await store_ms(hand.server) + 5000
    assert (await hand.record(fresh)).next_attempt_ms is None


async def test_a_delivery_that_stops_its_nodes_is_dead_after_five_claims(hand: Hand) -> None:
    """Each new owner finds it unsettled; the sixth claim buries it and starts the next of its key."""
    name = await hand.frozen("k", "m1")
    behind = await hand.frozen("k", "m2")
    for attempt in range(1, CRASHES_MAX + 1):
        assert (await hand.claimed(name)).attempt == attempt
        await hand.take(PARTITION)

    await hand.make_due(name)
    assert await hand.claim(name) == Poisoned(ready_now(behind))

    record = await hand.record(name)
    assert record.status == "dead"
    assert len(record.attempts) == CRASHES_MAX
    assert all(isinstance(attempt, int) for attempt in record.attempts)
    assert await hand.requeue(name) == Next(None)
    await hand.ended(behind, "delivered")
    assert (await hand.claimed(name)).attempt == CRASHES_MAX + 1


async def test_settled_attempts_are_no_crashes(hand: Hand) -> None:
    """Only claims that nobody settled count, in all since the delivery was last queued."""
    name = await hand.frozen("k", "m1")
    for _ in range(CRASHES_MAX - 1):
        await hand.claimed(name)
        await hand.take(PARTITION)
        await hand.ended(name, "retrying")
    await hand.claimed(name)
    await hand.take(PARTITION)

    await hand.make_due(name)
    assert await hand.claim(name) == Poisoned(None)


async def test_outcomes_are_written_before_claims_of_the_same_call(hand: Hand) -> None:
    """So that what follows in a line can be claimed at once; answers stand where their requests stood."""
    first, second = await hand.frozen("k", "m1"), await hand.frozen("k", "m2")
    other = await hand.frozen("other", "m1")
    await hand.claimed(first)
    work: list[Claim | Settle] = [
        await hand.named(second),
        await hand.outcome(first, 1, "delivered"),
        await hand.named(other),
    ]

    claimed, settled, another = await hand.store.deliveries.work(work)

    assert isinstance(claimed, Claimed)
    assert isinstance(another, Claimed)
    assert (claimed.delivery_id, settled, another.delivery_id) == (second, Next(ready_now(second)), other)


async def test_requests_of_one_call_are_answered_each_in_its_place(hand: Hand) -> None:
    """Several partitions, some of them another node's: those are refused, the rest is done."""
    names = [await hand.frozen(keys_in(partition, 1)[0], "m1") for partition in (1, 2, 3)]
    (foreign,) = await Hand(hand.server, hand.store, "node-2").take(2)
    wishes: Sequence[Claim] = [await hand.named(name) for name in names]

    answers = await hand.store.deliveries.work(wishes)

    assert [answer.delivery_id if isinstance(answer, Claimed) else answer for answer in answers] == [
        names[0],
        Fenced(foreign, "node-2"),
        names[2],
    ]


async def test_an_attempts_line_is_kept_as_it_was_written(hand: Hand) -> None:
    """Byte for byte, any text; an attempt nobody settled shows only when it was claimed."""
    name = await hand.frozen("k", "m1")
    await hand.claimed(name)
    await hand.take(PARTITION)
    await hand.ended(name, "retrying")

    unsettled, settled = (await hand.record(name)).attempts

    assert isinstance(unsettled, int)
    assert isinstance(settled, bytes)
    assert msgspec.json.decode(settled, type=Attempt).latency_ms == 1.0


async def test_records_expire_in_their_time(any_store: ValkeyServer) -> None:
    """Delivered and discarded ones after one time, dead ones with their messages after another."""
    async with connected(any_store, kept=Kept(delivered_ms=100, dead_ms=200)) as store:
        hand = Hand(any_store, store)
        dead = await hand.frozen("k", "m1")
        await hand.ended(dead, "dead")
        delivered = await hand.frozen("k", "m2")
        await hand.ended(delivered, "delivered")
        discarded = await hand.frozen("k", "m3")
        await hand.discard(discarded)
        assert len(await all_deliveries(store)) == 3

        async def forgotten() -> bool:
            return not [name for name in key_names(any_store) if re.search(r":(d:|o:|dead|done|live)", name)]

        await until(forgotten, what="the end of all records")
        for name in (dead, delivered, discarded):
            assert await store.deliveries.get(name) is None
        assert await all_deliveries(store) == []
        assert await hand.requeue(dead) == NothingOpen()


async def test_a_dead_delivery_that_comes_back_does_not_expire(any_store: ValkeyServer) -> None:
    """Its time to live was that of a dead letter."""
    async with connected(any_store, kept=Kept(delivered_ms=60_000, dead_ms=150)) as store:
        hand = Hand(any_store, store)
        name = await hand.frozen("k", "m1")
        await hand.ended(name, "dead")
        await hand.requeue(name)
        other = await hand.frozen("other", "m1")
        await hand.ended(other, "dead")

        async def gone() -> bool:
            return await store.deliveries.get(other) is None

        await until(gone, what="the end of another dead letter")
        assert [message for message, _, _ in (await hand.claimed(name)).messages] == ["m1"]


async def test_the_oldest_delivered_records_make_room(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition keeps so many and no more; dead letters are not counted and never make room."""
    monkeypatch.setattr(adapter, "DELIVERED_KEPT_MAX", 3)
    (key,) = keys_in(9, 1)
    dead = await hand.frozen(key, "dead")
    await hand.ended(dead, "dead")
    done = [await hand.frozen(key, f"m{number}") for number in range(6)]
    for number, name in enumerate(done):
        if number % 2:
            await hand.discard(name)
        else:
            await hand.ended(name, "delivered")

    kept = {record.delivery_id for record in await all_deliveries(hand.store)}

    assert dead in kept
    assert len(kept) == 4
    for name in done:
        assert (await hand.store.deliveries.get(name) is not None) == (name in kept)


async def test_a_record_tells_the_whole_story(hand: Hand) -> None:
    """From the list as from the id alone, in every state."""
    expected: dict[str, str] = {}
    for number, status in enumerate(("pending", "delivering", "retrying", "delivered", "dead", "discarded")):
        name = await hand.frozen(f"k{number}", "m1")
        await _bring_to(hand, name, status)
        expected[name] = status

    listed = await all_deliveries(hand.store)

    assert {record.delivery_id: record.status for record in listed} == expected
    for record in listed:
        assert await hand.store.deliveries.get(record.delivery_id) == record
        only: Any = DeliveryFilter(status=record.status)
        assert await all_deliveries(hand.store, only) == [record]


async def _bring_to(hand: Hand, name: str, status: str) -> None:
    if status == "discarded":
        await hand.discard(name)
    elif status == "delivering":
        await hand.claimed(name)
    elif status != "pending":
        await hand.ended(name, status)
