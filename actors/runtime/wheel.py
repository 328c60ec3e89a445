"""Wheel: one loop timer for any number of deadlines.

Items that fall due close together share a slot, so a hundred thousand open buffers cost one timer and a set entry
each. An item is never given back before its time; one far away is handed out early once, to be armed again finely.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from actors.runtime.clock import Clock, Timer

FINE_S = 0.005
"""Width of a near slot, and so the lateness a slot adds at the most."""
COARSE_S = 1.0
FAR_S = 10.0
"""Deadlines further away than this share slots a second wide: a day of them is 86,400 slots, not 17 million."""
EARLY_S = 0.0006
"""More than a loop's timer may be early: a turn before the time finds nothing due and is taken again and again."""
BITE = 256
"""Items handed out before the loop gets a turn: ten thousand deadlines at once must not stall it."""

Item = TypeVar("Item", bound=Hashable)


class Wheel(Generic[Item]):
    """Calls `on_due(item)` once for each `arm`, at the deadline or (far ones) before; who gets it looks at the time."""

    def __init__(self, clock: Clock, on_due: Callable[[Item], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._slots: dict[float, dict[Item, None]] = {}
        """Each slot's items, in the order in which they were armed: a set's would be another in each process."""
        self._order: list[float] = []
        self._timer: Timer | None = None
        self._next = math.inf

    def arm(self, item: Item, when: float) -> float:
        """Hand the item out at monotonic time `when`. Gives the slot, which `disarm` wants."""
        now = self._clock.monotonic()
        if when - now > FAR_S:
            slot = math.floor(when / COARSE_S) * COARSE_S
        else:
            at = max(when, now)
            number = math.ceil(at / FINE_S)
            slot = number * FINE_S
            if slot < at:  # a division may round down to the number, and the item would come early
                slot = (number + 1) * FINE_S
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = {item: None}
            heapq.heappush(self._order, slot)
            if slot < self._next:
                self._schedule(slot, slot + EARLY_S)
        else:
            items[item] = None
        return slot

    def disarm(self, item: Item, slot: float) -> None:
        """Forget the item; nothing happens when the slot has already gone."""
        items = self._slots.get(slot)
        if items is not None:
            items.pop(item, None)

    def __len__(self) -> int:
        return sum(len(items) for items in self._slots.values())

    def _schedule(self, slot: float, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = self._clock.call_at(at, self._turn)

    def _turn(self) -> None:
        self._timer, self._next = None, math.inf
        left = BITE
        now = self._clock.monotonic()
        try:
            while self._order and self._order[0] <= now:
                items = self._slots[self._order[0]]
                while items and left:
                    left -= 1
                    self._on_due(items.popitem()[0])
                if items:
                    break
                del self._slots[heapq.heappop(self._order)]
        finally:  # what `on_due` raises is for the loop's log: the other items are handed out all the same
            if self._order:
                first = self._order[0]
                self._schedule(first, first + EARLY_S if first > now else now)
