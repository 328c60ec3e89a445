"""A group commit in a test: a store that answers when it is told to, and a committer whose answers are noted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

from actors.committer import CALLS_MAX, GATHER_S, Committer
from actors.runtime.outcome import Promised, outcome_of
from tests.support.doubles import Stage
from tests.support.until import passing


class Store:
    """Answers each request with its negative after `takes_s`; `failing` is raised instead, `gate` closed holds all.
    `tells`: what comes of a call is told, instead of awaited."""

    tells: ClassVar[bool] = False

    def __init__(self, stage: Stage, takes_s: float = 0.001) -> None:
        self._clock = stage.clock
        self._telling: set[asyncio.Task[Sequence[int]]] = set()
        self.takes_s = takes_s
        self.failing: BaseException | None = None
        self.short = False
        """Whether the last answer of each call is missing."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[int]] = []
        self.called_at: list[float] = []
        self.under_way = 0
        self.under_way_max = 0
        self.finished = 0

    def commit(self, requests: Sequence[int]) -> Awaitable[Sequence[int]]:
        """One call."""
        if not self.tells:
            return self._committed(requests)
        promised: Promised[Sequence[int]] = Promised()
        task = asyncio.ensure_future(self._committed(requests))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        task.add_done_callback(lambda task: promised.arrived(outcome_of(task.result)))
        return promised

    async def _committed(self, requests: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(requests))
        self.called_at.append(self._clock.monotonic())
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        failing, takes_s = self.failing, self.takes_s
        try:
            await self.gate.wait()
            await passing(takes_s)
            if failing is not None:
                raise failing
            return [-request for request in requests][: -1 if self.short else None]
        finally:
            self.under_way -= 1
            self.finished += 1


class Rig:
    """A committer over a `Store`; `answers` is what each request got, in the order of answering."""

    def __init__(self, stage: Stage, takes_s: float = 0.001) -> None:
        self.stage = stage
        self.store = Store(stage, takes_s)
        self.committer: Committer[int, int] = Committer(
            "append", self.store.commit, stage.supervisor, stage.clock, stage.meters
        )
        self.answers: list[tuple[int, Any]] = []

    def submit(self, request: int, size_bytes: int = 1) -> None:
        """Submit a request and note its answer."""
        self.committer.submit(request, size_bytes, lambda outcome: self.answers.append((request, outcome)))

    def hold(self) -> None:
        """Let the store take calls and answer none."""
        self.store.gate.clear()

    async def fill_calls(self) -> None:
        """Have as many calls under way as there may be, so that what comes now stays in the queue."""
        self.hold()
        for number in range(CALLS_MAX):
            self.submit(number)
            await passing(2 * GATHER_S)
        assert self.store.under_way == CALLS_MAX
