"""Tasks: the supervisor of WhatsApp sends: takes them in, looks them up, waits for them.

A task is a delivery from its beginning: what starts, settles, retries and revokes it is what does so for webhooks. It
is owned by whoever owns its instance's partition, and stored from any node.
Invariants: what was promised is stored, and is written again if the store loses it; a task id is stored once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from actors.committer import Committer
from actors.core.partition import line_of, mark_of, partition_of_instance
from actors.core.receipts import Receipt
from actors.core.tasks import FINAL, TaskPolicy, TaskState, lane_of
from actors.ports import CommitMeters, Counter, ListCursor, Overloaded, Ready, StoreAway
from actors.runtime.clock import Clock
from actors.runtime.outcome import Tell, told
from actors.runtime.supervisor import Supervisor
from actors.task_ports import Enqueued, NewTask, TaskFilter, TaskRecord, TaskStore

_encode = msgspec.json.Encoder().encode
OVERHEAD_BYTES = 600
WAITERS_MAX = 4096
"""Callers that wait for tasks to end."""
LOOKED_AT_MAX = 256
"""Of them looked at in one go."""
LOOK_S = 0.1
"""How often the store is asked for tasks that somebody waits for: other nodes may end them."""


def drafted(policy: TaskPolicy, contact: str, text: str) -> NewTask:
    """A task for a contact, wanted now, that has no id yet."""
    kid, partition = line_of(policy.instance, contact)
    return NewTask(
        partition=partition,
        kid=kid,
        task_id="",
        key=f"{policy.instance}:{contact}",
        payload=text.encode(),
        policy=_encode(policy),
        host=lane_of(policy.instance),
        trace="",
    )


class Tasks:
    """The front of tasks. `run` is a service."""

    def __init__(
        self, store: TaskStore, supervisor: Supervisor, clock: Clock, meters: CommitMeters, queued: Counter
    ) -> None:
        self._store = store
        self._queued = queued
        self._enqueues: Committer[NewTask, Enqueued] = Committer("tasks", store.enqueue, supervisor, clock, meters)
        self._enqueues.on_committed = self._account
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._waiters = 0
        self._leaving = False
        self._wanted = asyncio.Event()
        self.on_stored: Callable[[Sequence[NewTask], Sequence[int]], None] = lambda _tasks, _times: None
        """Told of tasks that are about to be acknowledged; set once by the composition root, as the next."""
        self.on_startable: Callable[[Ready], None] = lambda _ready: None
        """Told of each task that nobody is before."""
        self.on_queued: Callable[[NewTask], None] = lambda _task: None
        self.on_receipt: Callable[[str, str, Receipt], None] = lambda _task, _instance, _receipt: None
        """Told of the task, its instance and how far its message has come, when that is news."""

    def submit(self, task: NewTask, tell: Tell[Enqueued]) -> None:
        """Store a task; `tell` is called later, once: StoreAway when it was not, or nobody can know. Raises
        Overloaded."""
        self._enqueues.submit(task, len(task.payload) + OVERHEAD_BYTES, tell)

    async def enqueue(self, task: NewTask) -> Enqueued:
        """The same as `submit`, to be awaited."""
        return await told(partial(self.submit, task))

    async def get(self, task_id: str) -> TaskRecord | None:
        """One task. Raises StoreAway."""
        return await self._store.get(task_id)

    async def list_tasks(
        self, wanted: TaskFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[TaskRecord], ListCursor | None]:
        """A page of tasks. Raises StoreAway."""
        return await self._store.list_tasks(wanted, cursor, limit)

    async def counts(self) -> Mapping[TaskState, int]:
        """How many tasks are in each state. Raises StoreAway."""
        return await self._store.counts()

    async def ended(self, task_id: str, within_s: float) -> bool:
        """Wait until a task has ended, for so long at the most; false: it has not, as far as is known. Raises
        Overloaded when too many wait. A node that goes lets nobody wait."""
        if self._leaving:
            return True
        if self._waiters >= WAITERS_MAX:
            raise Overloaded("too many callers wait for tasks")
        over = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, set()).add(over)
        self._waiters += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(within_s):
                await over
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._waiters -= 1
            waiting = self._waiting.get(task_id, set())
            waiting.discard(over)
            if not waiting:
                self._waiting.pop(task_id, None)

    def leave(self) -> None:
        """The node goes: whoever waits is told how it stands now."""
        self._leaving = True
        for task_id in list(self._waiting):
            self.has_ended(task_id)

    def has_ended(self, task_id: str) -> None:
        """A task has ended here: whoever waits for it need not wait for the next look."""
        for over in self._waiting.get(task_id, ()):
            if not over.done():
                over.set_result(None)

    async def receive(self, instance: str, key_id: str, receipt: Receipt) -> None:
        """Take how far a message of an instance has come. Raises StoreAway."""
        received = await self._store.receive(partition_of_instance(instance), mark_of(instance, key_id), receipt)
        if received.news and received.task_id:
            self.on_receipt(received.task_id, instance, receipt)

    async def is_ours(self, instance: str, key_id: str) -> bool:
        """Whether a message was sent through the API, not by a person on the phone. Raises StoreAway."""
        return await self._store.is_sent(partition_of_instance(instance), mark_of(instance, key_id))

    async def note_sent(self, instance: str, key_id: str) -> None:
        """Some client of Evolution's, perhaps this one, has sent a message. Raises StoreAway."""
        await self._store.note_foreign(partition_of_instance(instance), mark_of(instance, key_id))

    async def drained(self) -> None:
        """Wait until the store has answered everything."""
        await self._enqueues.drained()

    async def run(self) -> None:
        """Look what became of the tasks that somebody waits for. A service: ends only by cancellation."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(LOOK_S)
            names = list(self._waiting)[:LOOKED_AT_MAX]
            if not names:
                self._wanted.clear()
                continue
            for name in names:  # whoever was looked at goes to the end
                self._waiting[name] = self._waiting.pop(name)
            try:
                states = await self._store.states(names)
            except StoreAway:
                continue
            for name, state in zip(names, states, strict=True):
                if state is None or state in FINAL:
                    self.has_ended(name)

    def _account(self, tasks: Sequence[NewTask], outcomes: Sequence[Enqueued | StoreAway]) -> None:
        """Remember what is about to be acknowledged, and start what can start."""
        stored: list[NewTask] = []
        times: list[int] = []
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, StoreAway):
                continue
            # A duplicate too: the answer to the first may have been lost, and what is acknowledged is written again.
            stored.append(task)
            times.append(outcome.received_us)
            if not outcome.duplicate:
                self._queued.inc()
        self.on_stored(stored, times)
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, StoreAway) or outcome.duplicate:
                continue
            self.on_queued(task)
            if outcome.startable:
                self.on_startable(Ready(task.partition, task.task_id, task.host, outcome.due_in_ms))
