"""Tasks: what is taken in, who is told of it, and how callers wait for an end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest

from actors.core.partition import mark_of, partition_of_instance
from actors.core.receipts import Receipt
from actors.core.tasks import TaskState
from actors.ports import ListCursor, Overloaded, Ready, StoreAway
from actors.task_ports import Enqueued, NewTask, Received, TaskFilter, TaskRecord
from actors.tasks import LOOK_S, WAITERS_MAX, Tasks
from tests.support.doubles import Stage, Tally
from tests.support.tasks import BETO, INSTANCE, task
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

RECEIVED_US = 1_800_000_000_000_000


class Store:
    """Implements TaskStore: a task is what it was last said to be."""

    def __init__(self) -> None:
        self.known: dict[str, TaskState] = {}
        self.away: set[str] = set()
        """The contacts' keys whose store is away; "states": no state can be looked up."""
        self.first = True
        self.looks: list[Sequence[str]] = []
        self.foreign: set[str] = set()
        self.received = Received("", False)

    async def enqueue(self, tasks: Sequence[NewTask]) -> Sequence[Enqueued | StoreAway]:
        """Store what is new."""
        return [self._enqueue(each) for each in tasks]

    async def get(self, task_id: str) -> TaskRecord | None:
        """Nobody looks one up here."""
        raise NotImplementedError

    async def states(self, task_ids: Sequence[str]) -> Sequence[TaskState | None]:
        """What each is."""
        self.looks.append(task_ids)
        if "states" in self.away:
            raise StoreAway
        return [self.known.get(each) for each in task_ids]

    async def list_tasks(
        self, wanted: TaskFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[TaskRecord], ListCursor | None]:
        """Nobody lists them here."""
        raise NotImplementedError

    async def counts(self) -> Mapping[TaskState, int]:
        """Nobody counts them here."""
        raise NotImplementedError

    async def receive(self, partition: int, mark: str, receipt: Receipt) -> Received:
        """What the test says."""
        assert (partition, mark) == (partition_of_instance("i"), mark_of("i", "3EB0"))
        assert receipt == "read"
        return self.received

    async def note_foreign(self, partition: int, mark: str) -> None:
        """Remember it."""
        assert partition == partition_of_instance("i")
        self.foreign.add(mark)

    async def is_sent(self, partition: int, mark: str) -> bool:
        """Whether it was remembered."""
        return partition == partition_of_instance("i") and mark in self.foreign

    def _enqueue(self, one: NewTask) -> Enqueued | StoreAway:
        if one.key in self.away:
            return StoreAway("away")
        duplicate = one.task_id in self.known
        self.known.setdefault(one.task_id, "PENDING")
        return Enqueued(duplicate, self.first and not duplicate, 7 if one.due_ms else 0, RECEIVED_US)


