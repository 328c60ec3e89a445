"""A store's clock that is turned back: noticed without trusting any clock, and what is due moves back with it."""

from __future__ import annotations

import pytest

from actors.adapters.valkey.partitions import TURNED_MS_MIN, ValkeyPartitions
from actors.core.partition import locate
from tests.support.store import Hand, dump

HOUR_MS = 3_600_000
KEY = "clock"
PARTITION = locate(KEY)[1]


async def test_what_is_due_later_moves_back(hand: Hand) -> None:
    """An open batch and a retry that are an hour away are due when the clock has been an hour ahead."""
    await hand.take(PARTITION)
    delivery = await hand.frozen(KEY, "m1")
    await hand.claimed(delivery)
    await hand.settle(delivery, 1, "retrying", retry_in_ms=HOUR_MS)
    await hand.append(KEY, "m2", wait_ms=HOUR_MS)
    assert await hand.ready(PARTITION) == []

    await hand.store.partitions.turn_back([(PARTITION, hand.epochs[PARTITION], HOUR_MS)])

    due, ready = await hand.store.partitions.sweep([PARTITION], 0, 10)
    assert [(batch.kid, batch.due_in_ms) for batch in due] == [(locate(KEY)[0], 0)]
    assert [row.delivery_id for row in ready] == [delivery]
    assert (await hand.claimed(delivery)).attempt == 2
    peek = await hand.store.batches.peek(KEY)
    assert peek is not None
    assert peek.remaining_ms == 0


async def test_what_is_due_already_stays(hand: Hand) -> None:
    """Only what lies ahead has to come back."""
    await hand.take(PARTITION)
    delivery = await hand.frozen(KEY, "m1")
    before = dump(hand.server)
    await hand.store.partitions.turn_back([(PARTITION, hand.epochs[PARTITION], HOUR_MS)])
    assert dump(hand.server) == before
    assert [row.delivery_id for row in await hand.ready(PARTITION)] == [delivery]


async def test_only_the_owner_may(hand: Hand) -> None:
    """Else two nodes that both noticed would move it twice."""
    await hand.take(PARTITION)
    await hand.append(KEY, "m1", wait_ms=HOUR_MS)
    await Hand(hand.server, hand.store, "node-2").take(PARTITION)
    before = dump(hand.server)
    await hand.store.partitions.turn_back([(PARTITION, hand.epochs[PARTITION], HOUR_MS)])
    assert dump(hand.server) == before


@pytest.mark.parametrize(
    ("looks", "turned_ms"),
    [
        ([(0, 0.0, 0.1)], 0),
        ([(0, 0.0, 0.1), (2000, 2.0, 2.1)], 0),
        ([(0, 0.0, 0.1), (2000, 2.0, 9.0), (9100, 9.1, 9.2)], 0),
        ([(0, 0.0, 6.0), (6100, 6.1, 6.2)], 0),
        ([(0, 0.0, 0.1), (2000 + HOUR_MS, 2.0, 2.1)], 0),
        ([(0, 0.0, 0.0), (2000 - TURNED_MS_MIN, 2.0, 2.0)], 0),
        ([(0, 0.0, 0.1), (2000 - HOUR_MS, 2.0, 2.1)], HOUR_MS - 100),
        ([(0, 0.0, 0.1), (2000 - HOUR_MS, 2.0, 8.0)], HOUR_MS - 100),
    ],
    ids=[
        "the first look",
        "a clock that goes right",
        "a frozen process, answered before",
        "a frozen process at first",
        "a clock turned ahead",
        "a clock that is slewed",
        "a clock turned back",
        "turned back while this process was frozen",
    ],
)
async def test_it_is_noticed_only_when_it_is_certain(
    hand: Hand, looks: list[tuple[int, float, float]], turned_ms: int
) -> None:
    """From (the server's ms, when it was asked, when it had answered): a process that was frozen between the two must
    not take its own sleep for a clock that went back, or batches would close too early."""
    partitions = ValkeyPartitions(hand.store.partitions._runner)
    found = [partitions._turned_back([PARTITION], *look) for look in looks]
    assert found[-1] == ({PARTITION: turned_ms} if turned_ms else {})
    assert not any(found[:-1])
