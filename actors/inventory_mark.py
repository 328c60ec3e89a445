"""Inventory mark: how far the projection is, as those who wait for an event see it.

However many wait, the database is asked once in LOOK_S, so that those who wait do not hold up what they wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from actors.inventory_ports import DatabaseAway
from actors.runtime.clock import Clock

LOOK_S = 0.01
WAITING_MAX = 4096
"""Queries that wait for events."""


class ProjectionMark:
    """Shared by all queries of a node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._seq = 0
        self._failures = 0
        self._why = ""
        self.waiting = 0

    async def look(self, watermark: Callable[[], Awaitable[int]]) -> int:
        """How far the projection is, no older than LOOK_S. Raises what `watermark` raises; those who waited for a look
        that found the database away do not look again."""
        failures = self._failures
        async with self._looking:
            if self._failures != failures:
                raise DatabaseAway(self._why)
            if self._clock.monotonic() - self._looked_at >= LOOK_S:
                try:
                    self._seq = await watermark()
                except DatabaseAway as error:
                    self._failures += 1
                    self._why = str(error)
                    raise
                self._looked_at = self._clock.monotonic()
            return self._seq
