"""Messages that go to their owner first: what is gathered, what becomes of those an owner did not take, and honesty."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.buffer import Buffer
from actors.committer import CALLS_MAX
from actors.forwarded_appends import APPEND_S, LINES_MAX, PAUSE_S
from actors.node_ports import NotOwner, PeerAnswer, PeerAppend, PeerRequest
from actors.ports import Appended, Entry, Overloaded, Owner, StoreAway
from tests.support.doubles import Stage, changed, make_entry, value
from tests.support.forwarding_rig import KEY, PARTITION, ForwardingRig
from tests.support.memory_store import EPOCH
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time


def ours(message_id: str = "msg_1", key: str = KEY) -> Entry:
    """A message whose id was made by the router for this request."""
    return msgspec.structs.replace(make_entry(key, message_id), dedupe=message_id)


def forwards(rig: ForwardingRig) -> list[float]:
    """What node `a` counted: done, away, not the owner; and what it stored itself."""
    meters = rig.a.meters
    return [*(value(meters.forwards[kind]) for kind in ("done", "away", "not_owner")), value(meters.direct_appends)]


@in_virtual_time
async def test_the_owner_stores_it() -> None:
    """Its answer is the sender's; it times and delivers it, and nobody is rung."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        answer = await rig.a.forwarding.append(make_entry(KEY, wait_ms=300))
        assert (answer.size, answer.remaining_ms, answer.duplicate) == (1, 300, False)
        assert len(rig.b.buffers) == 1
        assert (rig.bells.rung, forwards(rig)) == ([], [1, 0, 0, 0])
        assert value(rig.b.meters.accepted) == 1
        assert value(rig.a.meters.accepted) == 0
        await passing(1.0)
        assert len(rig.webhooks.sent) == 1


