"""Tasks in the store: implements TaskStore and HealthStore."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.keys import HEALTH, HEALTH_AT, PREFIXES
from actors.adapters.valkey.replies import pairs
from actors.adapters.valkey.runner import Runner, Transition, Walk, present
from actors.core.ids import partition_of
from actors.core.partition import PARTITIONS, partition_of_instance
from actors.core.receipts import Receipt
from actors.core.tasks import STATE_OF, TaskState, lane_of
from actors.ports import ListCursor, StoreAway
from actors.task_ports import Enqueued, NewTask, Received, TaskFilter, TaskRecord

EARLY_MS = 600_000
"""How long a receipt waits for its task to be settled."""
FOREIGN_MS = 3_600_000
"""How long a message that another client sent is remembered."""
LINES_MAX = 50
"""As in `settle.lua`."""
_DUPLICATE, _FIRST, _LATER = 1, 2, 3
_FIELDS_PER_ANSWER = 2
_STAGES: dict[TaskState | None, tuple[str, ...]] = {
    None: ("tlive", "tdead", "tdone", "tgone"),
    "PENDING": ("tlive",),
    "STARTED": ("tlive",),
    "RETRY": ("tlive",),
    "FAILURE": ("tdead",),
    "SUCCESS": ("tdone",),
    "REVOKED": ("tgone",),
}
_STATUS_OF = {state: status for status, state in STATE_OF.items()}


class ValkeyTasks:
    """Tasks are deliveries: what changes one that is there is in `deliveries`."""

    def __init__(self, runner: Runner, kept: Kept) -> None:
        self._runner = runner
        self._kept = kept

    def enqueue(self, tasks: Sequence[NewTask]) -> Awaitable[Sequence[Enqueued | StoreAway]]:
        """Store tasks, all in one call."""
        return self._runner.begin(_ENQUEUE, tasks)

    async def get(self, task_id: str) -> TaskRecord | None:
        """All that is kept of a task."""
        flat = await self._runner.command("HGETALL", _record_key(task_id))
        return _record(task_id, pairs(flat)) if flat else None

    async def states(self, task_ids: Sequence[str]) -> Sequence[TaskState | None]:
        """The state of each; None for one that is not known."""
        found = await asyncio.gather(*(self._runner.command("HGET", _record_key(each), "st") for each in task_ids))
        return [None if status is None else STATE_OF[status.decode()] for status in found]

    async def list_tasks(
        self, wanted: TaskFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[TaskRecord], ListCursor | None]:
        """A page: unfinished ones first, then failed, sent and revoked ones; each by partition and time."""
        partition = None if wanted.instance is None else partition_of_instance(wanted.instance)
        first, last = (0, PARTITIONS - 1) if partition is None else (partition, partition)
        stages = _STAGES[wanted.state]
        at: ListCursor | None = cursor if cursor != ListCursor() else ListCursor(partition=first)
        records: list[TaskRecord] = []
        while at is not None and len(records) < limit:
            if at.stage >= len(stages) or not first <= at.partition <= last:
                return records, None
            walk = Walk(
                index=stages[at.stage],
                last_partition=last,
                status="" if wanted.state is None else _STATUS_OF[wanted.state],
                host="" if wanted.instance is None else lane_of(wanted.instance),
            )
            rows, goes_on = await self._runner.page(walk, at, limit - len(records))
            records.extend(_record(row.name, pairs(row.content[0])) for row in rows)
            if goes_on is not None:
                return records, goes_on
            at = ListCursor(at.stage + 1, first) if at.stage + 1 < len(stages) else None
        return records, at

    async def counts(self) -> Mapping[TaskState, int]:
        """How many tasks are in each state."""

        def arguments(partitions: Sequence[int]) -> list[Any]:
            return [self._kept.task_ms, *(PREFIXES[partition] for partition in partitions)]

        replies = await self._runner.spread("task_counts", range(PARTITIONS), arguments)
        sums = [sum(each) for each in zip(*(reply for _, reply in present(replies)), strict=True)]
        live, retrying, started, done, dead, revoked = sums
        pending = max(live - retrying - started, 0)
        return {
            "PENDING": pending,
            "STARTED": started,
            "RETRY": retrying,
            "SUCCESS": done,
            "FAILURE": dead,
            "REVOKED": revoked,
        }

    async def receive(self, partition: int, mark: str, receipt: Receipt) -> Received:
        """Take how far a message has come."""
        task, news = await self._runner.hot("receipt", partition, [PREFIXES[partition], mark, receipt, EARLY_MS])
        return Received(task.decode(), news == 1)

    async def note_foreign(self, partition: int, mark: str) -> None:
        """Remember that another client of Evolution's sent this message."""
        await self._runner.hot("note_sent", partition, [PREFIXES[partition], mark, FOREIGN_MS])

    async def is_sent(self, partition: int, mark: str) -> bool:
        """Whether a message was sent through the API."""
        found = await self._runner.command("HMGET", f"{PREFIXES[partition]}k:{mark}", "t", "api")
        return any(each is not None for each in found)


