"""The sweep: how a node learns of what is due and was not told of, and what it says of the store."""

from __future__ import annotations

from collections import deque
from itertools import count

import pytest

from actors.buffers import Buffers
from actors.core.partition import PARTITIONS, locate
from actors.ports import Claim, Ready
from actors.sweeper import CENSUS_EVERY, PERIOD_S, ROWS_MAX, Sweeper
from actors.tail import KEPT_S, Tail
from tests.support.delivery_rig import ALIVE, DEAD, DeliveryRig
from tests.support.doubles import REFUSED, Stage, make_entry, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time


class Rig(DeliveryRig):
    """A sweeper over buffers and deliveries of one store."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.stage = stage
        self.buffers = Buffers(self.store, self.ownership, stage.supervisor, self.clock, stage.meters)
        ids = count()
        self.buffers.make_delivery_id = lambda partition: f"dlv_{partition:02x}s{next(ids)}"
        self.buffers.on_closed = self.deliveries.offer
        self.ownership.on_lost = self.buffers.forget_partitions
        self.tail = Tail()
        self.sweeper = Sweeper(self.store, self.ownership, self.buffers, self.deliveries, self.tail)

    def run(self) -> None:
        """Sweep as a service."""
        stage = self.stage
        stage.supervisor.service("sweeper", lambda: self.sweeper.run(self.clock, stage.meters, stage.journal))

    async def in_partition(self, partition: int, rows: int, host: str) -> list[Ready]:
        """So many closed batches of one partition that nobody has told this node of."""
        keys = (f"{host} {number}" for number in count())
        mine = (key for key in keys if locate(key)[1] == partition)
        return [await self.batch(host, next(mine), max_retries=0) for _ in range(rows)]


async def rig_of(stage: Stage) -> Rig:
    """A rig that holds every partition."""
    rig = Rig(stage)
    await rig.start()
    return rig


@in_virtual_time
async def test_one_sweep_finds_what_is_due() -> None:
    """Open batches and deliveries, those due soon included, and says how many."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        for number, wait_ms in enumerate((100, 500, 5000)):
            await rig.store.append([make_entry(f"k{number}", wait_ms=wait_ms)])
        ready, later = await rig.batches(2)
        rig.store.ready[later.delivery_id] = rig.store.now_ms() + 60_000
        assert await rig.sweeper.run_once() == (2, 1)
        assert len(rig.buffers) == 2
        await passing(2.0)
        assert rig.of(ready).status == "delivered"
        assert len(rig.store.open) == 1


@in_virtual_time
async def test_only_partitions_that_are_held_are_looked_at() -> None:
    """The others are swept by their owners."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        await rig.sweeper.run_once()
        assert len(rig.store.faults.requests("sweep")) == PARTITIONS
        await rig.ownership.resign(range(PARTITIONS))
        assert await rig.sweeper.run_once() == (0, 0)
        assert len(rig.store.faults.requests("sweep")) == PARTITIONS


@in_virtual_time
async def test_what_was_left_by_others_is_done() -> None:
    """Batches of a node that died, retries, all without anybody telling: in time and once."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.run()
        began = stage.clock.monotonic()
        await rig.store.append([make_entry("k", wait_ms=3000)])
        rig.webhooks.answers["a.example"] = deque([REFUSED])
        await passing(20.0)
        first, second = rig.webhooks.times()
        assert began + 3.0 <= first <= began + 3.05
        assert first + 5.0 <= second <= first + 5.05
        [of] = rig.store.deliveries.values()
        assert of.status == "delivered"
        assert stage.crashes == []


@in_virtual_time
async def test_a_backlog_is_worked_off_in_bites() -> None:
    """So many rows of a partition a sweep, and none is left in the end."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        readies = await rig.in_partition(3, 5 * ROWS_MAX, ALIVE)
        found = [await rig.sweeper.run_once()]
        rig.run()
        await passing(10.0)
        assert found == [(0, ROWS_MAX)]
        assert set(rig.statuses(*readies)) == {"delivered"}


@in_virtual_time
async def test_many_batches_of_one_partition_that_others_stored_close_in_time() -> None:
    """Nobody rang for them, because the sweep was to see them in time; and it does, all that fall due together."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.run()
        keys = (f"k{number}" for number in count())
        mine = [next(key for key in keys if locate(key)[1] == 3) for _ in range(20 * ROWS_MAX)]
        began = stage.clock.monotonic()
        await rig.store.append([make_entry(key, wait_ms=3000, host=f"{key}.example") for key in mine])
        await passing(6.0)
        assert len(rig.webhooks.times()) == len(mine)
        assert max(rig.webhooks.times()) - began < 3.0 + PERIOD_S


