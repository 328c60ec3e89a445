"""Ownership: which partitions this node holds and under which epochs, who holds the others, and whether it may act.

Takes partitions by compare-and-set, gives them away, and stops acting for one the moment a write is refused with a
newer epoch. The epoch check inside each script is the fence: what is stored never depends on a clock. Only what leaves
the store's reach (a request to a webhook) is also held back by time: see `may_act`.
Invariant: `epoch(p)` is 0 for a partition this node does not hold; the store refuses epoch 0.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from actors.core.membership import ACTS_S
from actors.core.partition import PARTITIONS
from actors.core.placement import to_take
from actors.ports import Fenced, Meters, Owner, PartitionStore, StoreAway
from actors.runtime.clock import Clock

NOBODY = Owner(0, "")


class Taken(Struct, frozen=True):
    """How many partitions were taken, by who held them before ("" nobody)."""

    by_former: dict[str, int]


class Ownership:
    """The node's view of who owns what."""

    def __init__(self, node: str, store: PartitionStore, clock: Clock, meters: Meters) -> None:
        self.node = node
        self._store = store
        self._clock = clock
        self._meters = meters
        self._epochs = [0] * PARTITIONS
        self._since = [0.0] * PARTITIONS
        """Boot times at which partitions were taken."""
        self._owners = [NOBODY] * PARTITIONS
        self._looked: Sequence[Owner] = self._owners.copy()
        """What the last look read."""
        self._leaving: dict[int, int] = {}
        """Partitions that are being given away, and their epochs: nothing is begun there, what was begun may end."""
        self._seen = 0
        self._acts_until = float("-inf")
        self._losses: Counter[tuple[str, str]] = Counter()
        self.look_wanted = asyncio.Event()
        """Set when who owns what should be looked at soon."""
        self.on_lost: Callable[[Collection[int]], None] = lambda _partitions: None
        """Told of the partitions that this node acts for no more; set once by the composition root."""
        self.on_taken: Callable[[], None] = lambda: None
        """Told when partitions were taken: there may be work in them; set once by the composition root."""

    def epoch(self, partition: int) -> int:
        """The epoch this node holds the partition under; 0: it does not."""
        return self._epochs[partition]

    def held_for_s(self, partition: int) -> float:
        """For how long this node holds the partition already; 0 when it does not."""
        return self._clock.boottime() - self._since[partition] if self._epochs[partition] else 0.0

    def may_act(self, partition: int, epoch: int) -> bool:
        """Whether something may be started now that was planned under this epoch.

        Asked where it is started: a node that was frozen wakes in the middle of what it was doing.
        """
        return self._epochs[partition] == epoch != 0 and self._clock.boottime() < self._acts_until

    def held(self) -> Sequence[int]:
        """The partitions this node holds and acts for."""
        return [partition for partition, epoch in enumerate(self._epochs) if epoch]

    def owner_of(self, partition: int) -> str:
        """The node that owns the partition as far as is known here, "" nobody."""
        return self.node if self._epochs[partition] else self._owners[partition].node

    def known(self, partition: int) -> Owner:
        """Who was last heard to own the partition, and under which epoch."""
        return self._owners[partition]

    def losses(self) -> Sequence[tuple[str, str, int]]:
        """What went wrong since this was asked last: "fenced" writes and "lost" partitions, by who has them now."""
        losses = [(what, node, count) for (what, node), count in self._losses.items()]
        self._losses.clear()
        return losses

    def beaten(self, sent: float) -> None:
        """A beat that was sent at this boot time has been stored: nobody calls this node dead for a while."""
        self._acts_until = sent + ACTS_S

    def overslept(self, now: float) -> bool:
        """Whether another node may have taken over since the last beat: look before acting again."""
        return now >= self._acts_until

    def beat_late(self) -> bool:
        """Whether the last good beat is too old for this node to act."""
        return self.overslept(self._clock.boottime())

    async def look(self, alive: frozenset[str], leaving: frozenset[str] = frozenset()) -> Taken:
        """Learn who owns what, and take what is this node's among the living; those that are `leaving` still own what
        they have not given back. Raises StoreAway.

        Who lives was read before: a node that came since may own something already. An owner that does not live is
        believed in when it was the owner at the last look; else there is a next one.
        """
        self.look_wanted.clear()
        try:
            owners = await self._store.owners(range(PARTITIONS))
            self._learn(owners)
            known = [epoch or self._leaving.get(partition, 0) for partition, epoch in enumerate(self._epochs)]
            before, self._looked = self._looked, owners
            wanted = to_take(self.node, alive, leaving, owners, known)
            certain = [(at, owner) for at, owner in wanted if owner.node in ("", self.node) or owner == before[at]]
            taken = await self._take(certain)
            if len(certain) < len(wanted):
                self.look_wanted.set()
        except BaseException:
            self.look_wanted.set()
            raise
        self._meters.partitions_held.set(len(self.held()))
        return taken

    def settled(self, alive: frozenset[str]) -> bool:
        """Whether every partition has a living owner, as far as is known here."""
        return all(self.owner_of(partition) in alive for partition in range(PARTITIONS))

    def reclaim(self) -> None:
        """Somebody's ownership may have changed: look again soon."""
        self.look_wanted.set()

    def heard(self, partition: int, epoch: int, node: str) -> None:
        """Another node says who owns a partition; what is newer than what is known here holds."""
        if epoch > self._owners[partition].epoch:
            self._owners[partition] = Owner(epoch, node)
            self._seen = max(self._seen, epoch)
            if self._epochs[partition] and epoch > self._epochs[partition]:
                self.look_wanted.set()

    def fenced(self, partition: int, owner: Fenced) -> None:
        """A write was refused: stop acting for the partition at once."""
        self._seen = max(self._seen, owner.epoch)
        self._meters.fenced.inc()
        self._losses["fenced", owner.node] += 1
        self._owners[partition] = Owner(owner.epoch, owner.node)
        if self._epochs[partition]:
            if self._epochs[partition] == owner.epoch:
                return  # a late write of an earlier epoch of ours: giving up would fence all that is in flight now
            if owner.epoch < self._epochs[partition]:
                self.reclaim()  # an older answer that came late, or a store that went back: look what is true
            self._epochs[partition] = 0
            self.on_lost((partition,))
        if self._leaving.get(partition) != owner.epoch:
            self._leaving.pop(partition, None)
        if owner.node in ("", self.node):
            self.reclaim()

    def hold(self, partitions: Collection[int]) -> None:
        """Begin nothing more in these partitions: they are to be given away."""
        leaving = [partition for partition in partitions if self._epochs[partition]]
        for partition in leaving:
            self._leaving[partition] = self._epochs[partition]
            self._epochs[partition] = 0
        if leaving:
            self.on_lost(leaving)

    def keep(self, partitions: Collection[int]) -> None:
        """Act again for partitions that were held back and not given away."""
        kept = [partition for partition in partitions if partition in self._leaving]
        for partition in kept:
            self._epochs[partition] = self._leaving.pop(partition)
        if kept:
            self.on_taken()

    async def hand_over(self, moves: Sequence[tuple[int, str]]) -> Mapping[int, int]:
        """Make partitions that are held back another node's; gives those that became so, and under which epochs. Raises
        StoreAway; then nobody knows whose they are, and what is found to be this node's gets a new epoch: the write may
        still come."""
        known = [(partition, self._leaving[partition], node) for partition, node in moves if partition in self._leaving]
        try:
            owners = await self._store.hand_over(known)
        except StoreAway:
            for partition, _, _ in known:
                self._leaving.pop(partition, None)
            self.reclaim()
            raise
        given = {}
        for (partition, _, _), owner in zip(known, owners, strict=True):
            self._leaving.pop(partition, None)
            self._owners[partition] = Owner(owner.epoch, owner.node)
            self._seen = max(self._seen, owner.epoch)
            if isinstance(owner, Owner):
                given[partition] = owner.epoch
        self._meters.partitions_held.set(len(self.held()))
        return given

    async def are_taken(self, given: Mapping[int, int]) -> bool:
        """Whether partitions that were handed over under these epochs have been acquired since. Raises StoreAway."""
        owners = await self._store.owners(list(given))
        return all(owner.epoch > epoch for epoch, owner in zip(given.values(), owners, strict=True))

    async def resign(self, partitions: Collection[int]) -> None:
        """Give partitions back to nobody, whoever comes next need not wait. Raises StoreAway."""
        self.hold(partitions)
        held = [(partition, self._leaving[partition]) for partition in partitions if partition in self._leaving]
        if held:
            await self._store.resign(held)
        for partition, epoch in held:
            self._leaving.pop(partition, None)
            self._owners[partition] = Owner(epoch, "")

    def _learn(self, owners: Sequence[Owner]) -> None:
        """Take note of who owns what; let go of what another node has taken."""
        lost = []
        for partition, owner in enumerate(owners):
            self._seen = max(self._seen, owner.epoch)
            self._owners[partition] = owner
            if (owner.node, owner.epoch) != (self.node, self._epochs[partition]) and self._epochs[partition]:
                lost.append(partition)
                if owner.node != self.node:
                    self._losses["lost", owner.node] += 1
                self._epochs[partition] = 0
            if owner.epoch != self._leaving.get(partition):
                self._leaving.pop(partition, None)
        if lost:
            self.on_lost(lost)

    async def _take(self, wanted: Sequence[tuple[int, Owner]]) -> Taken:
        by_former: dict[str, int] = {}
        if not wanted:
            return Taken(by_former)
        after = await self._store.acquire(self.node, self._seen, [(at, former.epoch) for at, former in wanted])
        for (partition, former), owner in zip(wanted, after, strict=True):
            self._seen = max(self._seen, owner.epoch)
            self._owners[partition] = owner
            if owner.node == self.node:
                self._epochs[partition] = owner.epoch
                self._since[partition] = self._clock.boottime()
                by_former[former.node] = by_former.get(former.node, 0) + 1
        if by_former:
            self.on_taken()
        return Taken(by_former)
