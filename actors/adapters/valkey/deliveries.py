"""Frozen batches in the store: implements DeliveryStore."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct

from actors.adapters.valkey.keys import PREFIXES
from actors.adapters.valkey.replies import fenced, following, messages_of, pairs
from actors.adapters.valkey.runner import Runner, Transition, Walk
from actors.core.ids import partition_of
from actors.core.partition import PARTITIONS, locate
from actors.core.policy import Reason
from actors.ports import (
    Claim,
    Claimed,
    DeliveryFilter,
    DeliveryRecord,
    Fenced,
    ListCursor,
    Next,
    NothingOpen,
    Poisoned,
    Ready,
    Release,
    Settle,
    Status,
    StoreAway,
    WrongState,
)
from actors.runtime.outcome import Promised, outcome_of

DAY_MS = 86_400_000
CRASHES_MAX = 5
"""Claims of one delivery that nobody lived to settle, before it is taken for poison."""

DELIVERED_KEPT_MAX = 400
"""Records of delivered batches kept in each partition, whatever their time to live: about 100,000 in all."""

ClaimAnswer = Claimed | Poisoned | NothingOpen | Fenced
SettleAnswer = Next | NothingOpen | Fenced
Worked = Sequence[ClaimAnswer | SettleAnswer | StoreAway]
"""What came of claims and settlements, in the order in which they were asked for."""

_STAGES: dict[Status | None, tuple[str, ...]] = {
    None: ("live", "dead", "done"),
    "pending": ("live",),
    "delivering": ("live",),
    "retrying": ("live",),
    "dead": ("dead",),
    "delivered": ("done",),
    "discarded": ("done",),
}
_NOTHING = NothingOpen()
_STATUSES = frozenset(get_args(Status))


class Kept(Struct, frozen=True, kw_only=True):
    """How long records stay: delivered and discarded ones, dead ones, tasks."""

    delivered_ms: int
    dead_ms: int
    task_ms: int = DAY_MS

    def arguments(self) -> list[int]:
        """As the scripts take them."""
        return [self.delivered_ms, self.dead_ms, DELIVERED_KEPT_MAX, self.task_ms]


class _Target(Struct, frozen=True):
    url: str


class _StoredPolicy(Struct, frozen=True):
    webhook: _Target


_policy_decoder = msgspec.json.Decoder(_StoredPolicy)


class _Work(Promised[Worked]):
    """Claims and settlements that are on their way together."""

    __slots__ = ("_claimed", "_requests", "_settled")

    def __init__(
        self,
        requests: Sequence[Claim | Settle],
        settling: Promised[Sequence[SettleAnswer | StoreAway]],
        claiming: Promised[Sequence[ClaimAnswer | StoreAway]],
    ) -> None:
        super().__init__()
        self._requests = requests
        self._settled: Sequence[SettleAnswer | StoreAway] | Exception | None = None
        self._claimed: Sequence[ClaimAnswer | StoreAway] | Exception | None = None
        settling.then(self._on_settled)
        claiming.then(self._on_claimed)

    def _on_settled(self, outcome: Sequence[SettleAnswer | StoreAway] | Exception) -> None:
        self._settled = outcome
        self._go_on()

    def _on_claimed(self, outcome: Sequence[ClaimAnswer | StoreAway] | Exception) -> None:
        self._claimed = outcome
        self._go_on()

    def _go_on(self) -> None:
        settled, claimed = self._settled, self._claimed
        if settled is None or claimed is None:
            return
        if isinstance(settled, Exception):
            self.arrived(settled)
        elif isinstance(claimed, Exception):
            self.arrived(claimed)
        else:
            self.arrived(outcome_of(_merged, self._requests, settled, claimed))


async def _worked(
    requests: Sequence[Claim | Settle],
    settling: Awaitable[Sequence[SettleAnswer | StoreAway]],
    claiming: Awaitable[Sequence[ClaimAnswer | StoreAway]],
) -> Worked:
    return _merged(requests, await settling, await claiming)


def _merged(
    requests: Sequence[Claim | Settle],
    settled: Sequence[SettleAnswer | StoreAway],
    claimed: Sequence[ClaimAnswer | StoreAway],
) -> Worked:
    claims, outcomes = iter(claimed), iter(settled)
    return [next(claims) if isinstance(request, Claim) else next(outcomes) for request in requests]


class ValkeyDeliveries:
    """Every write carries the epoch of the partition's owner."""

    def __init__(self, runner: Runner, kept: Kept) -> None:
        self._runner = runner
        self._kept = kept
        self._claim: Transition[Claim, ClaimAnswer] = Transition("claim", self._claim_arguments, _claimed_all)
        self._settle: Transition[Settle, SettleAnswer] = Transition("settle", self._settle_arguments, _settled_all)

    def work(self, requests: Sequence[Claim | Settle]) -> Awaitable[Worked]:
        """Settle and claim, both on their way before either is answered: one write, one wake-up.

        An attempt that is settled already is NothingOpen.
        """
        claims = [request for request in requests if isinstance(request, Claim)]
        outcomes = [request for request in requests if isinstance(request, Settle)]
        if not claims:
            return self._runner.begin(self._settle, outcomes)
        if not outcomes:
            return self._runner.begin(self._claim, claims)
        settling = self._runner.begin(self._settle, outcomes)
        claiming = self._runner.begin(self._claim, claims)
        if isinstance(settling, Promised) and isinstance(claiming, Promised):
            return _Work(requests, settling, claiming)
        return _worked(requests, settling, claiming)

    def release(self, releases: Sequence[Release]) -> Awaitable[Sequence[Next | NothingOpen | Fenced | StoreAway]]:
        """Give claimed deliveries back untried, or put ready ones off."""
        return self._runner.begin(_RELEASE, releases)

    async def requeue(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """Make a dead or waiting delivery due now."""
        arguments = [PREFIXES[claim.partition], claim.epoch, claim.delivery_id]
        reply = await self._runner.hot("requeue", claim.partition, arguments)
        if reply[0] != b"OK":
            return _refused(reply)
        startable = Ready(claim.partition, claim.delivery_id, reply[2].decode(), 0) if reply[1] else None
        return Next(startable)

    async def discard(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """Give a delivery up for good."""
        arguments = [
            PREFIXES[claim.partition],
            claim.epoch,
            claim.delivery_id,
            *self._kept.arguments(),
        ]
        reply = await self._runner.hot("discard", claim.partition, arguments)
        return _refused(reply) if reply[0] != b"OK" else Next(following(reply[1], reply[2]))

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        """All that is kept of a delivery."""
        flat = await self._runner.command("HGETALL", f"{PREFIXES[partition_of(delivery_id)]}d:{delivery_id}")
        return _record(delivery_id, pairs(flat)) if flat else None

    async def list_deliveries(
        self, wanted: DeliveryFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[DeliveryRecord], ListCursor | None]:
        """A page: undelivered first, then dead, then delivered ones; each by partition and time."""
        kid, partition = locate(wanted.key) if wanted.key is not None else ("", None)
        first = partition or 0
        last = PARTITIONS - 1 if partition is None else partition
        stages = _STAGES[wanted.status]
        start = cursor if cursor != ListCursor() else ListCursor(partition=first)
        if start.stage >= len(stages) or not first <= start.partition <= last:
            return [], None
        walk = Walk(index=stages[start.stage], last_partition=last, status=wanted.status or "", kid=kid)
        rows, goes_on = await self._runner.page(walk, start, limit)
        records = [_record(row.name, pairs(row.content[0])) for row in rows]
        if goes_on is None and start.stage + 1 < len(stages):
            goes_on = ListCursor(start.stage + 1, first)
            if len(records) < limit:
                more, goes_on = await self.list_deliveries(wanted, goes_on, limit - len(records))
                records.extend(more)
        return records, goes_on

    def _claim_arguments(self, claims: Sequence[Claim]) -> list[Any]:
        arguments: list[Any] = [CRASHES_MAX, *self._kept.arguments()]
        for wish in claims:
            arguments += (PREFIXES[wish.partition], wish.epoch, wish.delivery_id)
        return arguments

    def _settle_arguments(self, outcomes: Sequence[Settle]) -> list[Any]:
        arguments: list[Any] = self._kept.arguments()
        for of in outcomes:
            arguments += (
                PREFIXES[of.partition],
                of.epoch,
                of.delivery_id,
                of.attempt,
                of.status,
                of.log,
                of.retry_in_ms,
                of.result,
                of.mark,
            )
        return arguments


def _claimed_all(claims: Sequence[Claim], replies: list[Any]) -> list[ClaimAnswer]:
    return [_claimed(wish, reply) for wish, reply in zip(claims, replies, strict=True)]


def _settled_all(_outcomes: Sequence[Settle], replies: list[Any]) -> list[SettleAnswer]:
    return [_next(reply) for reply in replies]


def _release_arguments(releases: Sequence[Release]) -> list[Any]:
    arguments: list[Any] = []
    for wish in releases:
        arguments += (PREFIXES[wish.partition], wish.epoch, wish.delivery_id, wish.in_ms, int(wish.untried))
    return arguments


def _released_all(_releases: Sequence[Release], replies: list[Any]) -> list[Next | NothingOpen | Fenced]:
    return [fenced(reply) if reply[0] == b"FENCED" else _nothing_or_done(reply) for reply in replies]


_RELEASE = Transition("release", _release_arguments, _released_all)


def _claimed(wish: Claim, reply: list[Any]) -> Claimed | Poisoned | NothingOpen | Fenced:
    match reply[0]:
        case b"OK":
            _, attempt, failures, key, reason, policy, trace, created_ms, messages, cut_off = reply
            return Claimed(
                delivery_id=wish.delivery_id,
                key=key.decode(),
                attempt=attempt,
                failures=failures,
                reason=cast(Reason, reason.decode()),
                policy=policy,
                trace=trace.decode(),
                created_ms=created_ms,
                messages=messages_of(messages),
                cut_off=cut_off == 1,
            )
        case b"POISON":
            return Poisoned(following(reply[1], reply[2]))
        case b"FENCED":
            return fenced(reply)
        case _:
            return _NOTHING


def _next(reply: list[Any]) -> Next | NothingOpen | Fenced:
    if reply[0] == b"OK":
        return Next(following(reply[1], reply[2]))
    return fenced(reply) if reply[0] == b"FENCED" else _NOTHING


def _nothing_or_done(reply: list[Any]) -> Next | NothingOpen:
    return Next(None) if reply[0] == b"OK" else _NOTHING


def _refused(reply: list[Any]) -> WrongState | NothingOpen | Fenced:
    match reply[0]:
        case b"STATE":
            return WrongState(_status(reply[1]))
        case b"FENCED":
            return fenced(reply)
        case _:
            return _NOTHING


def _status(raw: bytes) -> Status:
    text = raw.decode()
    if text not in _STATUSES:
        raise ValueError(f"a delivery has the status {text!r}")
    return cast(Status, text)


def _record(delivery_id: str, fields: dict[bytes, bytes]) -> DeliveryRecord:
    waits_until = fields.get(b"nx")
    status = _status(fields[b"st"])
    attempts: list[bytes | int] = []
    for attempt in range(1, int(fields[b"a"]) + 1):
        line = fields[b"l%d" % attempt]
        attempts.append(line if line.startswith(b"{") else int(line))
    return DeliveryRecord(
        delivery_id=delivery_id,
        key=fields[b"k"].decode(),
        url=_policy_decoder.decode(fields[b"p"]).webhook.url,
        status=status,
        size=int(fields[b"n"]),
        reason=cast(Reason, fields[b"r"].decode()),
        created_ms=int(fields[b"c"]),
        next_attempt_ms=int(waits_until) if waits_until is not None and status == "retrying" else None,
        attempts=attempts,
    )
