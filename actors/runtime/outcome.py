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
    loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, T], tell: Callable[[T | Exception], None]
) -> asyncio.Task[T]:
    """Run a job; `tell` gets what it gave or raised. Whoever asked keeps the task until then."""
    task = loop.create_task(job)

    def ended(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            tell(task.result())
        elif isinstance(error, Exception):
            tell(error)

    task.add_done_callback(ended)
    return task
