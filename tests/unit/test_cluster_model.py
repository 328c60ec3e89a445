"""Nodes together, whatever happens to them: no two may act in one partition, and in the end each has its share."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.membership import DEAD_AFTER_S, STABLE_S
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.handover import KEPT_S
from actors.node_ports import NodeReplaced
from actors.ports import StoreAway
from tests.support.cluster_rig import ClusterRig, Member
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

NAMES = ["a", "b", "c"]
LOOK_S = 0.05
SLOW_S = 0.1
"""One that finds another dead and needs a whole beat to acquire may overlap with a dead one that wakes just then: the
store's fence stands, but the two may post the same batch."""
CALLS = ["beat", "owners", "acquire", "hand_over"]
DEEDS = ["freeze", "thaw", "crash", "cut", "mend", "leave"]
Step = st.one_of(
    st.tuples(st.just("time"), st.just(""), st.sampled_from([0.05, 0.35, 1.2, 2.1, 5.0])),
    st.tuples(st.just("time"), st.just(""), st.sampled_from([0.05, 0.35, 1.2, 2.1, 5.0])),
    st.tuples(st.sampled_from(DEEDS), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.sampled_from(["lose", "fail"]), st.sampled_from(NAMES), st.sampled_from(CALLS)),
    st.tuples(st.just("slow"), st.sampled_from(NAMES), st.sampled_from([0.001, 0.02, SLOW_S])),
    st.tuples(st.just("busy"), st.sampled_from(NAMES), st.sampled_from([0, 5, 200])),
)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(Step, min_size=5, max_size=40))
@in_virtual_time
async def test_no_two_may_act_in_one_partition(steps: list[tuple[str, str, object]]) -> None:
    """Three nodes freeze, thaw, crash, come back, leave, are cut off; calls are slow, fail, or lose their answers; what
    is under way takes long. At every moment a partition has one node that may act in it at the most, and when all is
    well again each node holds what it wins, under the stored epochs."""
    async with Stage() as stage:
        world = World(stage)
        for name in NAMES:
            await world.do("thaw", name, "")
        for step in steps:
            await world.do(*step)
        await world.settle()
        await world.pass_time(KEPT_S + 2 * STABLE_S + 4 * DEAD_AFTER_S)
        world.check()
        assert stage.crashes == []


class World:
    """Does the steps; looks who may act all the time."""

    def __init__(self, stage: Stage) -> None:
        self.cluster = ClusterRig(stage)
        self.live: dict[str, Member] = {}
        self.everybody: list[Member] = []
        self.left: list[Member] = []

    async def do(self, name: str, node: str, extra: object) -> None:
        """One step. One that makes no sense for the node is none."""
        member = self.live.get(node)
        if member is not None and member.membership.leaving and not member.services:
            await self.end(member)  # frozen while it stopped: its parent ends it
            member = None
        match name, extra:
            case "time", float(seconds):
                await self.pass_time(seconds)
            case "thaw", _:
                self.thaw(node, member)
            case _ if member is not None:
                await self.happen(member, name, extra)

    def thaw(self, node: str, member: Member | None) -> None:
        """It runs, as another process when it is no more."""
        if member is None:
            member = self.live[node] = self.cluster.make(node)
            self.everybody.append(member)
        if not member.services:
            member.run(handover=True)

    async def happen(self, member: Member, name: str, extra: object) -> None:
        """Something befalls a node."""
        faults = (member.store.faults, member.members.faults)
        match name, extra:
            case "freeze", _:
                await member.freeze()
            case "crash", _:
                await self.end(member)
            case "leave", _ if member.services:
                member.busy = set()
                member.services.append(self.cluster.stage.supervisor.spawn("leave", self.leave(member)))
            case "cut", _:
                member.cut()
            case "mend", _:
                self.mend(member)
            case "busy", int(count):
                member.busy = set(range(count))
        for each in faults:
            match name, extra:
                case "lose", str(call):
                    each.after[call] = 1
                case "fail", str(call):
                    each.before[call] = 1
                case "slow", float(seconds):
                    each.latency_s = seconds

    async def settle(self) -> None:
        """Whoever is about to leave does so, then all are there and well."""
        for turn in range(2):
            for name in NAMES:
                await self.do("thaw", name, "")
                await self.do("mend", name, "")
            await self.pass_time(1.0 - turn)

    async def leave(self, member: Member) -> None:
        """A planned stop; when the store is in its way it ends all the same."""
        with suppress(StoreAway, NodeReplaced):
            await member.handover.leave()
            await member.membership.leave()
        self.left.append(member)

    async def end(self, member: Member) -> None:
        """It is no more: nothing of it acts."""
        await member.freeze()
        if self.live.get(member.name) is member:
            del self.live[member.name]

    def mend(self, member: Member) -> None:
        """Its way to the store is as good as new."""
        member.cut(away=False)
        member.busy = set()
        for faults in (member.store.faults, member.members.faults):
            faults.before.clear()
            faults.after.clear()
            faults.latency_s = 0.001

    async def pass_time(self, seconds: float) -> None:
        """Look at everybody all the time."""
        for _ in range(max(round(seconds / LOOK_S), 1)):
            await passing(LOOK_S)
            while self.left:
                await self.end(self.left.pop())
            acting = [partition for member in self.live.values() for partition in member.may_act()]
            assert len(acting) == len(set(acting)), {name: len(of.may_act()) for name, of in self.live.items()}

    def check(self) -> None:
        """In the end."""
        assert self.live.keys() == set(NAMES)
        won = winners(frozenset(NAMES))
        assert tuple(self.cluster.owners()) == won
        for member in self.live.values():
            assert member.may_act() == {partition for partition in range(PARTITIONS) if won[partition] == member.name}
            assert all(
                member.ownership.epoch(partition) == self.cluster.store.owned[partition].epoch
                for partition in member.ownership.held()
            )
        assert self.cluster.members.nodes.keys() == set(NAMES)
        assert all(member.replaced == [] for member in self.everybody)
