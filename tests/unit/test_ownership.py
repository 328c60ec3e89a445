"""Which partitions this node holds, and when it stops acting for them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.partition import PARTITIONS
from actors.ownership import RECLAIM_PAUSE_S, Ownership
from actors.ports import Fenced, Owner
from tests.support.doubles import Stage, value
from tests.support.memory_store import EPOCH, NODE, MemoryStore
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

OTHER = "node-2"


class Rig:
    """A node's ownership over a store in memory; `lost` is what it said it lost."""

    def __init__(self, stage: Stage, *, owned: bool = True) -> None:
        self.stage = stage
        self.store = MemoryStore(owned=owned)
        self.ownership = Ownership(NODE, self.store, stage.meters)
        self.lost: list[int] = []
        self.ownership.on_lost = self.lost.append

    async def start(self, *, service: bool = False) -> Rig:
        """Hold every partition."""
        await self.ownership.take_all()
        if service:
            self.stage.supervisor.service("ownership", self.ownership.run)
        return self


@in_virtual_time
async def test_nothing_is_held_before_it_is_taken() -> None:
    """Epoch 0 is nobody's: the store refuses it."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert [rig.ownership.epoch(partition) for partition in range(PARTITIONS)] == [0] * PARTITIONS
        assert rig.ownership.held() == []


@in_virtual_time
async def test_what_is_nobodys_or_anothers_is_taken() -> None:
    """Under an epoch above every one that was seen, so that the last owner is fenced."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        rig.store.owned[3] = Owner(41, OTHER)
        await rig.start()
        assert rig.ownership.held() == list(range(PARTITIONS))
        assert all(owner.node == NODE for owner in rig.store.owned)
        assert all(rig.ownership.epoch(partition) > 41 for partition in range(PARTITIONS))


@in_virtual_time
async def test_what_is_held_stays_as_it_is() -> None:
    """After a restart of the store with its data nothing in flight is disturbed."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epochs = [rig.ownership.epoch(partition) for partition in range(PARTITIONS)]
        acquired = rig.store.faults.count("acquire")
        await rig.ownership.take_all()
        assert [rig.ownership.epoch(partition) for partition in range(PARTITIONS)] == epochs
        assert rig.store.faults.count("acquire") == acquired
        assert rig.lost == []


@in_virtual_time
async def test_a_node_that_restarts_fences_its_own_past() -> None:
    """The same name in the store is no proof: what it had in flight before is taken over."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert rig.store.owned[0] == Owner(EPOCH, NODE)
        await rig.start()
        assert rig.ownership.epoch(0) > EPOCH


@in_virtual_time
async def test_who_is_fenced_stops_at_once() -> None:
    """For that partition and no other; it is said once, and another node's is not taken back."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        rig.store.lose(7, OTHER)
        owner = rig.store.owned[7]
        rig.ownership.fenced(7, Fenced(owner.epoch, owner.node))
        assert rig.ownership.epoch(7) == 0
        assert len(rig.ownership.held()) == PARTITIONS - 1
        rig.ownership.fenced(7, Fenced(owner.epoch, owner.node))
        assert rig.lost == [7]
        await passing(5.0)
        assert rig.ownership.epoch(7) == 0
        assert rig.store.owned[7].node == OTHER
        assert value(stage.meters.fenced) == 2


@in_virtual_time
async def test_what_became_nobodys_is_taken_back() -> None:
    """The store lost the end of its log, or all of it."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        before = rig.ownership.epoch(7)
        rig.store.owned[7] = Owner(0, "")
        rig.ownership.fenced(7, Fenced(0, ""))
        assert rig.ownership.epoch(7) == 0
        await passing(1.0)
        assert rig.ownership.epoch(7) > before
        assert rig.store.owned[7] == Owner(rig.ownership.epoch(7), NODE)


@in_virtual_time
async def test_a_late_write_of_our_own_past_costs_nothing() -> None:
    """An attempt claimed under an earlier epoch of ours is refused with the epoch that is ours now. Giving the
    partition up for that would fence all that is in flight under the new one, which would be refused in turn."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        rig.store.owned[7] = Owner(0, "")
        rig.ownership.reclaim()
        await passing(1.0)
        now = rig.ownership.epoch(7)
        acquired = rig.store.faults.count("acquire")
        rig.ownership.fenced(7, Fenced(now, NODE))
        await passing(1.0)
        assert rig.ownership.epoch(7) == now
        assert rig.store.faults.count("acquire") == acquired
        assert rig.lost == []


@in_virtual_time
async def test_our_own_name_with_an_unknown_epoch_is_taken_back() -> None:
    """A second node of the same name, or a store of another time."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        rig.store.owned[7] = Owner(99, NODE)
        rig.ownership.fenced(7, Fenced(99, NODE))
        assert rig.ownership.epoch(7) == 0
        await passing(1.0)
        assert rig.ownership.epoch(7) == rig.store.owned[7].epoch > 99


