"""The fast lane: a complete, canonical request for a hot route is answered without aiohttp's Request and Response.

Owns the byte-level rules and the connection's two modes; knows no route and no domain. `Heads` reads a head and is
never unsure: whatever is not plain (a fold, a repeated or strange header, anything but ASCII, `Expect`, a transfer
coding, a query, a percent sign, HTTP/1.0) is not its business. `LaneConnection` asks it only between two requests, and
hands the rest to aiohttp untouched. Where a path leads is `edge.http`'s, which has it from aiohttp.

Invariants: a request is interpreted by one parser, the lane's or aiohttp's. Of what goes to aiohttp the lane only
counts where it ends, to know when it may ask again; once it cannot tell, the connection is aiohttp's for good. Answers
leave in the order of the requests: while one is under way (or waits for the end of the turn), or nobody reads the
answers, later bytes wait here. Knows aiohttp 3.14's `RequestHandler` (`TESTED`).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

import aiohttp
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from actors.core.recent import Recent
from actors.runtime.outcome import begin, ended_with, outcome_of
from router.edge.answer import written
from router.edge.handlers import Soon, continued
from router.edge.http import Edge, Place
from router.edge.turn import Turn
from router.edge.usecase import Reply, RequestHeaders

TESTED = frozenset({"3.14.5"})
"""The releases of aiohttp whose inner parts this file was tested with; with others the lane stays off."""
HEAD_BYTES_MAX = 4096
HEADERS_MAX = 64
KNOWN_MAX, KNOWN_BYTES_MAX = 2048, 1024
"""Heads of a generation of those that are remembered, and how long one may be: what callers make up takes no more room
than that."""
HELD_BYTES_MAX = 65_536
"""What may wait behind an answer before the connection is not read any further."""
OUT_BYTES_MAX = 65_536
"""Answers to pipelined requests that are written at once."""

_HEAD = re.compile(
    rb"(GET|POST|PUT|DELETE|HEAD) (/[A-Za-z0-9_.:@~/-]*+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[ \t]*+(?:[\x21-\x7e]++[ \t]*+)*+\r\n)*+)\r\n"
)
_END = b"\r\n\r\n"
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,9}")
_UNCOUNTABLE = frozenset((b"transfer-encoding", b"upgrade", b"proxy-connection", b"sec-websocket-key1"))
"""What decides in other ways where a request ends, or the connection; the last is refused by aiohttp."""
_COLD = frozenset((b"expect", b"trailer", b"content-encoding", b"http2-settings"))
_OWN = frozenset((b"x-request-id", b"idempotency-key", b"traceparent", b"if-match", b"if-none-match"))
"""What differs from request to request: a head with one of them is not worth remembering."""
_READ = _OWN | _COLD | {b"content-length", b"content-type", b"connection", b"host"}
_HAS_BODY = {b"GET": False, b"POST": True, b"PUT": True}
"""The methods of hot routes."""
_LOOKS = b"GET "
"""Who only looks can wait for the end of the turn; what is to be stored waits for the store, and starts at once."""
_UNKNOWN = -1


class Head(Struct, frozen=True):
    """A canonical head of `size` bytes, the first of `whole` that the request has. `place` is None when the lane has no
    business there; `now` is what may answer at once, `soon` what needs no task. `headers` lack the request's id;
    `sent_id` is what the caller says it is."""

    size: int
    whole: int
    place: Place | None
    now: Callable[[], Reply | None] | None
    soon: Soon | None
    headers: RequestHeaders
    sent_id: str


class Heads:
    """Reads heads, and remembers those that come again and again. One serves all connections."""

    def __init__(self, edge: Edge, body_bytes_max: int) -> None:
        self._edge = edge
        self._body_bytes_max = body_bytes_max
        self.known: Recent[bytes, Head] = Recent(KNOWN_MAX)
        self.turn = Turn()

    def read(self, data: bytes, start: int) -> Head | None:
        """The head that begins at `start`; None when there is no whole one, or it is not canonical."""
        end = data.find(_END, start, start + HEAD_BYTES_MAX)
        if end < 0:
            return None
        raw = data[start : end + len(_END)]
        return self.known[raw] or self._parsed(raw)

    def left(self, data: bytes, owed: int) -> int:
        """How many bytes aiohttp is owed of the request that it has after these; `_UNKNOWN` when nobody can tell."""
        at = owed
        while at < len(data):
            head = self.read(data, at)
            if head is None:
                return _UNKNOWN
            at += head.whole
        return at - len(data)

    def _parsed(self, raw: bytes) -> Head | None:
        matched = _HEAD.fullmatch(raw)
        if matched is None:
            return None
        method, path, lines = matched.groups()
        fields = lines.split(b"\r\n")[:-1]
        if len(fields) > HEADERS_MAX:
            return None
        names: set[bytes] = set()
        found: dict[bytes, str] = {}
        for line in fields:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in names or name in _UNCOUNTABLE:  # many a header must not be there twice, and aiohttp knows which
                return None
            names.add(name)
            if name in _READ:
                text = found[name] = value.strip(b" \t").decode("ascii")
                if not text:
                    return None
        return self._judged(method, path, found, raw)

    def _judged(self, method: bytes, path: bytes, found: dict[bytes, str], raw: bytes) -> Head | None:
        length = found.get(b"content-length", "0")
        if _HOST.fullmatch(found.get(b"host", "")) is None or _LENGTH.fullmatch(length) is None:
            return None
        if found.get(b"connection", "keep-alive").lower() != "keep-alive":
            return None
        place = None
        plain = _COLD.isdisjoint(found) and _HAS_BODY.get(method) is (b"content-length" in found)
        if plain and int(length) <= self._body_bytes_max:
            place = self._edge.place(method.decode(), path.decode())
        traceparent = found.get(b"traceparent", "")
        headers = RequestHeaders(
            path=path.decode(),
            request_id="",
            content_type=found.get(b"content-type", ""),
            idempotency_key=found.get(b"idempotency-key", ""),
            if_match=found.get(b"if-match", ""),
            if_none_match=found.get(b"if-none-match", ""),
            trace=continued(traceparent) if traceparent else "",
        )
        now = None if place is None or place.hot.now is None else place.hot.now(place.params, headers)
        soon = None if place is None or place.hot.soon is None else place.hot.soon(place.params, headers)
        head = Head(len(raw), len(raw) + int(length), place, now, soon, headers, found.get(b"x-request-id", ""))
        if place is not None and len(raw) <= KNOWN_BYTES_MAX and _OWN.isdisjoint(found):
            self.known.remember(raw, head)
        return head


def why_not(version: str = aiohttp.__version__) -> str:
    """Why the lane must stay off with this aiohttp; "" when it need not."""
    if version not in TESTED:
        return f"aiohttp {version} is not one that it was tested with ({', '.join(sorted(TESTED))})"
    return ""


class LaneConnection(web.RequestHandler):
    """One connection: aiohttp's, with the lane before it. `heads` None: the lane is off."""

    __slots__ = (
        *("_answering", "_edge", "_heads", "_held", "_held_bytes"),
        *("_open", "_owed", "_reply", "_task", "_unread"),
    )

    def __init__(self, manager: web.Server, edge: Edge, heads: Heads | None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._edge = edge
        self._heads = heads
        self._owed = 0
        """Bytes of aiohttp's request that have not come; `_UNKNOWN` when it can't be told where that ends."""
        self._answering = False
        self._task: asyncio.Task[Reply] | None = None
        self._open: tuple[Place, str, float]
        """Of what is being answered: where it leads, its id, when it came."""
        self._reply: Callable[[Any], Reply] = _as_it_is
        """What makes its answer of what came of it."""
        self._held: deque[tuple[bytes, int]] = deque()
        """What has waited, and from where on. What begins in the middle is known to be whole requests."""
        self._held_bytes = 0
        self._unread = False

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here, in order; the rest is aiohttp's."""
        heads = self._heads
        if heads is None or not data:  # aiohttp feeds itself nothing to go on with what it has
            super().data_received(data)
        elif self._answering or self._held:
            self._hold(data)
        elif data.startswith(_LOOKS):
            self._answering = True
            turn = heads.turn
            if not turn:
                turn.begin(self._loop)
            turn.append((self._look, data))
        else:
            # Most of what arrives is one whole request with a head that is remembered.
            head = heads.known[data[: data.find(_END, 0, KNOWN_BYTES_MAX) + 4]]
            self._meet(heads, data, head if head is not None and head.whole == len(data) else None)

    def _look(self, data: bytes) -> None:
        self._answering = False
        heads = self._heads
        if heads is not None:
            self._meet(heads, data, heads.known[data])  # most who look say nothing beside their head
        if self._held or self._unread:
            self._go_on()

    def _meet(self, heads: Heads, data: bytes, head: Head | None) -> None:
        """Take what has arrived: one whole request with this head, or, without one, whatever it is."""
        if head is None or (place := head.place) is None or not self._is_between():
            self._take(heads, data, 0)
        elif (answer := self._answer(head, place, data[head.size :])) is not None:
            self._write(answer)

    def resume_writing(self) -> None:
        """Somebody reads the answers again."""
        super().resume_writing()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._go_on()

    def _resume_transport_reading(self) -> None:
        """aiohttp has room again: not what counts while too much waits here."""
        if not self._unread:
            super()._resume_transport_reading()

    def _process_keepalive(self) -> None:
        """Not idle: somebody waits for an answer here, or has one to read."""
        if self._answering or self._held or self._paused:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget what has waited. What runs is done to its end: it may have been stored."""
        self._drop_held()
        super().connection_lost(exc)

    def _take(self, heads: Heads, data: bytes, at: int) -> None:
        size, end = 0, len(data)
        answers: list[bytes] = []
        while at < end:
            head = heads.read(data, at) if self._is_between() else None
            if (
                head is None
                or (place := head.place) is None
                # Of bytes that arrive together aiohttp refuses all if it refuses any.
                or (not at and head.whole != end and heads.left(data, 0))
            ):
                self._write_all(answers)
                self._pass_on(heads, data[at:] if at else data)
                return
            body_at, at = at + head.size, at + head.whole
            answer = self._answer(head, place, data[body_at:at])
            if answer is None:
                break
            answers.append(answer)
            size += len(answer)
            if self._close:
                break
            if size >= OUT_BYTES_MAX:
                self._write_all(answers)
                answers, size = [], 0
                if self._paused:
                    break
        self._write_all(answers)
        if at < end and not self._close:
            self._held.appendleft((data, at))
            self._held_bytes += end - at

    def _is_between(self) -> bool:
        """Whether aiohttp waits for a new request, with nothing of one, and somebody reads the answers. A connection
        that is being closed has no waiter any more, or a cancelled one."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._owed and not self._paused

    def _pass_on(self, heads: Heads, data: bytes) -> None:
        if self._owed != _UNKNOWN:
            self._owed = heads.left(data, self._owed)
        super().data_received(data)

    def _answer(self, head: Head, place: Place, body: bytes) -> bytes | None:
        """The answer, if there is one at once; otherwise it is under way."""
        started = perf_counter()
        self._request_count += 1
        edge, now, soon = self._edge, head.now, head.soon
        request_id = edge.request_id(head.sent_id) if head.sent_id else edge.next_id()
        if now is not None and (outcome := outcome_of(now)) is not None:
            return self._done(place, request_id, started, outcome)
        if soon is not None:
            begun = outcome_of(soon, body, self._told)
            if isinstance(begun, Exception):
                return self._done(place, request_id, started, begun)
            self._reply = begun
        else:
            headers = replace(head.headers, request_id=request_id)
            self._task = begin(self._loop, place.hot.run(place.params, body, headers, self._is_gone), self._ended)
        self._open = place, request_id, started
        self._answering = self._request_in_progress = True  # a shutdown waits for it
        return None

    def _ended(self, task: asyncio.Task[Reply]) -> None:
        self._task = None
        self._told(ended_with(task))

    def _told(self, outcome: Any) -> None:
        """What came of it; None: it was cancelled."""
        self._answering = self._request_in_progress = False
        shutdown = self._handler_waiter
        if shutdown is not None and not shutdown.done():
            shutdown.set_result(None)
        if outcome is None:
            self.force_close()
            return
        reply, self._reply = self._reply, _as_it_is  # what was asked with goes, however long the connection stays
        if not isinstance(outcome, Exception):
            outcome = outcome_of(reply, outcome)
        place, request_id, started = self._open
        try:
            answer = self._done(place, request_id, started, outcome)
        except Exception:
            self.force_close()
            raise
        self._write(answer)
        if self._held or self._unread:
            self._go_on()

    def _done(self, place: Place, request_id: str, started: float, outcome: Reply | Exception) -> bytes:
        edge = self._edge
        if isinstance(outcome, Exception):
            reply, unforeseen = edge.failed(place, request_id, outcome)
        else:
            reply, unforeseen = outcome, False
        status = reply.status
        if unforeseen:
            self._close = True
            place.meters.count(status)
        else:
            place.meters.answered(status, perf_counter() - started)
            if edge.access_log:
                edge.log_answered(place, request_id, status)
        if edge.draining:
            self._close = True
        return written(reply, request_id, closing=self._close)

    def _write_all(self, answers: list[bytes]) -> None:
        if answers:
            self._write(b"".join(answers))

    def _write(self, answer: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(answer)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._close:
            self._drop_held()
            self.force_close()  # after what was written has gone out

    def _hold(self, data: bytes) -> None:
        self._held.append((data, 0))
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES_MAX:
            self._unread = True
            self._pause_transport_reading()

    def _drop_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def _go_on(self) -> None:
        """Take what has waited, if nothing keeps it waiting any more."""
        while self._held and not self._answering and not self._paused and self._heads is not None:
            data, at = self._held.popleft()
            self._held_bytes -= len(data) - at
            self._take(self._heads, data, at)
        if self._unread and self._held_bytes < HELD_BYTES_MAX:
            self._unread = False
            if not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()

    def _is_gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()


def _as_it_is(reply: Reply) -> Reply:
    return reply
