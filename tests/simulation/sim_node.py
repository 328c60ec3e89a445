"""Node: one simulated node: the real actors, joined as `router/app.py` joins them, over simulated ports.

Owns the order in which its parts come up and go down, as the composition root does. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import msgspec
from msgspec import Struct

from actors.attempt import Attempts, Tools
from actors.buffers import Buffers
from actors.core.ids import IdSource
from actors.deliveries import Deliveries
from actors.desk import Desk
from actors.egress_ports import Egress
from actors.forwarding import Forwarding, Neighbours
from actors.handover import Handover
from actors.membership import Membership
from actors.node_ports import Bell, NodeRecord, Peers
from actors.ownership import Ownership
from actors.ports import Appended, Entry, Overloaded, StoreAway
from actors.runtime.supervisor import Supervisor
from actors.sweeper import Sweeper
from actors.tail import Tail
from actors.webhook_call import DeliveryRules
from tests.simulation.loop import Process, ProcessClock, SimLoop
from tests.simulation.node_store import NodeStore
from tests.simulation.wires import Lanes
from tests.support.doubles import JournalLines, TallyMeters

RULES = DeliveryRules(timeout_s=2.0, max_retries=3, retry_delay_s=0.5, user_agent="buzon/simulation")
HOLD_S = 1.0
STORE_WAIT_S = 5.0
REQUESTS_DRAIN_S = 1.0
DELIVERIES_DRAIN_S = 2.5


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a node stands in."""

    loop: SimLoop
    random: Random
    process: Process
    lanes: Lanes
    bell: Bell
    peers: Peers
    egress: Egress
    forward_appends: bool


class SimNode:
    """One process's worth of node."""

    def __init__(self, name: str, incarnation: str, around: Surroundings) -> None:
        self.name = name
        self.process = around.process
        self.lanes = around.lanes
        self.journal = JournalLines()
        self.meters = TallyMeters()
        self.crashes: list[str] = []
        self.fatal: list[str] = []
        self.accepting = False
        self.on_fatal: Callable[[], None] = lambda: None
        """Told that this process cannot go on."""
        random = around.random
        self.clock = clock = ProcessClock(around.loop, around.process, random.uniform(-3600.0, 3600.0))
        self.supervisor = Supervisor(clock, self._report, self._end)
        store = NodeStore(around.lanes, around.process)
        identity = NodeRecord(node=name, incarnation=incarnation, beat=0)
        self.ownership = Ownership(name, store, clock, self.meters)
        self.membership = Membership(identity, store, self.ownership, clock, self.meters, self.journal)
        self.tail = Tail(around.lanes.away)
        self.ids = IdSource(lambda: int(clock.wall() * 1000), random.randbytes)
        self.buffers = Buffers(store, self.ownership, self.supervisor, clock, self.meters)
        tools = Tools(
            supervisor=self.supervisor, clock=clock, jitter=random.random, journal=self.journal, meters=self.meters
        )
        self.attempts = Attempts(store, around.egress, self.ownership, RULES, tools)
        self.deliveries = Deliveries(self.attempts, store, self.ownership, tools, HOLD_S)
        self.handover = Handover(self.ownership, self.membership, around.bell, clock, self.meters)
        self.sweeper = Sweeper(store, self.ownership, self.buffers, self.deliveries, self.tail)
        neighbours = Neighbours(around.peers, around.bell, lambda name: name in self.membership.alive())
        self.forwarding = Forwarding(
            self.buffers, self.deliveries, self.ownership, neighbours, tools, around.forward_appends
        )
        self.desk = Desk(self.buffers, self.deliveries, self.ownership)
        self._join()

    async def start(self) -> None:
        """Come up. Raises StoreAway, TimeoutError."""
        self.supervisor.service("store-hot", self.lanes.hot.run)
        self.supervisor.service("store-cold", self.lanes.cold.run)
        async with asyncio.timeout(STORE_WAIT_S):
            await self.lanes.hot.up.wait()
            await self.lanes.cold.up.wait()
        await self.membership.run_once()
        self.supervisor.service("membership", self.membership.run)
        self.supervisor.service("handover", self.handover.run)
        self.supervisor.service("sweeper", lambda: self.sweeper.run(self.clock, self.meters, self.journal))
        self.accepting = True

    async def stop(self) -> None:
        """Go down as planned."""
        self.accepting = False
        leaving = self.supervisor.spawn("leave", self._leave())
        draining = self.supervisor.spawn("drain", self.deliveries.drain(DELIVERIES_DRAIN_S))
        try:
            async with asyncio.timeout(REQUESTS_DRAIN_S):
                await self.forwarding.appends.drained()
                await self.buffers.drained()
        except TimeoutError:
            self.journal.warning("commit queue not empty at the end")
        await asyncio.wait([draining], timeout=DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S)
        await asyncio.wait([leaving], timeout=REQUESTS_DRAIN_S)
        await self.supervisor.stop()

    async def ingest(self, entry: Entry) -> Appended | Exception:
        """Take a message, as the edge does; what the edge would say of an error is the error."""
        if not self.accepting:
            return ConnectionRefusedError()
        named = msgspec.structs.replace(entry, batch_id=self.ids.delivery_id(entry.partition))
        try:
            return await self.forwarding.append(named)
        except (StoreAway, Overloaded) as error:
            return error

    def _join(self) -> None:
        self.buffers.make_delivery_id = self.ids.delivery_id
        self.buffers.on_closed = self.deliveries.offer
        self.buffers.on_stored = self._keep
        self.buffers.on_foreign = self.forwarding.stored_for_other
        self.forwarding.appends.on_stored = self._keep
        self.ownership.on_lost = self.buffers.forget_partitions
        self.ownership.on_taken = self.sweeper.wake
        self.membership.on_replaced = self._end
        self.handover.busy = self.attempts.partitions_in_hand
        self.lanes.unreplayed = self._unreplayed
        self.lanes.others = lambda: len(self.membership.alive()) > 1
        self.lanes.on_changed = self.ownership.reclaim

    def _keep(self, entries: Sequence[Entry], received_us: Sequence[int]) -> None:
        self.tail.keep(entries, self.clock.monotonic(), received_us)

    def _unreplayed(self) -> list[Entry]:
        return [
            msgspec.structs.replace(entry, batch_id=self.ids.delivery_id(entry.partition))
            for entry in self.tail.entries()
            if isinstance(entry, Entry)
        ]

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(DELIVERIES_DRAIN_S + REQUESTS_DRAIN_S):
                await self.handover.leave()
                await self.membership.leave()
        except (StoreAway, TimeoutError) as error:
            self.journal.warning("partitions not given back", reason=str(error))

    def _end(self, reason: str) -> None:
        self.fatal.append(reason)
        self.on_fatal()

    def _report(self, phrase: str, name: str, error: BaseException) -> None:
        self.crashes.append(f"{phrase}: {name}: {error!r}")