class ValkeyHealth:
    """Facts about WhatsApp instances, in one hash."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def note(self, facts: Mapping[tuple[str, str], str]) -> None:
        """Keep facts; instances that were not heard of for longest make room."""
        if facts:
            arguments = [part for (what, instance), value in facts.items() for part in (what, instance, value)]
            await self._runner.cold("health", (HEALTH, HEALTH_AT), arguments)

    async def read(self) -> Mapping[str, Mapping[str, str]]:
        """All facts, by instance."""
        flat = await self._runner.command("HGETALL", HEALTH)
        facts: dict[str, dict[str, str]] = {}
        for field, value in sorted(pairs(flat).items()):
            what, _, instance = field.decode().partition(":")
            facts.setdefault(instance, {})[what] = value.decode()
        return facts


def _enqueue_arguments(tasks: Sequence[NewTask]) -> list[Any]:
    arguments: list[Any] = []
    for task in tasks:
        arguments += (PREFIXES[task.partition], task.kid, task.task_id, task.key, task.payload, task.policy)
        arguments += (task.host, task.trace, task.due_ms)
    return arguments


def _enqueued_all(_tasks: Sequence[NewTask], flat: list[Any]) -> list[Enqueued]:
    received_us = flat[-1]
    return [
        Enqueued(code == _DUPLICATE, code in {_FIRST, _LATER}, due_in_ms if code == _LATER else 0, received_us)
        for code, due_in_ms in zip(flat[:-1:_FIELDS_PER_ANSWER], flat[1::_FIELDS_PER_ANSWER], strict=True)
    ]


_ENQUEUE = Transition("enqueue", _enqueue_arguments, _enqueued_all)


def _record_key(task_id: str) -> str:
    return f"{PREFIXES[partition_of(task_id)]}d:{task_id}"


def _record(task_id: str, fields: dict[bytes, bytes]) -> TaskRecord:
    status = fields[b"st"].decode()
    attempts = int(fields[b"a"])
    lines = [fields.get(b"l%d" % attempt) for attempt in range(max(attempts - LINES_MAX, 0) + 1, attempts + 1)]
    receipt = fields.get(b"dv")
    eta, waits_until = fields.get(b"eta"), fields.get(b"nx")
    return TaskRecord(
        task_id=task_id,
        state=STATE_OF[status],
        policy=fields[b"p"],
        attempts=attempts,
        log=[line if line.startswith(b"{") else int(line) for line in lines if line is not None],
        result=fields.get(b"res", b""),
        receipt=None if receipt is None else cast(Receipt, receipt.decode()),
        created_ms=int(fields[b"c"]),
        updated_ms=int(fields[b"u"]),
        eta_ms=None if eta is None else int(eta),
        next_attempt_ms=int(waits_until) if waits_until is not None and status == "retrying" else None,
    )
