"""All deliveries of a node: what starts when, what a dead host costs the others, and how a node stops."""

from __future__ import annotations

import asyncio

import pytest

from actors.deliveries import HOSTS_QUIET_MAX, RUNNING_MAX
from actors.host import CONCURRENCY, STARTED_DOUBTFUL, STARTED_FIRST, WAITING_MAX
from actors.ports import Claim, DeliveryFilter, Fenced, ListCursor, Next, NothingOpen, Ready, WrongState
from tests.support.delivery_rig import ALIVE, DEAD, HOLD_S, DeliveryRig
from tests.support.doubles import OK, REFUSED, Stage, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks


@in_virtual_time
async def test_what_is_offered_is_delivered() -> None:
    """At once, by a job that leaves nothing behind."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        ready = await rig.batch()
        assert rig.offer(ready) == [True]
        assert rig.deliveries.running == 1
        await passing(0.1)
        assert rig.of(ready).status == "delivered"
        assert rig.deliveries.running == 0
        assert rig.deliveries._hosts == {}


@in_virtual_time
async def test_telling_it_again_changes_nothing() -> None:
    """While it waits for its time, while it is claimed and while it is out."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[ALIVE] = 1.0
        ready = await rig.batch()
        later = Ready(ready.partition, ready.delivery_id, ready.host, 500)
        rig.offer(later)
        await passing(0.1)
        rig.offer(later)
        assert len(rig.deliveries._wheel) == 1
        await passing(0.6)
        for _ in range(5):
            rig.offer(ready)
            await passing(0.1)
        await passing(5.0)
        assert len(rig.webhooks.sent) == 1
        assert rig.store.faults.count("claim") == 1


@pytest.mark.parametrize("due_in_s", [0.05, 0.6, 9.0, 60.0, 3599.5])
@in_virtual_time
async def test_nothing_starts_before_its_time(due_in_s: float) -> None:
    """However far away that is: a webhook that asked for an hour gets its hour."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        ready = await rig.batch()
        due_at = stage.clock.monotonic() + due_in_s
        rig.offer(Ready(ready.partition, ready.delivery_id, ready.host, round(due_in_s * 1000)))
        await passing(due_in_s + 1.0)
        [at] = rig.webhooks.times()
        assert due_at <= at <= due_at + 0.02


@in_virtual_time
async def test_a_timer_of_another_time_does_nothing() -> None:
    """Somebody asked for a waiting delivery now, and it failed: the wait that follows is a new one."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.default = REFUSED
        ready = await rig.batch()
        rig.offer(Ready(ready.partition, ready.delivery_id, ready.host, 500))
        await passing(0.1)
        assert isinstance(await rig.deliveries.retry(ready.delivery_id, ready.partition), Next)
        await passing(3.0)
        assert len(rig.webhooks.sent) == 1
        assert rig.of(ready).status == "retrying"


