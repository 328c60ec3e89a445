"""Delivery rig: deliveries in virtual time, over a store in memory and webhooks that do as they are told.

For the tests of deliveries and of the sweep that feeds them. Checks nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.attempt import Attempts
from actors.core.breaker import FAILURES_TO_OPEN
from actors.deliveries import Deliveries
from actors.ownership import Ownership
from actors.ports import Ready
from actors.runtime.clock import Timer
from tests.support.doubles import RULES, Stage, Webhooks, make_entry, make_policy
from tests.support.memory_store import NODE, Delivery, MemoryStore, hold_everything
from tests.support.until import passing

HOLD_S = 10.0
ALIVE, DEAD = "alive.example", "dead.example"


class CountedClock:
    """The stage's clock; counts the timers that are set and have not fired."""

    def __init__(self, stage: Stage) -> None:
        self._clock = stage.clock
        self.pending = 0

    def monotonic(self) -> float:
        """Virtual time."""
        return self._clock.monotonic()

    def wall(self) -> float:
        """Virtual time."""
        return self._clock.wall()

    def boottime(self) -> float:
        """Virtual time."""
        return self._clock.boottime()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """One more, until it fires."""
        self.pending += 1

        def fire() -> None:
            self.pending -= 1
            callback()

        return self._clock.call_at(when, fire)


class DeliveryRig:
    """`deliveries` and what is around it."""

    def __init__(self, stage: Stage) -> None:
        self.store = MemoryStore()
        self.webhooks = Webhooks()
        self.clock = CountedClock(stage)
        tools = msgspec.structs.replace(stage.tools(), clock=self.clock)
        self.ownership = Ownership(NODE, self.store, self.clock, stage.meters)
        self.attempts = Attempts(self.store, self.webhooks, self.ownership, RULES, tools)
        self.deliveries = Deliveries(self.attempts, self.store, self.ownership, tools, HOLD_S)
        self.made = 0

    async def start(self) -> DeliveryRig:
        """Hold every partition, and be allowed to act for ever."""
        await hold_everything(self.ownership)
        return self

    async def batch(self, host: str = ALIVE, key: str = "", max_retries: int = 3) -> Ready:
        """A closed batch, of a key of its own unless one is named."""
        self.made += 1
        key = key or f"key {self.made}"
        partition = make_entry(key).partition
        name = f"dlv_{partition:02x}{self.made:05}"
        policy = msgspec.json.encode(make_policy(f"https://{host}/", max_retries=max_retries))
        await self.store.append([make_entry(key, name, max_size=1, batch_id=name, policy=policy, host=host)])
        return Ready(partition, name, host, 0)

    async def batches(self, count: int, host: str = ALIVE, max_retries: int = 3) -> list[Ready]:
        """So many, each of a key of its own."""
        return [await self.batch(host, max_retries=max_retries) for _ in range(count)]

    def offer(self, *readies: Ready) -> list[bool]:
        """Offer all of them."""
        return [self.deliveries.offer(ready) for ready in readies]

    def offer_due(self) -> None:
        """Offer whatever the store says is due, as a sweep does."""
        for name, at_ms in sorted(self.store.ready.items(), key=lambda row: row[1]):
            if at_ms <= self.store.now_ms():
                of = self.store.deliveries[name]
                self.deliveries.offer(Ready(of.partition, name, of.batch.entry.terms.host, 0))

    def of(self, ready: Ready) -> Delivery:
        """What the store has of it."""
        return self.store.deliveries[ready.delivery_id]

    def statuses(self, *readies: Ready) -> list[str]:
        """What has become of them."""
        return [self.of(ready).status for ready in readies]

    async def open_breaker(self) -> None:
        """Have the dead host refuse everything from now on, and fail as often as it takes."""
        self.webhooks.refusing.add(DEAD)
        self.offer(*await self.batches(FAILURES_TO_OPEN, DEAD))
        await passing(0.1)
        assert self.deliveries.open_breakers == 1
        self.webhooks.sent.clear()
