"""When a delivery may be claimed: not before its time, and after crashes apart from its neighbours."""

from __future__ import annotations

from actors.core.partition import locate
from actors.ports import NothingOpen
from tests.support.store import Hand

PARTITION = locate("k")[1]


async def test_a_delivery_is_not_claimed_before_its_time(hand: Hand) -> None:
    """Somebody who read its row before it failed may ask too early: it stays where it is, and due when it was."""
    name = await hand.frozen("k", "m1")
    await hand.claimed(name)
    await hand.settle(name, 1, "retrying", 60_000)

    assert await hand.claim(name) == NothingOpen()

    assert (await hand.record(name)).status == "retrying"
    assert [row.delivery_id for row in await hand.ready(PARTITION, ahead_ms=61_000)] == [name]
    assert await hand.ready(PARTITION, ahead_ms=50_000) == []


async def test_deliveries_cut_off_again_come_back_apart(hand: Hand) -> None:
    """The first time at once; then one of them may be what stops the nodes, and must not take the others along."""
    neighbours = [key for key in map(str, range(4000)) if locate(key)[1] == PARTITION][:12]
    names = [await hand.frozen(key, "m1") for key in neighbours]
    for name in names:
        await hand.claimed(name)
    await hand.take(PARTITION)
    assert {row.due_in_ms for row in await hand.ready(PARTITION)} == {0}
    assert len(await hand.ready(PARTITION)) == len(names)

    for name in names:
        await hand.claimed(name)
    await hand.take(PARTITION)
    times = sorted(row.due_in_ms for row in await hand.ready(PARTITION, ahead_ms=2_000))
    assert len(times) == len(names)
    assert times[-1] - times[0] > 300
