"""Caller: the answering side of one connection from a peer: lets it prove itself, then does what it asks.

Each question is a job of its own; the answers of one loop tick leave in one frame.
Invariants: nothing is decoded before its sender has proved itself; at most QUESTIONS_MAX questions are under way, the
rest are Overloaded; a question whose asker has given up is not begun, also when it waited in the socket of a process
that was frozen; a question that cannot be answered in time gets no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from msgspec import Struct

from actors.adapters.peers.age import Age
from actors.adapters.peers.frames import UNWRITTEN_BYTES_MAX, BadFrame, Opener, Sealer, in_frames
from actors.adapters.peers.handshake import PROOF_BYTES, Session, Stranger, check, parse_hello, session
from actors.adapters.peers.jobs import Jobs
from actors.adapters.peers.messages import Answer, Garbled, Question, decode_questions, encode_answer, join_answers
from actors.node_ports import PeerDesk
from actors.ports import Overloaded, StoreAway

QUESTIONS_MAX = 512
_FULL = "the peer has too much to do"


class Service(Struct, frozen=True):
    """Who answers, and with what. `secret` is asked for at each connection; while it is empty nobody is let in."""

    node: str
    secret: Callable[[], bytes]
    desk: PeerDesk
    jobs: Jobs
    boottime: Callable[[], float]


class Door(Protocol):
    """Who counts the connections."""

    def came(self, caller: Caller) -> None: ...
    def proved(self, caller: Caller) -> None: ...
    def gone(self, caller: Caller) -> None: ...


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: Service, door: Door, nonce: bytes) -> None:
        self._service = service
        self._door = door
        self._nonce = nonce
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._session: Session | None = None
        self._opener: Opener | None = None
        self._sealer: Sealer | None = None
        self._age = Age()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._under_way = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for what the stranger has to say."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.came(self)

    def data_received(self, data: bytes) -> None:
        """Take questions; anything that is no peer's ends the connection."""
        try:
            if self._opener is None:
                data = self._proved(data)
            if self._opener is not None and data:
                for body in self._opener.feed(data):
                    self._take(body)
        except (Stranger, BadFrame, Garbled):
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer closed the connection, or it broke."""
        self._transport = None
        self._door.gone(self)

    def end(self) -> None:
        """Hang up, without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _proved(self, data: bytes) -> bytes:
        """Go through the handshake; what is left of `data` after it. Raises Stranger."""
        received = self._received + data
        if self._session is None:
            said = parse_hello(received)
            if said is None:
                self._received = received
                return b""
            if said.listener != self._service.node:
                raise Stranger("means another node")
            self._session = session(self._service.secret(), said, self._nonce)
            self._write(self._nonce + self._session.listener_proof)
            received = received[len(said.said) :]
        if len(received) < PROOF_BYTES:
            self._received = received
            return b""
        check(received[:PROOF_BYTES], self._session.dialler_proof)
        self._opener, self._sealer = Opener(self._session.to_listener), Sealer(self._session.to_dialler)
        self._received = b""
        self._door.proved(self)
        return received[PROOF_BYTES:]

    def _take(self, body: bytes) -> None:
        sent, questions = decode_questions(body)
        age_s = self._age.of(sent, self._service.boottime())
        for question in questions:
            within_s = question.within_ms / 1000 - age_s
            if within_s > 0:
                self._begin(question, within_s)

    def _begin(self, question: Question, within_s: float) -> None:
        if self._under_way >= QUESTIONS_MAX:
            self._tell(question.id, Overloaded(_FULL))
            return
        try:
            job = self._service.jobs.spawn("peer-question", self._serve(question, within_s))
        except Overloaded as error:
            self._tell(question.id, error)
            return
        self._under_way += 1
        job.add_done_callback(self._done)

    def _done(self, _job: asyncio.Task[None]) -> None:
        self._under_way -= 1

    async def _serve(self, question: Question, within_s: float) -> None:
        answer: Answer
        try:
            async with asyncio.timeout(within_s):
                answer = await self._service.desk.serve(question.request, within_s)
        except TimeoutError:
            return  # nobody waits for it any more
        except (StoreAway, Overloaded) as error:
            answer = error
        self._tell(question.id, answer)

    def _tell(self, id_: int, answer: Answer) -> None:
        """Answer at the end of this tick."""
        if self._transport is None:
            return
        if self._out_bytes + self._transport.get_write_buffer_size() > UNWRITTEN_BYTES_MAX:
            self.end()  # it asks and does not listen
            return
        if not self._out:
            self._loop.call_soon(self._write_answers)
        written = encode_answer(id_, answer)
        self._out.append(written)
        self._out_bytes += len(written)

    def _write_answers(self) -> None:
        answers, self._out, self._out_bytes = self._out, [], 0
        if self._sealer is not None:
            for together in in_frames(answers):
                self._write(self._sealer.seal(join_answers(together)))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
