"""Memory store: the store's ports over dictionaries, for unit tests that are about actors and not about the store.

Follows the scripts in `actors/adapters/valkey/scripts` in what actors can see of them: sizes, deadlines, epochs, order
per key, attempts. `faults` says which calls take how long, fail before anything is written, or lose their answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

from msgspec import Struct, field

from actors.core.partition import PARTITIONS, locate
from actors.core.policy import Reason
from actors.ownership import Ownership
from actors.ports import (
    Appended,
    Census,
    Claim,
    Claimed,
    Close,
    ClosedBatch,
    DeliveryFilter,
    DeliveryRecord,
    DueBatch,
    Entry,
    Fenced,
    ListCursor,
    Next,
    NotDue,
    NothingOpen,
    OpenBatch,
    Owner,
    Poisoned,
    Ready,
    Release,
    Settle,
    Status,
    StoreAway,
    WrongState,
)
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock

T = TypeVar("T")
NODE = "node-1"
EPOCH = 7
CRASHES_MAX = 5
LATENCY_S = 0.001
Message = tuple[str, int, bytes]


class Faults:
    """What goes wrong, by the name of the call (`append`, `claim` …)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Sequence[Any]]] = []
        self.before: Counter[str] = Counter()
        """So many next calls fail, and nothing is written."""
        self.after: Counter[str] = Counter()
        """So many next calls are done, and their answer is lost."""
        self.broken: dict[str, Exception] = {}
        """These calls raise something that is no StoreAway."""
        self.gates: dict[str, asyncio.Event] = {}
        """These calls wait until their event is set, before they do anything."""
        self.answers: dict[str, asyncio.Event] = {}
        """These calls are done, and answered when their event is set."""
        self.latency_s = LATENCY_S
        self.away = False
        """Every call is refused at once, without a turn of the loop: the connection is down."""

    async def call(self, name: str, requests: Sequence[Any], perform: Callable[[], T]) -> T:
        """Do it, or fail as told."""
        self.calls.append((name, requests))
        if self.away:
            raise StoreAway("the store is not reachable")
        if name in self.gates:
            await self.gates[name].wait()
        await passing(self.latency_s)
        if name in self.broken:
            raise self.broken[name]
        if self.before[name]:
            self.before[name] -= 1
            raise StoreAway("the store is away")
        done = perform()
        if name in self.answers:
            await self.answers[name].wait()
        if self.after[name]:
            self.after[name] -= 1
            raise StoreAway("the answer was lost")
        return done

    def requests(self, name: str) -> list[Any]:
        """Every single request of that name, in order."""
        return [request for called, requests in self.calls if called == name for request in requests]

    def count(self, name: str) -> int:
        """Calls of that name."""
        return sum(called == name for called, _ in self.calls)


