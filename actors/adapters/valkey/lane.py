"""Lane: one connection to the store that many callers share, kept for ever.

redis-py makes the connection (TLS, AUTH, HELLO); from then on its transport is a Wire's. It never sends a command
twice: redis-py's own retries can run one twice [measured: one INCR ran three times].
Invariant: while the connection is down callers are refused at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hiredis import PushNotification
from redis.asyncio.connection import AbstractConnection, Connection
from redis.exceptions import RedisError

from actors.adapters.valkey.question import connect
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.wire import ScriptForgotten, Wire
from actors.ports import StoreAway
from actors.runtime.outcome import Promised, Tell

CONNECT_DEADLINE_S = 0.5
HANDSHAKE_DEADLINE_S = 2.0
"""From the first packet to the last word of AUTH and HELLO: several round trips, and a slow network is no reason to
stay away. Callers do not wait for it."""
REFUSAL_S = 1.5
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.05, 0.5

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
        self.ready: Callable[[], Awaitable[object]] | None = None
        """Awaited before each connection is made."""
        self._wire: Wire | None = None
        """Set while callers may use the connection."""
        self.why_down = "the store is not reachable"
        self.peer: tuple[str, int] | None = None
        """Host and port of the server at the other end; None for a Unix socket."""
        self.up = asyncio.Event()
        self.on_push: Callable[[PushNotification], None] = lambda _push: None
        """Told what the server says unasked."""
        self.on_down: Callable[[], None] = lambda: None
        """Told that callers may use the connection no more, perhaps more than once."""

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the future gives its raw reply. Raises StoreAway at once while the connection is down."""
        return self._open_wire().send(command)

    def ask(self, command: tuple[Any, ...], tell: Tell[Any]) -> None:
        """Send a command; `tell` gets its raw reply, or what went wrong, and must not raise. Raises StoreAway at once
        while the connection is down."""
        self._open_wire().ask(command, tell)

    def tell(self, *command: Any) -> None:
        """Send a command that has no reply. Raises StoreAway at once while the connection is down."""
        self._open_wire().tell(command)

    @property
    def refusal(self) -> str:
        """Why the server has refused something within the last REFUSAL_S, "" if it has not."""
        if self._wire is None:
            return ""
        why, at = self._wire.refusal
        return why if asyncio.get_running_loop().time() - at < REFUSAL_S else ""

    def drop(self, why: str) -> None:
        """End the connection, if there is one; the next one is greeted anew."""
        if self._wire is not None:
            ended = self._wire.ended
            self._wire.end(why)
            self._went_down(ended)

    def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Begun:
        """Run a script by its SHA: it is on its way when this returns, to be awaited or left. Raises StoreAway at once
        while the connection is down."""
        return Begun(self, script, keys, arguments)

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

    @property
    def is_open(self) -> bool:
        """Whether callers may use the connection."""
        return self._wire is not None and not self._wire.ended.done()

    def _open_wire(self) -> Wire:
        if self._wire is None or self._wire.ended.done():
            raise StoreAway(self.why_down)
        return self._wire

    async def _open(self) -> AbstractConnection:
        if self.ready is not None:
            await self.ready()
        connection = self._connect()
        try:
            async with asyncio.timeout(HANDSHAKE_DEADLINE_S):
                await connect(connection)
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
        wire = Wire(writer.transport, asyncio.get_running_loop(), self.on_push)
        wire.ended.add_done_callback(self._went_down)
        self._wire = wire
        self.peer = _peer_of(connection)
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
        self.on_down()


class Begun(Promised[Any]):
    """A script that is on its way, to its reply; one the server has forgotten is sent whole then (it had not run)."""

    __slots__ = ("_call", "_lane", "_script")

    def __init__(self, lane: Lane, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        super().__init__()
        self._lane = lane
        self._script = script
        self._call = (len(keys), *keys, *arguments)
        lane.ask(("EVALSHA", script.sha, *self._call), self._replied)

    def _replied(self, reply: Any) -> None:
        if not isinstance(reply, ScriptForgotten):
            self.arrived(reply)
            return
        # Not SCRIPT LOAD and then EVALSHA: the server could forget it again in between.
        try:
            self._lane.ask(("EVAL", self._script.source, *self._call), self.arrived)
        except StoreAway as error:
            self.arrived(error)


def _peer_of(connection: AbstractConnection) -> tuple[str, int] | None:
    return (connection.host, connection.port) if isinstance(connection, Connection) else None
