"""Committer: group commit. What arrives close together goes to the store in one call.

A request alone goes at once; while a call is under way those that arrive wait for its answer, but never longer than
GATHER_S, and leave together. A caller that goes away does not take its write with it. Where the store tells what came
of a call nothing waits for it: no task, no turn of the loop more.
Invariants: queue bounded in bytes and age (StoreAway or Overloaded beyond); order of requests is kept; every request
gets exactly one answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack

from actors.ports import CommitMeters, Overloaded, StoreAway
from actors.runtime.clock import Clock
from actors.runtime.outcome import Promised, crash_of, outcome_of, settle
from actors.runtime.supervisor import Supervisor

GATHER_S = 0.002
BATCH_REQUESTS_MAX = 256
BATCH_BYTES_MAX = 512 * 1024
QUEUE_BYTES_MAX = 8 * 1024 * 1024
QUEUE_AGE_S_MAX = 1.0
BUSY_BATCH = 4
BUSY_GATHER_S = 0.001
"""After a batch this large the next one gathers first: each call costs as much as a dozen requests [measured]."""
CALLS_MAX = 4
"""Calls under way at once: one normally, more only when the store takes longer than GATHER_S to answer."""

Q = TypeVar("Q")
A = TypeVar("A")
Words = TypeVarTuple("Words")
Answer = Callable[[Any], object]
"""Gets the store's answer, or the exception that stands for it."""


