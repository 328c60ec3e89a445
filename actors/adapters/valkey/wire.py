"""Wire: one open connection to the store, and who waits for which reply on it.

Commands of one loop tick leave in one write, replies come back in order, and nothing stands between (a fixed cost per
call of 20 µs instead of redis-py's 70). The server's errors are translated here, once.
Invariants: a caller is answered or told StoreAway within the reply deadline; a wire that lost its place in the reply
stream is thrown away, never resynchronised.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from hiredis import PushNotification, Reader, pack_command

from actors.ports import StoreAway
from actors.runtime.outcome import Tell, settle

REPLY_DEADLINE_S = 1.0
"""A command unanswered for this long breaks the wire: requests caught by a sudden hang get their 503 within 1.2 s."""
TRANSIENT = ("OOM", "MISCONF", "BUSY", "NOREPLICAS")
SHIFTING = ("ASK", "TRYAGAIN", "CLUSTERDOWN")
NOT_HERE = ("a non local key in a cluster node", "a slot not served", "while the cluster is down")
"""How a script is told that a key it touches is, or may soon be, on another server."""
UNUSABLE = ("LOADING", "MASTERDOWN", "READONLY")
"""Errors that say something about the server, not about the command: it must be looked at again."""
_INCOMPLETE = object()


class StoreRefused(Exception):
    """The store answered a command with an error that waiting does not mend: a bug, or foreign hands in our keys."""


class ScriptForgotten(Exception):
    """The server does not know the script; it did not run."""


class Moved(Exception):
    """The keys belong to another server of the cluster; the command did not run."""


class Shifting(StoreAway):
    """The cluster is changing, and cannot do this now."""


class Unusable(Exception):
    """The server cannot be used as it is now (it loads its data, or is a replica); the connection must be made anew."""


class Wire(asyncio.Protocol):
    """One connection, from the end of its greeting to its own end, and who waits for which reply on it. `on_push` is
    told what the server says unasked, in its place among the replies."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        on_push: Callable[[PushNotification], None] = lambda _push: None,
    ) -> None:
        self._on_push = on_push
        self._transport = transport
        self._loop = loop
        self._reader = Reader(replyError=translated, notEnoughData=_INCOMPLETE)
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, Tell[Any]]] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self.refusal = ("", -math.inf)
        """What the server last would not do though it could be reached, and when (its memory or its disk is full)."""
        self.ended: asyncio.Future[str] = loop.create_future()
        """Resolved with the reason when the connection is of no more use."""
        transport.set_protocol(self)

    def send(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a command at the end of this tick; the future gives its raw reply."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.ask(command, partial(_settle, reply))
        return reply

    def ask(self, command: tuple[Any, ...], tell: Tell[Any]) -> None:
        """The same; `tell` gets the raw reply, or what went wrong, when it is there. It must not raise."""
        self.tell(command)
        deadline = self._loop.time() + REPLY_DEADLINE_S
        self._waiting.append((deadline, tell))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(deadline, self._check_deadline)

    def tell(self, command: tuple[Any, ...]) -> None:
        """Send a command that has no reply, as those that change what the server pushes, at the end of this tick."""
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(pack_command(command))

    def data_received(self, data: bytes) -> None:
        """Hand every whole reply to the caller whose turn it is."""
        self._reader.feed(data)
        while not self.ended.done() and (reply := self._reader.gets()) is not _INCOMPLETE:
            if isinstance(reply, PushNotification):
                self._on_push(reply)
            else:
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
        self._tell_all(StoreAway(f"the outcome is unknown: {why}"))

    def _tell_all(self, reason: StoreAway) -> None:
        """Tell everyone who waits; one that raises at it takes no other's away."""
        try:
            while self._waiting:
                self._waiting.popleft()[1](reason)
        finally:
            if self._waiting:
                self._tell_all(reason)

    def _write(self) -> None:
        if self._transport.is_closing():
            self.end("the store closed the connection")  # perhaps before this wire took over, and then nobody says so
        elif self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _answer(self, reply: Any) -> None:
        if not self._waiting:
            self.end("a reply that nobody asked for")
            return
        _, tell = self._waiting.popleft()
        if isinstance(reply, StoreAway) and not isinstance(reply, Shifting):
            self.refusal = (str(reply), self._loop.time())
        if isinstance(reply, Unusable):
            tell(StoreAway(str(reply)))
            self.end(str(reply))
        else:
            tell(reply)

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


def _settle(reply: asyncio.Future[Any], outcome: Any) -> None:
    settle(reply, outcome)
    if isinstance(outcome, Exception) and not reply.cancelled():
        reply.exception()  # nobody may be waiting any more, and that is no error


def translated(text: str) -> Exception:
    """A server's error as ours: what passes by itself is StoreAway, what waiting does not mend StoreRefused."""
    if text.startswith("NOSCRIPT"):
        return ScriptForgotten(text)
    if text.startswith(UNUSABLE):
        return Unusable(text)
    if text.startswith("MOVED "):
        return Moved(text)
    if text.startswith(SHIFTING) or any(words in text for words in NOT_HERE):
        return Shifting(text)
    return StoreAway(text) if text.startswith(TRANSIENT) else StoreRefused(text)
