"""Audience: tells the store how many people listen on this node, and keeps it told.

What has changed goes out within CHANGES_S, gathered; every REFRESH_S the store is told that the rest still holds. A
node that is killed is told of no more, and forgotten. Invariant: after each round in which the store could be reached
it knows the numbers of the moment in which the round began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from actors.channel_ports import ChannelName, ChannelStore, Report
from actors.ports import StoreAway
from actors.runtime.clock import Clock

CHANGES_S = 0.1
REFRESH_S = 2.0
REPORTS_MAX = 256
"""Reports of one call."""


class Audience:
    """The people who listen here, by channel."""

    def __init__(self, store: ChannelStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._people: dict[int, dict[str, int]] = {}
        """By partition and kid, those of which there are any."""
        self._changed: dict[int, set[str]] = {}
        self._unknown: set[int] = set()
        """Partitions of which the store has to be told everything."""
        self._wake = asyncio.Event()
        self._refreshed_at = float("-inf")

    def count(self, channel: ChannelName, people: int) -> None:
        """So many listen to a channel here now."""
        of = self._people.setdefault(channel.partition, {})
        if people:
            of[channel.kid] = people
        else:
            of.pop(channel.kid, None)
        self._changed.setdefault(channel.partition, set()).add(channel.kid)
        self._wake.set()

    async def run(self) -> None:
        """Tell the store for ever. A service: ends only by cancellation."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_S if self._people else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(CHANGES_S)
            await self.run_once()

    async def run_once(self) -> int:
        """Tell the store what has changed, and from time to time that the rest still holds; gives how many reports
        were taken. What the store could not take is told it again."""
        reports = self._reports()
        taken = 0
        for at in range(0, len(reports), REPORTS_MAX):
            taken += await self._tell(reports[at : at + REPORTS_MAX])
        if not any(self._people.values()):
            self._people.clear()
        return taken

    async def leave(self) -> None:
        """Tell the store that nobody listens here any more. Raises StoreAway."""
        partitions = list(self._people)
        self._people.clear()
        await self._store.report([Report(partition, (), True) for partition in partitions])

    def _reports(self) -> list[Report]:
        self._wake.clear()
        changed, self._changed = self._changed, {}
        unknown, self._unknown = self._unknown, set()
        reports = [self._report(partition, kids) for partition, kids in changed.items() if partition not in unknown]
        reports += [Report(partition, tuple(self._people.get(partition, {}).items()), True) for partition in unknown]
        now = self._clock.monotonic()
        if now - self._refreshed_at >= REFRESH_S:
            self._refreshed_at = now
            told = changed.keys() | unknown
            unchanged = [partition for partition, of in self._people.items() if of and partition not in told]
            reports += [Report(partition, (), False) for partition in unchanged]
        return reports

    def _report(self, partition: int, kids: Iterable[str]) -> Report:
        of = self._people.get(partition, {})
        return Report(partition, tuple((kid, of.get(kid, 0)) for kid in kids), False)

    async def _tell(self, reports: list[Report]) -> int:
        if not reports:
            return 0
        # Until it has answered, whatever comes of this, the store may know nothing of these.
        self._unknown |= {report.partition for report in reports}
        taken: list[int] = []
        try:
            answers = await self._store.report(reports)
            taken = [report.partition for report, answer in zip(reports, answers, strict=True) if answer is True]
        except StoreAway:
            pass
        finally:
            self._unknown.difference_update(taken)
            if self._unknown:
                self._wake.set()
        return len(taken)
