"""All buffer actors of a node: what callers are told, and what reaches the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.buffer import RETRY_CLOSE_S, Buffer
from actors.committer import QUEUE_BYTES_MAX
from actors.core.ids import derived_delivery_id
from actors.core.partition import locate
from actors.ports import (
    Appended,
    ClosedBatch,
    DueBatch,
    Entry,
    ListCursor,
    NothingOpen,
    Overloaded,
    Ready,
    StoreAway,
)
from tests.support.buffer_rig import LATE_S_MAX, BufferRig
from tests.support.doubles import Stage, make_entry, observed, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks


@in_virtual_time
async def test_an_append_is_answered_when_it_is_stored() -> None:
    """Not before; with what the batch holds then."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.gates["append"] = asyncio.Event()
        answer = rig.buffers.append(make_entry(payload=b"{}"))
        await passing(0.5)
        assert not answer.done()
        assert rig.store.open == {}
        rig.store.faults.gates["append"].set()
        stored = await answer
        assert (stored.size, stored.size_bytes, stored.duplicate, stored.closed) == (1, 2, False, None)
        assert stored.remaining_ms == 20_000
        assert value(stage.meters.accepted) == 1


@in_virtual_time
async def test_a_window_closes_in_time_and_is_forgotten() -> None:
    """One close, at the deadline of its first message, and nothing of the key is left in memory."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        began = stage.clock.monotonic()
        for number in range(3):
            await rig.buffers.append(make_entry(message_id=f"m{number}", wait_ms=2000))
            await passing(0.5)
        assert len(rig.buffers) == 1
        await passing(10.0)
        [(at, ready)] = rig.ready
        assert ready == Ready(locate("k")[1], f"dlv_{locate('k')[1]:02x}1", "a.example", 0)
        assert began + 2.0 <= at <= began + 2.0 + LATE_S_MAX
        assert rig.store.faults.count("close") == 1
        assert len(rig.buffers) == 0
        assert value(stage.meters.batches["timeout"]) == 1
        assert observed(stage.meters.batch_messages) == [3]


@in_virtual_time
async def test_the_message_that_fills_a_batch_closes_it() -> None:
    """In the store's own script: no close is asked, the timer is taken back, the actor is let go."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        answers = [await rig.buffers.append(make_entry(message_id=f"m{n}", max_size=3)) for n in range(3)]
        assert [answer.size for answer in answers] == [1, 2, 3]
        assert answers[2].closed is not None
        assert rig.closed_ids() == [answers[2].closed.delivery_id]
        assert len(rig.buffers) == 0
        await passing(60.0)
        assert rig.store.faults.count("close") == 0
        assert value(stage.meters.batches["size"]) == 1


@in_virtual_time
async def test_a_batch_that_opens_as_the_one_before_closes_is_woken_for() -> None:
    """Both answered together, in the millisecond in which that one was opened: its deadline is the same."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.latency_s = 0.0
        entries = [make_entry(message_id=f"m{n}", max_size=2, wait_ms=300) for n in range(3)]
        first = await rig.buffers.append(entries[0])
        full, opened = await asyncio.gather(*(rig.buffers.append(entry) for entry in entries[1:]))
        assert full.closed is not None
        assert (opened.size, opened.deadline_ms) == (1, first.deadline_ms)
        await passing(0.3 + LATE_S_MAX)
        assert rig.store.open == {}


@pytest.mark.parametrize("hook", ["on_opened", "on_stored"])
@in_virtual_time
async def test_a_watcher_that_crashes_costs_nobody_a_timer(hook: str) -> None:
    """Nor an answer; it is reported."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()

        def hopeless(*_: object) -> None:
            raise ZeroDivisionError

        setattr(rig.buffers, hook, hopeless)
        assert (await rig.buffers.append(make_entry(wait_ms=300))).size == 1
        assert stage.crash_names() == ["append"]
        await passing(0.3 + LATE_S_MAX)
        assert rig.store.open == {}


@in_virtual_time
async def test_a_debounce_moves_its_deadline_and_no_timer() -> None:
    """Each message moves the deadline away; the timer finds that out when it fires, and the store is asked once."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        began = stage.clock.monotonic()
        for number in range(20):
            await rig.buffers.append(
                make_entry(message_id=f"m{number}", wait_ms=1000, max_wait_ms=60_000, max_size=1000)
            )
            await passing(0.3)
        await passing(10.0)
        last_came = began + 19 * 0.301
        [(at, _)] = rig.ready
        assert last_came + 1.0 <= at <= last_came + 1.0 + 2 * LATE_S_MAX
        assert rig.store.faults.count("close") == 1


@in_virtual_time
async def test_a_batch_that_another_node_moved_is_closed_later() -> None:
    """The store says that it is not due yet, and when it will be; the timer is set again for that time."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        began = stage.clock.monotonic()
        await rig.buffers.append(make_entry(wait_ms=1000, max_wait_ms=60_000))
        await passing(0.5)
        await rig.store.append([make_entry(message_id="elsewhere", wait_ms=1000, max_wait_ms=60_000)])
        await passing(10.0)
        [(at, _)] = rig.ready
        assert began + 1.5 <= at <= began + 1.5 + LATE_S_MAX
        assert rig.store.faults.count("close") == 2
        assert len(rig.buffers) == 0


