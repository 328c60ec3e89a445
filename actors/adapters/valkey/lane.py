"""Lane: one connection to the store that many callers share.

redis-py makes the connection (TLS, AUTH, HELLO); from then on its transport is ours: commands of one loop tick leave
in one write, replies come back in order, and nothing stands between (a fixed cost per call of 20 µs instead of 70).
It never sends a command twice: redis-py's own retries can run one twice [measured: one INCR ran three times].
Invariants: a caller is answered or told StoreAway within the reply deadline; while the connection is down callers
are refused at once; a lane that lost its place in the reply stream is thrown away, never resynchronised.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from actors.adapters.valkey.scripts import Script
from actors.ports import StoreAway

REPLY_DEADLINE_S = 1.0
"""A command unanswered for this long breaks the lane: requests caught by a sudden hang get their 503 within 1.2 s."""
CONNECT_DEADLINE_S = 0.5
REFUSAL_S = 3.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.05, 0.5
TRANSIENT = ("OOM", "MISCONF", "BUSY", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN")
_INCOMPLETE = object()
UNUSABLE = ("LOADING", "MASTERDOWN", "READONLY")
"""Errors that say something about the server, not about the command: it must be looked at again."""


class StoreRefused(Exception):
    """The store answered a command with an error that waiting does not mend: a bug, or foreign hands in our keys."""


class ScriptForgotten(Exception):
    """The server does not know the script; it did not run."""


class Unusable(Exception):
    """The server cannot be used as it is now (it loads its data, or is a replica); the connection must be made anew."""


Greeting = Callable[[AbstractConnection], Awaitable[None]]


class Wire(asyncio.Protocol):
    """One connection, from the end of its greeting to its own end, and who waits for which reply on it."""

    def __init__(self, transport: asyncio.WriteTransport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._reader = Reader(replyError=translated, notEnoughData=_INCOMPLETE)
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self.refusal = ("", -math.inf)
        """What the server last would not do though it could be reached, and when (its memory or its disk is full)."""
        self.ended: asyncio.Future[str] = loop.create_future()
        """Resolved with the reason when the connection is of no more use."""
        transport.set_protocol(self)

    def send(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a command at the end of this tick; the future gives its raw reply."""
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(pack_command(command))
        reply: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + REPLY_DEADLINE_S
        self._waiting.append((deadline, reply))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(deadline, self._check_deadline)
        return reply

    def data_received(self, data: bytes) -> None:
        """Hand every whole reply to the caller whose turn it is."""
        self._reader.feed(data)
        while not self.ended.done() and (reply := self._reader.gets()) is not _INCOMPLETE:
            if not isinstance(reply, PushNotification):
                self._answer(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed the connection, or it broke."""
        self.end(str(exc) if exc else "the store closed the connection")

    def end(self, why: str) -> None:
        """Tell everyone who still waits that the outcome is unknown, and that this connection is of no more use."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._out.clear()
        for _, caller in self._waiting:
            if not caller.done():
                caller.set_exception(StoreAway(f"the outcome is unknown: {why}"))
                caller.exception()  # nobody may be waiting any more, and that is no error
        self._waiting.clear()

    def _write(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _answer(self, reply: Any) -> None:
        if not self._waiting:
            self.end("a reply that nobody asked for")
            return
        _, caller = self._waiting.popleft()
        if isinstance(reply, Exception):
            if isinstance(reply, StoreAway):
                self.refusal = (str(reply), self._loop.time())
            if not caller.done():
                caller.set_exception(StoreAway(str(reply)) if isinstance(reply, Unusable) else reply)
                caller.exception()
            if isinstance(reply, Unusable):
                self.end(str(reply))
        elif not caller.done():
            caller.set_result(reply)

    def _check_deadline(self) -> None:
        """One timer for the oldest unanswered command; the connection ends when that one is late."""
        self._watchdog = None
        if not self._waiting:
            return
        oldest = self._waiting[0][0]
        if oldest <= self._loop.time():
            self.end(f"no reply within {REPLY_DEADLINE_S} s")
        else:
            self._watchdog = self._loop.call_at(oldest, self._check_deadline)


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
        self._wire: Wire | None = None
        """Set while callers may use the connection."""
        self.why_down = "the store is not reachable"
        self.up = asyncio.Event()

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the future gives its raw reply. Raises StoreAway at once while the connection is down."""
        if self._wire is None or self._wire.ended.done():
            raise StoreAway(self.why_down)
        return self._wire.send(command)

    @property
    def refusal(self) -> str:
        """Why the server has refused something within the last REFUSAL_S, "" if it has not."""
        if self._wire is None:
            return ""
        why, at = self._wire.refusal
        return why if asyncio.get_running_loop().time() - at < REFUSAL_S else ""

    async def script(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script by its SHA; one the server has forgotten is sent whole (it had not run)."""
        return await self.begin(script, keys, arguments)

    def begin(self, script: Script, keys: list[str], arguments: list[Any]) -> Coroutine[Any, Any, Any]:
        """Like `script`, but on its way when this returns. Raises StoreAway at once while the connection is down."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return self._unless_forgotten(script, command, self.call(*command))

    async def _unless_forgotten(self, script: Script, command: tuple[Any, ...], reply: Awaitable[Any]) -> Any:
        try:
            return await reply
        except ScriptForgotten:
            # Not SCRIPT LOAD and then EVALSHA: the server could forget it again in between.
            return await self.call("EVAL", script.source, *command[2:])

    async def run(self) -> None:
        """Keep a connection for ever. A service: ends only by cancellation."""
        pause_s = RECONNECT_S_MIN
        while True:
            try:
                connection = await self._open()
            except (RedisError, OSError, StoreAway) as error:
                self.why_down = str(error) or "the store is not reachable"
                pause_s = min(pause_s * 2, RECONNECT_S_MAX)
                await asyncio.sleep(pause_s * (0.5 + self._jitter() / 2))
                continue
            pause_s = RECONNECT_S_MIN
            try:
                await self._serve(connection)
            finally:
                await connection.disconnect(nowait=True)

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

    async def _serve(self, connection: AbstractConnection) -> None:
        """Open the connection for callers until it ends."""
        writer = connection._writer
        if writer is None:
            return
        wire = Wire(writer.transport, asyncio.get_running_loop())
        wire.ended.add_done_callback(self._went_down)
        self._wire = wire
        self.up.set()
        self._on_up()
        try:
            await asyncio.shield(wire.ended)
        finally:
            wire.end("the lane was stopped")
            self._went_down(wire.ended)

    def _went_down(self, ended: asyncio.Future[str]) -> None:
        self._wire = None
        self.up.clear()
        self.why_down = ended.result()


def translated(text: str) -> Exception:
    """A server's error as ours: what passes by itself is StoreAway, what waiting does not mend StoreRefused."""
    if text.startswith("NOSCRIPT"):
        return ScriptForgotten(text)
    if text.startswith(UNUSABLE):
        return Unusable(text)
    return StoreAway(text) if text.startswith(TRANSIENT) else StoreRefused(text)
