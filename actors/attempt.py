"""Attempt: one try at a delivery, a pipeline of small steps: claim, build, check, post, judge, settle.

Settling is the one place where an outcome is written. Whatever the store does meanwhile, an outcome that is known is
written as soon as the store is back. Never decides what may start; never raises for what a webhook does.
Invariants: nothing is posted before its claim is stored; every try posts the same bytes under the same `webhook-id`;
a node that has lost the partition posts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Literal, TypeVar, assert_never

import msgspec
from msgspec import Struct

from actors.committer import Committer
from actors.core import rendering, retry, signing, trace
from actors.core.ids import partition_of
from actors.core.outcome import Answered, Failed
from actors.core.policy import Policy
from actors.egress_ports import Egress, OutboundRequest, Withheld
from actors.ownership import Ownership
from actors.ports import (
    Attempt,
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
    StoreAway,
)
from actors.runtime.clock import Clock
from actors.runtime.supervisor import Supervisor

STORE_PAUSE_S = 0.1
T = TypeVar("T")
_policy_decoder = msgspec.json.Decoder(Policy)


@lru_cache(maxsize=1024)
def policy_of(stored: bytes) -> Policy:
    """The policy as it was frozen with the batch."""
    return _policy_decoder.decode(stored)


class DeliveryRules(Struct, frozen=True, kw_only=True):
    """What holds where a webhook says nothing itself."""

    timeout_s: float
    max_retries: int
    retry_delay_s: float
    user_agent: str


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
        self._egress = egress
        self._ownership = ownership
        self._rules = rules
        self._clock = tools.clock
        self._jitter = tools.jitter
        self._journal = tools.journal
        self._meters = tools.meters
        committer = (tools.supervisor, tools.clock, tools.meters)
        self._work: Committer[Claim | Settle, Claimed | Poisoned | Next | NothingOpen | Fenced]
        self._work = Committer("attempts", store.work, *committer)
        self._work.on_committed = self._written
        self._releases = Committer("release", store.release, *committer)
        self.in_hand: dict[str, InHand] = {}
        self.on_settled: Callable[[Claimed, Settle, Answered | Failed], None] = lambda _claimed, _settle, _outcome: None
        """Told how each attempt ended; set once by the composition root."""

    async def run(self, ready: Ready, slot: asyncio.Semaphore, report: Report) -> Ready | None:
        """Try once; `slot` is held while the request is out. Gives the delivery of the same key that may start now,
        if there is one."""
        epoch = self._ownership.epoch(ready.partition)
        if not self._ownership.may_act(ready.partition, epoch):
            return None
        claimed = await self._claim(ready, epoch)
        if not isinstance(claimed, Claimed):
            return claimed
        policy = policy_of(claimed.policy)
        async with slot:
            may_start = partial(self._ownership.may_act, ready.partition, epoch)
            outcome = await self._egress.send(self._build(claimed, policy, may_start)) if may_start() else Withheld()
        if isinstance(outcome, Withheld):
            await self._withdraw(ready, epoch)
            return None
        report(outcome)
        self._meters.attempt_seconds.observe(outcome.latency_ms / 1000)
        return await self._settle(claimed, policy, outcome)

    async def _withdraw(self, ready: Ready, epoch: int) -> None:
        """Give a claimed delivery back untried: this node may not act for it now, and perhaps another does already."""
        if self.in_hand.pop(ready.delivery_id, None) is not None:
            await self._persist(lambda: self._release(ready.delivery_id, ready.partition, epoch, 0.0))

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
            log=self._log_line(Failed("internal error", 0.0)),
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
            await self._release(delivery_id, partition, epoch, 0.0)

    async def release_all(self) -> int:
        """Give back what is claimed and will not be settled by this node. Raises StoreAway."""
        await self._work.drained()  # else a claim that is under way would be taken after it was given back
        held = list(self.in_hand.items())
        self.in_hand.clear()
        await asyncio.gather(*(self._release(name, of.partition, of.epoch, 0.0) for name, of in held))
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

    async def _release(self, delivery_id: str, partition: int, epoch: int, in_s: float) -> None:
        wish = Release(partition=partition, epoch=epoch, delivery_id=delivery_id, in_ms=round(in_s * 1000))
        outcome = await self._releases.ask(wish)
        if isinstance(outcome, Fenced):
            self._ownership.fenced(partition, outcome)

    async def _claim(self, ready: Ready, epoch: int) -> Claimed | Ready | None:
        claim = Claim(partition=ready.partition, epoch=epoch, delivery_id=ready.delivery_id)
        try:
            outcome = await self._work.ask(claim)
        except StoreAway:
            # Perhaps it was claimed, perhaps not: give it back, which is right in either case.
            await self._persist(lambda: self._release(ready.delivery_id, ready.partition, epoch, 0.0))
            return None
        except Overloaded:
            return None
        match outcome:
            case Claimed():
                return outcome
            case Poisoned(following):
                self._meters.deliveries["dead"].inc()
                self._journal.error("delivery dead", delivery_id=ready.delivery_id, reason="its attempts stopped nodes")
                return following
            case NothingOpen() | Next():
                return None
            case Fenced():
                self._ownership.fenced(ready.partition, outcome)
                return None
            case _:
                assert_never(outcome)

    def _build(self, claimed: Claimed, policy: Policy, may_start: Callable[[], bool]) -> OutboundRequest:
        webhook = policy.webhook
        body = rendering.render(policy, key=claimed.key, reason=claimed.reason, messages=claimed.messages)
        dispatch = signing.Dispatch(
            delivery_id=claimed.delivery_id,
            attempted_at_s=int(self._clock.wall()),
            attempt=claimed.attempt,
            key=claimed.key,
            size=len(claimed.messages),
            reason=claimed.reason,
            traceparent=claimed.trace or trace.derived(claimed.delivery_id).header,
        )
        return OutboundRequest(
            method=webhook.method,
            url=webhook.url,
            headers=signing.delivery_headers(webhook, dispatch, body, self._rules.user_agent),
            body=body,
            timeout_s=webhook.timeout or self._rules.timeout_s,
            may_start=may_start,
        )

    async def _settle(self, claimed: Claimed, policy: Policy, outcome: Answered | Failed) -> Ready | None:
        max_retries = policy.webhook.max_retries
        verdict = retry.decide(
            outcome,
            failures=claimed.failures,
            max_retries=self._rules.max_retries if max_retries is None else max_retries,
            retry_delay_s=self._rules.retry_delay_s,
            now_wall=self._clock.wall(),
            jitter=self._jitter(),
        )
        held = self.in_hand[claimed.delivery_id]
        settle = Settle(
            partition=held.partition,
            epoch=held.epoch,
            delivery_id=claimed.delivery_id,
            attempt=claimed.attempt,
            status=_status_after(verdict),
            log=self._log_line(outcome),
            retry_in_ms=round(verdict.seconds * 1000) if isinstance(verdict, retry.RetryIn) else 0,
        )
        following = await self._record(settle)
        self._tell(settle, outcome)
        self.on_settled(claimed, settle, outcome)
        return following

    async def _record(self, settle: Settle) -> Ready | None:
        outcome = await self._persist(lambda: self._work.ask(settle, len(settle.log)))
        match outcome:
            case Next(following):
                self._meters.deliveries[settle.status].inc()
                return following
            case NothingOpen() | Claimed() | Poisoned():
                return None
            case Fenced():
                self._ownership.fenced(settle.partition, outcome)
                return None
            case _:
                assert_never(outcome)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the store answers. What is asked must be safe to repeat."""
        while True:
            try:
                return await ask()
            except (StoreAway, Overloaded):
                await asyncio.sleep(STORE_PAUSE_S)

    def _log_line(self, outcome: Answered | Failed) -> bytes:
        at = rendering.rfc3339(int(self._clock.wall() * 1000))
        if isinstance(outcome, Failed):
            return msgspec.json.encode(Attempt(at=at, latency_ms=round(outcome.latency_ms, 2), error=outcome.error))
        return msgspec.json.encode(
            Attempt(
                at=at,
                latency_ms=round(outcome.latency_ms, 2),
                status_code=outcome.status,
                response_excerpt=outcome.excerpt or None,
            )
        )

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
        else:
            self._journal.info("delivery will be retried", retry_in_ms=settle.retry_in_ms, **facts)


def _status_after(verdict: retry.Verdict) -> Literal["delivered", "retrying", "dead"]:
    match verdict:
        case retry.Delivered():
            return "delivered"
        case retry.RetryIn():
            return "retrying"
        case retry.Dead():
            return "dead"
        case _:
            assert_never(verdict)


class Tools(Struct, frozen=True, kw_only=True):
    """What actors of deliveries work with, beside their store: `jitter` gives 0…1."""

    supervisor: Supervisor
    clock: Clock
    jitter: Callable[[], float]
    journal: Journal
    meters: Meters