@in_virtual_time
async def test_an_owners_own_message_goes_no_detour() -> None:
    """Nor one that nobody is known to own."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        await rig.b.forwarding.append(make_entry(KEY))
        rig.a.knows("")
        await rig.a.forwarding.append(make_entry(KEY, "m2"))
        rig.a.knows("dead")
        assert (await rig.a.forwarding.append(make_entry(KEY, "m3"))).size == 3
        assert rig.roads.asked == []


@in_virtual_time
async def test_what_waits_for_one_owner_goes_together() -> None:
    """In order; each owner's by itself."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        other = next(f"k{n}" for n in range(100) if make_entry(f"k{n}").partition != PARTITION)
        rig.a.knows("c", partition=make_entry(other).partition)
        rig.c.knows("c", partition=make_entry(other).partition)
        entries = [make_entry((KEY, other)[n % 2], f"m{n}", max_size=100) for n in range(40)]
        answers = await asyncio.gather(*(rig.a.forwarding.append(entry) for entry in entries))
        assert [answer.size for answer in answers] == [n // 2 + 1 for n in range(40)]
        assert sorted(rig.roads.to()) == ["b", "c"]
        sent = {node: request.entries for node, request, _ in rig.roads.asked if isinstance(request, PeerAppend)}
        assert sent == {"b": entries[::2], "c": entries[1::2]}


@in_virtual_time
@pytest.mark.parametrize("message", [ours(), make_entry(KEY)], ids=["our id", "the client's id"])
async def test_an_owner_that_cannot_be_reached_costs_a_moment(message: Entry) -> None:
    """Then the message is stored from here, and the owner is rung."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.closed.add("b")
        began = stage.clock.monotonic()
        answer = await rig.a.forwarding.append(changed(message, wait_ms=300))
        assert stage.clock.monotonic() - began < APPEND_S + 0.01
        assert (answer.size, answer.duplicate) == (1, False)
        assert forwards(rig) == [0, 1, 0, 1]
        assert [node for node, _ in rig.bells.rung] == ["b"]


@in_virtual_time
async def test_an_owner_that_hangs_is_left_alone_for_a_moment() -> None:
    """Few callers wait for it; when it is back it is asked again."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.closed.add("b")
        await rig.a.forwarding.append(make_entry(KEY, "m0", max_size=1000))
        asked = len(rig.roads.asked)
        began = stage.clock.monotonic()
        for n in range(1, 10):
            await rig.a.forwarding.append(make_entry(KEY, f"m{n}", max_size=1000))
        assert stage.clock.monotonic() - began < PAUSE_S / 2
        assert len(rig.roads.asked) == asked
        rig.roads.closed.clear()
        await passing(PAUSE_S)
        await rig.a.forwarding.append(make_entry(KEY, "m10", max_size=1000))
        assert len(rig.roads.asked) == asked + 1
        assert len(rig.store.open[make_entry(KEY).terms.kid].messages) == 11


@in_virtual_time
@pytest.mark.parametrize(("message", "duplicate"), [(ours(), False), (make_entry(KEY), True)], ids=["ours", "theirs"])
async def test_a_message_that_the_owner_did_store_is_there_once(message: Entry, duplicate: bool) -> None:
    """Its answer was lost, and it is stored from here again. An id made for this request can be no duplicate of
    another's; a client's own may be, and nobody can know."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.mute.add("b")
        answer = await rig.a.forwarding.append(message)
        assert (answer.size, answer.duplicate) == (1, duplicate)
        assert len(rig.store.open[message.terms.kid].messages) == 1


@in_virtual_time
async def test_a_duplicate_that_the_owner_knows_is_called_one() -> None:
    """Whoever made its id."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        for message in (ours(), make_entry(KEY)):
            assert not (await rig.a.forwarding.append(message)).duplicate
            assert (await rig.a.forwarding.append(message)).duplicate


@in_virtual_time
async def test_a_duplicate_after_a_no_is_called_one() -> None:
    """The owner surely had not stored it: somebody else had."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        await rig.store.append([ours()])
        rig.roads.instead["b"] = lambda request: _all(request, NotOwner(0, ""))
        assert (await rig.a.forwarding.append(ours())).duplicate


def _all(request: PeerRequest, outcome: Appended | NotOwner | StoreAway) -> PeerAnswer:
    assert isinstance(request, PeerAppend)
    return [outcome] * len(request.entries)


@in_virtual_time
async def test_a_node_that_is_not_the_owner_says_so_and_passes_nothing_on() -> None:
    """The message is stored from here; the next one goes to the owner it named."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.owned_by("c", EPOCH + 1)
        for node in (rig.b, rig.c):
            node.knows("c", EPOCH + 1)
        assert (await rig.a.forwarding.append(make_entry(KEY, wait_ms=300))).size == 1
        assert (await rig.a.forwarding.append(make_entry(KEY, "m2"))).size == 2
        assert rig.roads.to() == ["b", "c"]
        assert forwards(rig) == [1, 0, 1, 1]
        assert [node for node, _ in rig.bells.rung] == ["c"]


@in_virtual_time
async def test_a_store_that_is_away_there_is_tried_from_here() -> None:
    """And when it is away here too, that is said."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.store.faults.before["append"] = 1
        assert (await rig.a.forwarding.append(make_entry(KEY))).size == 1
        rig.store.faults.before["append"] = 2
        with pytest.raises(StoreAway):
            await rig.a.forwarding.append(make_entry(KEY, "m2"))


@in_virtual_time
@pytest.mark.parametrize("trouble", [StoreAway("away"), Overloaded("full")], ids=repr)
async def test_an_owner_in_trouble_keeps_no_message_out(trouble: Exception) -> None:
    """Whatever it says of the whole batch."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.instead["b"] = lambda _request: trouble
        answers = await asyncio.gather(*(rig.a.forwarding.append(make_entry(KEY, f"m{n}")) for n in range(3)))
        assert [answer.size for answer in answers] == [1, 2, 3]


@in_virtual_time
@pytest.mark.parametrize("answer", [7, []], ids=["of another kind", "of another length"])
async def test_an_answer_that_fits_not_is_none(answer: PeerAnswer) -> None:
    """Everything is stored from here."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.instead["b"] = lambda _request: answer
        assert (await rig.a.forwarding.append(make_entry(KEY))).size == 1
        assert forwards(rig) == [0, 1, 0, 1]
        assert stage.crashes == []


@in_virtual_time
async def test_each_message_of_a_batch_has_its_own_end() -> None:
    """Stored, refused, and nobody knows."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        stored = Appended(9, 9, 9, 9, False, None)
        rig.roads.instead["b"] = lambda _request: [stored, NotOwner(0, ""), StoreAway("?")]
        kept: list[str] = []
        rig.a.forwarding.appends.on_stored = lambda entries, _: kept.extend(entry.message_id for entry in entries)
        answers = await asyncio.gather(*(rig.a.forwarding.append(make_entry(KEY, f"m{n}")) for n in range(3)))
        assert [answer.size for answer in answers] == [9, 1, 2]
        assert kept == ["m0"]
        assert forwards(rig) == [1, 0, 1, 2]


@in_virtual_time
async def test_a_sender_that_goes_away_does_not_take_its_message_with_it() -> None:
    """Nor its neighbours'; drained waits for all."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        first = asyncio.ensure_future(rig.a.forwarding.append(make_entry(KEY, "m0")))
        second = asyncio.ensure_future(rig.a.forwarding.append(make_entry(KEY, "m1")))
        await asyncio.sleep(0)
        first.cancel()
        await rig.a.forwarding.appends.drained()
        await asyncio.wait([first])
        assert (await second).size == 2
        assert first.cancelled()


@in_virtual_time
async def test_owners_that_come_and_go_leave_no_lines_behind() -> None:
    """Their names are new with each process, by default."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        for n in range(3 * LINES_MAX):
            rig.alive.add(f"n{n}")
            rig.a.knowledge.owners[PARTITION] = Owner(EPOCH + n, f"n{n}")
            rig.roads.instead[f"n{n}"] = lambda request: _all(request, NotOwner(0, ""))
            await rig.a.forwarding.append(make_entry(KEY, f"m{n}", max_size=1000))
        assert len(rig.a.forwarding.appends._lines) <= LINES_MAX


@in_virtual_time
async def test_those_under_way_take_no_jobs() -> None:
    """The supervisor's are few, and the store's own calls need some."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.takes_s = 0.03
        before = len(stage.supervisor._jobs)
        told: list[object] = []
        for number in range(Buffer.asks_max):
            rig.a.forwarding.submit(make_entry(KEY, f"m{number}", max_size=1000), told.append)
        await passing(0.01)
        assert told == []
        assert len(stage.supervisor._jobs) - before <= CALLS_MAX
        await passing(1.0)
        assert sorted(each.size for each in told if isinstance(each, Appended)) == [*range(1, Buffer.asks_max + 1)]


@in_virtual_time
async def test_whoever_finds_no_room_here_either_is_told() -> None:
    """Later, as everybody: the owner was away, and the mailbox of the key is full."""
    async with Stage() as stage:
        rig = ForwardingRig(stage, forward_appends=True)
        rig.roads.closed = {"b"}
        told: list[object] = []
        rig.a.forwarding.submit(make_entry(KEY, "late"), told.append)
        gate = rig.store.faults.gates["append"] = asyncio.Event()
        waiting = [rig.a.buffers.append(make_entry(KEY, f"m{number}", max_size=1000)) for number in range(256)]
        await passing(1.0)
        assert [type(each) for each in told] == [Overloaded]
        gate.set()
        assert len(await asyncio.gather(*waiting)) == Buffer.asks_max
