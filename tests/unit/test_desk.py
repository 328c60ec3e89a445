"""What a node does for others and what it makes of what they ring: as the owner, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from actors.core.partition import locate
from actors.node_ports import Look, NotOwner, PeerAppend, PeerDiscard, PeerDrop, PeerFlush, PeerRequest, PeerRetry
from actors.ports import Appended, ClosedBatch, DueBatch, NothingOpen, Overloaded, Ready, StoreAway
from tests.support.doubles import Stage, make_entry
from tests.support.forwarding_rig import KEY, PARTITION, ForwardingRig
from tests.support.memory_store import EPOCH
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

FOREIGN = next(f"k{n}" for n in range(100) if locate(f"k{n}")[1] != PARTITION)
DELIVERY = f"dlv_{PARTITION:02x}m1"
REQUESTS: list[PeerRequest] = [PeerFlush(KEY, "dlv_x"), PeerDrop(KEY), PeerRetry(DELIVERY), PeerDiscard(DELIVERY)]


@in_virtual_time
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_what_is_not_owned_is_not_done(request_: PeerRequest) -> None:
    """What is known of the owner is told; the store is not asked, and nobody else."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.a.knows("c", EPOCH + 3)
        rig.store.faults.calls.clear()
        assert await rig.a.desk.serve(request_, 1.0) == NotOwner(EPOCH + 3, "c")
        assert rig.store.faults.calls == []
        assert rig.roads.asked == []


@in_virtual_time
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_what_the_store_refuses_is_not_owned(request_: PeerRequest) -> None:
    """The node believed it was the owner; what the store said is passed on."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await rig.store.append([make_entry(KEY)])
        rig.owned_by("c", EPOCH + 1)
        assert await rig.b.desk.serve(request_, 1.0) == NotOwner(EPOCH + 1, "c")


@in_virtual_time
async def test_messages_are_taken_as_ones_own() -> None:
    """In one commit; their batch is timed, closed and delivered here."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        entries = [make_entry(KEY, f"m{n}", wait_ms=200) for n in range(3)]
        answers = await rig.b.desk.serve(PeerAppend(entries), 0.05)
        assert isinstance(answers, list)
        assert [answer.size for answer in answers] == [1, 2, 3]
        assert rig.store.faults.count("append") == 1
        await passing(1.0)
        assert len(rig.webhooks.sent) == 1


@in_virtual_time
async def test_each_message_has_its_own_answer() -> None:
    """Owned, not owned, refused by a full mailbox, in order."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        append = rig.b.buffers.append

        def full(entry: object) -> asyncio.Future[Appended]:
            if entry is entries[2]:
                raise Overloaded("the mailbox of this key is full")
            return append(entries[entries.index(entry)])  # type: ignore[arg-type]  # one of ours

        entries = [make_entry(KEY, "m0"), make_entry(FOREIGN, "m1"), make_entry(KEY, "m2"), make_entry(KEY, "m3")]
        rig.b.buffers.append = full  # type: ignore[method-assign]  # a mailbox takes hundreds to fill
        answers = await rig.b.desk.serve(PeerAppend(entries), 0.05)
        assert isinstance(answers, list)
        assert [type(answer) for answer in answers] == [Appended, NotOwner, StoreAway, Appended]
        assert answers[3].size == 2


@in_virtual_time
async def test_a_store_that_is_away_is_said_of_each_message() -> None:
    """And of everything else as a whole."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.store.faults.before["append"] = 1
        answers = await rig.b.desk.serve(PeerAppend([make_entry(KEY, f"m{n}") for n in range(2)]), 0.05)
        assert isinstance(answers, list)
        assert [type(answer) for answer in answers] == [StoreAway, StoreAway]
        rig.store.faults.before["cancel"] = 1
        with pytest.raises(StoreAway):
            await rig.b.desk.serve(PeerDrop(KEY), 1.0)


@in_virtual_time
async def test_an_asker_that_gave_up_leaves_nothing_behind() -> None:
    """What was begun goes on; what becomes of it is nobody's error."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        gate = rig.store.faults.gates["append"] = asyncio.Event()
        rig.store.faults.before["append"] = 1
        serving = asyncio.ensure_future(rig.b.desk.serve(PeerAppend([make_entry(KEY, f"m{n}") for n in range(3)]), 1.0))
        await ticks()
        serving.cancel()
        await asyncio.wait([serving])
        gate.set()
        await rig.b.buffers.drained()
        assert len(rig.b.buffers) == 0
        assert (await rig.b.buffers.append(make_entry(KEY, "m9"))).size == 1


@in_virtual_time
async def test_a_hint_of_a_closed_batch_starts_its_delivery() -> None:
    """At the node that owns it, and nowhere else."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await rig.store.append([make_entry(KEY, max_size=1, batch_id=DELIVERY)])
        hint = Ready(PARTITION, DELIVERY, "a.example", 0)
        rig.a.desk.on_hints([hint])
        assert rig.a.deliveries.running == 0
        await passing(1.0)
        assert rig.webhooks.sent == []
        rig.b.desk.on_hints([hint, hint])
        await passing(1.0)
        assert rig.webhooks.ids() == [DELIVERY]


@in_virtual_time
async def test_a_hint_of_a_deadline_closes_the_batch_in_time() -> None:
    """Once, however often it is rung; a batch that another owns is left alone."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        appended = await rig.a.forwarding.append(make_entry(KEY, wait_ms=300))
        hint = DueBatch(PARTITION, locate(KEY)[0], appended.deadline_ms, appended.remaining_ms)
        rig.a.desk.on_hints([hint])
        assert len(rig.a.buffers) == 0
        rig.b.desk.on_hints([hint])
        rig.b.desk.on_hints([hint, hint])
        await passing(1.0)
        assert rig.store.faults.count("close") == 1
        assert len(rig.webhooks.sent) == 1


@in_virtual_time
async def test_hints_of_nothing_change_nothing() -> None:
    """Anybody can ring anything: the store has the last word."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        before = await rig.store.append([make_entry(KEY, wait_ms=60_000)])
        kid = locate(KEY)[0]
        rig.b.desk.on_hints(
            [
                Ready(PARTITION, f"dlv_{PARTITION:02x}nothing", "b.example", 0),
                DueBatch(PARTITION, "x" * 22, 5, 0),
                DueBatch(PARTITION, kid, before[0].deadline_ms + 5, 0),
                DueBatch(PARTITION, kid, 1, 0),
            ]
        )
        await passing(5.0)
        assert rig.webhooks.sent == []
        assert list(rig.store.open) == [kid]
        assert stage.crashes == []
        assert await rig.b.desk.serve(PeerDrop("nothing of this key"), 1.0) in (NotOwner(0, ""), NothingOpen())


@in_virtual_time
async def test_a_hint_to_look_is_passed_to_ownership() -> None:
    """It decides when."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.a.desk.on_hints([Look()])
        assert rig.a.knowledge.looks == 1


@in_virtual_time
async def test_flush_answers_with_the_delivery() -> None:
    """As the node that was asked first would say it."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await rig.store.append([make_entry(KEY)])
        answer = await rig.b.desk.serve(PeerFlush(KEY, DELIVERY), 1.0)
        assert isinstance(answer, ClosedBatch)
        assert (answer.delivery_id, answer.size) == (DELIVERY, 1)
