"""Forwarding rig: a few nodes in virtual time over one store in memory, each with buffers, deliveries and its desk.

What a node knows of owners is the test's to set, and so is what happens on the way from one to another. Checks nothing
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from actors.attempt import Attempts
from actors.buffers import Buffers
from actors.core.partition import PARTITIONS
from actors.deliveries import Deliveries
from actors.desk import Desk
from actors.forwarding import Forwarding, Neighbours
from actors.node_ports import Hint, PeerAnswer, PeerAway, PeerRequest
from actors.ownership import Ownership
from actors.ports import Fenced, Owner
from tests.support.delivery_rig import HOLD_S
from tests.support.doubles import RULES, Stage, TallyMeters, Webhooks, make_entry
from tests.support.memory_store import EPOCH, MemoryStore
from tests.support.until import passing

KEY = "k"
PARTITION = make_entry(KEY).partition


class Knowledge:
    """What one node holds and knows: an `Ownership` that learns only what it is told."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.epochs = [0] * PARTITIONS
        self.owners = [Owner(0, "")] * PARTITIONS
        self.looks = 0

    def epoch(self, partition: int) -> int:
        """Ownership."""
        return self.epochs[partition]

    def may_act(self, partition: int, epoch: int) -> bool:
        """Ownership."""
        return self.epochs[partition] == epoch != 0

    def owner_of(self, partition: int) -> str:
        """Ownership."""
        return self.node if self.epochs[partition] else self.owners[partition].node

    def known(self, partition: int) -> Owner:
        """Ownership."""
        return self.owners[partition]

    def heard(self, partition: int, epoch: int, node: str) -> None:
        """Ownership."""
        if epoch > self.owners[partition].epoch:
            self.owners[partition] = Owner(epoch, node)

    def fenced(self, partition: int, owner: Fenced) -> None:
        """Ownership."""
        self.epochs[partition] = 0
        self.owners[partition] = Owner(owner.epoch, owner.node)

    def reclaim(self) -> None:
        """Ownership."""
        self.looks += 1


class Bells:
    """A bell that notes what was rung at whom."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, Hint]] = []

    def ring(self, node: str, hint: Hint) -> None:
        """Bell."""
        self.rung.append((node, hint))


class Roads:
    """The way to the other nodes' desks. `closed` ones cannot be reached, of `mute` ones the answer is lost, `instead`
    answers in a desk's place; each takes `takes_s`."""

    def __init__(self) -> None:
        self.desks: dict[str, Desk] = {}
        self.closed: set[str] = set()
        self.mute: set[str] = set()
        self.instead: dict[str, Callable[[PeerRequest], PeerAnswer | Exception]] = {}
        self.takes_s = 0.001
        self.asked: list[tuple[str, PeerRequest, float]] = []

    async def ask(self, node: str, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Peers."""
        self.asked.append((node, request, within_s))
        if node in self.closed:
            await passing(within_s)
            raise PeerAway("closed")
        await passing(self.takes_s)
        if node in self.instead:
            answer = self.instead[node](request)
            if isinstance(answer, Exception):
                raise answer
            return answer
        answer = await self.desks[node].serve(request, within_s)
        if node in self.mute:
            await passing(within_s)
            raise PeerAway("the answer was lost")
        return answer

    def to(self) -> list[str]:
        """Who was asked, in order."""
        return [node for node, _, _ in self.asked]


class RigNode:
    """One node."""

    def __init__(self, node: str, rig: ForwardingRig, forward_appends: bool) -> None:
        self.knowledge = Knowledge(node)
        self.meters = TallyMeters()
        ownership = cast(Ownership, self.knowledge)
        tools: Any = rig.stage.tools()
        store, stage = rig.store, rig.stage
        self.buffers = Buffers(store, ownership, stage.supervisor, stage.clock, self.meters)
        attempts = Attempts(store, rig.webhooks, ownership, RULES, tools)
        self.deliveries = Deliveries(attempts, store, ownership, tools, HOLD_S)
        neighbours = Neighbours(rig.roads, rig.bells, lambda name: name in rig.alive)
        tools = type(tools)(
            supervisor=tools.supervisor,
            clock=tools.clock,
            jitter=tools.jitter,
            journal=tools.journal,
            meters=self.meters,
        )
        self.forwarding = Forwarding(self.buffers, self.deliveries, self.knowledge, neighbours, tools, forward_appends)
        self.desk = Desk(self.buffers, self.deliveries, self.knowledge)
        self.buffers.on_closed = self.deliveries.offer
        self.buffers.on_foreign = self.forwarding.stored_for_other
        self.buffers.make_delivery_id = rig.delivery_id
        rig.roads.desks[node] = self.desk

    def knows(self, owner: str, epoch: int = EPOCH, partition: int = PARTITION) -> None:
        """Say who owns a partition, as far as this node knows."""
        self.knowledge.owners[partition] = Owner(epoch, owner)
        self.knowledge.epochs[partition] = epoch if owner == self.knowledge.node else 0


class ForwardingRig:
    """Nodes `a`, `b` and `c`; `b` owns the partition of KEY, and all know it."""

    def __init__(self, stage: Stage, forward_appends: bool = False) -> None:
        self.stage = stage
        self.store = MemoryStore()
        self.webhooks = Webhooks()
        self.roads = Roads()
        self.bells = Bells()
        self.alive = {"a", "b", "c"}
        self.made = 0
        self.a, self.b, self.c = (RigNode(node, self, forward_appends) for node in "abc")
        self.owned_by("b")
        for node in (self.a, self.b, self.c):
            node.knows("b")

    def owned_by(self, node: str, epoch: int = EPOCH) -> None:
        """Make the store's word this; nodes go on knowing what they know."""
        self.store.owned[PARTITION] = Owner(epoch, node)

    def delivery_id(self, partition: int) -> str:
        """A fresh id."""
        self.made += 1
        return f"dlv_{partition:02x}{self.made}"