class Rig(Stage):
    """Tasks on a stage; what others are told is kept in order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.queued = Tally()
        self.tasks = Tasks(self.store, self.supervisor, self.clock, self.meters, self.queued)
        self.told: list[tuple[str, object]] = []
        self.tasks.on_stored = lambda tasks, times: self.told.append(("stored", (list(tasks), list(times))))
        self.tasks.on_queued = lambda one: self.told.append(("queued", one))
        self.tasks.on_startable = lambda one: self.told.append(("startable", one))
        self.tasks.on_receipt = lambda *facts: self.told.append(("receipt", facts))

    def run(self) -> None:
        """Have the service run."""
        self.supervisor.service("tasks", self.tasks.run)

    async def waited_s(self, name: str, within_s: float) -> float:
        """How long it took until a task had ended, or nobody waited any more."""
        began = self.clock.monotonic()
        await self.tasks.ended(name, within_s)
        return round(self.clock.monotonic() - began, 6)


@in_virtual_time
async def test_a_task_is_remembered_before_it_is_acknowledged_and_started() -> None:
    """And counted; with the time at which the store received it."""
    async with Rig() as rig:
        one = task()
        assert await rig.tasks.enqueue(one) == Enqueued(False, True, 0, RECEIVED_US)
        assert rig.told == [
            ("stored", ([one], [RECEIVED_US])),
            ("queued", one),
            ("startable", Ready(one.partition, one.task_id, one.host, 0)),
        ]
        assert rig.queued.value == 1
        later = task(due_ms=1)
        await rig.tasks.enqueue(later)
        assert rig.told[-1] == ("startable", Ready(later.partition, later.task_id, later.host, 7))


@in_virtual_time
async def test_a_task_that_waits_in_its_line_starts_nothing() -> None:
    """It is called when its turn comes."""
    async with Rig() as rig:
        rig.store.first = False
        await rig.tasks.enqueue(task())
        assert [what for what, _ in rig.told] == ["stored", "queued"]


@in_virtual_time
async def test_a_task_that_was_there_before_is_not_started_again() -> None:
    """Nor counted, nor announced: its caller learns that it is one. It is kept: the answer to the first may be lost."""
    async with Rig() as rig:
        one = task()
        await rig.tasks.enqueue(one)
        rig.told.clear()
        assert (await rig.tasks.enqueue(one)).duplicate
        assert [what for what, _ in rig.told] == ["stored"]
        assert rig.queued.value == 1


@in_virtual_time
async def test_where_the_store_is_away_for_some_the_others_are_taken() -> None:
    """In one call: each caller gets its own answer."""
    async with Rig() as rig:
        good, bad = task(), task(BETO)
        rig.store.away.add(bad.key)
        outcomes = await asyncio.gather(
            *(rig.tasks.enqueue(each) for each in (good, bad, good)), return_exceptions=True
        )
        assert isinstance(outcomes[0], Enqueued)
        assert isinstance(outcomes[1], StoreAway)
        assert isinstance(outcomes[2], Enqueued)
        await rig.tasks.drained()
        assert rig.queued.value == 1
        assert [one for what, one in rig.told if what == "queued"] == [good]


@in_virtual_time
async def test_who_waits_is_woken_when_a_task_ends_here() -> None:
    """All that wait for it, at once, and nobody else."""
    async with Rig() as rig:
        waiting = [asyncio.ensure_future(rig.waited_s("a", 60.0)) for _ in range(3)]
        other = asyncio.ensure_future(rig.waited_s("b", 2.0))
        await passing(1.0)
        rig.tasks.has_ended("a")
        rig.tasks.has_ended("a")
        rig.tasks.has_ended("nobody waits for this")
        assert await asyncio.gather(*waiting) == [1.0] * 3
        assert await other == 2.0


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED", None])
@in_virtual_time
async def test_who_waits_is_woken_when_a_task_ends_elsewhere(state: TaskState | None) -> None:
    """At the next look: also when it was forgotten meanwhile; until then it is looked at ten times a second."""
    async with Rig() as rig:
        rig.run()
        rig.store.known["a"] = "STARTED"
        waiting = asyncio.ensure_future(rig.waited_s("a", 60.0))
        await passing(5.0)
        assert 45 <= len(rig.store.looks) <= 51
        assert not waiting.done()
        if state is None:
            del rig.store.known["a"]
        else:
            rig.store.known["a"] = state
        assert 5.0 <= await waiting <= 5.0 + 1.1 * LOOK_S


@in_virtual_time
async def test_while_nobody_waits_nobody_looks() -> None:
    """Before the first and after the last."""
    async with Rig() as rig:
        rig.run()
        await passing(5.0)
        assert rig.store.looks == []
        rig.store.known["a"] = "RETRY"
        assert await rig.waited_s("a", 1.0) == 1.0
        looks = len(rig.store.looks)
        await passing(5.0)
        assert len(rig.store.looks) <= looks + 1
        assert await rig.waited_s("a", 1.0) == 1.0
        assert len(rig.store.looks) > looks + 5


@in_virtual_time
async def test_a_store_that_is_away_makes_nobody_wait_for_longer() -> None:
    """Than they wanted; when it is back they are woken."""
    async with Rig() as rig:
        rig.run()
        rig.store.known["a"] = "SUCCESS"
        rig.store.away.add("states")
        assert await rig.waited_s("a", 2.0) == 2.0
        waiting = asyncio.ensure_future(rig.waited_s("a", 60.0))
        await passing(3.0)
        rig.store.away.clear()
        assert 3.0 <= await waiting <= 3.0 + 1.1 * LOOK_S


@in_virtual_time
async def test_those_who_wait_are_bounded() -> None:
    """One more is refused; who goes away leaves its place."""
    async with Rig() as rig:
        waiting = [asyncio.ensure_future(rig.waited_s(f"t{at % 7}", 60.0)) for at in range(WAITERS_MAX)]
        await ticks(3)
        with pytest.raises(Overloaded):
            await rig.tasks.ended("one more", 1.0)
        waiting[0].cancel()
        with suppress(asyncio.CancelledError):
            await waiting[0]
        assert await rig.waited_s("one more", 1.0) == 1.0
        for at in range(7):
            rig.tasks.has_ended(f"t{at}")
        assert set(await asyncio.gather(*waiting[1:])) == {1.0}
        assert rig.tasks._waiting == {}


@in_virtual_time
async def test_a_receipt_is_told_when_it_is_news_of_a_known_task() -> None:
    """Not when it comes twice, nor before anybody knows whose it is."""
    async with Rig() as rig:
        for received in (Received("", True), Received("tsk_1", False), Received("", False)):
            rig.store.received = received
            await rig.tasks.receive("i", "3EB0", "read")
        assert rig.told == []
        rig.store.received = Received("tsk_1", True)
        await rig.tasks.receive("i", "3EB0", "read")
        assert rig.told == [("receipt", ("tsk_1", "i", "read"))]


@in_virtual_time
async def test_what_another_client_sent_is_ours() -> None:
    """Of that instance and that message only."""
    async with Rig() as rig:
        assert not await rig.tasks.is_ours("i", "3EB0")
        await rig.tasks.note_sent("i", "3EB0")
        assert await rig.tasks.is_ours("i", "3EB0")
        assert not await rig.tasks.is_ours("i", "3EB1")
        assert not await rig.tasks.is_ours(INSTANCE, "3EB0")


@in_virtual_time
async def test_a_node_that_goes_lets_nobody_wait() -> None:
    """Whoever waits is told how it stands, and whoever comes then does not begin to wait."""
    async with Rig() as rig:
        waiting = asyncio.ensure_future(rig.tasks.ended("tsk_1", 60))
        await passing(1)
        rig.tasks.leave()
        assert await waiting
        assert await rig.tasks.ended("tsk_1", 60)
