"""Owner's work asked of any node: whom it asks, what it answers when nobody can, and what it never does twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.forwarding import FORWARD_S, NEAR_MS, UNREACHABLE, hint_of
from actors.node_ports import NotOwner, PeerAnswer, PeerDiscard, PeerDrop, PeerFlush, PeerRequest, PeerRetry
from actors.ports import (
    Appended,
    ClosedBatch,
    DueBatch,
    Fenced,
    Next,
    NothingOpen,
    Overloaded,
    Ready,
    StoreAway,
)
from tests.support.doubles import Stage, make_entry, value
from tests.support.forwarding_rig import KEY, PARTITION, ForwardingRig, RigNode
from tests.support.memory_store import EPOCH
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

DELIVERY = f"dlv_{PARTITION:02x}m1"
Ask = Callable[[RigNode], Awaitable[object]]
ASKS: dict[str, tuple[Ask, PeerRequest]] = {
    "flush": (lambda node: node.forwarding.flush(KEY, "dlv_x"), PeerFlush(KEY, "dlv_x")),
    "drop": (lambda node: node.forwarding.drop(KEY), PeerDrop(KEY)),
    "retry": (lambda node: node.forwarding.retry(DELIVERY, PARTITION), PeerRetry(DELIVERY)),
    "discard": (lambda node: node.forwarding.discard(DELIVERY, PARTITION), PeerDiscard(DELIVERY)),
}


async def filled(rig: ForwardingRig, what: str) -> None:
    """Something for the ask to work on: an open batch, or a delivery that died."""
    if what in ("flush", "drop"):
        await rig.store.append([make_entry(KEY)])
        return
    await rig.store.append([make_entry(KEY, max_size=1, batch_id=DELIVERY)])
    rig.store.deliveries[DELIVERY].status = "dead"
    rig.store.ready.pop(DELIVERY)
    rig.store.lines[make_entry(KEY).terms.kid].clear()


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_the_owner_does_it_itself(what: str) -> None:
    """Nobody is asked."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, what)
        answer = await ASKS[what][0](rig.b)
        assert isinstance(answer, ClosedBatch | int | Next)
        assert rig.roads.asked == []


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_another_node_asks_the_owner(what: str) -> None:
    """Once, with a deadline; the answer is the owner's."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, what)
        answer = await ASKS[what][0](rig.a)
        assert isinstance(answer, ClosedBatch | int | Next)
        [(node, request, within_s)] = rig.roads.asked
        assert (node, request) == ("b", ASKS[what][1])
        assert within_s == pytest.approx(FORWARD_S)
        assert value(rig.a.meters.forwards["done"]) == 1


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_there_may_be_nothing_to_do(what: str) -> None:
    """That is an answer, from wherever it comes."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        assert [await ASKS[what][0](node) for node in (rig.a, rig.b)] == [NothingOpen()] * 2


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
@pytest.mark.parametrize("owner", ["", "a", "dead"])
async def test_without_an_owner_that_lives_it_is_refused_at_once(what: str, owner: str) -> None:
    """Nobody knows one, it is this node itself that is giving the partition away, or it is not alive."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.a.knows(owner)
        rig.a.knowledge.epochs[PARTITION] = 0
        began = stage.clock.monotonic()
        with pytest.raises(StoreAway, match=UNREACHABLE):
            await ASKS[what][0](rig.a)
        assert stage.clock.monotonic() == began
        assert rig.roads.asked == []


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_an_owner_that_does_not_answer_is_asked_once(what: str) -> None:
    """Nobody can know whether it acted; another node must not be asked the same."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.roads.closed.add("b")
        began = stage.clock.monotonic()
        with pytest.raises(StoreAway, match=UNREACHABLE):
            await ASKS[what][0](rig.a)
        assert stage.clock.monotonic() - began == pytest.approx(FORWARD_S)
        assert rig.roads.to() == ["b"]
        assert value(rig.a.meters.forwards["away"]) == 1


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_a_node_that_knows_better_is_believed_once(what: str) -> None:
    """The new owner is asked from here, within the same second."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, what)
        rig.owned_by("c", EPOCH + 1)
        for node in (rig.b, rig.c):
            node.knows("c", EPOCH + 1)
        assert isinstance(await ASKS[what][0](rig.a), ClosedBatch | int | Next)
        assert rig.roads.to() == ["b", "c"]
        assert rig.roads.asked[1][2] < FORWARD_S
        assert rig.a.knowledge.owner_of(PARTITION) == "c"
        assert [value(rig.a.meters.forwards[kind]) for kind in ("done", "not_owner")] == [1, 1]


@in_virtual_time
@pytest.mark.parametrize(
    ("told", "asked"),
    [
        (NotOwner(0, ""), ["b"]),
        (NotOwner(EPOCH - 1, "c"), ["b"]),
        (NotOwner(EPOCH + 1, ""), ["b"]),
        (NotOwner(EPOCH + 1, "b"), ["b"]),
        (NotOwner(EPOCH + 1, "dead"), ["b"]),
        (NotOwner(EPOCH + 1, "a"), ["b"]),
        (NotOwner(EPOCH + 1, "c"), ["b", "c"]),
        (Fenced(EPOCH + 1, "c"), ["b", "c"]),
    ],
    ids=repr,
)
async def test_who_is_asked_after_a_no(told: NotOwner | Fenced, asked: list[str]) -> None:
    """Only another living node of which something newer is known; then it is over, whatever that one says."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.roads.instead = {"b": lambda _request: told, "c": lambda _request: NotOwner(EPOCH + 2, "b")}
        with pytest.raises(StoreAway, match=UNREACHABLE):
            await rig.a.forwarding.drop(KEY)
        assert rig.roads.to() == asked
        assert rig.a.knowledge.looks == len(asked)