@in_virtual_time
async def test_a_partition_lost_in_a_race_is_said() -> None:
    """Between looking and taking another node was faster: what acts for it must hear of that."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.owned[7] = Owner(0, "")
        rig.store.faults.latency_s = 1.0
        taking = stage.supervisor.spawn("take", rig.ownership.take_all())
        await passing(1.5)
        rig.store.owned[7] = Owner(1000, OTHER)
        await taking
        assert rig.ownership.epoch(7) == 0
        assert rig.lost == [7]
        assert len(rig.ownership.held()) == PARTITIONS - 1


@in_virtual_time
async def test_taking_back_waits_for_the_store() -> None:
    """It is tried again until it is done; wishes that come meanwhile are one."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        looked = rig.store.faults.count("owners")
        rig.store.faults.before["owners"] = 5
        rig.store.owned[7] = Owner(0, "")
        rig.ownership.fenced(7, Fenced(0, ""))
        rig.ownership.reclaim()
        await passing(6 * (RECLAIM_PAUSE_S + 0.01))
        assert rig.ownership.epoch(7) != 0
        assert rig.store.faults.count("owners") - looked == 6
        assert stage.crashes == []


@in_virtual_time
async def test_a_crash_while_taking_back_forgets_nothing() -> None:
    """The service is started again, and what was to be done is still to be done."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        rig.store.faults.broken["owners"] = RuntimeError("WRONGTYPE")
        rig.store.owned[7] = Owner(0, "")
        rig.ownership.fenced(7, Fenced(0, ""))
        await passing(0.01)
        assert stage.crash_names() == ["ownership"]
        del rig.store.faults.broken["owners"]
        await passing(1.0)
        assert rig.ownership.epoch(7) != 0


@in_virtual_time
async def test_a_planned_stop_gives_everything_back() -> None:
    """At once here, so that nothing more is begun; then in the store, where nobody holds it then."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        rig.store.faults.latency_s = 1.0
        resigning = stage.supervisor.spawn("resign", rig.ownership.resign())
        await passing(0.1)
        assert rig.ownership.held() == []
        await resigning
        assert {owner.node for owner in rig.store.owned} == {""}
        assert rig.lost == []


@in_virtual_time
async def test_what_was_given_back_is_not_taken_again() -> None:
    """A late answer of the store says that the partitions are nobody's; they are the next node's."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        await rig.ownership.resign()
        rig.ownership.fenced(7, Fenced(8, ""))
        rig.ownership.reclaim()
        await passing(5.0)
        assert {owner.node for owner in rig.store.owned} == {""}
        assert rig.ownership.held() == []


@in_virtual_time
async def test_a_node_that_holds_nothing_gives_nothing_back() -> None:
    """The store is not asked."""
    async with Stage() as stage:
        rig = Rig(stage, owned=False)
        await rig.ownership.resign()
        assert rig.store.faults.calls == []


Event = st.tuples(st.sampled_from(["other", "nobody", "write", "reclaim", "away", "time"]), st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(events=st.lists(Event, max_size=30))
@in_virtual_time
async def test_a_node_never_believes_in_what_the_store_refused(events: list[tuple[str, int]]) -> None:
    """Other nodes take partitions, the store forgets them, is away, and this node's writes find out. An epoch that
    this node believes in and that is not the stored one is given up with the first write, and `on_lost` is told of
    it; what is nobody's is held again in the end; another's is never taken."""
    async with Stage() as stage:
        rig = await Rig(stage).start(service=True)
        held = set(rig.ownership.held())

        def write(partition: int) -> None:
            owner, epoch = rig.store.owned[partition], rig.ownership.epoch(partition)
            if epoch != owner.epoch:
                rig.ownership.fenced(partition, Fenced(owner.epoch, owner.node))
                assert rig.ownership.epoch(partition) == 0
                assert not epoch or partition in rig.lost

        deeds: dict[str, Callable[[int], None]] = {
            "other": lambda partition: rig.store.lose(partition, OTHER),
            "nobody": lambda partition: rig.store.owned.__setitem__(partition, Owner(0, "")),
            "write": write,
            "reclaim": lambda _: rig.ownership.reclaim(),
            "away": lambda count: rig.store.faults.before.update({"owners": count, "acquire": count}),
        }
        taken: set[int] = set()
        for name, number in events:
            if name == "time":
                await passing(number / 8)
            else:
                deeds[name](number)
            if name == "other":
                taken.add(number)
        for partition in range(4):
            write(partition)
        await passing(10.0)
        for partition in held - taken:
            assert rig.ownership.epoch(partition) == rig.store.owned[partition].epoch
            assert rig.store.owned[partition].node == NODE
        assert stage.crashes == []