@in_virtual_time
async def test_the_batches_of_a_key_go_out_in_order() -> None:
    """Each starts when the one before is delivered, without a sweep in between."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[ALIVE] = 0.5
        readies = [await rig.batch(key="k") for _ in range(4)]
        rig.offer(*readies)
        await passing(3.0)
        assert rig.webhooks.ids() == [ready.delivery_id for ready in readies]
        assert rig.webhooks.under_way_max == {ALIVE: 1}


@in_virtual_time
async def test_a_host_that_hangs_costs_the_others_nothing() -> None:
    """So many requests are out at it at once, and no more; the others don't notice."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[DEAD] = 100.0
        rig.offer(*await rig.batches(100, DEAD))
        await passing(1.0)
        assert rig.webhooks.under_way[DEAD] == rig.deliveries.running == STARTED_FIRST
        began = stage.clock.monotonic()
        alive = await rig.batches(50)
        rig.offer(*alive)
        await passing(0.1)
        assert set(rig.statuses(*alive)) == {"delivered"}
        assert max(rig.webhooks.times()) < began + 0.1
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_attempts_of_a_node_are_bounded_and_every_host_gets_its_turn() -> None:
    """Hosts that found no room start as others end."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        hosts = [f"h{number}.example" for number in range(RUNNING_MAX // STARTED_FIRST + 8)]
        rig.webhooks.took_s = dict.fromkeys(hosts, 1.0)
        running: list[int] = []
        rig.webhooks.on_send = lambda _request: running.append(rig.deliveries.running)
        readies = [ready for host in hosts for ready in await rig.batches(STARTED_FIRST, host)]
        rig.offer(*readies)
        await passing(20.0)
        assert max(running) == RUNNING_MAX
        assert set(rig.statuses(*readies)) == {"delivered"}
        assert rig.deliveries.running == 0
        assert rig.deliveries._hosts == {}


@in_virtual_time
async def test_a_full_line_is_said() -> None:
    """What finds no room, or has to wait in the line, is left to a later sweep, which may look behind it."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[DEAD] = 100.0
        readies = await rig.batches(STARTED_FIRST + WAITING_MAX + 1, DEAD)
        answers = rig.offer(*readies)
        assert answers == [True] * STARTED_FIRST + [False] * (WAITING_MAX + 1)
        assert rig.offer(readies[0], readies[-2], readies[-1]) == [True, False, False]
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_a_host_that_does_not_answer_costs_a_probe_now_and_then() -> None:
    """After five failures one attempt a second, two, four …; when it answers again all go out."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        opened_at = stage.clock.monotonic() - 0.1
        waiting = await rig.batches(50, DEAD)
        rig.offer(*waiting)
        await passing(6.5)
        assert [round(at - opened_at, 1) for at in rig.webhooks.times()] == [1.0, 3.0]
        rig.webhooks.refusing.clear()
        await passing(1.0)
        assert rig.deliveries.open_breakers == 0
        assert rig.statuses(*waiting) == ["retrying"] * 2 + ["delivered"] * 48


@in_virtual_time
async def test_a_dead_hosts_deliveries_come_to_their_end() -> None:
    """Held back by the breaker for `hold_s` at the most, each is tried all the same, and dies of its own failures."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        readies = await rig.batches(100, DEAD, max_retries=0)
        rig.offer(*readies)
        began = stage.clock.monotonic()
        await passing(HOLD_S + 0.5)
        assert set(rig.statuses(*readies)) == {"dead"}
        assert max(rig.webhooks.times()) <= began + HOLD_S + 0.1


@in_virtual_time
async def test_a_host_that_stays_dead_does_not_heap_up_timers() -> None:
    """One that was overtaken by an earlier one comes to nothing when it fires: it does not set another."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        rig.webhooks.took_s[DEAD] = 0.2
        pending: list[int] = []
        for _ in range(200):
            rig.offer(await rig.batch(DEAD, max_retries=20))
            rig.offer_due()
            await passing(0.5)
            pending.append(rig.clock.pending)
        assert set(pending[60:]) <= {0, 1}, "some that no longer mean anything stayed alive"
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_a_probe_that_was_gone_holds_nobody() -> None:
    """Discarded meanwhile: the next in the line is the probe."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        rig.webhooks.refusing.clear()
        first, second = await rig.batches(2, DEAD)
        rig.offer(first, second)
        assert isinstance(await rig.deliveries.discard(first.delivery_id, first.partition), Next)
        await passing(1.5)
        assert rig.of(second).status == "delivered"


@in_virtual_time
async def test_a_batch_that_crashes_its_attempt_becomes_a_dead_letter() -> None:
    """Through `give_up`; the next of its key starts, its neighbours go on, and the crash is counted and reported."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        poison, behind, neighbour = await rig.batch(key="k"), await rig.batch(key="k"), await rig.batch()
        rig.of(poison).batch.messages.clear()
        rig.offer(poison, neighbour)
        await passing(1.0)
        assert rig.statuses(poison, behind, neighbour) == ["dead", "delivered", "delivered"]
        assert stage.crash_names() == ["attempt"]
        assert value(stage.meters.actor_restarts) == 1
        assert rig.deliveries.running == 0


@in_virtual_time
async def test_an_attempt_that_cannot_be_started_is_left_to_a_sweep() -> None:
    """The supervisor takes no more jobs: the host is not stuck with a delivery that never runs."""
    async with Stage(jobs_max=1) as stage:
        rig = await DeliveryRig(stage).start()
        gate = asyncio.Event()

        async def job() -> None:
            await gate.wait()

        stage.supervisor.spawn("other", job())
        ready = await rig.batch()
        rig.offer(ready)
        assert rig.deliveries.running == 0
        gate.set()
        await ticks()
        stage.supervisor._jobs_max = 100
        rig.offer_due()
        await passing(1.0)
        assert rig.of(ready).status == "delivered"


@in_virtual_time
async def test_a_lost_partition_posts_nothing() -> None:
    """What waits in a line is not even claimed; nothing of it stays in the line."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        ready, other = await rig.batches(2, DEAD)
        rig.offer(ready, other)
        rig.store.lose(ready.partition)
        owner = rig.store.owned[ready.partition]
        rig.ownership.fenced(ready.partition, Fenced(owner.epoch, owner.node))
        await passing(2.0)
        assert rig.webhooks.ids() == [other.delivery_id]