@in_virtual_time
async def test_a_node_that_became_the_owner_meanwhile_does_it_itself() -> None:
    """It was told so by the one it asked."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, "flush")
        rig.owned_by("a", EPOCH + 1)

        def handed_over(_request: PeerRequest) -> PeerAnswer:
            rig.a.knows("a", EPOCH + 1)
            return NotOwner(EPOCH + 1, "a")

        rig.roads.instead["b"] = handed_over
        assert isinstance(await rig.a.forwarding.flush(KEY, "dlv_x"), ClosedBatch)
        assert rig.roads.to() == ["b"]


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_an_owner_that_is_none_any_more_asks_the_new_one(what: str) -> None:
    """The store refused its write and said who may."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, what)
        rig.owned_by("c", EPOCH + 1)
        rig.c.knows("c", EPOCH + 1)
        assert isinstance(await ASKS[what][0](rig.b), ClosedBatch | int | Next)
        assert rig.roads.to() == ["c"]
        assert rig.b.knowledge.known(PARTITION).node == "c"


@in_virtual_time
@pytest.mark.parametrize("trouble", [StoreAway("the store is away"), Overloaded("full")], ids=repr)
async def test_trouble_of_the_owners_is_the_askers(trouble: Exception) -> None:
    """As it was said; nobody else is asked."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.roads.instead["b"] = lambda _request: trouble
        with pytest.raises(type(trouble), match=str(trouble)):
            await rig.a.forwarding.drop(KEY)
        assert rig.roads.to() == ["b"]


@in_virtual_time
@pytest.mark.parametrize("what", ASKS)
async def test_an_answer_of_another_kind_is_none(what: str) -> None:
    """A peer of another version cannot make a caller believe something."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.roads.instead["b"] = lambda _request: []
        with pytest.raises(StoreAway):
            await ASKS[what][0](rig.a)


