"""Outcome: runs something for somebody who wants to know how it ended, be it with an error that nobody foresaw.

Knows nothing of what runs. A cancelled job has no outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Words = TypeVarTuple("Words")
Tell = Callable[[T | Exception], object]
"""Gets what came of something, or the exception that stands for it."""


_NOT_YET = object()


class Promised(Generic[T]):
    """Something that is on its way, to be awaited or told, once. Whoever is told needs no task.

    Whoever makes it calls `arrived`, once; before that or after, somebody may ask for it.
    """

    __slots__ = ("_outcome", "_tell")

    def __init__(self) -> None:
        self._tell: Tell[T] | None = None
        self._outcome: Any = _NOT_YET

    def __await__(self) -> Generator[Any, Any, T]:
        return told(self.then).__await__()

    def then(self, tell: Tell[T]) -> None:
        """Have `tell` called once it is there, or has failed; at once if it is. It must not raise."""
        if self._outcome is _NOT_YET:
            self._tell = tell
        else:
            tell(self._outcome)

    def arrived(self, outcome: T | Exception) -> None:
        """It is there, or has failed."""
        tell = self._tell
        if tell is None:
            self._outcome = outcome
        else:
            tell(outcome)


def outcome_of(call: Callable[[Unpack[Words]], T], *words: *Words) -> T | Exception:
    """What a call gives, or the exception it raises."""
    try:
        return call(*words)
    except Exception as error:
        return error


def crash_of(call: Callable[[Unpack[Words]], object], *words: *Words) -> BaseException | None:
    """What a call raises that must hold nobody else up. That something it looked at was cancelled is no more than an
    error of its own."""
    try:
        call(*words)
    except (Exception, asyncio.CancelledError) as error:
        return error
    return None


def settle(reply: asyncio.Future[T], outcome: T | Exception) -> None:
    """Resolve a future with an outcome, if anybody still waits for it."""
    if reply.done():
        return
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)


async def told(ask: Callable[[Tell[T]], object]) -> T:
    """Ask for something that is told later, and wait for it. Raises the exception that is told."""
    reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    ask(partial(settle, reply))
    return await reply


def begin(
    loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, T], tell: Callable[[asyncio.Task[T]], object]
) -> asyncio.Task[T]:
    """Run a job; `tell` gets its task when it has ended. Whoever asked keeps the task until then."""
    task = loop.create_task(job)
    task.add_done_callback(tell)
    return task


def ended_with(task: asyncio.Task[T]) -> T | Exception | None:
    """What a job gave or raised; None when it was cancelled. Raises what ends a process."""
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error
