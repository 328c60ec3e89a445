"""Nodes together, whatever happens to them: no two may act in one partition, and in the end each has its share."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.membership import DEAD_AFTER_S, STABLE_S
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.handover import KEPT_S
from tests.support.cluster_rig import ClusterRig, Member
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

NAMES = ["a", "b", "c"]
LOOK_S = 0.05
CALLS = ["beat", "owners", "acquire", "hand_over"]
Step = st.one_of(
    st.tuples(st.just("time"), st.just(""), st.sampled_from([0.05, 0.35, 1.2, 2.1, 5.0])),
    st.tuples(st.just("time"), st.just(""), st.sampled_from([0.05, 0.35, 1.2, 2.1, 5.0])),
    st.tuples(st.sampled_from(["freeze", "thaw", "crash", "cut", "mend", "leave"]), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.sampled_from(["lose", "fail"]), st.sampled_from(NAMES), st.sampled_from(CALLS)),
    st.tuples(st.just("slow"), st.sampled_from(NAMES), st.sampled_from([0.001, 0.05, 0.4, 0.9])),
    st.tuples(st.just("busy"), st.sampled_from(NAMES), st.sampled_from([0, 5, 200])),
)


@settings(max_examples=300, deadline=None)
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
            case "thaw", _ if member is None:
                member = self.live[node] = self.cluster.make(node)
                self.everybody.append(member)
                member.run(handover=True)
            case "thaw", _ if not member.services:
                member.run(handover=True)
            case "freeze", _ if member is not None:
                await member.freeze()
            case "crash", _ if member is not None:
                await self.end(member)
            case "leave", _ if member is not None and member.services:
                member.busy = set()
                member.services.append(self.cluster.stage.supervisor.spawn("leave", self.leave(member)))
            case "cut", _ if member is not None:
                member.cut()
            case "mend", _ if member is not None:
                self.mend(member)
            case "lose", str(call) if member is not None:
                member.store.faults.after[call] = member.members.faults.after[call] = 1
            case "fail", str(call) if member is not None:
                member.store.faults.before[call] = member.members.faults.before[call] = 1
            case "slow", float(seconds) if member is not None:
                member.store.faults.latency_s = member.members.faults.latency_s = seconds
            case "busy", int(count) if member is not None:
                member.busy = set(range(count))
            case _:
                return

    async def settle(self) -> None:
        """Whoever is about to leave does so, then all are there and well."""
        for turn in range(2):
            for name in NAMES:
                await self.do("thaw", name, "")
                await self.do("mend", name, "")
            await self.pass_time(1.0 - turn)

    async def leave(self, member: Member) -> None:
        """A planned stop; when the store is in its way it ends all the same."""
        try:
            await member.handover.leave()
            await member.membership.leave()
        except Exception as error:
            assert type(error).__name__ in ("StoreAway", "NodeReplaced")
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