@in_virtual_time
async def test_a_flush_whose_answer_was_lost_is_the_same_flush_again() -> None:
    """Under its batch id, at whichever node it is asked again."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, "flush")
        rig.webhooks.took_s["a.example"] = 5.0
        rig.roads.mute.add("b")
        with pytest.raises(StoreAway):
            await rig.a.forwarding.flush(KEY, "dlv_x")
        rig.roads.mute.clear()
        first, again = await rig.c.forwarding.flush(KEY, "dlv_x"), await rig.b.forwarding.flush(KEY, "dlv_x")
        assert isinstance(first, ClosedBatch)
        assert (first.delivery_id, again) == ("dlv_x", first)


@in_virtual_time
async def test_a_flush_without_an_id_gets_one_before_it_leaves() -> None:
    """The delivery's id names the key's partition."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        await filled(rig, "flush")
        flushed = await rig.a.forwarding.flush(KEY)
        assert isinstance(flushed, ClosedBatch)
        assert flushed.delivery_id.startswith(f"dlv_{PARTITION:02x}")


@in_virtual_time
async def test_a_key_that_no_message_can_have_is_nobodys() -> None:
    """Half a character in a path: nothing is open, and nobody is asked."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        for node in (rig.a, rig.b):
            for partition in range(256):
                node.knows("b", partition=partition)
        assert await rig.a.forwarding.flush("\ud800") == await rig.a.forwarding.drop("\ud800") == NothingOpen()
        assert rig.roads.asked == []


@in_virtual_time
async def test_dead_deliveries_are_tried_again_by_their_owners() -> None:
    """Each by its own, in the order in which they came."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        keys = [f"key {number}" for number in range(6)]
        names = []
        for number, key in enumerate(keys):
            entry = make_entry(key, max_size=1)
            name = f"dlv_{entry.partition:02x}{number}"
            owner = "ab"[number % 2]
            rig.store.owned[entry.partition] = rig.store.owned[entry.partition].__class__(EPOCH, owner)
            for node in (rig.a, rig.b):
                node.knows(owner, partition=entry.partition)
            await rig.store.append([make_entry(key, max_size=1, batch_id=name)])
            rig.store.deliveries[name].status = "dead"
            rig.store.ready.pop(name)
            rig.store.lines[entry.terms.kid].clear()
            names.append(name)
            await passing(0.01)
        assert await rig.a.forwarding.retry_dead(None, 0, 2**53) == 6
        assert [request for _, request, _ in rig.roads.asked] == [PeerRetry(name) for name in names[1::2]]
        await passing(1.0)
        assert [rig.store.deliveries[name].status for name in names] == ["delivered"] * 6


CLOSED = ClosedBatch("dlv_1", 3, "a.example", "size", True)
BEHIND = ClosedBatch("dlv_1", 3, "a.example", "size", False)
NEAR = NEAR_MS - 1
DUE = DueBatch(PARTITION, make_entry(KEY).terms.kid, 5000, NEAR)
HINTS: list[tuple[str, dict[str, Any], Appended, object]] = [
    ("closed and first in line", {}, Appended(3, 9, 0, 1, False, CLOSED), Ready(PARTITION, "dlv_1", "a.example", 0)),
    ("closed behind another", {}, Appended(3, 9, 0, 1, False, BEHIND), None),
    ("opened, near", {}, Appended(1, 3, NEAR, 5000, False, None), DUE),
    ("opened, far", {}, Appended(1, 3, NEAR_MS, 5000, False, None), None),
    ("opened, due now", {}, Appended(1, 3, 0, 5000, False, None), DueBatch(PARTITION, DUE.kid, 5000, 0)),
    ("joined a window", {}, Appended(2, 6, NEAR, 5000, False, None), None),
    ("moved a debounce", {"max_wait_ms": 100}, Appended(2, 6, NEAR, 5000, False, None), DUE),
    ("moved a debounce far away", {"max_wait_ms": 100}, Appended(2, 6, NEAR_MS, 5000, False, None), None),
    ("was there already", {"max_wait_ms": 100}, Appended(1, 3, NEAR, 5000, True, None), None),
    ("was there already, nothing is open", {}, Appended(0, 0, 0, 0, True, None), None),
]


@pytest.mark.parametrize(("fields", "appended", "hint"), [row[1:] for row in HINTS], ids=[row[0] for row in HINTS])
def test_what_an_owner_must_hear_at_once(fields: dict[str, Any], appended: Appended, hint: object) -> None:
    """What its sweep would see too late, and nothing else."""
    assert hint_of(make_entry(KEY, **fields), appended) == hint


