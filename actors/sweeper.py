"""Sweeper: looks into the store four times a second for what is due or soon will be.

The safety net under every timer, and how a node learns of batches and deliveries that it did not see being made: its
own from before a restart, those another node appended. Reads only; what it finds it tells to the actors.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from actors.buffers import Buffers
from actors.deliveries import Deliveries
from actors.ownership import Ownership
from actors.ports import Census, Journal, Meters, PartitionStore, Ready, StoreAway
from actors.runtime.clock import Clock
from actors.tail import Tail

PERIOD_S = 0.25
AHEAD_MS = 600
"""Look-ahead: longer than two periods, so that one late sweep still finds everything before its time."""
ROWS_MAX = 16
"""Rows of a kind and partition a sweep: a backlog is worked off in bites that don't stall the loop."""
CROWDED_ROWS_MAX = 4096
"""Rows of all crowded partitions together, in the sweep after one that found them so: where other nodes take the
messages it is the sweep that finds most batches, and 16 a look would close no more than 64 of a partition a second."""
WIDE_ROWS = 2048
"""Rows looked at for a line that had no room for all of its own and has some again: twice what it can hold."""
CENSUS_EVERY = 8


class Sweeper:
    """A service around `run_once`."""

    def __init__(
        self, store: PartitionStore, ownership: Ownership, buffers: Buffers, deliveries: Deliveries, tail: Tail
    ) -> None:
        self._store = store
        self._ownership = ownership
        self._buffers = buffers
        self._deliveries = deliveries
        self._tail = tail
        self._woken = asyncio.Event()
        self.census = Census(0, 0, 0)
        """How much waited in this node's partitions at the last look."""
        self._rows = ROWS_MAX
        self._skip: dict[int, int] = {}
        """Ready rows of a partition that the next sweep passes over, because their hosts had no room."""
        self._wide: set[int] = set()

    async def run_once(self) -> tuple[int, int]:
        """Sweep the partitions this node holds; gives how many batches and deliveries it found. Raises StoreAway."""
        rows = self._rows
        batches, ready = await self._store.sweep(self._ownership.held(), AHEAD_MS, rows, self._skip)
        self._buffers.heard(batches)
        self._offer(ready, rows)
        crowded = sum(found >= rows for found in Counter(batch.partition for batch in batches).values())
        self._rows = max(ROWS_MAX, CROWDED_ROWS_MAX // crowded) if crowded else ROWS_MAX
        if self._wide:
            wide = frozenset(self._wide)
            held = [partition for partition in self._ownership.held() if partition in wide]
            more = (await self._store.sweep(held, AHEAD_MS, WIDE_ROWS, {}))[1] if held else ()
            self._wide -= wide
            for delivery in more:
                self._deliveries.offer(delivery)
        return len(batches), len(ready)

    def look_wide(self, partitions: set[int]) -> None:
        """Sweep soon, and look at many more rows of these."""
        self._wide |= partitions
        self.wake()

    def _offer(self, ready: Sequence[Ready], rows: int) -> None:
        """Offer what is ready. Where a host has no room for its rows the next sweep looks behind them, and begins
        anew at the end: a host with a long backlog neither hides the others nor is asked about row by row."""
        seen = Counter(delivery.partition for delivery in ready)
        refused = Counter(delivery.partition for delivery in ready if not self._deliveries.offer(delivery))
        # Where all of it found room there is more, and room for it: it is looked at in this sweep.
        self._wide |= {partition for partition, count in seen.items() if count >= rows and not refused[partition]}
        self._skip = {
            partition: self._skip.get(partition, 0) + count
            for partition, count in refused.items()
            if seen[partition] >= rows
        }

    async def run(self, clock: Clock, meters: Meters, journal: Journal) -> None:
        """Sweep for ever, and keep the gauges that need a look into the store."""
        turn = 0
        away = False
        while True:
            self._tail.trim(clock.monotonic())
            try:
                await self.run_once()
                if turn % CENSUS_EVERY == 0:
                    await self._census(meters, journal)
                if away:
                    journal.info("store is back")
                away = False
            except StoreAway as error:
                if not away:
                    journal.warning("store is away", reason=str(error))
                away = True
            turn += 1
            await self._pause()

    def wake(self) -> None:
        """Sweep soon: there may be work that nobody here knows of."""
        self._woken.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PERIOD_S):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def _census(self, meters: Meters, journal: Journal) -> None:
        census = self.census = await self._store.census(self._ownership.held())
        if census.turned_back:
            turned = [(at, self._ownership.epoch(at), ms) for at, ms in census.turned_back.items()]
            journal.warning("the store's clock was turned back", by_ms=max(census.turned_back.values()))
            await self._store.turn_back([each for each in turned if each[1]])
            self.wake()
        meters.open_batches.set(census.open_batches)
        meters.oldest_waiting_seconds.set(census.oldest_waiting_ms / 1000)
        await self._deliveries.give_back_orphans(census.claimed)
        meters.mailbox_depth.set(self._buffers.mailbox_depth)
        meters.quarantined.set(self._buffers.quarantined)
        meters.breaker_open.set(self._deliveries.open_breakers)
