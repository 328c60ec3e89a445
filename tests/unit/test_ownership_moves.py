"""What a node does with partitions that are to be another's: held back, kept, handed over, given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.partition import PARTITIONS
from actors.ports import Fenced, Owner, StoreAway
from tests.support.doubles import Stage, value
from tests.support.memory_store import NODE
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_ownership import ALONE, BOTH, OTHER, P, Rig


@in_virtual_time
async def test_what_is_held_back_begins_nothing_and_can_be_kept() -> None:
    """Under the same epoch as before, so what is under way is not disturbed; a look in between changes nothing."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epoch = rig.ownership.epoch(P)
        rig.ownership.hold([P, 8])
        assert rig.lost == [P, 8]
        assert rig.ownership.epoch(P) == 0
        assert not rig.ownership.may_act(P, epoch)
        assert P not in rig.ownership.held()
        assert rig.ownership.owner_of(P) == NODE
        acquired = rig.store.faults.count("acquire")
        await rig.look()
        assert rig.store.faults.count("acquire") == acquired
        assert rig.ownership.epoch(P) == 0
        rig.ownership.keep([P, 8, 9])
        assert rig.ownership.may_act(P, epoch)
        assert rig.taken == 1
        assert rig.true()
        rig.ownership.keep([P])
        rig.ownership.hold([])
        assert (rig.taken, rig.lost) == (1, [P, 8])


@in_virtual_time
async def test_what_was_lost_while_it_was_held_back_is_not_kept() -> None:
    """A late write found out, or a look: to go on under the old epoch would be to act for another."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.ownership.hold([3, P])
        for partition in (3, P):
            rig.store.lose(partition, OTHER)
        rig.ownership.fenced(P, Fenced(rig.store.owned[P].epoch, OTHER))
        rig.ownership.keep([P])
        assert rig.ownership.epoch(P) == 0
        await rig.look(BOTH)
        rig.ownership.keep([3])
        assert rig.ownership.epoch(3) == 0
        assert rig.true()


@in_virtual_time
async def test_a_late_refusal_of_our_own_past_leaves_what_is_held_back() -> None:
    """As it does with what is held."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epoch = rig.ownership.epoch(P)
        rig.ownership.hold([P])
        rig.ownership.fenced(P, Fenced(epoch, NODE))
        rig.ownership.keep([P])
        assert rig.ownership.epoch(P) == epoch


@in_virtual_time
async def test_what_is_handed_over_is_the_others() -> None:
    """Under a new epoch, so that this node is fenced; what was not held back or not this node's any more is not."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        before = rig.ownership.epoch(3)
        rig.ownership.hold([3, P])
        rig.store.lose(P, "node-3")
        given = await rig.ownership.hand_over([(3, OTHER), (P, OTHER), (9, OTHER)])
        assert given == {3: rig.store.owned[3].epoch}
        assert rig.store.owned[3].node == OTHER
        assert rig.store.owned[3].epoch > before
        assert [rig.ownership.owner_of(partition) for partition in (3, P, 9)] == [OTHER, "node-3", NODE]
        rig.ownership.keep([3, P])
        assert (rig.ownership.epoch(3), rig.ownership.epoch(P)) == (0, 0)
        assert value(stage.meters.partitions_held) == PARTITIONS - 2
        assert await rig.ownership.hand_over([]) == {}


@in_virtual_time
async def test_whether_the_others_have_come_is_seen_in_the_store() -> None:
    """All of them; also when this node has learned of it in another way before."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.ownership.hold([3, P])
        given = await rig.ownership.hand_over([(3, OTHER), (P, OTHER)])
        assert not await rig.ownership.are_taken(given)
        rig.store.lose(3, OTHER)
        assert not await rig.ownership.are_taken(given)
        rig.store.lose(P, "node-3")
        await rig.look(frozenset({NODE, OTHER, "node-3"}))
        assert await rig.ownership.are_taken(given)


@pytest.mark.parametrize("written", [True, False], ids=["handed over", "not handed over"])
@in_virtual_time
async def test_a_handover_whose_outcome_is_unknown(written: bool) -> None:
    """This node acts no more under the old epoch: the write may be done already or still come, and the other acts then.
    What it finds to be its own it takes anew."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        before = rig.ownership.epoch(P)
        rig.ownership.hold([P])
        (rig.store.faults.after if written else rig.store.faults.before)["hand_over"] = 1
        with pytest.raises(StoreAway):
            await rig.ownership.hand_over([(P, OTHER)])
        rig.ownership.keep([P])
        assert not rig.ownership.may_act(P, before)
        assert rig.ownership.look_wanted.is_set()
        await rig.look(BOTH)
        assert rig.true()
        assert rig.store.owned[P].node == (OTHER if written else NODE)
        assert rig.ownership.epoch(P) == (0 if written else rig.store.owned[P].epoch)
        assert rig.store.owned[P].epoch > before


@in_virtual_time
async def test_a_look_while_it_hands_over_takes_nothing_back() -> None:
    """It read before the write, and is answered after it."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.ownership.hold([P])
        rig.store.faults.answers["owners"] = asyncio.Event()
        looking = rig.spawn(rig.look(BOTH))
        await passing(0.1)
        await rig.ownership.hand_over([(P, OTHER)])
        given = rig.store.owned[P]
        rig.store.faults.answers["owners"].set()
        await looking
        assert rig.store.owned[P] == given
        assert rig.ownership.epoch(P) == 0
        assert rig.ownership.owner_of(P) == OTHER