@given(
    st.builds(
        Appended,
        size=st.integers(0, 5),
        size_bytes=st.just(1),
        remaining_ms=st.integers(0, 2000),
        deadline_ms=st.integers(1, 10**6),
        duplicate=st.booleans(),
        closed=st.sampled_from([None, CLOSED, BEHIND]),
    ),
    st.sampled_from([0, 1000]),
)
def test_no_hint_is_about_what_a_sweep_sees(appended: Appended, max_wait_ms: int) -> None:
    """A hint names this message's partition, and something that is due before two sweeps and a look-ahead are over."""
    hint = hint_of(make_entry(KEY, max_wait_ms=max_wait_ms), appended)
    assert hint is None or (hint.partition == PARTITION and hint.due_in_ms < NEAR_MS)
    assert (appended.closed is CLOSED) == isinstance(hint, Ready)


@in_virtual_time
async def test_a_message_for_another_node_is_stored_here_and_rung_there() -> None:
    """The sender's answer is the same; who owns it hears what it must do soon."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        answer = await rig.a.forwarding.append(make_entry(KEY, wait_ms=300))
        assert (answer.size, answer.remaining_ms, answer.duplicate) == (1, 300, False)
        await rig.a.forwarding.append(make_entry(KEY, "m2", wait_ms=300))
        closing = await rig.a.forwarding.append(make_entry(KEY, "m3", max_size=3, batch_id=DELIVERY))
        assert closing.closed is not None
        assert rig.roads.asked == []
        assert [node for node, _ in rig.bells.rung] == ["b", "b"]
        due, ready = (hint for _, hint in rig.bells.rung)
        assert isinstance(due, DueBatch)
        assert ready == Ready(PARTITION, DELIVERY, "a.example", 0)
        assert value(rig.a.meters.direct_appends) == 3
        assert len(rig.a.buffers) == 0
        assert rig.webhooks.sent == []


@in_virtual_time
@pytest.mark.parametrize("owner", ["", "a"])
async def test_nobody_is_rung_when_nobody_is_known(owner: str) -> None:
    """The message is stored; whoever takes the partition looks for itself."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        rig.a.knows(owner)
        rig.a.knowledge.epochs[PARTITION] = 0
        assert (await rig.a.forwarding.append(make_entry(KEY, max_size=1))).closed is not None
        assert rig.bells.rung == []


@in_virtual_time
async def test_an_owners_own_message_goes_no_detour() -> None:
    """Without forwarding the buffers are asked directly; nothing is counted or rung."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        assert rig.b.forwarding.submit == rig.b.buffers.submit
        answers = await asyncio.gather(*(rig.b.forwarding.append(make_entry(KEY, f"m{n}")) for n in range(3)))
        assert [answer.size for answer in answers] == [1, 2, 3]
        assert rig.bells.rung == []
        assert value(rig.b.meters.direct_appends) == 0


@pytest.mark.parametrize(("due_in_ms", "told"), [(0, True), (NEAR_MS - 1, True), (NEAR_MS, False), (10**10, False)])
@in_virtual_time
async def test_a_task_that_may_start_soon_is_its_owners_at_once(due_in_ms: int, *, told: bool) -> None:
    """Here or elsewhere; one that is wanted later the sweep finds, and no timer waits for it."""
    async with Stage() as stage:
        rig = ForwardingRig(stage)
        ready = Ready(PARTITION, f"tsk_{PARTITION:02x}m1", "evolution:i", due_in_ms)
        rig.a.forwarding.task_startable(ready)
        assert rig.bells.rung == ([("b", ready)] if told else [])
        offered: list[Ready] = []
        rig.b.deliveries.offer = offered.append  # type: ignore[method-assign, assignment]  # what it is told, no more
        rig.b.forwarding.task_startable(ready)
        assert offered == ([ready] if told else [])
        rig.a.knows("")
        rig.a.forwarding.task_startable(ready)
        assert len(rig.bells.rung) == told