@in_virtual_time
async def test_a_stop_waits_for_what_is_under_way_and_gives_back_the_rest() -> None:
    """Nothing is begun any more; what does not end in time is ready for the next owner, untried."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s = {ALIVE: 1.0, DEAD: 60.0}
        quick, slow, never = await rig.batch(), await rig.batch(DEAD), await rig.batch()
        rig.offer(quick, slow, Ready(never.partition, never.delivery_id, never.host, 1500))
        await passing(0.5)
        began = stage.clock.monotonic()
        draining = stage.supervisor.spawn("drain", rig.deliveries.drain(2.0))
        await ticks(2)
        assert rig.offer(await rig.batch()) == [False]
        await draining
        assert stage.clock.monotonic() - began == pytest.approx(2.0, abs=0.1)
        assert rig.statuses(quick, slow, never) == ["delivered", "pending", "pending"]
        assert slow.delivery_id in rig.store.ready
        assert rig.deliveries.running == 0
        await passing(60.0)
        assert len(rig.webhooks.sent) == 2


@in_virtual_time
async def test_a_stop_without_anything_under_way_is_at_once() -> None:
    """No wait for nothing."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        began = stage.clock.monotonic()
        await rig.deliveries.drain(2.0)
        assert stage.clock.monotonic() == began


@in_virtual_time
async def test_a_stop_without_a_store_ends_all_the_same() -> None:
    """What cannot be given back stays claimed, for the next owner to take over; that is said."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[ALIVE] = 60.0
        ready = await rig.batch()
        rig.offer(ready)
        await passing(0.5)
        rig.store.faults.before["release"] = 1000
        await rig.deliveries.drain(1.0)
        assert rig.of(ready).status == "delivering"
        assert stage.journal.phrases() == ["deliveries not given back"]


@in_virtual_time
async def test_a_dead_letter_is_tried_again_on_demand() -> None:
    """One by one; one that is not dead, not there, or not this node's says so."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.default = REFUSED
        ready = await rig.batch(max_retries=0)
        rig.offer(ready)
        await passing(1.0)
        assert rig.of(ready).status == "dead"
        rig.webhooks.default = OK
        assert await rig.deliveries.retry(ready.delivery_id, ready.partition) == Next(ready)
        await passing(1.0)
        assert rig.of(ready).status == "delivered"
        assert await rig.deliveries.retry(ready.delivery_id, ready.partition) == WrongState("delivered")
        assert await rig.deliveries.retry("dlv_00none", 0) == NothingOpen()
        rig.store.lose(0)
        assert isinstance(await rig.deliveries.retry("dlv_00none", 0), Fenced)
        assert rig.ownership.epoch(0) == 0


@in_virtual_time
async def test_dead_letters_are_tried_again_in_bulk() -> None:
    """All pages of them; only those of the key and of the time that were asked for."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.default = REFUSED
        readies = [await rig.batch(max_retries=0, key="k" if number == 7 else "") for number in range(250)]
        late = await rig.batch(max_retries=0)
        rig.store.deliveries[late.delivery_id].created_ms += 60_000
        rig.offer(*readies, late)
        for _ in range(60):
            await passing(1.0)
            rig.offer_due()
        assert {of.status for of in rig.store.deliveries.values()} == {"dead"}
        rig.webhooks.default = OK
        until_ms = max(rig.of(ready).created_ms for ready in readies)
        assert await rig.deliveries.retry_dead("k", 0, until_ms) == 1
        assert await rig.deliveries.retry_dead(None, 0, until_ms) == 249
        await passing(60.0)
        assert set(rig.statuses(*readies)) == {"delivered"}
        assert rig.of(late).status == "dead"


@in_virtual_time
async def test_a_delivery_can_be_given_up() -> None:
    """The next of its key starts; counted once; what is under way or over cannot be."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        first, second = await rig.batch(key="k"), await rig.batch(key="k")
        assert await rig.deliveries.discard(first.delivery_id, first.partition) == Next(second)
        await passing(1.0)
        assert rig.statuses(first, second) == ["discarded", "delivered"]
        assert value(stage.meters.deliveries["discarded"]) == 1
        assert await rig.deliveries.discard(second.delivery_id, second.partition) == WrongState("delivered")
        assert value(stage.meters.deliveries["discarded"]) == 1


