"""Lane: one connection to the store that many callers share.

Commands of one loop tick leave in one write, replies come back in order. It never sends a command twice: redis-py's
own retries are off because a replayed command can run twice [measured: one INCR ran three times].
Invariants: a caller is answered or told StoreAway within the reply deadline; while the connection is down callers
are refused at once; a lane that lost its place in the reply stream is thrown away, never resynchronised.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from actors.adapters.valkey.scripts import Script
from actors.ports import StoreAway

REPLY_DEADLINE_S = 1.0
"""A command unanswered for this long breaks the lane: requests caught by a sudden hang get their 503 within 1.2 s."""
CONNECT_DEADLINE_S = 0.5
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.05, 0.5
TRANSIENT = ("OOM", "MISCONF", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "NOREPLICAS", "TRYAGAIN")


class StoreRefused(Exception):
    """The store answered a command with an error that waiting does not mend: a bug, or foreign hands in our keys."""


Greeting = Callable[[AbstractConnection], Awaitable[None]]


class Lane:
    """Shares one connection. `greet` runs on each new connection before anybody else may use it, in bounded time;
    `on_up` runs in the same tick in which the connection opens for callers. `jitter` gives 0…1."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        greet: Greeting,
        on_up: Callable[[], None],
        jitter: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._greet = greet
        self._on_up = on_up
        self._jitter = jitter
        self._connection: AbstractConnection | None = None
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None
        self._broken = asyncio.Event()
        self.why_down = "the store is not reachable"
        self.up = asyncio.Event()

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the future gives its raw reply. Raises StoreAway at once while the connection is down."""
        if self._connection is None:
            raise StoreAway(self.why_down)
        self._out.append(pack_command(command))
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        deadline = loop.time() + REPLY_DEADLINE_S
        self._waiting.append((deadline, reply))
        if self._watchdog is None:
            self._watchdog = loop.call_at(deadline, self._check_deadline)
        self._wake.set()
        return reply

    async def script(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script by its SHA; one the server has forgotten is loaded and run again (it had not run)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            await self.call("SCRIPT", "LOAD", script.source)
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)

    async def run(self) -> None:
        """Keep a connection for ever. A service: ends only by cancellation."""
        attempt = 0
        while True:
            try:
                connection = await self._open()
            except (RedisError, OSError, StoreAway) as error:
                self.why_down = str(error) or "the store is not reachable"
                attempt += 1
                pause = min(RECONNECT_S_MIN * 2**attempt, RECONNECT_S_MAX)
                await asyncio.sleep(pause * (0.5 + self._jitter() / 2))
                continue
            attempt = 0
            try:
                await self._pump(connection)
            finally:
                await self._give_up(connection)

    async def _open(self) -> AbstractConnection:
        connection = self._connect()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
            await self._greet(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _pump(self, connection: AbstractConnection) -> None:
        """Write and read until the connection breaks or a reply is overdue."""
        self._broken.clear()
        self._connection = connection
        self.up.set()
        self._on_up()
        try:
            async with asyncio.TaskGroup() as jobs:
                jobs.create_task(self._write(connection), name="lane-write")
                jobs.create_task(self._read(connection), name="lane-read")
                jobs.create_task(self._watch(), name="lane-watch")
        except* (RedisError, OSError, StoreAway) as broken:
            self.why_down = str(broken.exceptions[0])
        finally:
            self._connection = None
            self.up.clear()

    async def _watch(self) -> None:
        await self._broken.wait()
        raise StoreAway(f"no reply within {REPLY_DEADLINE_S} s")

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            joined, self._out = b"".join(self._out), []
            await connection.send_packed_command(joined, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            except (BusyLoadingError, MasterDownError, ReadOnlyError) as error:
                self._answer(StoreAway(str(error)))
                raise
            except ConnectionError:
                raise
            except NoScriptError as error:
                self._answer(error)
            except ResponseError as error:
                self._answer(translated(error))
            else:
                self._answer(reply)

    def _answer(self, reply: Any) -> None:
        _, caller = self._waiting.popleft()
        if caller.done():
            return
        if isinstance(reply, Exception):
            caller.set_exception(reply)
        else:
            caller.set_result(reply)

    def _check_deadline(self) -> None:
        """One timer for the oldest unanswered command; the lane breaks when that one is late."""
        self._watchdog = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        oldest = self._waiting[0][0]
        if oldest <= loop.time():
            self._connection = None
            self._broken.set()
        else:
            self._watchdog = loop.call_at(oldest, self._check_deadline)

    async def _give_up(self, connection: AbstractConnection) -> None:
        """Tell everyone who still waits that the outcome is unknown."""
        waiting, self._waiting = self._waiting, deque()
        self._out = []
        self._wake.clear()
        for _, caller in waiting:
            if not caller.done():
                caller.set_exception(StoreAway("the store did not answer in time or the connection broke"))
                caller.exception()
        await connection.disconnect(nowait=True)


def translated(error: ResponseError) -> Exception:
    """Foreign error to ours: what passes by itself becomes StoreAway, the rest StoreRefused."""
    text = str(error)
    if text.startswith(TRANSIENT) or type(error).__name__ in {"OutOfMemoryError", "ClusterDownError", "TryAgainError"}:
        return StoreAway(text)
    return StoreRefused(text)
