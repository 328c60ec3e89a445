"""Outcome: runs something for somebody who wants to know how it ended, be it with an error that nobody foresaw.

Knows nothing of what runs. A cancelled job has no outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Words = TypeVarTuple("Words")
Tell = Callable[[T | Exception], object]
"""Gets what came of something, or the exception that stands for it."""


def outcome_of(call: Callable[[Unpack[Words]], T], *words: *Words) -> T | Exception:
    """What a call gives, or the exception it raises."""
    try:
        return call(*words)
    except Exception as error:
        return error


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
