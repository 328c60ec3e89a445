"""Loop lag: how late the event loop is. What every other deadline here depends on."""

from __future__ import annotations

import asyncio

from actors.ports import Histogram
from actors.runtime.clock import Clock

PERIOD_S = 0.05


async def watch_loop(clock: Clock, lag_seconds: Histogram) -> None:
    """Sleep a little, for ever, and observe by how much each sleep was too long. A service."""
    while True:
        expected = clock.monotonic() + PERIOD_S
        await asyncio.sleep(PERIOD_S)
        lag_seconds.observe(max(clock.monotonic() - expected, 0.0))