@in_virtual_time
async def test_a_sweep_brings_what_this_node_never_saw() -> None:
    """A batch from before a restart, or that another node appended; hearing of it again changes nothing."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        kid, partition = locate("k")
        await rig.store.append([make_entry(wait_ms=500)])
        deadline_ms = rig.store.open[kid].deadline_ms
        for _ in range(3):
            rig.buffers.heard([DueBatch(partition, kid, deadline_ms, deadline_ms - rig.store.now_ms())])
            await passing(0.1)
        assert len(rig.buffers) == 1
        await passing(1.0)
        assert len(rig.ready) == 1
        assert rig.store.faults.count("close") == 1


@in_virtual_time
async def test_a_close_that_failed_is_tried_again() -> None:
    """While the store is away every quarter of a second; an answer that was lost is no second batch."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.before["close"] = 3
        await rig.buffers.append(make_entry("a", wait_ms=1000))
        began = stage.clock.monotonic()
        await passing(5.0)
        [(at, _)] = rig.ready
        assert at == pytest.approx(began + 1.0 + 3 * RETRY_CLOSE_S, abs=4 * LATE_S_MAX)
        rig.store.faults.after["close"] = 1
        await rig.buffers.append(make_entry("b", wait_ms=1000))
        await passing(5.0)
        assert len(rig.store.deliveries) == 2
        assert len(rig.buffers) == 0


@in_virtual_time
async def test_a_flush_closes_now() -> None:
    """Under the id that was asked for; asked again with it, it is the same answer and no second batch."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        await rig.buffers.append(make_entry())
        await rig.buffers.append(make_entry(message_id="m2"))
        name = derived_delivery_id(locate("k")[1], "seed")
        first = await rig.buffers.flush("k", name)
        again = await rig.buffers.flush("k", name)
        assert first == again == ClosedBatch(name, 2, "a.example", "manual", True)
        assert await rig.buffers.flush("k") == NothingOpen()
        assert set(rig.closed_ids()) == {name}
        await passing(60.0)
        assert rig.store.faults.count("close") == 3
        assert len(rig.buffers) == 0


@in_virtual_time
async def test_a_dropped_batch_is_forgotten() -> None:
    """Its timer too; dropping what is not there says so."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        await rig.buffers.append(make_entry(wait_ms=1000))
        await rig.buffers.append(make_entry(message_id="m2", wait_ms=1000))
        assert await rig.buffers.drop("k") == 2
        assert await rig.buffers.drop("k") == NothingOpen()
        assert len(rig.buffers) == 0
        await passing(10.0)
        assert rig.store.faults.count("close") == 0
        assert rig.ready == []


@in_virtual_time
async def test_callers_are_counted_whether_their_key_has_an_actor_or_not() -> None:
    """Actors come and go meanwhile."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        gate = rig.store.faults.gates["append"] = asyncio.Event()
        names = iter(range(2 * Buffer.asks_max))
        waiting = [rig.buffers.append(make_entry(message_id=f"m{next(names)}")) for _ in range(Buffer.asks_max - 1)]
        assert await rig.buffers.flush("k") == NothingOpen()
        assert len(rig.buffers) == 0
        waiting.append(rig.buffers.append(make_entry(message_id=f"m{next(names)}")))
        with pytest.raises(Overloaded):
            rig.buffers.append(make_entry(message_id="one more"))
        gate.set()
        await asyncio.gather(*waiting)
        await rig.buffers.append(make_entry(message_id="one more"))


@in_virtual_time
async def test_those_who_flush_are_counted_as_well() -> None:
    """The bound is on all who wait for a key."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        gate = rig.store.faults.gates["close"] = asyncio.Event()
        flushes = [asyncio.ensure_future(rig.buffers.flush("k")) for _ in range(Buffer.asks_max)]
        await ticks()
        with pytest.raises(Overloaded):
            rig.buffers.append(make_entry())
        gate.set()
        await asyncio.gather(*flushes)
        assert (await rig.buffers.append(make_entry())).size == 1


