"""Supervisor: the owner of every task. Services run for ever and are restarted; jobs run once and are bounded.

A service that crashes is started again after a growing pause; more crashes than its limit allows end the node
(`on_fatal`), because what it did is not being done. A job that raises is reported, its neighbours go on.
Invariants: no task without an owner; `stop` leaves none behind. `Restarts` is the same limit for actors of one key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct

from actors.ports import Overloaded
from actors.runtime.clock import Clock


class Limit(Struct, frozen=True):
    """At most `restarts` within `within_s`."""

    restarts: int
    within_s: float


SERVICE_LIMIT = Limit(3, 60.0)
KEY_LIMIT = Limit(5, 30.0)
QUARANTINE_S = 60.0


class Restarts:
    """Remembers recent crashes and says when they are too many."""

    __slots__ = ("_limit", "_times")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def too_many(self, now: float) -> bool:
        """Note a crash at `now`; true when it is one more than the limit allows."""
        self._times.append(now)
        while self._times[0] < now - self._limit.within_s:
            self._times.popleft()
        return len(self._times) > self._limit.restarts


class Quarantine:
    """Keys whose actors crash again and again: left alone for a while, so that their neighbours are not disturbed.

    What such a key has in the store stays there. Bounded: the oldest entries go first.
    """

    def __init__(self, clock: Clock, limit: Limit = KEY_LIMIT, keys_max: int = 10_000) -> None:
        self._clock = clock
        self._limit = limit
        self._keys_max = keys_max
        self._restarts: dict[str, Restarts] = {}
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        self._release()
        return len(self._until)

    def crashed(self, key: str) -> bool:
        """Note a crash of the key's actor; true when the key is quarantined by it."""
        now = self._clock.monotonic()
        self._release()
        restarts = self._restarts.pop(key, None) or Restarts(self._limit)
        self._restarts[key] = restarts
        while len(self._restarts) > self._keys_max:
            self._restarts.pop(next(iter(self._restarts)))
        if restarts.too_many(now):
            self._until.pop(key, None)
            self._until[key] = now + QUARANTINE_S
            while len(self._until) > self._keys_max:
                self._until.pop(next(iter(self._until)))
            return True
        return False

    def holds(self, key: str) -> bool:
        """Whether the key is left alone now. Cheap when nothing is quarantined."""
        if not self._until:
            return False
        self._release()
        return key in self._until

    def _release(self) -> None:
        """Let go of keys whose time is over; they are in the order in which it ends."""
        now = self._clock.monotonic()
        while self._until:
            key, until = next(iter(self._until.items()))
            if until > now:
                return
            del self._until[key]
            self._restarts.pop(key, None)


class Supervisor:
    """Runs services and jobs. `report(phrase, name, error)` is told of every crash."""

    def __init__(
        self,
        clock: Clock,
        report: Callable[[str, str, BaseException], None],
        on_fatal: Callable[[str], None],
        jobs_max: int = 4096,
    ) -> None:
        self._clock = clock
        self._report = report
        self._on_fatal = on_fatal
        self._jobs_max = jobs_max
        self._loop = asyncio.get_running_loop()
        self._services: set[asyncio.Task[None]] = set()
        self._jobs: set[asyncio.Task[None]] = set()

    def service(self, name: str, run: Callable[[], Awaitable[None]], limit: Limit = SERVICE_LIMIT) -> None:
        """Keep `run` running until `stop`."""
        task = self._loop.create_task(self._serve(name, run, limit), name=name)
        self._services.add(task)
        task.add_done_callback(self._services.discard)

    def spawn(self, name: str, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a job once. Raises Overloaded when `jobs_max` are running."""
        if len(self._jobs) >= self._jobs_max:
            job.close()
            raise Overloaded("too many jobs are running")
        task = self._loop.create_task(job, name=name)
        self._jobs.add(task)
        task.add_done_callback(self._finished)
        return task

    def crashed(self, name: str, error: BaseException) -> None:
        """What was done without a task of its own came to no good end."""
        self._report("job crashed", name, error)

    async def stop(self) -> None:
        """Cancel everything and wait until it is gone, also what is started meanwhile."""
        while tasks := [*self._jobs, *self._services]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report("job crashed", task.get_name(), error)

    async def _serve(self, name: str, run: Callable[[], Awaitable[None]], limit: Limit) -> None:
        restarts = Restarts(limit)
        pause_s = 0.05
        while (error := await _crash_of(run)) is not None:
            self._report("service crashed", name, error)
            if restarts.too_many(self._clock.monotonic()):
                self._on_fatal(f"{name} crashed too often: {error!r}")
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)


async def _crash_of(run: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Run a service; gives what it raised, whatever that was, or None when it came to its end."""
    try:
        await run()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return error  # something it waited for was cancelled, not the service
    except Exception as error:
        return error
    return None
