"""Which partitions this node holds, whether it may act in them now, and when it stops acting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

import pytest

from actors.core.membership import ACTS_S, DEAD_AFTER_S
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.ownership import Ownership, Taken
from actors.ports import Fenced, Owner, StoreAway
from tests.support.doubles import Stage, value
from tests.support.memory_store import EPOCH, NODE, MemoryStore
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

OTHER = "node-2"
ALONE = frozenset({NODE})
BOTH = frozenset({NODE, OTHER})
P = 7


class Rig:
    """A node's ownership over a store in memory; `lost` is what it said it lost, `taken` how often it took."""

    def __init__(self, stage: Stage, *, owned: bool = True) -> None:
        self.stage = stage
        self.store = MemoryStore(owned=owned)
        self.ownership = Ownership(NODE, self.store, stage.clock, stage.meters)
        self.lost: list[int] = []
        self.taken = 0
        self.ownership.on_lost = self._on_lost
        self.ownership.on_taken = self._on_taken

    def _on_lost(self, partitions: Collection[int]) -> None:
        assert all(self.ownership.epoch(partition) == 0 for partition in partitions)
        self.lost += partitions

    def _on_taken(self) -> None:
        self.taken += 1

    async def start(self) -> Rig:
        """Hold every partition, with a beat of just now."""
        await self.look(ALONE)
        self.beat()
        self.taken = 0
        return self

    async def look(self, alive: frozenset[str] = ALONE) -> Taken:
        """Look who owns what."""
        return await self.ownership.look(alive)

    async def _unless_away(self, call: Coroutine[Any, Any, Any]) -> None:
        try:
            await call
        except StoreAway:
            return

    def spawn(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        """Beside the test."""
        return self.stage.supervisor.spawn("ownership", self._unless_away(call))

    def beat(self) -> None:
        """A beat has been stored just now."""
        self.ownership.beaten(self.stage.clock.boottime())

    def epochs(self) -> list[int]:
        """What is held under which epoch."""
        return [self.ownership.epoch(partition) for partition in range(PARTITIONS)]

    def acts(self, partition: int = P) -> bool:
        """Whether it may act under the epoch it holds."""
        return self.ownership.may_act(partition, self.ownership.epoch(partition))

    def true(self) -> bool:
        """What is held here is what the store says."""
        return all(
            self.store.owned[partition] == Owner(self.ownership.epoch(partition), NODE)
            for partition in self.ownership.held()
        )


@in_virtual_time
async def test_nothing_is_held_before_it_is_taken() -> None:
    """Epoch 0 is nobody's: the store refuses it, and nobody may act under it."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.beat()
        assert rig.epochs() == [0] * PARTITIONS
        assert rig.ownership.held() == []
        assert not rig.acts()
        assert rig.ownership.owner_of(P) == ""


@in_virtual_time
async def test_a_node_alone_takes_everything() -> None:
    """What is nobody's or a dead node's; under an epoch above every one that was seen, so that the last owner is
    fenced. It says from whom."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        rig.store.owned[3] = Owner(41, OTHER)
        assert (await rig.look()).by_former == {"": PARTITIONS - 1}
        assert (await rig.look()).by_former == {OTHER: 1}
        assert rig.ownership.held() == list(range(PARTITIONS))
        assert all(owner.node == NODE for owner in rig.store.owned)
        assert min(rig.epochs()) > 41
        assert rig.taken == 2
        assert value(stage.meters.partitions_held) == PARTITIONS
        assert rig.ownership.owner_of(3) == NODE


@in_virtual_time
async def test_an_owner_that_is_not_among_the_living_may_have_come_just_now() -> None:
    """Who lives was read before who owns what. It is believed to be gone when it is not among the living of a later
    read; each epoch of it anew."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        for epoch in (5000, 6000):
            rig.store.owned[P] = Owner(epoch, OTHER)
            rig.ownership.fenced(P, Fenced(epoch, OTHER))
            assert (await rig.look(ALONE)).by_former == {}
            assert rig.ownership.look_wanted.is_set(), "nobody has to wait for a beat"
        assert (await rig.look(ALONE)).by_former == {OTHER: 1}
        assert not rig.ownership.look_wanted.is_set()


@in_virtual_time
async def test_of_what_is_nobodys_only_its_own_is_taken_beside_others() -> None:
    """What a living node has stays its."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        mine = [partition for partition, winner in enumerate(winners(BOTH)) if winner == NODE]
        rig.store.owned[mine[0]] = Owner(41, OTHER)
        await rig.look(BOTH)
        assert rig.ownership.held() == mine[1:]
        assert rig.ownership.owner_of(mine[0]) == OTHER


@in_virtual_time
async def test_what_is_held_stays_as_it_is() -> None:
    """After a restart of the store with its data nothing in flight is disturbed."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epochs, acquired = rig.epochs(), rig.store.faults.count("acquire")
        assert (await rig.look()).by_former == {}
        assert rig.epochs() == epochs
        assert rig.store.faults.count("acquire") == acquired
        assert (rig.lost, rig.taken) == ([], 0)


@in_virtual_time
async def test_a_node_that_restarts_fences_its_own_past() -> None:
    """The same name in the store is no proof: what it had in flight before is taken over."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert rig.store.owned[0] == Owner(EPOCH, NODE)
        await rig.look(BOTH)
        assert min(rig.epochs()) > EPOCH


@in_virtual_time
async def test_it_may_act_for_a_while_after_each_beat() -> None:
    """Counted from when the beat was sent; shorter than it takes others to call it dead; and under that epoch only."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        sent = stage.clock.boottime()
        epoch = rig.ownership.epoch(P)
        assert rig.ownership.may_act(P, epoch)
        assert not rig.ownership.may_act(P, epoch - 1)
        assert not rig.ownership.may_act(P, epoch + 1)
        assert not rig.ownership.may_act(P, 0)
        await passing(ACTS_S - 0.01)
        assert rig.acts()
        assert not rig.ownership.overslept(stage.clock.boottime())
        await passing(0.02)
        assert not rig.acts()
        assert rig.ownership.overslept(stage.clock.boottime())
        assert rig.ownership.epoch(P) == epoch, "it holds it still: that is for the store to say"
        rig.ownership.beaten(sent)
        assert not rig.acts(), "a beat's answer that came late"
        rig.beat()
        assert rig.acts()
        assert ACTS_S < DEAD_AFTER_S


@in_virtual_time
async def test_before_the_first_beat_it_may_not_act() -> None:
    """Whatever it holds."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.look()
        assert not rig.acts()
        assert rig.ownership.overslept(stage.clock.boottime())


@in_virtual_time
async def test_who_is_fenced_stops_at_once() -> None:
    """For that partition and no other; it is said once, and another node's is not reached for."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        before = rig.ownership.epoch(P)
        rig.store.lose(P, OTHER)
        owner = rig.store.owned[P]
        rig.ownership.fenced(P, Fenced(owner.epoch, owner.node))
        assert not rig.ownership.may_act(P, before)
        assert rig.ownership.epoch(P) == 0
        assert len(rig.ownership.held()) == PARTITIONS - 1
        rig.ownership.fenced(P, Fenced(owner.epoch, owner.node))
        assert rig.lost == [P]
        assert rig.ownership.owner_of(P) == OTHER
        assert not rig.ownership.look_wanted.is_set()
        assert value(stage.meters.fenced) == 2
        assert (await rig.look(BOTH)).by_former == {}
        assert rig.store.owned[P] == owner


@pytest.mark.parametrize("owner", [Owner(0, ""), Owner(99, ""), Owner(99, NODE)], ids=["empty", "nobody", "own name"])
@in_virtual_time
async def test_what_is_no_other_nodes_is_looked_at_again(owner: Owner) -> None:
    """The store lost the end of its log or all of it, the partition was given back, or another process has our name."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        before = rig.ownership.epoch(P)
        rig.store.owned[P] = owner
        rig.ownership.fenced(P, Fenced(owner.epoch, owner.node))
        assert rig.ownership.epoch(P) == 0
        assert rig.ownership.look_wanted.is_set()
        await rig.look()
        assert not rig.ownership.look_wanted.is_set()
        assert rig.ownership.epoch(P) > max(before, owner.epoch)
        assert rig.true()
        assert rig.lost == [P]


@in_virtual_time
async def test_a_late_write_of_our_own_past_costs_nothing() -> None:
    """An attempt claimed under an earlier epoch of ours is refused with the epoch that is ours now. Giving the
    partition up for that would fence all that is in flight under the new one, which would be refused in turn."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.owned[P] = Owner(0, "")
        await rig.look()
        now = rig.ownership.epoch(P)
        assert rig.lost == [P]
        rig.ownership.fenced(P, Fenced(now, NODE))
        assert rig.ownership.epoch(P) == now
        assert not rig.ownership.look_wanted.is_set()
        assert rig.lost == [P]


@in_virtual_time
async def test_a_refusal_older_than_what_is_held_makes_it_look() -> None:
    """An answer that came late, or a store that went back to before our time: the store knows which."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        held = rig.ownership.epoch(P)
        rig.ownership.fenced(P, Fenced(held - 1, OTHER))
        assert rig.ownership.look_wanted.is_set()
        await rig.look(BOTH)
        assert rig.ownership.epoch(P) == rig.store.owned[P].epoch > held
        rig.store.owned[P] = Owner(held - 1, OTHER)
        rig.ownership.fenced(P, Fenced(held - 1, OTHER))
        await rig.look(BOTH)
        assert rig.store.owned[P] == Owner(held - 1, OTHER)
        assert rig.ownership.epoch(P) == 0


@in_virtual_time
async def test_what_a_look_finds_lost_is_let_go() -> None:
    """All that another node took is said in one go; what a dead node took is taken back."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        for partition in (3, 4, 5):
            rig.store.lose(partition, OTHER)
        await rig.look(BOTH)
        assert rig.lost == [3, 4, 5]
        assert [rig.ownership.owner_of(partition) for partition in (3, 4, 5)] == [OTHER] * 3
        assert (await rig.look(ALONE)).by_former == {OTHER: 3}, "known from the look before"
        assert len(rig.ownership.held()) == PARTITIONS
        assert rig.true()


@in_virtual_time
async def test_a_partition_lost_in_a_race_is_said() -> None:
    """Between looking and taking another node was faster: what acts for it must hear of that."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.owned[P] = Owner(0, "")
        rig.store.faults.latency_s = 1.0
        looking = rig.spawn(rig.look())
        await passing(1.5)
        rig.store.owned[P] = Owner(1000, OTHER)
        await looking
        assert rig.ownership.epoch(P) == 0
        assert rig.ownership.owner_of(P) == OTHER
        assert rig.lost == [P]
        assert len(rig.ownership.held()) == PARTITIONS - 1


@pytest.mark.parametrize("at_s", [0.5, 1.5, 2.5])
@in_virtual_time
async def test_fenced_while_it_looks(at_s: float) -> None:
    """While it reads, while it takes, or just after: what the refusal said is not undone by an older answer."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.owned[3] = Owner(0, "")
        rig.store.faults.latency_s = 1.0
        looking = rig.spawn(rig.look(BOTH))
        await passing(at_s)
        rig.store.lose(P, OTHER)
        rig.ownership.fenced(P, Fenced(rig.store.owned[P].epoch, OTHER))
        await looking
        assert rig.ownership.epoch(P) == 0
        assert rig.store.owned[P].node == OTHER
        assert rig.lost.count(P) == 1
        assert rig.true()


@pytest.mark.parametrize("written", [True, False], ids=["taken", "not taken"])
@in_virtual_time
async def test_a_look_that_failed_is_wanted_again(written: bool) -> None:
    """Whether the partitions became ours nobody knows: until the next look nothing is held that was not before."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        (rig.store.faults.after if written else rig.store.faults.before)["acquire"] = 1
        with pytest.raises(StoreAway):
            await rig.look()
        assert rig.ownership.look_wanted.is_set()
        assert rig.ownership.held() == []
        await rig.look()
        assert len(rig.ownership.held()) == PARTITIONS
        assert rig.true()
        assert not rig.ownership.look_wanted.is_set()


@pytest.mark.parametrize("call", ["owners", "acquire"])
@in_virtual_time
async def test_a_look_that_crashes_forgets_nothing(call: str) -> None:
    """What was to be done is still to be done."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.faults.broken[call] = RuntimeError("WRONGTYPE")
        rig.store.owned[P] = Owner(0, "")
        with pytest.raises(RuntimeError):
            await rig.look()
        assert rig.ownership.look_wanted.is_set()
        del rig.store.faults.broken[call]
        await rig.look()
        assert rig.true()
        assert len(rig.ownership.held()) == PARTITIONS


@in_virtual_time
async def test_a_wish_that_comes_while_it_looks_stays() -> None:
    """The look that is under way may have read too early."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.faults.latency_s = 1.0
        looking = rig.spawn(rig.look())
        await passing(0.5)
        rig.ownership.reclaim()
        await looking
        assert rig.ownership.look_wanted.is_set()


@in_virtual_time
async def test_what_others_say_counts_when_it_is_newer() -> None:
    """It is a hint of where to ask; what is held stays held until the store has been asked."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        held = rig.ownership.epoch(P)
        rig.ownership.heard(P, held - 1, OTHER)
        rig.ownership.heard(P, held, OTHER)
        assert rig.ownership.owner_of(P) == NODE
        assert not rig.ownership.look_wanted.is_set()
        rig.ownership.heard(P, held + 5, OTHER)
        assert rig.ownership.look_wanted.is_set()
        assert rig.acts()
        await rig.look()
        assert rig.ownership.epoch(P) == held, "it was not true"
        rig.store.lose(3, OTHER)
        rig.ownership.fenced(3, Fenced(rig.store.owned[3].epoch, OTHER))
        rig.ownership.heard(3, rig.store.owned[3].epoch + 1, "node-3")
        assert rig.ownership.owner_of(3) == "node-3"


@pytest.mark.parametrize(("told", "refused"), [(5000, 7000), (7000, 5000)])
@in_virtual_time
async def test_the_next_epoch_is_above_all_that_was_heard_of(told: int, refused: int) -> None:
    """Also of other partitions, and from nodes that only told of it: the store may have forgotten."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        rig.ownership.heard(3, told, OTHER)
        rig.ownership.fenced(4, Fenced(refused, OTHER))
        await rig.look()
        assert min(rig.epochs()) > max(told, refused)


@in_virtual_time
async def test_settled_when_every_partition_has_a_living_owner() -> None:
    """As far as is known here."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert not rig.ownership.settled(ALONE)
        await rig.start()
        assert rig.ownership.settled(ALONE)
        rig.store.lose(P, OTHER)
        rig.ownership.fenced(P, Fenced(rig.store.owned[P].epoch, OTHER))
        assert not rig.ownership.settled(ALONE)
        assert rig.ownership.settled(BOTH)