@in_virtual_time
async def test_looking_goes_to_the_store() -> None:
    """One, and a page of them."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        ready = await rig.batch()
        found = await rig.deliveries.get(ready.delivery_id)
        assert found is not None
        assert (found.delivery_id, found.status) == (ready.delivery_id, "pending")
        assert await rig.deliveries.get("dlv_00none") is None
        page, cursor = await rig.deliveries.list_deliveries(DeliveryFilter(), ListCursor(), 10)
        assert ([row.delivery_id for row in page], cursor) == ([ready.delivery_id], None)


@in_virtual_time
async def test_hosts_that_failed_are_remembered_within_bounds() -> None:
    """A breaker outlives the quiet in between; but of hosts that fail once each, however many, only the last stay."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.default = REFUSED
        for number in range(HOSTS_QUIET_MAX + 300):
            rig.offer(await rig.batch(f"h{number}.example", max_retries=0))
        await passing(1.0)
        assert len(rig.deliveries._hosts) == len(rig.deliveries._slots) == HOSTS_QUIET_MAX
        await rig.open_breaker()
        await passing(1.0)
        assert rig.deliveries.open_breakers == 1
        assert len(rig.deliveries._hosts) == HOSTS_QUIET_MAX
        rig.webhooks.default = OK
        rig.offer(*[await rig.batch(f"h{number}.example") for number in range(HOSTS_QUIET_MAX + 300)])
        await passing(1.0)
        assert list(rig.deliveries._hosts) == [DEAD]


@in_virtual_time
async def test_a_host_that_failed_and_is_busy_is_not_forgotten() -> None:
    """However many fail after it: a second line for it would be twice the load."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.default = REFUSED
        rig.offer(await rig.batch(DEAD, max_retries=0))
        await passing(1.0)
        rig.webhooks.took_s[DEAD] = 100.0
        rig.offer(*await rig.batches(CONCURRENCY, DEAD))
        rig.offer(*[await rig.batch(f"h{number}.example", max_retries=0) for number in range(HOSTS_QUIET_MAX + 1)])
        await passing(1.0)
        rig.offer(*await rig.batches(CONCURRENCY, DEAD))
        await passing(1.0)
        assert rig.webhooks.under_way[DEAD] == STARTED_DOUBTFUL
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_a_host_that_recovered_is_forgotten() -> None:
    """Also when a timer was still set for it."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        await rig.open_breaker()
        readies = await rig.batches(3, DEAD)
        rig.webhooks.took_s[DEAD] = 0.5
        rig.offer(*readies)
        rig.webhooks.refusing.clear()
        await passing(3.0)
        assert set(rig.statuses(*readies)) == {"delivered"}
        assert rig.deliveries._hosts == {}


@in_virtual_time
async def test_a_claim_that_nobody_knows_of_is_given_back() -> None:
    """Seen twice in a row, so that one whose answer is on its way is left alone; what is in hand is, too."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        rig.webhooks.took_s[ALIVE] = 60.0
        orphan, out = await rig.batches(2)
        epoch = rig.ownership.epoch(orphan.partition)
        await rig.store.work([Claim(partition=orphan.partition, epoch=epoch, delivery_id=orphan.delivery_id)])
        rig.offer(out)
        await passing(1.0)
        claimed = [orphan.delivery_id, out.delivery_id]
        await rig.deliveries.give_back_orphans(claimed)
        assert rig.statuses(orphan, out) == ["delivering", "delivering"]
        await rig.deliveries.give_back_orphans(claimed)
        assert rig.statuses(orphan, out) == ["pending", "delivering"]
        await rig.deliveries.give_back_orphans([])
        await rig.deliveries.give_back_orphans(claimed)
        assert rig.store.faults.count("release") == 1
        await rig.deliveries.drain(0.0)
