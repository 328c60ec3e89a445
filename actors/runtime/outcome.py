"""Outcome: runs something for somebody who wants to know how it ended, be it with an error that nobody foresaw.

Knows nothing of what runs. A cancelled job has no outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def outcome_of(call: Callable[P, T], *words: P.args, **named: P.kwargs) -> T | Exception:
    """What a call gives, or the exception it raises."""
    try:
        return call(*words, **named)
    except Exception as error:
        return error


def begin(
    loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, T], tell: Callable[[asyncio.Task[T]], None]
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
