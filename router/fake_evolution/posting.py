"""Posting: makes the webhook calls, side by side and again after failures, as carelessly as the real one.

Owns its HTTP client and the tasks of all calls under way. Nobody waits for a call, so they overtake each other; with
`Mischief` they do so on purpose, and come twice. `hold` and `release` make disorder that a test can rely on.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import aiohttp
from msgspec import Struct

from router.fake_evolution.webhook_calls import Call, RetryRule

TIMEOUT_S = 30.0
WAITING_MAX = 10_000
UNDER_WAY_MAX = 512
REMEMBERED_MAX = 10_000


class Mischief(Struct, frozen=True, kw_only=True):
    """`copies` of every webhook, each up to `jitter_s` late."""

    copies: int = 1
    jitter_s: float = 0


class Posted(Struct, frozen=True, kw_only=True):
    """One attempt at a webhook; `status` is None when no answer came."""

    call: Call
    attempt: int
    status: int | None


class Poster:
    """The way out. `scale` shortens the pauses between attempts, for tests."""

    def __init__(
        self, rule: RetryRule, told: Callable[[Posted], None], *, mischief: Mischief | None = None, scale: float = 1
    ) -> None:
        self.mischief = mischief or Mischief()
        self.posted: deque[Posted] = deque(maxlen=REMEMBERED_MAX)
        self._rule = rule
        self._told = told
        self._scale = scale
        self._chance = random.Random(7)  # noqa: S311  disorder, not a secret; the same in every run
        self._queue: asyncio.Queue[tuple[Call, ...]] = asyncio.Queue(WAITING_MAX)
        self._places = asyncio.Semaphore(UNDER_WAY_MAX)
        self._held: list[Call] | None = None

    def offer(self, call: Call) -> bool:
        """Let a call be made some time; false when too many wait and it is lost."""
        if self._held is not None:
            self._held.append(call)
            return True
        for _ in range(self.mischief.copies):
            if self._queue.full():
                return False
            self._queue.put_nowait((call,))
        return True

    def hold(self) -> None:
        """Keep calls back until `release`."""
        self._held = self._held or []

    def release(self, *, reverse: bool = False, copies: int = 1) -> None:
        """Make the calls that were held back, one after the other, in the order given; all again for each copy."""
        held, self._held = self._held or [], None
        if held:
            self._queue.put_nowait(tuple(reversed(held) if reverse else held) * copies)

    async def settled(self) -> None:
        """Wait until every call has been answered well or given up."""
        await self._queue.join()

    async def run(self) -> None:
        """Make calls until cancelled; those under way then are dropped."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            asyncio.TaskGroup() as posts,
        ):
            while True:
                some = await self._queue.get()
                await self._places.acquire()
                posts.create_task(self._post_each(session, some))

    async def _post_each(self, session: aiohttp.ClientSession, some: tuple[Call, ...]) -> None:
        try:
            for call in some:
                await asyncio.sleep(self._chance.uniform(0, self.mischief.jitter_s))
                await self._post(session, call)
        finally:
            self._places.release()
            self._queue.task_done()

    async def _post(self, session: aiohttp.ClientSession, call: Call) -> None:
        for attempt in range(1, self._rule.attempts + 1):
            status = await _status(session, call)
            self._tell(Posted(call=call, attempt=attempt, status=status))
            well = status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
            if well or status in self._rule.never or attempt == self._rule.attempts:
                return
            await asyncio.sleep(self._rule.pause_s(attempt, self._chance.random()) * self._scale)

    def _tell(self, posted: Posted) -> None:
        self.posted.append(posted)
        self._told(posted)


async def _status(session: aiohttp.ClientSession, call: Call) -> int | None:
    try:
        async with session.post(call.url, data=call.body, headers=call.headers) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, TimeoutError, ValueError):  # the last: a URL that is none
        return None
