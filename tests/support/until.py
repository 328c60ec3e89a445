"""Waiting in tests: the one place that lets real time pass.

Everything else waits for a condition with a deadline. A wait that runs out is a failure that says what was awaited;
it is never swallowed and never retried.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


class NeverHappened(AssertionError):
    """A condition did not come true before its deadline."""


async def passing(seconds: float) -> None:
    """Let `seconds` of the loop's time pass."""
    loop = asyncio.get_running_loop()
    elapsed: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, elapsed.set_result, None)
    try:
        await elapsed
    finally:
        timer.cancel()


@overload
async def until(
    predicate: Callable[[], Awaitable[T]], deadline_s: float = ..., *, every_s: float = ..., what: str = ...
) -> T: ...
@overload
async def until(predicate: Callable[[], T], deadline_s: float = ..., *, every_s: float = ..., what: str = ...) -> T: ...
async def until(
    predicate: Callable[[], object], deadline_s: float = 5.0, *, every_s: float = 0.01, what: str = ""
) -> object:
    """Ask `predicate` until it answers something true, and return that; `NeverHappened` after `deadline_s`."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + deadline_s
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if loop.time() >= ends_at:
            raise NeverHappened(f"{what or predicate} not within {deadline_s:g} s (last answer: {value!r})")
        await passing(every_s)


async def steady(predicate: Callable[[], bool], for_s: float, *, every_s: float = 0.01, what: str = "") -> None:
    """Ask `predicate` for `for_s` and fail at its first false answer: the check that something does *not* happen."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + for_s
    while loop.time() < ends_at:
        if not predicate():
            raise NeverHappened(f"{what or predicate} did not stay true for {for_s:g} s")
        await passing(every_s)
