"""All buffer actors of a node: what a crash costs, what a lost partition does, and what a great many of them weigh."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from actors.core.partition import locate
from actors.ports import Appended, DueBatch, Fenced, Overloaded, StoreAway
from actors.runtime.supervisor import KEY_LIMIT, QUARANTINE_S
from tests.support.buffer_rig import BufferRig
from tests.support.doubles import Stage, make_entry, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks


@in_virtual_time
async def test_a_crash_replaces_the_actor() -> None:
    """Its caller was stored and is told so; the next message of the key is taken as if nothing had been."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        await rig.crash("k", 0)
        assert value(stage.meters.actor_restarts) == 1
        assert len(rig.buffers) == 0
        stored = await rig.buffers.append(make_entry(message_id="after", wait_ms=1000))
        assert stored.size == 1
        await passing(5.0)
        assert len(rig.store.deliveries) == 2
        assert len(rig.buffers) == 0


@in_virtual_time
async def test_callers_of_an_actor_that_crashes_are_told() -> None:
    """A flush that it crashed at: nobody can know what became of it."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        await rig.buffers.append(make_entry())
        rig.poison.add("dlv_poison")
        with pytest.raises(StoreAway, match="crashed"):
            await rig.buffers.flush("k", "dlv_poison")
        assert len(rig.buffers) == 0
        await passing(60.0)
        assert rig.store.faults.count("close") == 1


@in_virtual_time
async def test_a_poison_key_is_quarantined_and_its_neighbours_are_not() -> None:
    """Five crashes in half a minute are restarts; with the next one the key is left alone for a minute."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        neighbour = rig.buffers.append(make_entry("neighbour", wait_ms=20_000))
        for number in range(KEY_LIMIT.restarts):
            await rig.crash("k", number)
        assert (await rig.buffers.append(make_entry("k", "still taken"))).size == 1
        await rig.crash("k", KEY_LIMIT.restarts)
        with pytest.raises(Overloaded, match="quarantined"):
            rig.buffers.append(make_entry("k", "refused"))
        with pytest.raises(Overloaded):
            await rig.buffers.flush("k")
        kid, partition = locate("k")
        rig.buffers.heard([DueBatch(partition, kid, 1, 0)])
        assert rig.buffers.quarantined == 1
        assert (await neighbour).size == 1
        assert (await rig.buffers.append(make_entry("neighbour", "m2"))).size == 2
        await passing(30.0)
        assert rig.store.lines[locate("neighbour")[0]] == rig.closed_ids()


@in_virtual_time
async def test_a_message_that_was_under_way_as_its_key_was_quarantined_is_stored() -> None:
    """Its caller is told so; the actor is left alone all the same."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        for number in range(KEY_LIMIT.restarts):
            await rig.crash("k", number)
        last, late = asyncio.ensure_future(rig.crash("k", KEY_LIMIT.restarts)), make_entry("k", "late", wait_ms=1000)
        asyncio.get_running_loop().call_soon(lambda: waiting.append(rig.buffers.append(late)))
        waiting: list[asyncio.Future[Appended]] = []
        await last
        assert (await waiting[0]).size == 1
        assert stage.crashes == []
        assert rig.buffers.quarantined == 1
        assert len(rig.buffers) == 0


@in_virtual_time
async def test_a_quarantine_ends() -> None:
    """What the store holds of the key is found by the sweep then."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        for number in range(KEY_LIMIT.restarts + 1):
            await rig.crash("k", number)
        await rig.store.append([make_entry("k", "meanwhile", wait_ms=1000)])
        kid, partition = locate("k")
        due = DueBatch(partition, kid, rig.store.open[kid].deadline_ms, 1000)
        rig.buffers.heard([due])
        assert len(rig.buffers) == 0
        await passing(QUARANTINE_S)
        rig.buffers.heard([DueBatch(partition, kid, due.deadline_ms, 0)])
        await passing(1.0)
        assert kid not in rig.store.open
        assert (await rig.buffers.append(make_entry("k", "taken"))).size == 1
        assert rig.buffers.quarantined == 0


@in_virtual_time
async def test_an_owner_that_was_replaced_stops_at_once() -> None:
    """Fenced at a close: the partition is nobody's here any more, and its actors are let go without their timers."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        kid, partition = locate("k")
        await rig.buffers.append(make_entry(wait_ms=1000))
        rig.store.lose(partition)
        await passing(5.0)
        assert rig.ownership.epoch(partition) == 0
        assert kid in rig.store.open
        assert rig.ready == []
        assert len(rig.buffers) == 0
        assert rig.store.faults.count("close") == 1
        assert isinstance(await rig.buffers.flush("k"), Fenced)
        assert isinstance(await rig.buffers.drop("k"), Fenced)


@in_virtual_time
async def test_a_lost_partition_takes_its_actors_with_it_and_no_others() -> None:
    """Messages for it are still taken: any node may append."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        for key in ("a", "b"):
            await rig.buffers.append(make_entry(key, wait_ms=1000))
        rig.buffers.forget_partitions([locate("a")[1]])
        assert len(rig.buffers) == 1
        assert (await rig.buffers.append(make_entry("a", "m2", wait_ms=1000))).size == 2
        await passing(5.0)
        assert len(rig.ready) == 2


@in_virtual_time
async def test_ten_thousand_keys_due_at_once() -> None:
    """All are closed once, soon, in calls of a bounded size, and nothing is left."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        kids = [locate(f"key {number}") for number in range(10_000)]
        await rig.store.append([make_entry(f"key {number}", wait_ms=3000) for number in range(10_000)])
        due_at = stage.clock.monotonic() + 3.0
        rig.buffers.heard([DueBatch(partition, kid, rig.store.open[kid].deadline_ms, 3000) for kid, partition in kids])
        assert len(rig.buffers) == 10_000
        await passing(10.0)
        assert len(set(rig.closed_ids())) == 10_000
        assert max(at for at, _ in rig.ready) <= due_at + 0.1
        assert max(len(requests) for name, requests in rig.store.faults.calls if name == "close") <= 256
        assert len(rig.buffers) == 0
        assert rig.buffers.mailbox_depth == 0


IDLE_BYTES_MAX = 600
ACTORS = 10_000


@in_virtual_time
async def test_an_idle_buffer_has_no_task_and_costs_little() -> None:
    """With its place in the table and in the wheel: at most 600 bytes, measured over ten thousand."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        tasks = asyncio.all_tasks()
        now_ms = rig.store.now_ms()
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(ACTORS):
            kid, partition = locate(f"key {number}")
            # Spread as real ones are: a deadline of its own each, so that hardly two share a slot of the wheel.
            wait_ms = 2000 + number * 7919 % 60_000
            rig.buffers.heard([DueBatch(partition, kid, now_ms + wait_ms, wait_ms)])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(rig.buffers) == ACTORS
        assert (after - before) / ACTORS <= IDLE_BYTES_MAX
        await ticks()
        assert asyncio.all_tasks() == tasks
        assert rig.buffers.mailbox_depth == 0
