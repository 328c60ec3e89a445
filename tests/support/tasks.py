"""Tasks for tests of the store: sends as `POST /messages` makes them, and what a node's hand does with them.

Nothing here decides what is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from actors.adapters.valkey.replay import Replay
from actors.core.partition import line_of, mark_of, partition_of_instance
from actors.core.tasks import TaskPolicy, lane_of
from actors.ports import Next, Ready, Release, StoreAway
from actors.task_ports import Enqueued, NewTask, TaskFilter, TaskRecord
from tests.support.store import IDS, WINDOW_MS, Hand, flat, pages

INSTANCE = "ventas"
LANE = lane_of(INSTANCE)
PARTITION = partition_of_instance(INSTANCE)
ANA = "5215512345678@s.whatsapp.net"
BETO = "5215587654321@s.whatsapp.net"
TEXT = "Hola, ¿qué tal?"
HOUR_MS = 3_600_000
RESULT = b'{"success":true,"phone":"+52 1","evolution_key":"3EB0A"}'
MARK = mark_of(INSTANCE, "3EB0A")


def policy(instance: str = INSTANCE, **changes: Any) -> bytes:
    """A send's policy as it is stored."""
    plain = TaskPolicy(instance=instance, phone="+52 1 55 1234 5678", number="5215512345678")
    return msgspec.json.encode(replace(plain, **changes))


def task(contact: str = ANA, *, instance: str = INSTANCE, **changes: Any) -> NewTask:
    """One send to a contact, wanted now; `changes` are other fields of it."""
    kid, partition = line_of(instance, contact)
    plain = NewTask(
        partition=partition,
        kid=kid,
        task_id=IDS.task_id(partition),
        key=f"{instance}:{contact}",
        payload=TEXT.encode(),
        policy=policy(instance),
        host=lane_of(instance),
        trace="",
    )
    return replace(plain, **changes)


def ready_now(of: NewTask) -> Ready:
    """What the store says of a task that may start."""
    return Ready(of.partition, of.task_id, of.host, 0)


class TaskHand:
    """One node at work with tasks."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self.tasks = hand.store.tasks

    async def enqueue(self, *tasks: NewTask) -> list[Enqueued]:
        """Store tasks in one call."""
        outcomes = await self.tasks.enqueue(tasks)
        done = [outcome for outcome in outcomes if not isinstance(outcome, StoreAway)]
        assert len(done) == len(tasks), outcomes
        return done

    async def queued(self, contact: str = ANA, **changes: Any) -> NewTask:
        """A task that is stored, with its time of receipt as a node would remember it."""
        new = task(contact, **changes)
        (stored,) = await self.enqueue(new)
        return replace(new, received_us=stored.received_us)

    async def settle(self, of: NewTask, attempt: int, status: str, *, retry_in_ms: int = 0, **more: Any) -> object:
        """Write how an attempt ended; `more` are its log, result and mark."""
        outcome = await self.hand.outcome(of.task_id, attempt, status, retry_in_ms)
        (answer,) = await self.hand.store.deliveries.work([replace(outcome, **more)])
        return answer

    async def ended(self, of: NewTask, status: str, **more: Any) -> Ready | None:
        """Claim a task and settle the attempt; gives the next of its line that may start."""
        claimed = await self.hand.claimed(of.task_id)
        answer = await self.settle(of, claimed.attempt, status, **more)
        assert isinstance(answer, Next)
        return answer.following

    async def sent(self, of: NewTask) -> Ready | None:
        """Claim a task and settle that it was sent."""
        return await self.ended(of, "delivered", result=RESULT, mark=MARK)

    async def release(self, of: NewTask, *, untried: bool) -> None:
        """Give a claimed task back."""
        epoch = await self.hand.epoch(of.partition)
        wish = Release(partition=of.partition, epoch=epoch, delivery_id=of.task_id, in_ms=0, untried=untried)
        assert await self.hand.store.deliveries.release([wish]) == [Next(None)]

    async def record(self, of: NewTask) -> TaskRecord:
        """What is kept of a task that is known."""
        record = await self.tasks.get(of.task_id)
        assert record is not None
        return record

    async def states(self, *tasks: NewTask) -> Sequence[str | None]:
        """The state of each."""
        return await self.tasks.states([of.task_id for of in tasks])

    async def startable(self, partition: int = PARTITION) -> list[str]:
        """The tasks of a partition that may be claimed now."""
        await self.hand.epoch(partition)
        return [row.delivery_id for row in await self.hand.ready(partition)]

    async def listed(self, wanted: TaskFilter | None = None, limit: int = 1000) -> list[str]:
        """The ids of every task that is wanted, page by page."""
        chosen = wanted or TaskFilter()
        rows = flat(await pages(lambda cursor: self.tasks.list_tasks(chosen, cursor, limit)))
        return [row.task_id for row in rows]

    async def restore(self, *tasks: NewTask) -> int:
        """Bring tasks back as a lane does before it opens; gives how many had been lost."""
        shard = next(each for each in self.hand.store._topology.shards if tasks[0].partition in each.partitions)
        connection = shard.hot._connect()
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
        try:
            return await Replay(self.hand.store._scripts, WINDOW_MS, apart=True).run(connection, tasks, False)
        finally:
            await connection.disconnect()

    async def drain(self, partition: int = PARTITION) -> list[str]:
        """Send everything of a partition that may start, one after the other; gives the order."""
        order: list[str] = []
        while rows := await self.startable(partition):
            for name in rows:
                claimed = await self.hand.claimed(name)
                outcome = await self.hand.outcome(name, claimed.attempt, "delivered")
                await self.hand.store.deliveries.work([outcome])
                order.append(name)
        return order