@in_virtual_time
async def test_a_dead_hosts_backlog_hides_nobody() -> None:
    """Many rows of a host that hangs are in front of another host's in the same partition, waiting in its line."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.webhooks.took_s[DEAD] = 1000.0
        rig.offer(*await rig.batches(40, DEAD))
        dead = await rig.in_partition(3, 4 * ROWS_MAX, DEAD)
        await passing(0.01)
        alive = await rig.in_partition(3, 2, ALIVE)
        rig.run()
        await passing(3.0)
        assert rig.statuses(*alive) == ["delivered"] * 2
        assert set(rig.statuses(*dead)) == {"pending"}
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_a_short_backlog_is_not_passed_over() -> None:
    """Nothing can be hidden behind it, and what makes room is seen by the next sweep."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        await rig.open_breaker()
        await rig.in_partition(3, ROWS_MAX - 1, DEAD)
        assert [await rig.sweeper.run_once() for _ in range(3)] == [(0, ROWS_MAX - 1)] * 3


@in_virtual_time
async def test_what_was_passed_over_is_found_again() -> None:
    """At the end of the backlog the sweep begins anew at its front."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        await rig.open_breaker()
        readies = await rig.in_partition(3, 3 * ROWS_MAX + 5, DEAD)
        rig.run()
        await passing(30.0)
        assert set(rig.statuses(*readies)) == {"dead"}


@in_virtual_time
async def test_a_store_that_is_away_is_said_once() -> None:
    """When it goes and when it comes back, not at every sweep; sweeping goes on in between."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.run()
        await passing(1.0)
        swept = rig.store.faults.count("sweep")
        rig.store.faults.before["sweep"] = 10
        await passing(10.0)
        assert stage.journal.lines == [
            ("warning", "store is away", {"reason": "the store is away"}),
            ("info", "store is back", {}),
        ]
        assert rig.store.faults.count("sweep") - swept >= 10.0 / (PERIOD_S + 0.01) - 1
        assert stage.crashes == []


@in_virtual_time
async def test_a_census_that_fails_is_a_store_that_is_away() -> None:
    """The sweep before it counted all the same."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.store.faults.before["census"] = 1
        ready = await rig.batch()
        rig.run()
        await passing(5.0)
        assert rig.of(ready).status == "delivered"
        assert stage.journal.phrases() == ["store is away", "store is back"]


@in_virtual_time
async def test_the_gauges_are_kept() -> None:
    """Every eighth sweep: what is open, how old the oldest is, and what is held back here."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        await rig.open_breaker()
        rig.webhooks.default = REFUSED
        for number in range(3):
            await rig.store.append([make_entry(f"k{number}", wait_ms=60_000)])
        rig.run()
        await passing(1.9 * CENSUS_EVERY * PERIOD_S)
        assert rig.store.faults.count("census") == 2
        assert value(stage.meters.open_batches) == 3
        assert value(stage.meters.oldest_waiting_seconds) == pytest.approx(0.1 + CENSUS_EVERY * PERIOD_S, abs=0.1)
        assert value(stage.meters.breaker_open) == 1
        assert value(stage.meters.mailbox_depth) == 0
        assert value(stage.meters.quarantined) == 0


@in_virtual_time
async def test_claims_that_nobody_knows_of_are_given_back() -> None:
    """A store that lost the end of its log may keep a claim and forget its outcome."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        ready = await rig.batch()
        epoch = rig.ownership.epoch(ready.partition)
        await rig.store.work([Claim(partition=ready.partition, epoch=epoch, delivery_id=ready.delivery_id)])
        rig.run()
        await passing(3 * CENSUS_EVERY * PERIOD_S)
        assert rig.of(ready).status == "delivered"


@in_virtual_time
async def test_the_tail_is_trimmed_while_nothing_comes() -> None:
    """Also while the store is away: what is too old would not be lost any more."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.store.faults.before["sweep"] = 1000
        rig.tail.keep([make_entry()], stage.clock.monotonic())
        rig.run()
        await passing(KEPT_S - 0.1)
        assert len(rig.tail.entries()) == 1
        await passing(0.1 + 2 * PERIOD_S)
        assert rig.tail.entries() == []
