"""Loop: virtual time for several processes at once. Each may stand still, sleep or die while the others go on.

What is scheduled belongs to the process whose context it was scheduled in; what belongs to none is the world's and
always runs. No sockets, no threads, no real time; what falls due at the same instant runs in the order in which it was
scheduled, so that a run depends on nothing but its seed.
Invariant: nothing of a process that is frozen or dead runs; a thaw brings everything that came meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, Unpack

from actors.runtime.clock import Timer
from tests.support.until import NeverHappened
from tests.support.virtual_time import STARTS_AT_S, WALL_AT_START_S

TURNS_MAX = 50_000
"""Turns of a loop without any time passing, before it is taken for one that spins."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Process:
    """One process. `slept_s` is how long it has been asleep: its monotonic time stood still, its boot time did not.

    A dead one is frozen for good; at the end of a run it is thawed, cut off from everything, to be tidied up.
    """

    def __init__(self, name: str, boot_offset_s: float = 0.0) -> None:
        self.name = name
        self.boot_offset_s = boot_offset_s
        self.frozen = False
        self.dead = False
        self.slept_s = 0.0
        self.beat_sent_at = float("-inf")
        """When the last beat left that is known here to have been stored, in truth."""
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        self.complaints: list[str] = []
        self._parked: list[asyncio.Handle] = []
        self._timers: list[tuple[float, asyncio.Handle]] = []
        self._arrived: list[asyncio.Handle] = []

    def freeze(self) -> None:
        """Stand still."""
        self.frozen = True

    def kill(self) -> None:
        """Stand still for good: nothing arrives any more."""
        self.frozen = self.dead = True

    def park(self, handle: asyncio.Handle) -> None:
        """Keep what was about to run."""
        self._parked.append(handle)

    def park_timer(self, when: float, handle: asyncio.Handle) -> None:
        """Keep a timer that fell due."""
        self._timers.append((when, handle))

    def deliver(self, loop: SimLoop, callback: Callable[[], object]) -> None:
        """Something arrived from outside: it is handed to the process, at its thaw if it is frozen."""
        if self.dead:
            return
        if self.frozen:
            self._arrived.append(asyncio.Handle(callback, (), loop, self.context))
        else:
            loop.call_soon(callback, context=self.context)

    def thaw(self, loop: SimLoop, slept_s: float, timers_first: bool) -> None:
        """Go on. Loops differ in whether they look at their timers or at their sockets first."""
        self.frozen = False
        parked, timers, arrived = self._parked, self._timers, self._arrived
        self._parked, self._timers, self._arrived = [], [], []
        if slept_s:
            self.slept_s += slept_s
            loop.put_off(self, timers, slept_s)
            timers = []
        due = [handle for _, handle in timers]
        for handle in (*parked, *(due + arrived if timers_first else arrived + due)):
            loop.put_back(self, handle)


_PROCESS: ContextVar[Process | None] = ContextVar("_PROCESS", default=None)


class SimTask(asyncio.Task[T]):
    """A task with a number: sets of tasks have the same order in every run."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """`complaints` is what a real loop would have logged for the world itself; a process has its own."""

    def __init__(self) -> None:
        super().__init__()
        self._now = STARTS_AT_S
        self._soon: deque[tuple[Process | None, asyncio.Handle]] = deque()
        self._timers: list[tuple[float, int, Process | None, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._current: Process | None = None
        self._world = copy_context()
        self.complaints: list[str] = []
        self.turns = 0
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        """Virtual seconds, as the process that runs now sees them."""
        current = self._current
        return self._now if current is None else self._now - current.slept_s

    @property
    def now(self) -> float:
        """Virtual seconds, whoever asks."""
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """In the next turn, in order."""
        if context is None:
            context = copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append((context.get(_PROCESS), handle))
        return handle

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """At the process's own time."""
        if context is None:
            context = copy_context()
        process = context.get(_PROCESS)
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        at = when if process is None else when + process.slept_s
        heapq.heappush(self._timers, (at, next(self._numbers), process, handle))
        return handle

    def after(self, delay_s: float, callback: Callable[[], object]) -> None:
        """In so many seconds, as the world's."""
        self.call_at(self._now + delay_s, callback, context=self._world)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> SimTask[T]:
        """A task that belongs to whoever is running, or to the context's process."""
        task = SimTask(coro, loop=self, name=str(name), context=context)
        task.number = next(self._numbers)
        return task

    def put_back(self, process: Process, handle: asyncio.Handle) -> None:
        """Run what was kept back."""
        self._soon.append((process, handle))

    def put_off(self, process: Process, due: list[tuple[float, asyncio.Handle]], seconds: float) -> None:
        """A process slept: its timers, those that seemed due included, fall due so much later."""
        kept = [row for row in self._timers if row[2] is not process]
        own = [(at, number, handle) for at, number, of, handle in self._timers if of is process]
        own += [(at, next(self._numbers), handle) for at, handle in due if isinstance(handle, asyncio.TimerHandle)]
        self._timers = kept + [(at + seconds, number, process, handle) for at, number, handle in own]
        heapq.heapify(self._timers)

    def _run_once(self) -> None:
        """One turn: what was scheduled before it, in order."""
        soon = self._soon
        if not soon:
            self._jump()
            self.turns = 0
        self.turns += 1
        if self.turns > TURNS_MAX:
            raise NeverHappened(f"{TURNS_MAX} turns have passed and no time")
        for _ in range(len(soon)):
            process, handle = soon.popleft()
            if handle.cancelled():
                continue
            if process is not None and process.frozen:
                process.park(handle)
                continue
            self._current = process
            handle._run()
        self._current = None

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise NeverHappened("everything waits, and nothing will ever happen")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            at, _, process, handle = heapq.heappop(timers)
            if handle.cancelled():
                continue
            if process is not None and process.frozen:
                process.park_timer(at, handle)
            else:
                self._soon.append((process, handle))

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = self._current
        whose = self.complaints if process is None else process.complaints
        whose.append(f"{context.get('message')}: {context.get('exception')!r}")


class ProcessClock:
    """A process's view of time. `wall_offset_s` is by how much its wall clock is wrong."""

    def __init__(self, loop: SimLoop, process: Process, wall_offset_s: float = 0.0) -> None:
        self._loop = loop
        self._process = process
        self._wall_offset_s = wall_offset_s

    def monotonic(self) -> float:
        """The loop's time."""
        return self._loop.now - self._process.slept_s

    def wall(self) -> float:
        """Unix seconds."""
        return WALL_AT_START_S + self._loop.now - STARTS_AT_S + self._wall_offset_s

    def boottime(self) -> float:
        """Seconds since some start, sleep included."""
        return self._loop.now + self._process.boot_offset_s

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """A timer of the loop's."""
        return self._loop.call_at(when, callback)
