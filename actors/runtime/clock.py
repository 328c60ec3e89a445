"""Clock: where time comes from. The real one reads the system; tests drive a manual one that jumps.

Monotonic time never orders anything across processes; wall time never decides safety.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux alone tells the two apart; macOS' monotonic clock stops in sleep."""


class Timer(Protocol):
    """Something that was scheduled and can be taken back."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Times in seconds. `call_at` takes monotonic time and may call back half a millisecond early (uvloop rounds).

    `boottime` also runs while the machine sleeps, and is read anew at each call: a loop's own time stands still
    within one of its turns, and a process that was frozen in a turn would not notice.
    """

    def monotonic(self) -> float: ...
    def wall(self) -> float: ...
    def boottime(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> Timer: ...


class LoopClock:
    """The running loop's time. `schedule` is the loop's own `call_at`."""

    def __init__(self, monotonic: Callable[[], float], schedule: Callable[[float, Callable[[], None]], Timer]) -> None:
        # Not methods around them: they are asked several times for each request.
        self.monotonic = monotonic
        self.call_at = schedule
        self.boottime: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME)

    def wall(self) -> float:
        return time.time()


class _ManualTimer:
    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Stands still until `advance`; then runs what falls due, in order, each at its own time."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._now = 0.0
        self._wall = wall
        self._timers: list[tuple[float, int, _ManualTimer, Callable[[], None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall + self._now

    def boottime(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = _ManualTimer()
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass; callbacks may schedule further ones, which run too if they fall into it."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer, callback = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if not timer.cancelled:
                callback()
        self._now = end