@in_virtual_time
async def test_callers_who_were_told_of_a_failure_are_counted_no_more() -> None:
    """As often as the store is away."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        for _ in range(2):
            rig.store.faults.away = True
            waiting = [rig.buffers.append(make_entry(message_id=f"m{n}")) for n in range(Buffer.asks_max)]
            told = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(each) for each in told} == {StoreAway}
        rig.store.faults.away = False
        assert (await rig.buffers.append(make_entry())).size == 1


@in_virtual_time
async def test_looking_goes_to_the_store() -> None:
    """One batch with its messages, and the list of all."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        await rig.buffers.append(make_entry(payload=b'{"a":1}'))
        batch = await rig.buffers.peek("k")
        assert batch is not None
        assert [payload for _, _, payload in batch.messages] == [b'{"a":1}']
        assert await rig.buffers.peek("other") is None
        rows, cursor = await rig.buffers.list_open(ListCursor(), 10)
        assert ([row.key for row in rows], cursor) == (["k"], None)


@in_virtual_time
async def test_a_full_mailbox_is_an_honest_overloaded() -> None:
    """As many callers as one key may have wait; one more is refused at once, other keys are not, and it ends."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.gates["append"] = asyncio.Event()
        answers = [
            rig.buffers.append(make_entry(message_id=f"m{number}", max_size=1000)) for number in range(Buffer.asks_max)
        ]
        with pytest.raises(Overloaded):
            rig.buffers.append(make_entry(message_id="one more"))
        with pytest.raises(Overloaded):
            await rig.buffers.flush("k")
        neighbour = rig.buffers.append(make_entry("other"))
        assert rig.buffers.mailbox_depth == Buffer.asks_max + 1
        rig.store.faults.gates["append"].set()
        stored = await asyncio.gather(*answers)
        assert [each.size for each in stored] == list(range(1, Buffer.asks_max + 1))
        assert (await neighbour).size == 1
        assert rig.buffers.mailbox_depth == 0
        last = await rig.buffers.append(make_entry(message_id="one more", max_size=1000))
        assert last.size == Buffer.asks_max + 1


@in_virtual_time
async def test_a_full_commit_queue_is_an_honest_overloaded() -> None:
    """Nothing is stored, and no actor stays behind for a key that was refused."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        gate = rig.store.faults.gates["append"] = asyncio.Event()
        large = b" " * (QUEUE_BYTES_MAX // 2)
        taken: list[asyncio.Future[Appended]] = []
        while True:
            try:
                taken.append(rig.buffers.append(make_entry(f"k{len(taken)}", payload=large, max_bytes=1 << 30)))
            except Overloaded:
                break
            await passing(0.01)
        assert rig.buffers.mailbox_depth == len(taken)
        assert len(rig.buffers) == 0
        gate.set()
        await asyncio.gather(*taken)
        assert len(rig.buffers) == len(taken)
        assert len(rig.store.open) == len(taken)


@in_virtual_time
async def test_a_store_that_is_away_is_said_and_leaves_no_actor() -> None:
    """Nobody can know whether it was stored; sent again it is."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.before["append"] = 1
        with pytest.raises(StoreAway):
            await rig.buffers.append(make_entry())
        assert len(rig.buffers) == 0
        rig.store.faults.after["append"] = 1
        with pytest.raises(StoreAway):
            await rig.buffers.append(make_entry())
        again = await rig.buffers.append(make_entry())
        assert (again.size, again.duplicate) == (1, True)
        assert (value(stage.meters.accepted), value(stage.meters.duplicates)) == (0, 1)


@in_virtual_time
async def test_a_caller_that_goes_away_does_not_take_its_message_with_it() -> None:
    """It is stored, closes in time, and its place in the mailbox is free again."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.buffers.append(make_entry(wait_ms=1000)).cancel()
        flushing = stage.supervisor.spawn("flush", _flush(rig, "other"))
        await ticks(2)
        flushing.cancel()
        await passing(5.0)
        assert len(rig.ready) == 1
        assert len(rig.buffers) == 0
        assert value(stage.meters.accepted) == 1
        assert stage.crashes == []


async def _flush(rig: BufferRig, key: str) -> None:
    await rig.buffers.flush(key)


@in_virtual_time
async def test_what_was_stored_is_remembered_before_anybody_is_told() -> None:
    """The tail must hold what a client has an answer for."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        answers: list[asyncio.Future[Appended]] = []
        heard: list[tuple[list[str], list[bool]]] = []

        def remember(entries: Sequence[Entry], _received_us: Sequence[int]) -> None:
            heard.append(([entry.message_id for entry in entries], [answer.done() for answer in answers]))

        rig.buffers.on_stored = remember
        answers.extend(rig.buffers.append(make_entry(message_id=f"m{number}")) for number in range(3))
        await asyncio.gather(*answers)
        assert heard == [(["m0", "m1", "m2"], [False, False, False])]


@in_virtual_time
async def test_drained_waits_for_what_was_asked() -> None:
    """Appends and closes."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        rig.store.faults.latency_s = 0.5
        answer = rig.buffers.append(make_entry())
        await rig.buffers.drained()
        assert answer.done()
        flushing = stage.supervisor.spawn("flush", _flush(rig, "k"))
        await ticks(2)
        await rig.buffers.drained()
        await ticks(2)
        assert flushing.done()
