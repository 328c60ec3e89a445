"""Ownership: which partitions this node holds, and under which epochs.

Takes partitions by compare-and-set, gives them back on a planned stop, and stops acting for one the moment a write is
refused with a newer epoch. Never decides by time: the epoch check inside each script is the fence.
Invariant: `epoch(p)` is 0 for a partition this node does not hold; the store refuses epoch 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from actors.core.partition import PARTITIONS
from actors.ports import Fenced, Meters, Owner, PartitionStore, StoreAway

RECLAIM_PAUSE_S = 0.2


class Ownership:
    """The node's view of who owns what. One node owns every partition until nodes share them."""

    def __init__(self, node: str, store: PartitionStore, meters: Meters) -> None:
        self.node = node
        self._store = store
        self._meters = meters
        self._epochs = [0] * PARTITIONS
        self._seen = 0
        self._resigned = False
        self._reclaim = asyncio.Event()
        self.on_lost: Callable[[int], None] = lambda _partition: None
        """Told of each partition that another node took; set once by the composition root."""

    def epoch(self, partition: int) -> int:
        """The epoch this node holds the partition under; 0: it does not."""
        return self._epochs[partition]

    def held(self) -> Sequence[int]:
        """The partitions this node holds."""
        return [partition for partition, epoch in enumerate(self._epochs) if epoch]

    async def take_all(self) -> None:
        """Take every partition, whoever holds it. Raises StoreAway."""
        await self._take(lambda _owner: True)

    async def take_vacant(self) -> None:
        """Take what nobody holds, and what is stored under this node's name with an epoch it does not know: the store
        has lost the end of its log. Raises StoreAway.

        After a restart of the store with its data the epochs still match, so nothing in flight is disturbed.
        """
        await self._take(lambda owner: owner.node in ("", self.node))

    async def _take(self, wanted_of: Callable[[Owner], bool]) -> None:
        partitions = range(PARTITIONS)
        owners = await self._store.owners(partitions)
        self._seen = max(self._seen, *(owner.epoch for owner in owners))
        wanted = [
            (partition, owner.epoch)
            for partition, owner in zip(partitions, owners, strict=True)
            if wanted_of(owner) and (owner.node != self.node or owner.epoch != self._epochs[partition])
        ]
        taken = await self._store.acquire(self.node, self._seen, wanted) if wanted else ()
        for (partition, _), owner in zip(wanted, taken, strict=True):
            self._seen = max(self._seen, owner.epoch)
            held = self._epochs[partition]
            self._epochs[partition] = owner.epoch if owner.node == self.node else 0
            if held and not self._epochs[partition]:
                self.on_lost(partition)

    async def run(self) -> None:
        """Take back what is nobody's, or was lost with the end of the store's log. A service."""
        while True:
            await self._reclaim.wait()
            self._reclaim.clear()
            try:
                await self.take_vacant()
            except StoreAway:
                self._reclaim.set()
                await asyncio.sleep(RECLAIM_PAUSE_S)
            except BaseException:
                self._reclaim.set()
                raise

    def reclaim(self) -> None:
        """The store may have changed: look again, soon, at who owns what. Not after a planned stop."""
        if not self._resigned:
            self._reclaim.set()

    async def resign(self) -> None:
        """Give all partitions back: whoever comes next need not wait. Raises StoreAway."""
        held = [(partition, self._epochs[partition]) for partition in self.held()]
        self._epochs = [0] * PARTITIONS
        self._resigned = True
        if held:
            await self._store.resign(held)

    def fenced(self, partition: int, owner: Fenced) -> None:
        """A write was refused: stop acting for the partition at once."""
        self._seen = max(self._seen, owner.epoch)
        self._meters.fenced.inc()
        if self._epochs[partition]:
            if self._epochs[partition] == owner.epoch:
                return  # a late write of an earlier epoch of ours: giving up would fence all that is in flight now
            self._epochs[partition] = 0
            self.on_lost(partition)
        if owner.node in ("", self.node):
            self.reclaim()
