"""Talkers: sequential clients, one a key, that do what the contract asks of clients and note what they were told.

A talker sends its next message when the one before was acknowledged; what was not acknowledged is sent again under
the same id. Every answer is kept with its time, so that a test can judge how a node behaved while it could not work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiohttp
from msgspec import Struct

from tests.support.client import MESSAGE, Client, message
from tests.support.ledger import Findings, Ledger
from tests.support.sink import Sink
from tests.support.until import passing, until


class Told(Struct, frozen=True, kw_only=True):
    """One answer. `status` 0: there was none (the connection broke); times on this process's monotonic clock."""

    sent_at: float
    took_s: float
    status: int
    retry_after: str | None = None


class Talkers:
    """Runs them (`async with`) until the block is left; then nothing is under way any more."""

    def __init__(
        self, client: Client, webhook: str, keys: Sequence[str], *, pause_s: float = 0.02, **options: Any
    ) -> None:
        self.client = client
        self.ledger = Ledger()
        self.told: list[Told] = []
        self._webhook = webhook
        self._keys = keys
        self._pause_s = pause_s
        self._options = {"max_size": 5, "wait_time": 0.2, "format": "envelope", **options}
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._talk(key, number)) for number, key in enumerate(self._keys)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stopped = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)

    @property
    def acknowledged(self) -> int:
        """Messages that were promised so far."""
        return sum(each.status == 200 for each in self.told)

    @property
    def refused(self) -> list[Told]:
        """Every answer that was no promise."""
        return [each for each in self.told if each.status != 200]

    async def more(self, count: int, within_s: float = 10.0) -> None:
        """Wait until so many more have been acknowledged."""
        goal = self.acknowledged + count
        await until(lambda: self.acknowledged >= goal, within_s, what=f"{count} more messages are acknowledged")

    async def settled(self, sink: Sink, within_s: float = 20.0) -> Findings:
        """Wait until everything that was promised has arrived (or time is up) and give what does not add up."""

        def missing() -> bool:
            return bool(self.ledger.reconcile(sink.requests).lost)

        with suppress(AssertionError):  # the findings say it better
            await until(lambda: not missing(), within_s, every_s=0.1)
        return self.ledger.reconcile(sink.requests)

    async def _talk(self, key: str, talker: int) -> None:
        number = 0
        while not self._stopped:
            name = f"talker-{talker}.{number}"
            number += 1
            while not await self._say(key, name):
                if self._stopped:
                    return
                await passing(self._pause_s)
            await passing(self._pause_s)

    async def _say(self, key: str, name: str) -> bool:
        body = message(self._webhook, key, {"of": key}, message_id=name, **self._options)
        began = time.monotonic()
        self.ledger.note(key, name, acknowledged=False)
        try:
            answer = await self.client.call("POST", MESSAGE, body)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            self.told.append(Told(sent_at=began, took_s=time.monotonic() - began, status=0))
            return False
        took_s = time.monotonic() - began
        retry_after = answer.headers.get("Retry-After")
        self.told.append(Told(sent_at=began, took_s=took_s, status=answer.status, retry_after=retry_after))
        self.ledger.note(key, name, acknowledged=answer.status == 200)
        return answer.status == 200
