"""Deliveries: the supervisor of all deliveries of this node. Decides which attempt starts when, and runs them as jobs.

Per key the store lets only the oldest undelivered batch be claimed, so order is not decided here. Per host a line with
a bound and a breaker, so a slow or dead host costs the others nothing.
Invariants: at most RUNNING_MAX attempts at once; a delivery is tried by one job at a time; what does not fit into
memory waits in the store and comes back with a sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from actors.attempt import Attempts, Tools
from actors.core.ids import is_task, partition_of
from actors.core.outcome import Answered, Failed
from actors.host import CONCURRENCY, FREE, Host, Lane, Start, Wait
from actors.ownership import Ownership
from actors.ports import (
    Claim,
    DeliveryFilter,
    DeliveryRecord,
    DeliveryStore,
    Fenced,
    ListCursor,
    Next,
    NothingOpen,
    Overloaded,
    Ready,
    StoreAway,
    WrongState,
)
from actors.runtime.wheel import Wheel

RUNNING_MAX = 2048
"""Attempts of a node: a hundred hosts that all hang leave room for the others."""
HOSTS_QUIET_MAX = 1024
"""Hosts whose failures are remembered while nothing is delivered to them."""
BULK_PAGE = 100

Change = Next | WrongState | NothingOpen | Fenced


class Deliveries:
    """The front of deliveries: offer what may start; ask to look, retry and discard."""

    def __init__(
        self, attempts: Attempts, store: DeliveryStore, ownership: Ownership, tools: Tools, hold_s: float
    ) -> None:
        self._attempts = attempts
        self._store = store
        self._ownership = ownership
        self._supervisor = tools.supervisor
        self._clock = tools.clock
        self._journal = tools.journal
        self._meters = tools.meters
        self._hold_s = hold_s
        self._hosts: dict[str, Host] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._hungry: dict[str, Host] = {}
        self._quiet: dict[str, None] = {}
        self._wheel: Wheel[Ready] = Wheel(tools.clock, self._start_when_due)
        self._armed: dict[str, float] = {}
        """When a delivery that is not due yet will be started."""
        self._jobs: set[asyncio.Task[None]] = set()
        self._orphans: set[str] = set()
        self._draining = False
        self.lane_of: Callable[[str], Lane] = lambda _name: FREE
        """What holds for a line beside its breaker; set once by the composition root, as the next."""
        self.on_room: Callable[[set[int]], None] = lambda _partitions: None
        """Told of partitions that hold more for a line which has room again."""
        self.on_discarded: Callable[[str], None] = lambda _delivery_id: None
        """Told of each delivery that was given up on demand."""

    @property
    def running(self) -> int:
        """Attempts under way."""
        return len(self._jobs)

    @property
    def open_breakers(self) -> int:
        """Hosts that are held back now."""
        return sum(host.is_open for host in self._hosts.values())

    def offer(self, ready: Ready) -> bool:
        """Start a delivery when its time and its host allow. Telling it again changes nothing.

        False: its host or this node has no room for it now; a later sweep finds it again and may look behind it.
        """
        if self._draining or not self._ownership.epoch(ready.partition):
            self._armed.pop(ready.delivery_id, None)
            return False
        if ready.due_in_ms > 0:
            if ready.delivery_id not in self._armed:
                due_at = self._armed[ready.delivery_id] = self._clock.monotonic() + ready.due_in_ms / 1000
                self._wheel.arm(Ready(ready.partition, ready.delivery_id, ready.host, 0), due_at)
            return True
        self._armed.pop(ready.delivery_id, None)
        host = self._hosts.get(ready.host)
        if host is None:
            host = self._hosts[ready.host] = Host(ready.host, self._hold_s, self.lane_of(ready.host))
            self._slots[ready.host] = asyncio.Semaphore(CONCURRENCY)
        if not host.offer(ready, self._clock.monotonic()):
            return False
        self._quiet.pop(host.name, None)
        self._pump(host)
        return not host.waits(ready.delivery_id)

    def go_on(self, name: str) -> None:
        """What held a line holds it no more."""
        host = self._hosts.get(name)
        if host is not None:
            self._pump(host)

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        """One delivery with its attempts. Raises StoreAway."""
        return await self._store.get(delivery_id)

    async def list_deliveries(
        self, wanted: DeliveryFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[DeliveryRecord], ListCursor | None]:
        """A page of deliveries. Raises StoreAway."""
        return await self._store.list_deliveries(wanted, cursor, limit)

    async def retry(self, delivery_id: str, partition: int) -> Change:
        """Try a dead or waiting delivery again now. Raises StoreAway."""
        return self._changed(partition, await self._store.requeue(self._claim(delivery_id, partition)))

    async def retry_dead(
        self,
        key: str | None,
        since_ms: int,
        until_ms: int,
        retry: Callable[[str, int], Awaitable[Change]] | None = None,
    ) -> int:
        """Try all dead deliveries again, of one key or all, created between the two instants. Raises StoreAway.

        Gives how many were queued again. The list is walked to its end first: what dies meanwhile is not retried.
        `retry` stands in for this node's own way.
        """
        chosen: list[tuple[int, str]] = []
        cursor: ListCursor | None = ListCursor()
        while cursor is not None:
            page, cursor = await self.list_deliveries(DeliveryFilter(status="dead", key=key), cursor, BULK_PAGE)
            chosen.extend((row.created_ms, row.delivery_id) for row in page if since_ms <= row.created_ms <= until_ms)
        requeued = 0
        for _, delivery_id in sorted(chosen):  # in the order in which they came, whenever they died
            requeued += isinstance(await (retry or self.retry)(delivery_id, partition_of(delivery_id)), Next)
        return requeued

    async def discard(self, delivery_id: str, partition: int) -> Change:
        """Give a delivery up. Raises StoreAway."""
        outcome = self._changed(partition, await self._store.discard(self._claim(delivery_id, partition)))
        if isinstance(outcome, Next):
            if is_task(delivery_id):
                self._meters.tasks["discarded"].inc()
            else:
                self._meters.deliveries["discarded"].inc()
            self.on_discarded(delivery_id)
        return outcome

    async def give_back_orphans(self, claimed: Sequence[str]) -> None:
        """Make claimed deliveries that no attempt here knows ready again: a store that lost the end of its log may
        keep a claim and forget its outcome. Only what was an orphan the last time, too, is one: a claim's answer may
        be on its way. Raises StoreAway."""
        orphans = {name for name in claimed if not self._attempts.has_in_hand(name)}
        lasting, self._orphans = orphans & self._orphans, orphans
        for name in sorted(lasting):
            await self._attempts.give_back(name)

    async def drain(self, within_s: float) -> None:
        """Start nothing more, wait for what is under way, give back what did not finish.

        What cannot be given back because the store is away stays claimed: the next owner takes it over.
        """
        self._draining = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=within_s)
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        try:
            await self._attempts.release_all()
            await self._attempts.drained()
        except StoreAway as error:
            self._journal.warning("deliveries not given back", reason=str(error))

    def _claim(self, delivery_id: str, partition: int) -> Claim:
        return Claim(partition=partition, epoch=self._ownership.epoch(partition), delivery_id=delivery_id)

    def _changed(self, partition: int, outcome: Change) -> Change:
        if isinstance(outcome, Fenced):
            self._ownership.fenced(partition, outcome)
        elif isinstance(outcome, Next) and outcome.following is not None:
            self.offer(outcome.following)
        return outcome

    def _start_when_due(self, ready: Ready) -> None:
        due_at = self._armed.get(ready.delivery_id)
        if due_at is None:
            return  # somebody wanted it sooner: what it waits for now is another time
        if self._clock.monotonic() < due_at:
            self._wheel.arm(ready, due_at)
        else:
            self.offer(ready)

    def _pump(self, host: Host) -> None:
        """Start what the host's line and the node's bound allow."""
        while not self._draining:
            if len(self._jobs) >= RUNNING_MAX:
                self._hungry[host.name] = host
                return
            now = self._clock.monotonic()
            match host.next(now):
                case Start(ready, probe):
                    self._run(host, ready, probe)
                case Wait(until):
                    if host.wake_at is None or host.wake_at > until:
                        host.wake_at = until
                        self._clock.call_at(until, partial(self._wake, host, until))
                    return
                case None:
                    return

    def _wake(self, host: Host, until: float) -> None:
        if host.wake_at == until:  # else an earlier time was set, and this timer is stale
            host.wake_at = None
            self._pump(host)

    def _run(self, host: Host, ready: Ready, probe: bool) -> None:
        try:
            job = self._supervisor.spawn("attempt", self._attempt(host, ready, probe))
        except Overloaded:
            host.finished(ready.delivery_id)  # untried: a sweep brings it again
            return
        self._jobs.add(job)
        job.add_done_callback(partial(self._ended, host, ready))

    async def _attempt(self, host: Host, ready: Ready, probe: bool) -> None:
        def report(outcome: Answered | Failed) -> None:
            host.report(outcome, self._clock.monotonic(), probe=probe)

        following = await self._attempts.run(ready, self._slots[host.name], report)
        if following is not None:
            self.offer(following)

    def _ended(self, host: Host, ready: Ready, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        host.finished(ready.delivery_id)
        if not job.cancelled() and job.exception() is not None:
            self._meters.actor_restarts.inc()
            self._supervisor.spawn("give-up", self._give_up(ready))
        while self._hungry and len(self._jobs) < RUNNING_MAX:
            self._pump(self._hungry.pop(next(iter(self._hungry))))
        self._pump(host)
        more = host.wants_more()
        if more:
            self.on_room(more)
        if host.quiet:
            self._let_go(host)

    def _let_go(self, host: Host) -> None:
        """Forget a host that nothing is delivered to; one that failed lately only when there are many such."""
        if host.idle(self._clock.monotonic()):
            del self._hosts[host.name], self._slots[host.name]
            return
        self._quiet[host.name] = None
        if len(self._quiet) > HOSTS_QUIET_MAX:
            oldest = next(iter(self._quiet))
            del self._quiet[oldest], self._hosts[oldest], self._slots[oldest]

    async def _give_up(self, ready: Ready) -> None:
        following = await self._attempts.give_up(ready)
        if following is not None:
            self.offer(following)
