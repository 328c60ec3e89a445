"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

An hour passes in a millisecond and in the same order every time. A test that would wait for ever fails at once, and so
does one that leaves a task behind or lets an error end in the loop's log. No sockets, no threads.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import wraps
from typing import Any, ParamSpec, TypeVarTuple, Unpack

from actors.runtime.clock import Timer
from tests.support.until import NeverHappened

P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

STARTS_AT_S = 1000.0
"""Not 0: code that takes the time for a truth value must not get away with it."""
WALL_AT_START_S = 1_800_000_000.0
ULPS_S = 1e-6
"""More than floating point can be off by, less than anything a timer is about."""


class _Selector(selectors.SelectSelector):
    """Looks, never waits; `idle` is told how long it would have waited."""

    idle: Callable[[float | None], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        ready = super().select(0)
        if not ready and timeout != 0:
            self.idle(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`complaints` is what a real loop would have logged."""

    def __init__(self) -> None:
        self._now = STARTS_AT_S
        self._whens: list[float] = []
        self.complaints: list[dict[str, Any]] = []
        selector = _Selector()
        selector.idle = self._jump
        super().__init__(selector)
        self.set_exception_handler(lambda _loop, context: self.complaints.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Note the exact time as well: adding up differences would miss it by a rounding error, and be early."""
        heapq.heappush(self._whens, when)
        return super().call_at(when, callback, *args, context=context)

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise NeverHappened("everything waits, and nothing will ever happen")
        target = self._now + seconds
        while self._whens and (self._whens[0] < target - ULPS_S or self._whens[0] <= self._now):
            heapq.heappop(self._whens)  # it has been, or was taken back
        near = bool(self._whens) and self._whens[0] - target < ULPS_S
        self._now = max(self._now, self._whens[0] if near else target)


class VirtualClock:
    """The running loop's time as actors see it; the wall runs with it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def wall(self) -> float:
        """Unix seconds."""
        return WALL_AT_START_S + self._loop.time() - STARTS_AT_S

    def boottime(self) -> float:
        """The same as monotonic: a virtual machine never sleeps."""
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """A timer of the loop's."""
        return self._loop.call_at(when, callback)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test, or each example of a hypothesis test, on a loop of its own in virtual time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_clean(test(*args, **kwargs)))

    return run


@contextmanager
def complaints_expected() -> Iterator[list[dict[str, Any]]]:
    """Let errors end in the loop's log here; gives them."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    before, loop.complaints = loop.complaints, []
    try:
        yield loop.complaints
    finally:
        loop.complaints = before


async def ticks(count: int = 20) -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _clean(test: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await test
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    assert not loop.complaints, f"logged by the loop: {loop.complaints}"
