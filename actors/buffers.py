"""Buffers: the supervisor of all buffer actors of this node.

Creates an actor when its key is first heard of, lets it go when its batch has closed, replaces one that crashed and
quarantines a key that crashes its actor again and again. Holds the one wheel of deadlines and the group commits.
Invariant: what an actor knows can be lost at any time; the store has it all and the sweep brings it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from actors.buffer import (
    AskClose,
    Buffer,
    Closed,
    DeadlineReached,
    Flush,
    Flushed,
    Forget,
    Heard,
    Inbox,
    Shell,
    Stored,
)
from actors.committer import Committer
from actors.core.partition import locate
from actors.ownership import Ownership
from actors.ports import (
    Appended,
    BatchStore,
    Close,
    ClosedBatch,
    DueBatch,
    Entry,
    Fenced,
    ListCursor,
    Meters,
    NotDue,
    NothingOpen,
    OpenBatch,
    Overloaded,
    Ready,
    StoreAway,
)
from actors.runtime.actor import Actor, Dispatcher
from actors.runtime.clock import Clock
from actors.runtime.outcome import Tell, crash_of, settle
from actors.runtime.supervisor import Quarantine, Supervisor
from actors.runtime.wheel import Wheel

MAILBOX_FULL = "the mailbox of this key is full"
ENTRY_OVERHEAD_BYTES = 256
"""What an entry weighs in the commit queue beside its payload: ids, policy, bookkeeping."""


class Buffers:
    """The front of the buffer actors: ask it to append, flush, drop, look and list."""

    def __init__(
        self,
        store: BatchStore,
        ownership: Ownership,
        supervisor: Supervisor,
        clock: Clock,
        meters: Meters,
    ) -> None:
        self._store = store
        # Asking for the running loop is a system call on Python 3.11, and this is the hottest place.
        self._new_future = asyncio.get_running_loop().create_future
        self._ownership = ownership
        self._clock = clock
        self._meters = meters
        self._appends = Committer("append", store.append, supervisor, clock, meters)
        self._appends.on_answered = self._answered
        self._appends.on_committed = self._account
        self._closes = Committer("close", store.close, supervisor, clock, meters)
        self._dispatcher = Dispatcher(self._crashed)
        self._quarantine = Quarantine(clock)
        self._wheel: Wheel[Buffer] = Wheel(clock, self._deadline_reached)
        self._buffers: dict[str, Buffer] = {}
        self._asked: dict[str, int] = {}
        """Messages of each key that wait for their answer."""
        self.on_closed: Callable[[Ready], object] = lambda _ready: None
        """Told of each batch that may start; set once by the composition root."""
        self.on_foreign: Callable[[Entry, Appended], None] = lambda _entry, _outcome: None
        """Told of each message stored in a partition that another node owns; set once by the composition root."""
        self.on_stored: Callable[[Sequence[Entry], Sequence[int]], None] = lambda _entries, _received_us: None
        """Told of messages that were stored, and when (µs of the store's clock); set once by the composition root."""
        self.on_opened: Callable[[Entry], None] = lambda _entry: None
        """Told of each message that opened a batch; set once by the composition root."""
        self.on_frozen: Callable[[ClosedBatch], None] = lambda _batch: None
        """Told of each batch that this node closed; set once by the composition root."""
        self.make_delivery_id: Callable[[int], str] = lambda _partition: ""
        """Makes the id of a batch that closes now, from its partition; set once by the composition root."""
        self._shell = Shell(
            close=self._close,
            arm=self._wheel.arm,
            disarm=self._wheel.disarm,
            deliver=self._deliver,
            disown=self._disown,
            monotonic=clock.monotonic,
            idle=self._idle,
        )

    def __len__(self) -> int:
        return len(self._buffers)

    @property
    def mailbox_depth(self) -> int:
        """What buffer actors were asked and have not answered yet, and what waits to be received by one."""
        return self._appends.depth + self._closes.depth + self._dispatcher.waiting

    @property
    def quarantined(self) -> int:
        """Keys that are left alone now."""
        return len(self._quarantine)

    def append(self, entry: Entry) -> asyncio.Future[Appended]:
        """The same as `submit`, to be awaited."""
        reply: asyncio.Future[Appended] = self._new_future()
        self.submit(entry, partial(settle, reply))
        return reply

    def submit(self, entry: Entry, tell: Tell[Appended]) -> None:
        """Ask for a message to be stored; `tell` is called later, once: StoreAway when it was not, or nobody can know.

        Any node may store for any partition; only the owner arms timers and delivers. Raises Overloaded when the key's
        mailbox is full or the key is quarantined.
        """
        kid = entry.terms.kid
        asked = self._asked.get(kid, 0)
        buffer = self._buffers.get(kid)
        if buffer is None:
            self._check_quarantine(kid)
        if asked + (0 if buffer is None else buffer.asked) >= Buffer.asks_max:
            raise Overloaded(MAILBOX_FULL)
        self._appends.submit(entry, len(entry.payload) + ENTRY_OVERHEAD_BYTES, tell)
        self._asked[kid] = asked + 1

    async def flush(self, key: str, batch_id: str | None = None) -> Flushed:
        """Close the key's open batch now, as the delivery `batch_id` (made here when None): asking again with the
        same id gives the same answer. Raises StoreAway, Overloaded."""
        kid, partition = locate(key)
        reply: asyncio.Future[Flushed] = self._new_future()
        self._dispatcher.tell(self._ask(kid, partition), Flush(batch_id or self.make_delivery_id(partition), reply))
        return await reply

    async def drop(self, key: str) -> int | NothingOpen | Fenced:
        """Drop the key's open batch; gives how many messages were dropped. Raises StoreAway."""
        kid, partition = locate(key)
        outcome = await self._store.cancel(partition, self._ownership.epoch(partition), kid)
        buffer = self._buffers.get(kid)
        if buffer is not None and not isinstance(outcome, Fenced):
            self._dispatcher.tell(buffer, Forget())
        return outcome

    async def peek(self, key: str) -> OpenBatch | None:
        """The key's open batch with its messages. Raises StoreAway."""
        return await self._store.peek(key)

    async def list_open(self, cursor: ListCursor, limit: int) -> tuple[Sequence[OpenBatch], ListCursor | None]:
        """A page of open batches. Raises StoreAway."""
        return await self._store.list_open(cursor, limit)

    def heard(self, due: Sequence[DueBatch]) -> None:
        """Take what a sweep found: batches that fall due soon or should have."""
        now = self._clock.monotonic()
        for batch in due:
            if not self._ownership.epoch(batch.partition):
                continue
            due_at = now + batch.due_in_ms / 1000
            buffer = self._buffers.get(batch.kid)
            if buffer is not None and buffer.state and buffer.state.due_in_time(batch.deadline_ms, due_at):
                continue
            if not self._quarantine.holds(batch.kid):
                buffer = self._buffer(batch.kid, batch.partition)
                self._dispatcher.tell(buffer, Heard(batch.deadline_ms, due_at))

    async def drained(self) -> None:
        """Wait until everything that was asked has been answered by the store."""
        await self._appends.drained()
        await self._closes.drained()

    def forget_partitions(self, partitions: Collection[int]) -> None:
        """Let go of the actors of partitions that this node acts for no more."""
        gone = frozenset(partitions)
        for buffer in [buffer for buffer in self._buffers.values() if buffer.partition in gone]:
            self._dispatcher.tell(buffer, Forget())

    def _buffer(self, kid: str, partition: int) -> Buffer:
        buffer = self._buffers.get(kid)
        if buffer is None:
            self._check_quarantine(kid)
            buffer = self._buffers[kid] = Buffer(kid, partition, self._shell)
        return buffer

    def _check_quarantine(self, kid: str) -> None:
        if self._quarantine.holds(kid):
            raise Overloaded("this key is quarantined: its actor crashed again and again")

    def _ask(self, kid: str, partition: int) -> Buffer:
        """The key's actor, with one more caller waiting for it. Raises Overloaded when too many do."""
        buffer = self._buffer(kid, partition)
        if buffer.asked + self._asked.get(kid, 0) >= Buffer.asks_max:
            self._idle(buffer)
            raise Overloaded(MAILBOX_FULL)
        buffer.asked += 1
        return buffer

    def _account(self, entries: Sequence[Entry], outcomes: Sequence[Appended | StoreAway]) -> None:
        """Count a batch of stored messages and remember them for a while, before anybody is told."""
        duplicates = 0
        received_us = []
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, StoreAway):
                continue
            received_us.append(outcome.received_us)
            if outcome.duplicate:
                duplicates += 1
                continue
            if outcome.size == 1:
                self.on_opened(entry)
            if outcome.closed is not None:
                self._count_batch(outcome.closed)
        self._meters.accepted.inc(len(received_us) - duplicates)
        self._meters.duplicates.inc(duplicates)
        if len(received_us) < len(entries):
            stored = zip(entries, outcomes, strict=True)
            entries = [entry for entry, outcome in stored if not isinstance(outcome, StoreAway)]
        self.on_stored(entries, received_us)

    def _answered(self, entries: Sequence[Entry], outcomes: Sequence[Appended | Exception]) -> None:
        """Their callers wait no more. Tell each actor, one after the other, what it does not know."""
        asked, buffers, epoch = self._asked, self._buffers, self._ownership.epoch
        for entry in entries:
            kid = entry.terms.kid
            left = asked[kid] - 1
            if left:
                asked[kid] = left
            else:
                del asked[kid]
        crash = None
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, Exception):
                continue
            terms = entry.terms
            buffer = buffers.get(terms.kid)
            known = None if buffer is None else buffer.state
            # Most messages join a window that is known: there is nothing to tell.
            if (
                known is None
                or known.deadline_ms != outcome.deadline_ms
                or outcome.closed is not None
                or not epoch(terms.partition)
            ):
                crash = crash_of(self._tell, entry, outcome) or crash
        if crash is not None:
            raise crash

    def _tell(self, entry: Entry, outcome: Appended) -> None:
        """Tell a key's actor, or its owner, what became of its batch."""
        kid, partition = entry.terms.kid, entry.terms.partition
        if not self._ownership.epoch(partition):
            self.on_foreign(entry, outcome)
        elif not self._quarantine.holds(kid):  # else a sweep finds it, later
            self._dispatcher.tell(self._buffer(kid, partition), Stored(outcome))

    def _count_batch(self, batch: ClosedBatch) -> None:
        self._meters.batches[batch.reason].inc()
        self._meters.batch_messages.observe(batch.size)
        self.on_frozen(batch)

    def _close(self, buffer: Buffer, effect: AskClose) -> None:
        epoch = self._ownership.epoch(buffer.partition)
        close = Close(
            partition=buffer.partition,
            epoch=epoch,
            kid=buffer.kid,
            deadline_ms=effect.deadline_ms,
            reason=effect.reason,
            batch_id=effect.batch_id or self.make_delivery_id(buffer.partition),
        )

        def answer(outcome: ClosedBatch | NotDue | NothingOpen | Fenced | Exception) -> None:
            if isinstance(outcome, ClosedBatch):
                self._count_batch(outcome)
            self._dispatcher.tell(buffer, Closed(outcome, effect.reply))

        try:
            self._closes.submit(close, ENTRY_OVERHEAD_BYTES, answer)
        except Overloaded as error:
            answer(error)

    def _deliver(self, buffer: Buffer, batch: ClosedBatch) -> None:
        self.on_closed(Ready(buffer.partition, batch.delivery_id, batch.host, 0))

    def _disown(self, buffer: Buffer, owner: Fenced) -> None:
        self._ownership.fenced(buffer.partition, owner)

    def _deadline_reached(self, buffer: Buffer) -> None:
        self._dispatcher.tell(buffer, DeadlineReached())

    def _idle(self, buffer: Buffer) -> None:
        """Let go of an actor that knows nothing and that nobody waits for."""
        idle = buffer.state is None and buffer.asked == 0 and not buffer._mail
        if idle and self._buffers.get(buffer.kid) is buffer:
            del self._buffers[buffer.kid]

    def _crashed(self, actor: Actor[Any], messages: list[Inbox], error: Exception) -> None:
        """Replace the actor: its successor starts from the store. Callers are told that nobody can know."""
        if not isinstance(actor, Buffer):
            return
        self._meters.actor_restarts.inc()
        self._quarantine.crashed(actor.kid)
        if self._buffers.get(actor.kid) is actor:
            del self._buffers[actor.kid]
        if actor.slot is not None:
            self._wheel.disarm(actor, actor.slot)
        for message in messages:
            reply = getattr(message, "reply", None)
            if reply is not None and not reply.done():
                reply.set_exception(StoreAway("the actor of this key crashed"))
