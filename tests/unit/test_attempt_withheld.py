"""A node that may not act any more between its claim and its post: nothing leaves, and nothing counts as tried."""

from __future__ import annotations

import asyncio

import pytest

from actors.core.membership import ACTS_S
from actors.ports import Owner
from tests.support.delivery_rig import ALIVE, DEAD, DeliveryRig
from tests.support.doubles import OK, REFUSED, Stage, observed, value
from tests.support.memory_store import CRASHES_MAX, EPOCH, NODE
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_attempt import Rig


@pytest.mark.parametrize("where", ["before the slot", "while connecting"])
@in_virtual_time
async def test_a_node_that_overslept_after_its_claim_posts_nothing(where: str) -> None:
    """Another may act there already. It gives the claim back: nothing was tried, so nothing is counted or said."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.ownership.beaten(stage.clock.boottime())
        ready = await rig.batch()
        if where == "while connecting":
            rig.webhooks.connecting_s = 2 * ACTS_S
        else:
            rig.slot = asyncio.Semaphore(0)
        attempt = rig.spawn(ready)
        await passing(0.5)
        assert rig.delivery().status == "delivering"
        await passing(ACTS_S)
        rig.slot.release()
        await attempt
        assert rig.webhooks.sent == []
        assert len(rig.webhooks.withheld) == (where == "while connecting")
        assert (rig.delivery().status, rig.delivery().claims, rig.delivery().failures) == ("pending", 0, 0)
        assert rig.store.ready.keys() == {"dlv_1"}
        assert rig.attempts.in_hand == {}
        assert rig.attempts.partitions_in_hand() == set()
        assert rig.reports == []
        assert observed(stage.meters.attempt_seconds) == []
        assert stage.journal.lines == []
        rig.webhooks.connecting_s = 0.0
        rig.ownership.beaten(stage.clock.boottime())
        await rig.run(ready)
        assert rig.delivery().status == "delivered"


@in_virtual_time
async def test_however_often_it_oversleeps_the_batch_is_no_poison() -> None:
    """Only attempts that were begun and never settled count as cut off."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.webhooks.connecting_s = 0.1
        for _ in range(3 * CRASHES_MAX):
            rig.ownership.beaten(stage.clock.boottime() - ACTS_S + 0.05)
            await rig.run(ready)
        assert len(rig.webhooks.withheld) == 3 * CRASHES_MAX
        assert rig.delivery().status == "pending"
        rig.ownership.beaten(stage.clock.boottime())
        await rig.run(ready)
        assert rig.delivery().status == "delivered"


@in_virtual_time
async def test_a_node_that_may_not_act_claims_nothing() -> None:
    """It holds the partition, as far as it knows."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        assert await rig.run(await rig.batch()) is None
        assert rig.store.faults.count("claim") == 0


@pytest.mark.parametrize("lost", [True, False], ids=["taken by another", "held back and kept"])
@in_virtual_time
async def test_a_partition_that_goes_while_it_connects(lost: bool) -> None:
    """Nothing is posted; the claim is given back if it is still this node's to give."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.connecting_s = 1.0
        ready = await rig.batch()
        attempt = rig.spawn(ready)
        await passing(0.5)
        assert rig.attempts.partitions_in_hand() == {ready.partition}
        rig.ownership.hold([ready.partition])
        if lost:
            rig.store.lose(ready.partition)
        await attempt
        rig.ownership.keep([ready.partition])
        assert rig.webhooks.sent == []
        assert rig.attempts.partitions_in_hand() == set()
        assert rig.delivery().status == ("delivering" if lost else "pending")
        assert bool(rig.ownership.epoch(ready.partition)) is not lost


