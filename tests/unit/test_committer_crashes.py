"""Group commit: whatever crashes, is cancelled or comes back at once, everybody else gets an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.committer import CALLS_MAX, Committer
from actors.ports import Overloaded, StoreAway
from actors.runtime.outcome import Promised
from tests.support.commit_rig import Rig
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import complaints_expected, in_virtual_time

only_awaited = pytest.mark.parametrize("tells", [False], ids=["awaited"], indirect=True)
"""What is about the job that waits for a call."""


pytestmark = pytest.mark.usefixtures("tells")


class Refused(Exception):
    """What somebody raises that nobody thought of."""


@in_virtual_time
async def test_a_watcher_that_crashes_leaves_nobody_waiting() -> None:
    """The write is done: its callers get their answers, the crash is reported, and the committer goes on."""
    async with Stage() as stage:
        rig = Rig(stage)

        def hopeless(_requests: Sequence[int], _answers: Sequence[int | StoreAway]) -> None:
            raise Refused("no such meter")

        rig.committer.on_committed = hopeless
        for _ in range(CALLS_MAX + 1):
            rig.submit(1)
            await passing(0.1)
        assert stage.crash_names() == ["append"] * (CALLS_MAX + 1)
        assert len(rig.answers) == CALLS_MAX + 1
        async with asyncio.timeout(1.0):
            await rig.committer.drained()


@in_virtual_time
async def test_an_answer_that_crashes_takes_no_other_with_it() -> None:
    """Each caller of the batch is answered; the crash is reported, and the committer goes on."""
    async with Stage() as stage:
        rig = Rig(stage)

        def hopeless(_outcome: Any) -> None:
            raise Refused("nobody listens")

        rig.submit(1)
        rig.committer.submit(2, 1, hopeless)
        rig.submit(3)
        await passing(1.0)
        assert rig.answers == [(1, -1), (3, -3)]
        assert stage.crash_names() == ["append"]
        async with asyncio.timeout(1.0):
            await rig.committer.drained()


@pytest.mark.parametrize("error", [Refused("no"), asyncio.CancelledError()], ids=["crash", "cancelled"])
@in_virtual_time
async def test_whoever_crashes_at_an_answer_holds_nobody_up(error: BaseException) -> None:
    """Who watches, who is told of the end, who called: each is reported, and all others go on."""
    async with Stage() as stage:
        rig = Rig(stage)

        def hopeless(*_: object) -> None:
            raise error

        rig.committer.on_committed = rig.committer.on_answered = hopeless
        rig.committer.submit(1, 1, hopeless)
        rig.submit(2)
        await passing(1.0)
        assert rig.answers == [(2, -2)]
        assert stage.crashes == [("job crashed", "append", error)] * 3
        assert rig.committer.depth == 0
        async with asyncio.timeout(1.0):
            await rig.committer.drained()


@in_virtual_time
async def test_too_few_answers_are_none() -> None:
    """Nobody can know whose they are."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.store.short = True
        rig.submit(1)
        rig.submit(2)
        await passing(1.0)
        assert [type(outcome) for _, outcome in rig.answers] == [StoreAway, StoreAway]
        assert stage.crash_names() == ["append"]


@in_virtual_time
async def test_whoever_comes_back_at_once_is_sent_too() -> None:
    """Also where an answer is there as soon as it is asked for, and others come before the next batch leaves."""
    async with Stage() as stage:
        sent: list[int] = []

        def commit(requests: Sequence[int]) -> Promised[Sequence[int]]:
            sent.extend(requests)
            promised = Promised[Sequence[int]]()
            promised.arrived(requests)
            return promised

        committer: Committer[int, int] = Committer("append", commit, stage.supervisor, stage.clock, stage.meters)
        told: list[int] = []

        def back(outcome: int) -> None:
            told.append(outcome)
            if outcome == 1:
                committer.submit(2, 1, back)
            elif outcome == 2:
                asyncio.get_running_loop().call_soon(committer.submit, 3, 1, back)

        committer.submit(1, 1, back)
        await passing(0.1)
        assert sent == told == [1, 2, 3]
        assert committer.depth == 0


@only_awaited
@in_virtual_time
async def test_a_call_that_cannot_be_started_is_an_answer() -> None:
    """A supervisor that takes no more jobs refuses the batch: its callers are told, later ones get through."""
    async with Stage(jobs_max=1) as stage:
        rig = Rig(stage)
        release = asyncio.Event()

        async def job() -> None:
            await release.wait()

        stage.supervisor.spawn("other", job())
        with complaints_expected():
            for request in range(1, CALLS_MAX + 2):
                rig.submit(request)
                await passing(0.1)
        release.set()
        await passing(0.1)
        assert [request for request, _ in rig.answers] == list(range(1, CALLS_MAX + 2))
        assert all(isinstance(outcome, Overloaded | StoreAway) for _, outcome in rig.answers)
        async with asyncio.timeout(1.0):
            assert await rig.committer.ask(50) == -50


@only_awaited
@in_virtual_time
async def test_a_call_that_is_cancelled_is_an_answer() -> None:
    """Under way, in the queue, or before its first step: when the node goes down nobody is left waiting for ever."""
    stage = Stage()
    rig = Rig(stage)
    await rig.fill_calls()
    for request in range(100, 103):
        rig.submit(request)
    await passing(0.1)
    await stage.supervisor.stop()
    assert sorted(request for request, _ in rig.answers) == [*range(CALLS_MAX), 100, 101, 102]
    late = Rig(stage)
    late.submit(1)
    late.committer._leave()
    await stage.supervisor.stop()
    assert [request for request, _ in late.answers] == [1]
    assert all(isinstance(outcome, StoreAway) for _, outcome in [*rig.answers, *late.answers])
