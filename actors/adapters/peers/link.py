"""Link: the dialling side of one connection to a peer: proves itself, asks, and matches answers to questions.

Many questions are under way at once; those of one loop tick leave in one frame. A question without an answer by its
deadline is PeerAway, and an answer that comes later is dropped.
Invariants: every question gets one outcome; nothing is asked before the listener has proved that it is who was
expected; a peer that says nothing for SILENT_S while it is asked is given up; what is queued is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from actors.adapters.peers.frames import (
    MESSAGES_BYTES_MAX,
    UNWRITTEN_BYTES_MAX,
    BadFrame,
    Opener,
    Sealer,
    in_frames,
)
from actors.adapters.peers.handshake import NONCE_BYTES, WELCOME_BYTES, Hello, Stranger, check, session
from actors.adapters.peers.messages import (
    WITHIN_MS_MAX,
    Answer,
    Garbled,
    decode_answers,
    encode_question,
    join_questions,
)
from actors.node_ports import PeerAnswer, PeerAway, PeerRequest
from actors.ports import Overloaded, StoreAway

SILENT_S = 1.0
QUESTIONS_MAX = 1024


class _Waiting:
    """A question that is under way."""

    __slots__ = ("reply", "timer")

    def __init__(self, reply: asyncio.Future[PeerAnswer], timer: asyncio.TimerHandle) -> None:
        self.reply = reply
        self.timer = timer


class Link(asyncio.Protocol):
    """One connection. `boottime` is the clock that the peer compares with its own, see `messages`."""

    def __init__(self, hello: Hello, secret: bytes, boottime: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hello = hello
        self._secret = secret
        self._boottime = boottime
        self._transport: asyncio.Transport | None = None
        self._welcome = b""
        self._opener: Opener | None = None
        self._sealer: Sealer | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._waiting: dict[int, _Waiting] = {}
        self._asked = 0
        self._silent_since: float | None = None
        """When something was asked first since the peer last said anything."""
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Resolved when questions may be asked; raises PeerAway when they never can."""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who is calling and who should answer."""
        self._transport = cast(asyncio.Transport, transport)
        if self.ended:
            self._transport.abort()
        else:
            self._transport.write(self._hello.said)

    def data_received(self, data: bytes) -> None:
        """Give every answer to who waits for it; anything that is not the peer's ends the connection."""
        try:
            if self._opener is None:
                data = self._welcomed(data)
            if self._opener is not None and data:
                for body in self._opener.feed(data):
                    for id_, answer in decode_answers(body):
                        self._answered(id_, answer)
        except (Stranger, BadFrame, Garbled) as error:
            self.end(str(error))
        self._silent_since = self._loop.time() if self._waiting else None

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer closed the connection, or it broke."""
        self.end(str(exc) if exc else "the peer closed the connection")

    def ask(self, request: PeerRequest, within_s: float) -> asyncio.Future[PeerAnswer]:
        """Ask at the end of this tick. The future raises PeerAway; Overloaded at once when too much is under way."""
        transport = self._transport
        if self.ended or transport is None:
            raise PeerAway("the connection has ended")
        unwritten = self._out_bytes + transport.get_write_buffer_size()
        if len(self._waiting) >= QUESTIONS_MAX or unwritten > UNWRITTEN_BYTES_MAX:
            raise Overloaded("too much is under way to this peer")
        id_ = self._asked = (self._asked + 1) % 2**32
        within_ms = min(max(1, int(within_s * 1000)), WITHIN_MS_MAX)
        question = encode_question(id_, within_ms, request)
        if len(question) > MESSAGES_BYTES_MAX:
            raise Overloaded("too large for a peer")
        now = self._loop.time()
        reply: asyncio.Future[PeerAnswer] = self._loop.create_future()
        self._waiting[id_] = _Waiting(reply, self._loop.call_at(now + within_s, self._late, id_))
        if self._silent_since is None:
            self._silent_since = now
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(question)
        self._out_bytes += len(question)
        return reply

    def end(self, why: str) -> None:
        """Use the connection no more: whoever still waits learns that nobody can know."""
        if self.ended:
            return
        self.ended = True
        if self._transport is not None:
            self._transport.abort()
        self._out.clear()
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.timer.cancel()
            _fail(each.reply, PeerAway(why))
        _fail(self.opened, PeerAway(why))

    def _welcomed(self, data: bytes) -> bytes:
        """Go through the listener's proof and give our own; what is left of `data` afterwards. Raises Stranger."""
        received = self._welcome + data
        if len(received) < WELCOME_BYTES:
            self._welcome = received
            return b""
        agreed = session(self._secret, self._hello, received[:NONCE_BYTES])
        check(received[NONCE_BYTES:WELCOME_BYTES], agreed.listener_proof)
        if self._transport is not None:
            self._transport.write(agreed.dialler_proof)
        self._opener, self._sealer = Opener(agreed.to_dialler), Sealer(agreed.to_listener)
        self._welcome, self._secret = b"", b""
        if not self.opened.done():
            self.opened.set_result(None)
        return received[WELCOME_BYTES:]

    def _write(self) -> None:
        if self._out and self._sealer is not None and self._transport is not None:
            sent = self._boottime()
            questions, self._out, self._out_bytes = self._out, [], 0
            for together in in_frames(questions):
                self._transport.write(self._sealer.seal(join_questions(sent, together)))

    def _answered(self, id_: int, answer: Answer) -> None:
        waiting = self._waiting.pop(id_, None)
        if waiting is None:
            return  # it came too late
        waiting.timer.cancel()
        if isinstance(answer, StoreAway | Overloaded):
            _fail(waiting.reply, answer)
        elif not waiting.reply.done():
            waiting.reply.set_result(answer)

    def _late(self, id_: int) -> None:
        """The deadline of a question has passed; perhaps the whole connection is of no more use."""
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            _fail(waiting.reply, PeerAway("no answer in time"))
        if self._silent_since is not None and self._loop.time() - self._silent_since >= SILENT_S:
            self.end("the peer is silent")


def _fail(future: asyncio.Future[PeerAnswer] | asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be waiting any more, and that is no error
