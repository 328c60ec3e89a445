"""Task ports: what WhatsApp sends need of the store, and the values that cross. Nothing here does anything.

A task is a delivery of its own kind: it is claimed, settled, released, queued again and discarded as one
(`ports.DeliveryStore`). Times as in `actors/ports.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from actors.core.receipts import Receipt
from actors.core.tasks import TaskState
from actors.ports import ListCursor, StoreAway


class NewTask(Struct, frozen=True, gc=False, kw_only=True):
    """One send on its way into the store. `kid` is its contact's line, `host` its instance's lane, `payload` the text.
    `due_ms` 0: now. `received_us` is when the store first received it; 0: it has not yet."""

    partition: int
    kid: str
    task_id: str
    key: str
    payload: bytes
    policy: bytes
    host: str
    trace: str
    due_ms: int = 0
    received_us: int = 0


class Enqueued(Struct, frozen=True, gc=False):
    """The task is stored. `startable`: nobody of its line is before it and its time is not later than `due_in_ms`."""

    duplicate: bool
    startable: bool
    due_in_ms: int
    received_us: int


class TaskRecord(Struct, frozen=True, kw_only=True):
    """All that is kept of a task. `log`: JSON of `ports.Attempt`, or the ms at which an attempt that nobody settled was
    claimed, oldest first; of very many the last. `result` is JSON, b"" while there is none."""

    task_id: str
    state: TaskState
    policy: bytes
    attempts: int
    log: Sequence[bytes | int]
    result: bytes
    receipt: Receipt | None
    created_ms: int
    updated_ms: int
    eta_ms: int | None
    next_attempt_ms: int | None


class TaskFilter(Struct, frozen=True, kw_only=True):
    """Which tasks a list shows; `None` means any."""

    state: TaskState | None = None
    instance: str | None = None


class Received(Struct, frozen=True):
    """A receipt was taken. `task_id` is "" while nobody knows whose it is; `news`: more than what was known."""

    task_id: str
    news: bool


class TaskStore(Protocol):
    """Tasks. Every method may raise StoreAway; where there are several requests, an answer for each, in order."""

    def enqueue(self, tasks: Sequence[NewTask]) -> Awaitable[Sequence[Enqueued | StoreAway]]: ...
    async def get(self, task_id: str) -> TaskRecord | None: ...
    async def states(self, task_ids: Sequence[str]) -> Sequence[TaskState | None]: ...
    async def list_tasks(
        self, wanted: TaskFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[TaskRecord], ListCursor | None]: ...
    async def counts(self) -> Mapping[TaskState, int]: ...
    async def receive(self, partition: int, mark: str, receipt: Receipt) -> Received: ...
    async def note_foreign(self, partition: int, mark: str) -> None:
        """Remember that another client of Evolution's sent this message."""
        ...

    async def is_sent(self, partition: int, mark: str) -> bool:
        """Whether a message was sent through the API, by us or another client of it."""
        ...


class HealthStore(Protocol):
    """What is known of WhatsApp instances, by all nodes. May raise StoreAway."""

    async def note(self, facts: Mapping[tuple[str, str], str]) -> None:
        """Keep facts by (what, instance); an empty one is taken away."""
        ...

    async def read(self) -> Mapping[str, Mapping[str, str]]:
        """All facts, by instance."""
        ...
