"""Socket: a listener's WebSocket: frames both ways, pings, the closing handshake, and the limits on what comes.

Knows nothing of what a message means: `message` is its subclass's. Never loses a connection for a wrong message, only
for bytes that are no frames (RFC 6455), for silence, and for what the limits forbid.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType

from actors.core.json_limits import BadField, check_limits
from actors.ports import Overloaded
from router.edge.detached import frame_parser
from router.realtime import frames
from router.realtime.codes import LATER, NO_PONG, TOO_MANY, TOO_MANY_ERRORS, TOO_MANY_MESSAGES, Close, Fault, fault_of
from router.realtime.connection import Connection
from router.realtime.hall import Realtime

CODE_MAX = 4999
INTERNAL_ERROR = Close(1011, "internal error")
_CLOSE_REASONS = {1002: "protocol error", 1007: "invalid payload", 1009: "message too big"}
_TEXT, _BINARY, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.CLOSE


class Malformed(Exception):
    """A message is not what it must be. The text is for the client."""


class Socket(Connection):
    """A WebSocket. A subclass says what its messages mean."""

    __slots__ = ("_asked", "_errors", "_jobs", "_parser", "_spent_until")

    def __init__(self, hall: Realtime, client: str) -> None:
        super().__init__(hall, client)
        self._parser = frame_parser(hall.inbox, hall.limits.frame_bytes_max)
        self._asked = False
        """A ping was sent, and its answer has some time left."""
        self._spent_until = 0.0
        """Until when the rate is used up by what came so far."""
        self._errors = 0
        self._jobs = 0

    # What a subclass says and does.

    ping: bytes = frames.PING

    def message(self, payload: bytes) -> None:
        """A message has come."""
        raise NotImplementedError

    def too_large(self, payload: bytes) -> None:
        """A message has come that is longer than it may be."""
        raise NotImplementedError

    # What it uses.

    def say(self, payload: bytes) -> None:
        """Send a message."""
        self.send(frames.text(payload), 1)

    def counts(self) -> bool:
        """Count one thing that was asked for. False when there were too many: the connection is closed."""
        limits = self.hall.limits
        now = self.hall.monotonic()
        spent = max(self._spent_until, now) + 1.0 / limits.messages_per_s
        if spent - now > limits.burst_s:
            self.end(TOO_MANY_MESSAGES)
            return False
        self._spent_until = spent
        return True

    def noted(self, fault: Fault) -> None:
        """An error was answered. Whoever makes too many mistakes is closed."""
        if not fault.temporary:
            self._errors += 1
            if self._errors >= self.hall.limits.errors_max:
                self.end(TOO_MANY_ERRORS)

    def run(self, work: Callable[[], Awaitable[bytes | Fault]], answer: Callable[[bytes | Fault], None]) -> None:
        """Do what has to wait, and give its answer. Work begins in the order in which it was asked for."""
        if self._jobs >= self.hall.limits.jobs_max:
            answer(TOO_MANY)
            return
        try:
            self.hall.spawn("realtime command", self._done(work, answer))
        except Overloaded as error:
            answer(fault_of(error))
        else:
            self._jobs += 1

    # Connection.

    def started(self) -> None:
        """Ping from time to time."""
        self.arm(self.hall.limits.ping_s)

    def on_due(self) -> None:
        """It is time for a ping, or to look whether the last one was answered."""
        limits = self.hall.limits
        if not self._asked:
            self._asked, self.heard = True, False
            self.send(self.ping, 1)
            if not self.closed:
                self.arm(limits.pong_s)
        elif self.heard:
            self._asked = False
            self.arm(max(limits.ping_s - limits.pong_s, limits.pong_s))
        else:
            self.end(NO_PONG)

    def say_goodbye(self, why: Close) -> None:
        """The other side answers with a close frame of its own, and then the transport is closed."""
        self._write(frames.close(why))

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self.heard = True
        inbox = self.hall.inbox
        inbox.receiver = self
        self._parser.feed_data(data)

    def received(self, kind: WSMsgType, payload: Any) -> None:
        """The parser has found a message, or a control frame."""
        if kind is _CLOSE:
            self._close_received(payload)
        elif self.closed or not self.counts():
            return
        elif kind is _TEXT or kind is _BINARY:
            if len(payload) > self.hall.limits.message_bytes_max:
                self.too_large(payload)
            else:
                self.message(payload)
        elif kind is _PING:
            self.send(frames.pong(payload), 1)

    def broken(self, code: int, error: Exception) -> None:
        """The parser cannot go on."""
        if code == INTERNAL_ERROR.code:
            self.hall.complain({"message": "a message of a listener crashed", "exception": error})
        self.end(Close(code, _CLOSE_REASONS.get(code, INTERNAL_ERROR.reason)))

    def _close_received(self, code: int) -> None:
        if not self.closed:
            self.end(Close(code or 1005, "") if code <= CODE_MAX else Close(1002, _CLOSE_REASONS[1002]))
        self._transport.close()

    async def _done(
        self, work: Callable[[], Awaitable[bytes | Fault]], answer: Callable[[bytes | Fault], None]
    ) -> None:
        try:
            outcome: bytes | Fault = await work()
        except LATER as error:
            outcome = fault_of(error)
        finally:
            self._jobs -= 1
        if not self.closed:
            answer(outcome)


def check_message(payload: bytes) -> None:
    """Raise Malformed for what no decoder is shown: no UTF-8, too deep, integers out of range."""
    try:
        if not payload.isascii():
            payload.decode()
        check_limits(payload)
    except UnicodeDecodeError:
        raise Malformed("the message is not UTF-8") from None
    except BadField as error:
        raise Malformed(error.detail) from None
