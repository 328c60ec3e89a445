"""Cluster rig: nodes without anything to do, in virtual time, over one store in memory: who lives, who owns what.

A node is its ownership, its membership and its handover; what it would deliver is not there, `busy` says what it
pretends to have in hand. Checks nothing itself.
"""

from __future__ import annotations

import asyncio

from actors.handover import Handover
from actors.membership import Membership
from actors.node_ports import Hint, NodeRecord
from actors.ownership import Ownership
from tests.support.doubles import Stage, TallyMeters
from tests.support.memory_membership import MemoryMembership
from tests.support.memory_store import MemoryStore
from tests.support.until import passing


class Member:
    """One node."""

    def __init__(self, cluster: ClusterRig, name: str, incarnation: str) -> None:
        stage = cluster.stage
        self.name = name
        self.cluster = cluster
        self.meters = TallyMeters()
        self.store = cluster.store.link()
        self.members = cluster.members.link()
        self.ownership = Ownership(name, self.store, stage.clock, self.meters)
        identity = NodeRecord(
            node=name, incarnation=incarnation, beat=0, address=f"{name}.example:7000", version="0.0.1"
        )
        self.membership = Membership(identity, self.members, self.ownership, stage.clock, self.meters, stage.journal)
        self.handover = Handover(self.ownership, self.membership, self, stage.clock, self.meters)
        self.busy: set[int] = set()
        self.handover.busy = lambda: self.busy
        self.rung: list[tuple[str, Hint]] = []
        self.lost: list[int] = []
        self.taken = 0
        self.replaced: list[str] = []
        self.ownership.on_lost = self.lost.extend
        self.ownership.on_taken = self._on_taken
        self.membership.on_replaced = self.replaced.append
        self.services: list[asyncio.Task[None]] = []

    def _on_taken(self) -> None:
        self.taken += 1

    def ring(self, node: str, hint: Hint) -> None:
        """Bell: heard at once."""
        self.rung.append((node, hint))
        heard = self.cluster.members_by_name.get(node)
        if heard is not None:
            heard.ownership.reclaim()

    def run(self, *, handover: bool = False) -> None:
        """Beat as a service; move what is misplaced as another."""
        spawn = self.cluster.stage.supervisor.spawn
        self.services.append(spawn(f"{self.name} beats", self.membership.run()))
        if handover:
            self.services.append(spawn(f"{self.name} hands over", self.handover.run()))

    async def freeze(self) -> None:
        """End what runs, in the middle of whatever it does; the rest of the node stays as it is. `run` thaws it."""
        for service in self.services:
            service.cancel()
        await asyncio.gather(*self.services, return_exceptions=True)
        self.services.clear()

    def cut(self, away: bool = True) -> None:
        """Take the way to the store away from this node: refused at once, as a lane does. Or give it back."""
        self.store.faults.away = self.members.faults.away = away

    def may_act(self) -> set[int]:
        """The partitions in which this node may start something now."""
        ownership = self.ownership
        return {partition for partition in ownership.held() if ownership.may_act(partition, ownership.epoch(partition))}


class ClusterRig:
    """Nodes by their names, over one store that nobody owned before."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.store = MemoryStore(owned=False)
        self.members = MemoryMembership()
        self.members_by_name: dict[str, Member] = {}
        self._made = 0

    def make(self, name: str) -> Member:
        """A node, or another process of the same name."""
        self._made += 1
        member = self.members_by_name[name] = Member(self, name, f"process {self._made}")
        return member

    async def started(self, *names: str, handover: bool = False) -> list[Member]:
        """Nodes that run, one after the other."""
        members = []
        for name in names:
            member = self.make(name)
            await member.membership.run_once()
            member.run(handover=handover)
            members.append(member)
        return members

    def owners(self) -> list[str]:
        """Who owns what, in the store."""
        return [owner.node for owner in self.store.owned]

    def held(self) -> list[int]:
        """What the nodes believe to hold, all together: a partition that two believe in is there twice."""
        return sorted(at for member in self.members_by_name.values() for at in member.ownership.held())


async def together(*members: Member, for_s: float) -> None:
    """Let nodes run for a while, then stop them where they are."""
    for member in members:
        member.run()
    await passing(for_s)
    for member in members:
        await member.freeze()