@in_virtual_time
async def test_what_is_given_back_is_nobodys() -> None:
    """Nothing is begun there from the first moment on; the epoch stays, so what still ends under it may be written."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epoch = rig.ownership.epoch(P)
        rig.store.faults.latency_s = 1.0
        resigning = rig.spawn(rig.ownership.resign([3, P]))
        await passing(0.1)
        assert rig.lost == [3, P]
        assert not rig.ownership.may_act(P, epoch)
        await resigning
        assert rig.store.owned[P] == Owner(epoch, "")
        assert rig.ownership.owner_of(P) == ""
        assert len(rig.ownership.held()) == PARTITIONS - 2
        rig.ownership.keep([P])
        assert rig.ownership.epoch(P) == 0


@in_virtual_time
async def test_a_node_that_holds_nothing_gives_nothing_back() -> None:
    """The store is not asked."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        await rig.ownership.resign(range(PARTITIONS))
        assert rig.store.faults.calls == []


@pytest.mark.parametrize("written", [True, False], ids=["given back", "not given back"])
@in_virtual_time
async def test_giving_back_can_be_tried_again(written: bool) -> None:
    """Nothing is begun in between."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        (rig.store.faults.after if written else rig.store.faults.before)["resign"] = 1
        with pytest.raises(StoreAway):
            await rig.ownership.resign([P])
        assert not rig.acts()
        await rig.ownership.resign([P])
        assert rig.store.owned[P].node == ""


Event = st.tuples(
    st.sampled_from(
        ["other", "nobody", "forget", "write", "look", "look", "hold", "keep", "give", "away", "lost", "time"]
    ),
    st.integers(0, 3),
)


@settings(max_examples=200, deadline=None)
@given(events=st.lists(Event, max_size=40))
@in_virtual_time
async def test_a_node_never_believes_in_what_the_store_refused(events: list[tuple[str, int]]) -> None:
    """Other nodes take partitions, the store forgets them, is away, loses answers; this node looks, gives away, and
    its writes find out, all at the same time. What it acts for it has not been refused; after a last look it holds
    what the store says and nothing else, and every loss was told."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        held_once = set(rig.ownership.held())
        under_way: list[asyncio.Task[None]] = []
        for name, number in events:
            held_once |= set(rig.ownership.held())
            if name == "time":
                await passing(number / 1000)
            else:
                under_way += [rig.spawn(call) for call in _done(rig, name, number)]
        await asyncio.gather(*under_way)
        rig.ownership.keep(range(4))
        for partition in range(4):
            _write(rig, partition)
            assert rig.ownership.epoch(partition) in (0, rig.store.owned[partition].epoch)
        rig.store.faults.before.clear()
        rig.store.faults.after.clear()
        for _ in range(2):
            await rig.look(ALONE)
        assert rig.true()
        assert len(rig.ownership.held()) == PARTITIONS
        assert held_once - set(rig.ownership.held()) <= set(rig.lost)
        assert stage.crashes == []


def _done(rig: Rig, name: str, partition: int) -> list[Coroutine[Any, Any, Any]]:
    """Do it; gives what goes on beside the rest."""
    store, ownership = rig.store, rig.ownership
    if name == "give":
        ownership.hold([partition])
        return [ownership.hand_over([(partition, OTHER)])]
    if name == "look":
        return [rig.look(BOTH)]
    deeds: dict[str, Callable[[], object]] = {
        "other": lambda: store.lose(partition, OTHER),
        "nobody": lambda: store.owned.__setitem__(partition, Owner(store.owned[partition].epoch, "")),
        "forget": lambda: store.owned.__setitem__(partition, Owner(0, "")),
        "write": lambda: _write(rig, partition),
        "hold": lambda: ownership.hold([partition]),
        "keep": lambda: ownership.keep([partition]),
        "away": lambda: store.faults.before.update(("owners", "acquire", "hand_over")),
        "lost": lambda: store.faults.after.update(("acquire", "hand_over")),
    }
    deeds[name]()
    return []


def _write(rig: Rig, partition: int) -> None:
    owner, epoch = rig.store.owned[partition], rig.ownership.epoch(partition)
    if epoch != owner.epoch:
        rig.ownership.fenced(partition, Fenced(owner.epoch, owner.node))
        assert rig.ownership.epoch(partition) == 0
        assert not epoch or partition in rig.lost