@in_virtual_time
async def test_a_claim_answered_after_its_partition_was_taken_anew_posts_nothing() -> None:
    """The epoch it was claimed under is past, though the partition is this node's again: what was in hand under the
    old one has been put back, and perhaps another attempt of it is under way."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        answer = rig.store.faults.answers["claim"] = asyncio.Event()
        attempt = rig.spawn(ready)
        await passing(0.1)
        rig.store.owned[ready.partition] = Owner(EPOCH, "")
        await rig.ownership.look(frozenset({NODE}))
        rig.ownership.beaten(float("inf"))
        answer.set()
        await attempt
        assert rig.webhooks.sent == []
        assert rig.ownership.epoch(ready.partition) == rig.store.owned[ready.partition].epoch
        await rig.run(ready)
        assert rig.webhooks.ids() == ["dlv_1"]


@in_virtual_time
async def test_what_was_held_back_is_given_back_when_the_store_returns() -> None:
    """It is not in hand any more meanwhile: a move of its partition need not wait, and puts it back itself."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.connecting_s = 0.1
        rig.store.faults.before["release"] = 20
        ready = await rig.batch()
        attempt = rig.spawn(ready)
        await passing(0.05)
        rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        await passing(1.0)
        assert not attempt.done()
        assert rig.delivery().status == "delivering"
        await attempt
        assert rig.delivery().status == "pending"
        assert await rig.attempts.release_all() == 0


@in_virtual_time
async def test_a_probe_that_was_withheld_leaves_its_place_to_the_next() -> None:
    """The breaker learned nothing: it neither opens for longer nor waits for an outcome that never comes."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        rig.webhooks.refusing.clear()
        rig.webhooks.connecting_s = 0.3
        first, second = await rig.batches(2, DEAD)
        rig.offer(first, second)
        await passing(1.1)
        assert rig.deliveries.running == 1, "the probe"
        rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        await passing(0.3)
        assert len(rig.webhooks.withheld) == 1
        assert rig.statuses(first, second) == ["pending", "pending"]
        rig.ownership.beaten(float("inf"))
        began = stage.clock.monotonic()
        rig.offer_due()
        await passing(2.0)
        assert rig.statuses(first, second) == ["delivered", "delivered"]
        assert min(rig.webhooks.times()) - began <= 1.0
        assert rig.deliveries.open_breakers == 0


@in_virtual_time
async def test_a_node_that_may_not_act_spins_over_nothing() -> None:
    """What is offered meanwhile is left to a sweep; when it may act again everything goes out, in order."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        readies = [await rig.batch(ALIVE, "k") for _ in range(3)] + await rig.batches(50)
        for _ in range(8):
            rig.offer_due()
            await passing(0.25)
        assert rig.store.faults.count("claim") == 0
        assert rig.webhooks.sent == []
        assert rig.deliveries.running == 0
        rig.ownership.beaten(float("inf"))
        rig.offer_due()
        await passing(1.0)
        assert set(rig.statuses(*readies)) == {"delivered"}
        line = [ready.delivery_id for ready in readies[:3]]
        assert [name for name in rig.webhooks.ids() if name in line] == line


@in_virtual_time
async def test_the_outcome_of_a_request_that_was_out_is_written_under_its_own_epoch() -> None:
    """The partition is held back, or the node oversleeps, while a webhook answers: what it took is not asked again."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.took_s["a.example"] = 1.0
        attempt = rig.spawn(ready := await rig.batch())
        await passing(0.5)
        rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        rig.ownership.hold([ready.partition])
        assert rig.attempts.partitions_in_hand() == {ready.partition}
        await attempt
        assert rig.delivery().status == "delivered"
        assert rig.reports == [OK]
        assert value(stage.meters.fenced) == 0


@in_virtual_time
async def test_a_webhook_that_failed_while_the_node_overslept_counts_as_failed() -> None:
    """It was asked."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.default = REFUSED
        rig.webhooks.on_send = lambda _request: rig.ownership.beaten(stage.clock.boottime() - ACTS_S)
        await rig.run(await rig.batch())
        assert (rig.delivery().status, rig.delivery().failures) == ("retrying", 1)
        assert rig.reports == [REFUSED]
