"""Attempt: one try at a delivery, a pipeline of small steps: claim, run its errand, settle.

What is done for a delivery (its errand) depends on its kind: a webhook is called, a task is sent. Settling is the one
place where an outcome is written. Whatever the store does meanwhile, an outcome that is known is written as soon as the
store is back. Never decides what may start; never raises for what the other side does.
Invariants: nothing leaves before its claim is stored; a node that has lost the partition sends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar, assert_never

from msgspec import Struct

from actors.committer import Committer
from actors.core.ids import is_task, partition_of
from actors.core.outcome import Answered, Failed
from actors.egress_ports import Egress, Withheld
from actors.errand import Errand, Tried, log_line
from actors.ownership import Ownership
from actors.ports import (
    Claim,
    Claimed,
    DeliveryStore,
    Fenced,
    Journal,
    Meters,
    Next,
    NothingOpen,
    Overloaded,
    Poisoned,
    Ready,
    Release,
    Settle,
    Settled,
    StoreAway,
)
from actors.runtime.clock import Clock
from actors.runtime.supervisor import Supervisor
from actors.webhook_call import DeliveryRules, WebhookCall

STORE_PAUSE_S = 0.1
_ITS_OWN = Answered(200, None, "", 0.0)
"""A failure of one delivery alone: for its line the other side is well."""
T = TypeVar("T")


class InHand(Struct, frozen=True):
    """A delivery that was claimed and is not settled yet."""

    partition: int
    epoch: int
    attempt: int


Report = Callable[[Answered | Failed], None]


class Attempts:
    """Runs attempts. `in_hand` is what a drain must give back."""

    def __init__(
        self,
        store: DeliveryStore,
        egress: Egress,
        ownership: Ownership,
        rules: DeliveryRules,
        tools: Tools,
    ) -> None:
        self.webhooks = WebhookCall(egress, rules, tools.clock, tools.jitter)
        self._ownership = ownership
        self._clock = tools.clock
        self._journal = tools.journal
        self._meters = tools.meters
        committer = (tools.supervisor, tools.clock, tools.meters)
        self._work: Committer[Claim | Settle, Claimed | Poisoned | Next | NothingOpen | Fenced]
        self._work = Committer("attempts", store.work, *committer)
        self._work.on_committed = self._written
        self._releases = Committer("release", store.release, *committer)
        self.in_hand: dict[str, InHand] = {}
        self.tasks: Errand = self.webhooks
        """What is done for a task; set once by the composition root."""
        self.on_started: Callable[[Claimed], None] = lambda _claimed: None
        """Told of each attempt that begins; set once by the composition root, as the next."""
        self.on_settled: Callable[[Claimed, Settle, Answered | Failed], None] = lambda _claimed, _settle, _outcome: None
        """Told how each attempt ended."""

    async def run(self, ready: Ready, slot: asyncio.Semaphore, report: Report) -> Ready | None:
        """Try once; `slot` is held while the request is out. Gives the delivery of the same key that may start now,
        if there is one."""
        epoch = self._ownership.epoch(ready.partition)
        if not self._ownership.may_act(ready.partition, epoch):
            return None
        claimed = await self._claim(ready, epoch)
        if not isinstance(claimed, Claimed):
            return claimed
        errand = self.tasks if is_task(ready.delivery_id) else self.webhooks
        async with slot:
            may_start = partial(self._ownership.may_act, ready.partition, epoch)
            if may_start():
                self.on_started(claimed)
                tried = await errand.run(claimed, may_start)
            else:
                tried = Withheld()
        if isinstance(tried, Withheld):
            await self._withdraw(ready, epoch)
            return None
        report(tried.outcome if tried.blames_line else _ITS_OWN)
        self._meters.attempt_seconds.observe(tried.outcome.latency_ms / 1000)
        return await self._settle(claimed, tried)

    async def _withdraw(self, ready: Ready, epoch: int) -> None:
        """Give a claimed delivery back untried: this node may not act for it now, and perhaps another does already."""
        if self.in_hand.pop(ready.delivery_id, None) is not None:
            await self._persist(lambda: self._release(ready.delivery_id, ready.partition, epoch, untried=True))

    async def give_up(self, ready: Ready) -> Ready | None:
        """Settle an attempt that crashed in here: it counts as failed, so that a poison batch comes to an end."""
        held = self.in_hand.get(ready.delivery_id)
        if held is None:
            return None
        settle = Settle(
            partition=held.partition,
            epoch=held.epoch,
            delivery_id=ready.delivery_id,
            attempt=held.attempt,
            status="dead",
            log=log_line(Failed("internal error", 0.0), self._clock),
        )
        return await self._record(settle)

    def partitions_in_hand(self) -> set[int]:
        """The partitions of which something was claimed and is not settled yet."""
        return {of.partition for of in self.in_hand.values()}

    def has_in_hand(self, delivery_id: str) -> bool:
        """Whether an attempt of this node has claimed the delivery and not settled it yet."""
        return delivery_id in self.in_hand

    async def give_back(self, delivery_id: str) -> None:
        """Make a claimed delivery ready again, untried. Raises StoreAway."""
        partition = partition_of(delivery_id)
        epoch = self._ownership.epoch(partition)
        if epoch:
            await self._release(delivery_id, partition, epoch)

    async def release_all(self) -> int:
        """Give back what is claimed and will not be settled by this node. Raises StoreAway."""
        await self._work.drained()  # else a claim that is under way would be taken after it was given back
        held = list(self.in_hand.items())
        self.in_hand.clear()
        await asyncio.gather(*(self._release(name, of.partition, of.epoch) for name, of in held))
        return len(held)

    async def drained(self) -> None:
        """Wait until the store has answered everything."""
        for committer in (self._work, self._releases):
            await committer.drained()

    def _written(self, requests: Sequence[Claim | Settle], outcomes: Sequence[object]) -> None:
        """Know what is in hand from what the store says, also when the attempt that asked has been cancelled."""
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, StoreAway):
                continue  # nobody knows: it is asked again
            if isinstance(request, Settle):
                self.in_hand.pop(request.delivery_id, None)
            elif isinstance(outcome, Claimed):
                self.in_hand[request.delivery_id] = InHand(request.partition, request.epoch, outcome.attempt)

    async def _release(self, delivery_id: str, partition: int, epoch: int, *, untried: bool = False) -> None:
        wish = Release(partition=partition, epoch=epoch, delivery_id=delivery_id, in_ms=0, untried=untried)
        outcome = await self._releases.ask(wish)
        if isinstance(outcome, Fenced):
            self._ownership.fenced(partition, outcome)

    async def _claim(self, ready: Ready, epoch: int) -> Claimed | Ready | None:
        claim = Claim(partition=ready.partition, epoch=epoch, delivery_id=ready.delivery_id)
        try:
            outcome = await self._work.ask(claim)
        except StoreAway:
            # Perhaps it was claimed, perhaps not: give it back, which is right in either case.
            await self._persist(lambda: self._release(ready.delivery_id, ready.partition, epoch, untried=True))
            return None
        except Overloaded:
            return None
        match outcome:
            case Claimed():
                return outcome
            case Poisoned(following):
                self._count(ready.delivery_id, "dead")
                self._journal.error("delivery dead", delivery_id=ready.delivery_id, reason="its attempts stopped nodes")
                return following
            case NothingOpen() | Next():
                return None
            case Fenced():
                self._ownership.fenced(ready.partition, outcome)
                return None
            case _:
                assert_never(outcome)

    async def _settle(self, claimed: Claimed, tried: Tried) -> Ready | None:
        held = self.in_hand[claimed.delivery_id]
        settle = Settle(
            partition=held.partition,
            epoch=held.epoch,
            delivery_id=claimed.delivery_id,
            attempt=claimed.attempt,
            status=tried.status,
            log=log_line(tried.outcome, self._clock),
            retry_in_ms=tried.retry_in_ms,
            result=tried.result,
            mark=tried.mark,
        )
        following = await self._record(settle)
        self._tell(settle, tried.outcome)
        self.on_settled(claimed, settle, tried.outcome)
        return following

    async def _record(self, settle: Settle) -> Ready | None:
        outcome = await self._persist(lambda: self._work.ask(settle, len(settle.log)))
        match outcome:
            case Next(following):
                self._count(settle.delivery_id, settle.status)
                return following
            case NothingOpen() | Claimed() | Poisoned():
                return None
            case Fenced():
                self._ownership.fenced(settle.partition, outcome)
                return None
            case _:
                assert_never(outcome)

    def _count(self, delivery_id: str, status: Settled) -> None:
        if is_task(delivery_id):
            self._meters.tasks[status].inc()
        elif status != "held":  # which is said of tasks alone
            self._meters.deliveries[status].inc()

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the store answers. What is asked must be safe to repeat."""
        while True:
            try:
                return await ask()
            except (StoreAway, Overloaded):
                await asyncio.sleep(STORE_PAUSE_S)

    def _tell(self, settle: Settle, outcome: Answered | Failed) -> None:
        if settle.status == "delivered":
            return
        facts: dict[str, object] = {"delivery_id": settle.delivery_id, "attempt": settle.attempt}
        if isinstance(outcome, Answered):
            facts["status_code"] = outcome.status
        else:
            facts["error"] = outcome.error
        if settle.status == "dead":
            self._journal.warning("delivery dead", **facts)
        elif settle.status == "retrying":
            self._journal.info("delivery will be retried", retry_in_ms=settle.retry_in_ms, **facts)


class Tools(Struct, frozen=True, kw_only=True):
    """What actors of deliveries work with, beside their store: `jitter` gives 0…1."""

    supervisor: Supervisor
    clock: Clock
    jitter: Callable[[], float]
    journal: Journal
    meters: Meters
