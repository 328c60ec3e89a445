"""Handover: planned moves of partitions to other nodes, a few at a time, and all at once when this node stops.

A partition that moves is held back first: nothing is begun in it. When nothing of it is under way any more its next
owner is named in the store and rung. One that stays busy for too long is kept, and tried again later.
Invariant: a planned move cuts off no request to a webhook, so it makes no duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from actors.core.membership import STABLE_S
from actors.core.placement import to_give
from actors.membership import Membership
from actors.node_ports import Bell, Look
from actors.ownership import Ownership
from actors.ports import Meters, StoreAway
from actors.runtime.clock import Clock

PERIOD_S = 0.25
IDLE_LOOK_S = 0.01
"""Between two looks at whether what is under way in a held partition has ended."""
TAKEN_S_MAX = STABLE_S
"""How long to wait for a new owner: one that has not come by then is dead, and everybody's beats look after it."""
HELD_S_MAX = 1.0
"""How long a partition is held back at the most before it is kept for now."""
KEPT_S = 10.0
"""How long it is left in peace then: what waits for a slow webhook must not stand still most of the time."""


class Handover:
    """A service around `run_once`. `busy` names the partitions in which something is under way."""

    def __init__(self, ownership: Ownership, membership: Membership, bell: Bell, clock: Clock, meters: Meters) -> None:
        self._ownership = ownership
        self._membership = membership
        self._bell = bell
        self._clock = clock
        self._meters = meters
        self._moving: Collection[int] = ()
        self._kept_until: dict[int, float] = {}
        self.busy: Callable[[], Collection[int]] = tuple
        """Set once by the composition root."""

    async def run(self) -> None:
        """Move what is misplaced, for ever. A service."""
        while True:
            try:
                moved = await self.run_once()
            except StoreAway:
                moved = 0
            await asyncio.sleep(0 if moved else PERIOD_S)

    async def run_once(self) -> int:
        """Move a share of the misplaced partitions if the membership is stable; gives how many moved. Returns when
        their new owners have taken them, so that never more than the share is on its way."""
        if self._membership.leaving or self._membership.stable_s() < STABLE_S:
            return 0
        began = self._clock.boottime()
        movable = [partition for partition in self._ownership.held() if self._kept_until.get(partition, began) <= began]
        targets = dict(to_give(self._ownership.node, self._membership.alive(), movable))
        if not targets:
            return 0
        self._moving = targets
        self._ownership.hold(targets)
        try:
            idle = await self._idle(targets, HELD_S_MAX)
            self._kept_until |= dict.fromkeys(targets.keys() - set(idle), began + HELD_S_MAX + KEPT_S)
            given = await self._ownership.hand_over([(partition, targets[partition]) for partition in idle])
        finally:
            self._ownership.keep(targets)
            self._moving = ()
        for node in {targets[partition] for partition in given}:
            self._membership.note("handed over", node, sum(targets[partition] == node for partition in given))
            self._bell.ring(node, Look())
        if await self._taken(given):
            self._meters.handovers.inc(len(given))
            self._meters.handover_seconds.observe(self._clock.boottime() - began)
        return len(given)

    async def leave(self) -> None:
        """Give everything back as soon as nothing of it is under way. Ends by itself or by cancellation.

        Raises StoreAway."""
        await self._membership.leave_soon()
        remaining = {*self._ownership.held(), *self._moving}
        while remaining:
            idle = remaining - set(self.busy())
            if idle:
                await self._ownership.resign(idle)
                remaining -= idle
                for node in self._membership.alive() - {self._ownership.node}:
                    self._bell.ring(node, Look())
            if remaining:
                await asyncio.sleep(IDLE_LOOK_S)

    async def _idle(self, partitions: Collection[int], within_s: float) -> list[int]:
        """Those of the partitions in which nothing is under way, after at most so long."""
        ends_at = self._clock.monotonic() + within_s
        while (  # noqa: ASYNC110  a look now and then costs less than a signal at every attempt's end
            busy := set(self.busy()) & set(partitions)
        ) and self._clock.monotonic() < ends_at:
            await asyncio.sleep(IDLE_LOOK_S)
        return [partition for partition in partitions if partition not in busy]

    async def _taken(self, given: Mapping[int, int]) -> bool:
        """Whether the new owners have acquired the partitions, waiting for it a while."""
        ends_at = self._clock.monotonic() + TAKEN_S_MAX
        while given and not await self._ownership.are_taken(given):
            if self._clock.monotonic() >= ends_at:
                return False
            await asyncio.sleep(IDLE_LOOK_S)
        return bool(given)