class Batch(Struct, kw_only=True):
    """An open batch. `entry` is its newest message."""

    entry: Entry
    first_ms: int
    deadline_ms: int
    messages: list[Message] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What its payloads weigh."""
        return sum(len(payload) for _, _, payload in self.messages)


class Delivery(Struct, kw_only=True):
    """A frozen batch. `log` holds one line an attempt, None while nobody settled it."""

    partition: int
    batch: Batch
    reason: Reason
    created_ms: int
    status: Status = "pending"
    claims: int = 0
    failures: int = 0
    log: list[bytes | None] = field(default_factory=list)


class MemoryStore:
    """All three ports over one state. The node that is tested is NODE; every partition is its under EPOCH. Further
    nodes get a `link` each."""

    def __init__(self, owned: bool = True) -> None:
        self.faults = Faults()
        self._clock = VirtualClock()
        self.owned = [Owner(EPOCH, NODE) if owned else Owner(0, "") for _ in range(PARTITIONS)]
        self.open: dict[str, Batch] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.lines: dict[str, list[str]] = {}
        self.ready: dict[str, int] = {}
        """Deliveries that may be claimed, and from when."""
        self.busy: set[str] = set()
        self._seen: set[bytes | str] = set()

    def link(self) -> MemoryStore:
        """Another node's way to the same store."""
        link = copy(self)
        link.faults = Faults()
        return link

    def now_ms(self) -> int:
        """The store's clock: whole milliseconds that have passed, give or take what floating point is off by."""
        return int(self._clock.wall() * 1000 + 0.01)

    async def append(self, entries: Sequence[Entry]) -> Sequence[Appended]:
        """BatchStore."""
        return await self.faults.call("append", entries, lambda: [self._append(entry) for entry in entries])

    async def close(self, closes: Sequence[Close]) -> Sequence[ClosedBatch | NotDue | NothingOpen | Fenced]:
        """BatchStore."""
        return await self.faults.call("close", closes, lambda: [self._close(wish) for wish in closes])

    async def cancel(self, partition: int, epoch: int, kid: str) -> int | NothingOpen | Fenced:
        """BatchStore."""

        def perform() -> int | NothingOpen | Fenced:
            if fence := self._fence(partition, epoch):
                return fence
            batch = self.open.pop(kid, None)
            return NothingOpen() if batch is None else len(batch.messages)

        return await self.faults.call("cancel", [kid], perform)

    async def peek(self, key: str) -> OpenBatch | None:
        """BatchStore."""
        kid, _ = locate(key)
        return await self.faults.call("peek", [key], lambda: self._row(self.open[kid]) if kid in self.open else None)

    async def list_open(self, cursor: ListCursor, limit: int) -> tuple[Sequence[OpenBatch], ListCursor | None]:
        """BatchStore. One page holds all."""
        return await self.faults.call("list_open", [cursor], lambda: ([*map(self._row, self.open.values())], None))

    async def work(
        self, requests: Sequence[Claim | Settle]
    ) -> Sequence[Claimed | Poisoned | Next | NothingOpen | Fenced]:
        """DeliveryStore. For `faults` a call of claims only is a `claim`, one of settles only a `settle`."""
        kinds = {type(request) for request in requests}
        name = "claim" if kinds == {Claim} else "settle" if kinds == {Settle} else "work"
        return await self.faults.call(name, requests, lambda: [self._work(request) for request in requests])

    async def release(self, releases: Sequence[Release]) -> Sequence[Next | NothingOpen | Fenced]:
        """DeliveryStore."""
        return await self.faults.call("release", releases, lambda: [self._release(wish) for wish in releases])

    async def requeue(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """DeliveryStore."""
        return await self.faults.call("requeue", [claim], lambda: self._requeue(claim))

    async def discard(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced:
        """DeliveryStore."""
        return await self.faults.call("discard", [claim], lambda: self._discard(claim))

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        """DeliveryStore."""

        def perform() -> DeliveryRecord | None:
            of = self.deliveries.get(delivery_id)
            return None if of is None else self._record(delivery_id, of)

        return await self.faults.call("get", [delivery_id], perform)

    async def list_deliveries(
        self, wanted: DeliveryFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[DeliveryRecord], ListCursor | None]:
        """DeliveryStore. Pages of `limit` in order of making."""

        def perform() -> tuple[Sequence[DeliveryRecord], ListCursor | None]:
            rows = [self._record(name, of) for name, of in self.deliveries.items()]
            rows = [row for row in rows if wanted.status in (None, row.status) and wanted.key in (None, row.key)]
            end = cursor.stage + limit
            return rows[cursor.stage : end], ListCursor(stage=end) if end < len(rows) else None

        return await self.faults.call("list_deliveries", [wanted], perform)

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]:
        """PartitionStore."""
        return await self.faults.call("owners", partitions, lambda: [self.owned[each] for each in partitions])

    async def acquire(self, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Sequence[Owner]:
        """PartitionStore."""

        def perform() -> Sequence[Owner]:
            for partition, expected in wanted:
                if self.owned[partition].epoch == expected:
                    self.owned[partition] = Owner(max(expected, seen) + 1, node)
                    self._put_back(partition)
            return [self.owned[partition] for partition, _ in wanted]

        return await self.faults.call("acquire", wanted, perform)

    async def resign(self, held: Sequence[tuple[int, int]]) -> None:
        """PartitionStore."""

        def perform() -> None:
            for partition, epoch in held:
                if self.owned[partition].epoch == epoch:
                    self.owned[partition] = Owner(epoch, "")

        await self.faults.call("resign", held, perform)

    async def hand_over(self, moves: Sequence[tuple[int, int, str]]) -> Sequence[Owner | Fenced]:
        """PartitionStore."""

        def perform() -> Sequence[Owner | Fenced]:
            answers: list[Owner | Fenced] = []
            for partition, epoch, node in moves:
                fence = self._fence(partition, epoch)
                if fence is None:
                    self.owned[partition] = Owner(epoch + 1, node)
                    self._put_back(partition)
                answers.append(fence or self.owned[partition])
            return answers

        return await self.faults.call("hand_over", moves, perform)

    async def sweep(
        self, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int]
    ) -> tuple[Sequence[DueBatch], Sequence[Ready]]:
        """PartitionStore. `limit` counts rows of one partition, from the one after those to `skip` on."""

        def perform() -> tuple[Sequence[DueBatch], Sequence[Ready]]:
            now, held = self.now_ms(), set(partitions)
            due: list[DueBatch] = []
            near: Counter[int] = Counter()
            for kid, batch in sorted(self.open.items(), key=lambda row: row[1].deadline_ms):
                at = batch.entry.partition
                if batch.deadline_ms <= now + ahead_ms and at in held and near[at] < limit:
                    near[at] += 1
                    due.append(DueBatch(at, kid, batch.deadline_ms, max(batch.deadline_ms - now, 0)))
            ready = [
                Ready(of.partition, name, of.batch.entry.terms.host, max(at - now, 0))
                for name, at in sorted(self.ready.items(), key=lambda row: row[1])
                if at <= now + ahead_ms and (of := self.deliveries[name]).partition in held
            ]
            taken: Counter[int] = Counter()
            rows: list[Ready] = []
            for row in ready:
                taken[row.partition] += 1
                if 0 < taken[row.partition] - skip.get(row.partition, 0) <= limit:
                    rows.append(row)
            return due, rows

        return await self.faults.call("sweep", partitions, perform)

    async def census(self, partitions: Sequence[int]) -> Census:
        """PartitionStore."""

        def perform() -> Census:
            waiting = [of.created_ms for of in self.deliveries.values() if of.status not in ("delivered", "dead")]
            oldest_ms = self.now_ms() - min(waiting) if waiting else 0
            return Census(len(self.open), len(waiting), oldest_ms, sorted(self.busy))

        return await self.faults.call("census", partitions, perform)

    async def turn_back(self, turned: Sequence[tuple[int, int, int]]) -> None:
        """PartitionStore. Its clock is never turned back."""

    def lose(self, partition: int, node: str = "node-2") -> None:
        """Another node takes a partition."""
        self.owned[partition] = Owner(self.owned[partition].epoch + 1, node)

    def _fence(self, partition: int, epoch: int) -> Fenced | None:
        owner = self.owned[partition]
        return None if epoch == owner.epoch else Fenced(owner.epoch, owner.node)

    def _put_back(self, partition: int) -> None:
        """What the last owner had in hand may start again; the claim stays counted."""
        for name in sorted(name for name in self.busy if self.deliveries[name].partition == partition):
            of = self.deliveries[name]
            self.busy.discard(name)
            of.status = "retrying" if of.failures else "pending"
            self.ready[name] = self.now_ms()

    def _append(self, entry: Entry) -> Appended:
        now, terms = self.now_ms(), entry.terms
        batch = self.open.get(terms.kid)
        if entry.dedupe in self._seen:
            if batch is None:
                return Appended(0, 0, 0, 0, True, None)
            remaining_ms = max(batch.deadline_ms - now, 0)
            return Appended(len(batch.messages), batch.size_bytes, remaining_ms, batch.deadline_ms, True, None)
        self._seen.add(entry.dedupe)
        if batch is None:
            batch = self.open[terms.kid] = Batch(entry=entry, first_ms=now, deadline_ms=now + terms.wait_ms)
        batch.entry = entry
        batch.messages.append((entry.message_id, now, entry.payload))
        if terms.max_wait_ms:
            batch.deadline_ms = min(now + terms.wait_ms, batch.first_ms + terms.max_wait_ms)
        size, size_bytes = len(batch.messages), batch.size_bytes
        full = size >= terms.max_size
        if full or size_bytes >= terms.max_bytes:
            closed = self._freeze(terms.kid, entry.batch_id, "size" if full else "bytes")
            return Appended(size, size_bytes, 0, batch.deadline_ms, False, closed)
        return Appended(size, size_bytes, max(batch.deadline_ms - now, 0), batch.deadline_ms, False, None)

    def _freeze(self, kid: str, batch_id: str, reason: Reason) -> ClosedBatch:
        batch = self.open.pop(kid)
        now = self.now_ms()
        of = Delivery(partition=batch.entry.partition, batch=batch, reason=reason, created_ms=now)
        self.deliveries[batch_id] = of
        line = self.lines.setdefault(kid, [])
        line.append(batch_id)
        if len(line) == 1:
            self.ready[batch_id] = now
        return ClosedBatch(batch_id, len(batch.messages), batch.entry.terms.host, reason, len(line) == 1)

    def _close(self, wish: Close) -> ClosedBatch | NotDue | NothingOpen | Fenced:
        if fence := self._fence(wish.partition, wish.epoch):
            return fence
        if (known := self.deliveries.get(wish.batch_id)) is not None:
            first, of = self.lines[wish.kid][0] == wish.batch_id, known.batch
            return ClosedBatch(wish.batch_id, len(of.messages), of.entry.terms.host, known.reason, first)
        batch = self.open.get(wish.kid)
        if batch is None:
            return NothingOpen()
        if wish.deadline_ms is not None and batch.deadline_ms > wish.deadline_ms:
            return NotDue(max(batch.deadline_ms - self.now_ms(), 0), batch.deadline_ms)
        return self._freeze(wish.kid, wish.batch_id, wish.reason)

    def _work(self, request: Claim | Settle) -> Claimed | Poisoned | Next | NothingOpen | Fenced:
        return self._claim(request) if isinstance(request, Claim) else self._settle(request)

    def _claim(self, wish: Claim) -> Claimed | Poisoned | NothingOpen | Fenced:
        if fence := self._fence(wish.partition, wish.epoch):
            return fence
        of = self.deliveries.get(wish.delivery_id)
        if self.ready.pop(wish.delivery_id, None) is None or of is None:
            return NothingOpen()
        if of.claims - of.failures >= CRASHES_MAX:
            of.status = "dead"
            return Poisoned(self._leave_line(wish.delivery_id))
        of.status = "delivering"
        of.claims += 1
        of.log.append(None)
        self.busy.add(wish.delivery_id)
        entry = of.batch.entry
        return Claimed(
            delivery_id=wish.delivery_id,
            key=entry.terms.key,
            attempt=len(of.log),
            failures=of.failures,
            reason=of.reason,
            policy=entry.terms.policy,
            trace=entry.trace,
            created_ms=of.created_ms,
            messages=of.batch.messages,
        )

    def _settle(self, outcome: Settle) -> Next | NothingOpen | Fenced:
        if fence := self._fence(outcome.partition, outcome.epoch):
            return fence
        of = self.deliveries.get(outcome.delivery_id)
        if of is None or of.status != "delivering" or len(of.log) != outcome.attempt:
            return NothingOpen()
        assert outcome.status != "held"  # tasks are not in here
        self.busy.discard(outcome.delivery_id)
        of.status, of.log[-1] = outcome.status, outcome.log
        of.failures += outcome.status != "delivered"
        if outcome.status != "retrying":
            return Next(self._leave_line(outcome.delivery_id))
        self.ready[outcome.delivery_id] = self.now_ms() + outcome.retry_in_ms
        return Next(None)

    def _release(self, wish: Release) -> Next | NothingOpen | Fenced:
        if fence := self._fence(wish.partition, wish.epoch):
            return fence
        of = self.deliveries.get(wish.delivery_id)
        if of is None:
            return NothingOpen()
        if wish.delivery_id in self.busy:
            self.busy.discard(wish.delivery_id)
            of.status = "retrying" if of.failures else "pending"
            of.claims -= 1
        elif wish.delivery_id not in self.ready:
            return NothingOpen()
        self.ready[wish.delivery_id] = self.now_ms() + wish.in_ms
        return Next(None)

    def _requeue(self, wish: Claim) -> Next | WrongState | NothingOpen | Fenced:
        if fence := self._fence(wish.partition, wish.epoch):
            return fence
        of = self.deliveries.get(wish.delivery_id)
        if of is None:
            return NothingOpen()
        line = self.lines[of.batch.entry.terms.kid]
        if of.status == "dead":
            of.status, of.claims, of.failures = "pending", 0, 0
            line.append(wish.delivery_id)
        elif of.status not in ("pending", "retrying"):
            return WrongState(of.status)
        if line[0] != wish.delivery_id:
            return Next(None)
        self.ready[wish.delivery_id] = self.now_ms()
        return Next(Ready(of.partition, wish.delivery_id, of.batch.entry.terms.host, 0))

    def _discard(self, wish: Claim) -> Next | WrongState | NothingOpen | Fenced:
        if fence := self._fence(wish.partition, wish.epoch):
            return fence
        of = self.deliveries.get(wish.delivery_id)
        if of is None:
            return NothingOpen()
        if of.status not in ("pending", "retrying", "dead"):
            return WrongState(of.status)
        of.status = "discarded"
        self.ready.pop(wish.delivery_id, None)
        return Next(self._leave_line(wish.delivery_id))

    def _leave_line(self, delivery_id: str) -> Ready | None:
        line = self.lines[self.deliveries[delivery_id].batch.entry.terms.kid]
        was_head = line[:1] == [delivery_id]
        if delivery_id in line:
            line.remove(delivery_id)
        if not was_head or not line:
            return None
        following = self.deliveries[line[0]]
        self.ready[line[0]] = self.now_ms()
        return Ready(following.partition, line[0], following.batch.entry.terms.host, 0)

    def _row(self, batch: Batch) -> OpenBatch:
        return OpenBatch(
            key=batch.entry.terms.key,
            size=len(batch.messages),
            size_bytes=batch.size_bytes,
            remaining_ms=max(batch.deadline_ms - self.now_ms(), 0),
            partition=batch.entry.partition,
            messages=batch.messages,
        )

    def _record(self, delivery_id: str, of: Delivery) -> DeliveryRecord:
        return DeliveryRecord(
            delivery_id=delivery_id,
            key=of.batch.entry.terms.key,
            url="",
            status=of.status,
            size=len(of.batch.messages),
            reason=of.reason,
            created_ms=of.created_ms,
            next_attempt_ms=self.ready.get(delivery_id),
            attempts=[line for line in of.log if line is not None],
        )


async def hold_everything(ownership: Ownership) -> None:
    """Have the only node take every partition, and be allowed to act for ever."""
    ownership.beaten(float("inf"))
    await ownership.look(frozenset({ownership.node}))