class Committer(Generic[Q, A]):
    """Gathers requests of one kind. `commit` answers a batch, one answer per request, in order, StoreAway for one whose
    part of the store is away; `on_committed` is shown each answered batch before the callers are."""

    def __init__(
        self,
        name: str,
        commit: Callable[[Sequence[Q]], Awaitable[Sequence[A | StoreAway]]],
        supervisor: Supervisor,
        clock: Clock,
        meters: CommitMeters,
        calls_max: int = CALLS_MAX,
    ) -> None:
        self._name = name
        self._calls_max = calls_max
        self._commit = commit
        self._supervisor = supervisor
        self._clock = clock
        self._meters = meters
        self.on_committed: Callable[[Sequence[Q], Sequence[A | StoreAway]], None] = lambda _requests, _answers: None
        self.on_answered: Callable[[Sequence[Q], Sequence[Any]], object] = lambda _requests, _outcomes: None
        """Shown each batch that is over, with an answer or an exception for each request, before the callers are."""
        self._waiting: deque[_Batch[Q]] = deque()
        self._open: _Batch[Q] | None = None
        """The last of them, while whoever comes may join it without another look."""
        self._room_bytes = QUEUE_BYTES_MAX
        self._calls = 0
        self._under_way = 0
        self._armed = False
        self._last_batch = 0
        self._call_soon = asyncio.get_running_loop().call_soon
        self._new_future = asyncio.get_running_loop().create_future
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Requests that have no answer yet."""
        return sum(len(batch.requests) for batch in self._waiting) + self._under_way

    def submit(self, request: Q, size_bytes: int, answer: Answer) -> None:
        """Queue a request; `answer` is called once, in the order of submission. Raises Overloaded when full."""
        batch = self._open
        if batch is None or size_bytes > self._room_bytes:
            batch = self._opened(size_bytes)
        requests = batch.requests
        requests.append(request)
        batch.unanswered.append(answer)
        batch.size_bytes += size_bytes
        self._room_bytes -= size_bytes
        if len(requests) >= BATCH_REQUESTS_MAX or batch.size_bytes >= BATCH_BYTES_MAX:
            self._open = None

    async def ask(self, request: Q, size_bytes: int = 0) -> A:
        """Submit and wait for the answer. Raises what the store raised."""
        reply: asyncio.Future[A] = self._new_future()
        self.submit(request, size_bytes, partial(settle, reply))
        return await reply

    async def drained(self) -> None:
        """Wait until nothing is queued and no call is under way."""
        await self._idle.wait()

    def _opened(self, size_bytes: int) -> _Batch[Q]:
        """A batch with room. Raises Overloaded."""
        now, waiting = self._clock.monotonic(), self._waiting
        if not waiting:
            self._idle.clear()
        elif size_bytes > self._room_bytes or now - waiting[0].since > QUEUE_AGE_S_MAX:
            raise Overloaded(f"the {self._name} queue is full")
        if not waiting or waiting[-1].is_full:
            waiting.append(_Batch(now))
        batch = waiting[-1]
        if self._calls < self._calls_max:  # else it leaves when one of them has ended, and until then gets old
            self._open = batch
            self._arm(now)
        return batch

    def _arm(self, now: float) -> None:
        if self._armed:
            return
        self._armed = True
        if self._calls:
            self._clock.call_at(now + GATHER_S, self._leave)
        elif self._last_batch >= BUSY_BATCH:
            self._clock.call_at(now + BUSY_GATHER_S, self._leave)
        else:
            self._call_soon(self._leave)

    def _leave(self) -> None:
        """Send what has gathered, in as many calls as the bounds want."""
        self._armed = False
        while self._waiting and self._calls < self._calls_max:
            batch = self._waiting.popleft()
            self._open = None  # also when somebody who was told at once has come back
            self._room_bytes += batch.size_bytes
            self._last_batch = len(batch.requests)
            self._calls += 1
            self._under_way += len(batch.requests)
            self._send(batch)

    def _send(self, batch: _Batch[Q]) -> None:
        """Ask for a batch to be done. What can be told later needs no task."""
        batch.since = self._clock.monotonic()
        answers = outcome_of(self._commit, batch.requests)
        if isinstance(answers, Promised):
            answers.then(partial(self._over, batch))
            return
        if not isinstance(answers, Exception):
            try:
                job = self._supervisor.spawn(self._name, self._wait(batch, answers))
            except Overloaded as error:
                _forget(answers)
                answers = error
            else:
                job.add_done_callback(partial(self._waited, batch, answers))
                return
        self._call_soon(self._over, batch, answers)

    async def _wait(self, batch: _Batch[Q], answers: Awaitable[Sequence[A | StoreAway]]) -> None:
        try:
            outcomes: Sequence[A | StoreAway] | Exception = await answers
        except (StoreAway, Overloaded) as error:
            outcomes = error
        self._over(batch, outcomes)

    def _waited(self, batch: _Batch[Q], answers: object, job: asyncio.Task[None]) -> None:
        """A job is over, however: who has no answer yet learns that nobody can know."""
        if not batch.is_over:
            _forget(answers)
            why = "stopped" if job.cancelled() else repr(job.exception())
            self._over(batch, _unfinished(why))

    def _over(self, batch: _Batch[Q], outcomes: Sequence[A | StoreAway] | Exception) -> None:
        """A call is over: everybody is told, whoever crashes at that, and the next one may leave."""
        requests = batch.requests
        batch.is_over = True
        if not isinstance(outcomes, Exception) and len(outcomes) != len(requests):
            outcomes = ValueError(f"{len(outcomes)} answers to {len(requests)} requests")
        if isinstance(outcomes, Exception):
            if not isinstance(outcomes, StoreAway | Overloaded):
                self._supervisor.crashed(self._name, outcomes)
                outcomes = _unfinished(repr(outcomes))
            answers: Sequence[Any] = [outcomes] * len(requests)
        else:
            answers = outcomes
            self._guarded(self._committed, batch, outcomes)
        self._guarded(self.on_answered, requests, answers)
        self._guarded(batch.answer_all, answers)
        self._calls -= 1
        self._under_way -= len(requests)
        if self._waiting:
            self._armed = True
            self._call_soon(self._leave)
        elif not self._calls:
            self._idle.set()

    def _committed(self, batch: _Batch[Q], outcomes: Sequence[A | StoreAway]) -> None:
        self._meters.commit_operations.observe(len(outcomes))
        self._meters.commit_seconds.observe(self._clock.monotonic() - batch.since)
        self.on_committed(batch.requests, outcomes)

    def _guarded(self, call: Callable[[Unpack[Words]], object], *words: *Words) -> None:
        crash = crash_of(call, *words)
        if crash is not None:
            self._supervisor.crashed(self._name, crash)


def _forget(answers: object) -> None:
    """Nobody will wait for this, and perhaps nobody has begun to."""
    if isinstance(answers, Coroutine):
        answers.close()


def _unfinished(why: str) -> StoreAway:
    return StoreAway(f"the write was not finished: {why}")


class _Batch(Generic[Q]):
    """What one call carries, and who waits for it; `since` is when its first request came, later when it left."""

    __slots__ = ("is_over", "requests", "since", "size_bytes", "unanswered")

    def __init__(self, since: float) -> None:
        self.requests: list[Q] = []
        self.unanswered: deque[Answer] = deque()
        self.size_bytes = 0
        self.since = since
        self.is_over = False

    @property
    def is_full(self) -> bool:
        """Whether nobody may join any more."""
        return len(self.requests) >= BATCH_REQUESTS_MAX or self.size_bytes >= BATCH_BYTES_MAX

    def answer_all(self, outcomes: Sequence[Any]) -> None:
        """Give each caller its outcome, in order; one that raises at it takes no other's away."""
        waiting, self.unanswered = self.unanswered, deque()
        outcome = iter(outcomes)
        try:
            while waiting:
                waiting.popleft()(next(outcome))
        finally:
            if waiting:
                self.unanswered = waiting
                self.answer_all(list(outcome))
