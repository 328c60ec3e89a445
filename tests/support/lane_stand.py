"""Lane stand: one server's connections without sockets, with the fast lane on or off, and all that can be seen of them.

The server is the real one; only the transport is a double, so that any bytes can arrive in any pieces and what follows
is always the same. The routes are of every shape that the lane serves, beside some that it must leave alone.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast
from weakref import ref

import msgspec
from aiohttp import web

from actors.ports import StoreAway
from actors.runtime.outcome import Tell, begin, ended_with
from router.edge.answer import ready
from router.edge.errors import NotFound
from router.edge.handlers import RunSoon, Soon, body_endpoint, endpoint, hot, key_endpoint
from router.edge.http import Edge
from router.edge.metrics import Metrics
from router.edge.server import EdgeRunner
from router.edge.usecase import BodyUseCase, Call, Reply, RequestHeaders, ToReply
from tests.support.doubles import JournalLines
from tests.support.virtual_time import ticks

BODY_BYTES_MAX = 2000
TURNS_MAX = 2000
_MADE_ID = re.compile(rb"req_[0-9a-f]{20}")
MADE = b"req_" + b"0" * 20
"""In the place of an id that is new each time, and as long."""
_DATE = re.compile(rb"Date: [^\r]*")


class Wire(asyncio.Transport):
    """What a connection writes to. `room` bytes may wait there before it is told to pause."""

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__()
        self.written = bytearray()
        self.waiting = 0
        self.room = room
        self.reading = True
        self.closed = False
        self._protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written += data
        before, self.waiting = self.waiting, self.waiting + len(data)
        if before <= self.room < self.waiting:
            self._protocol.pause_writing()

    def read_all(self) -> None:
        """The client reads what there is."""
        before, self.waiting = self.waiting, 0
        if before > self.room:
            self._protocol.resume_writing()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Lines(JournalLines):
    """A journal that keeps what is said at DEBUG too."""

    def debug(self, event: str, **fields: object) -> None:
        """A request was answered."""
        self.lines.append(("debug", event, fields))


class Seen(NamedTuple):
    """What can be seen of a connection from outside, and what its requests did."""

    answers: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]
    closed: bool
    calls: tuple[object, ...]
    counted: tuple[object, ...]
    logged: tuple[object, ...]


class Stand:
    """One server. `soon`: its POSTs, too, are answered by the lane without a task."""

    def __init__(self, *, fast_lane: bool, soon: bool = False, draining: bool = False) -> None:
        self._soon = soon
        self.calls: list[object] = []
        self.metrics = Metrics("0")
        self.log = Lines()
        self.edge = Edge(self.metrics, cast(Any, self.log), access_log=True)
        self.edge.draining = draining
        self.fast_lane = fast_lane
        self.lane_answers = 0
        self.prepared = 0
        """How many heads have been made ready for use cases that ask for something."""
        self.asked_with: list[ref[object]] = []
        """What answers were made with, where there was no task: gone when they are."""
        self._gate = asyncio.Event()
        self._runner: EdgeRunner
        self._counted_before: Counter[tuple[str, ...]] = Counter()

    async def open(self) -> Stand:
        """Start it, and let it learn its routes as any server does: from its first requests."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        router = app.router
        for path, use_case in (("/body", self._body), ("/gate", self._gated), ("/fails", self._fails)):
            router.add_post(path, hot(body_endpoint(use_case), soon=self._asked(use_case) if self._soon else None))
        one = "/keys/{key:(?s:.+)}"
        router.add_get("/keys/all", endpoint(self._call))
        router.add_get(one, hot(key_endpoint(self._key), lambda *of: partial(self._key_now, *of)))
        router.add_put(one, hot(key_endpoint(self._key)))
        router.add_get("/calls/{id}", hot(endpoint(self._call)))
        router.add_get("/now", hot(endpoint(self._call), lambda *of: partial(self._now, *of)))
        router.add_get("/cold", endpoint(self._call))
        router.add_post("/cold", endpoint(self._call))
        self._runner = EdgeRunner(app, self.edge, fast_lane=self.fast_lane)
        await self._runner.setup()
        said = self.edge.log_answered

        def counted(*words: Any) -> None:
            self.lane_answers += 1
            said(*words)

        self.edge.log_answered = counted  # type: ignore[method-assign,assignment]
        two = "HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"
        for path in ("/body", "/gate", "/fails", "/cold"):
            await self.connection().says(f"POST {path} {two}".encode())
        for path in ("/keys/a", "/keys/all", "/calls/a", "/now", "/cold"):
            await self.connection().says(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await self.connection().says(f"PUT /keys/a {two}".encode())
        self.open_gate()
        await settled()
        self._gate.clear()
        self.forget()
        return self

    def open_gate(self) -> None:
        """Let those who wait at `/gate` go on."""
        self._gate.set()

    def forget(self) -> None:
        """What was seen so far belongs to another test."""
        self.calls.clear()
        self.asked_with.clear()
        self.log.lines.clear()
        self.lane_answers = 0
        self._counted_before = self._counted()
        # One line a second says how many were put off: let it be the first one again.
        self.edge._try_later_logged_at, self.edge._try_later_unlogged = float("-inf"), 0

    def connection(self, room: int = 1 << 30) -> Connection:
        """Another one."""
        server = self._runner.server
        assert server is not None
        return Connection(self, cast(Any, server()), Wire(room))

    def seen(self, connection: Connection) -> Seen:
        """Of a stand whose only connection this was since `forget`."""
        return Seen(
            tuple(parsed(bytes(connection.wire.written))),
            connection.wire.closed,
            tuple(self.calls),
            tuple(sorted((self._counted() - self._counted_before).items())),
            tuple((level, phrase, _plain(facts)) for level, phrase, facts in self.log.lines),
        )

    async def close(self) -> None:
        """Stop it."""
        await self._runner.cleanup()

    def _counted(self) -> Counter[tuple[str, ...]]:
        families = (family for family in self.metrics.registry.collect() if family.name == "buzon_http_requests")
        samples = (sample for family in families for sample in family.samples)
        return Counter({tuple(sorted(sample.labels.values())): int(sample.value) for sample in samples})

    def _note(self, name: str, params: Mapping[str, str], body: bytes, headers: RequestHeaders) -> None:
        told = msgspec.to_builtins(headers)
        told["request_id"] = _MADE_ID.sub(MADE, headers.request_id.encode()).decode()
        told["trace"] = headers.trace[:35]  # our own span in it is new each time
        if params.get("key", "").startswith("near") or headers.path == "/now":
            told["request_id"] = told["trace"] = ""  # what is answered at once is not told of them
        if name in ("body", "gate", "fails"):
            told["request_id"] = ""  # what needs no task is not told of it
        self.calls.append((name, dict(params), body, tuple(sorted(told.items()))))

    def _asked(self, use_case: BodyUseCase) -> RunSoon:
        """The same use case as one that asks for something: some bodies fail when they ask, some when they answer, and
        some want to be run."""

        def soon(_params: Mapping[str, str], headers: RequestHeaders) -> Soon | None:
            self.prepared += 1
            return None if headers.idempotency_key else partial(ask, headers)

        def ask(headers: RequestHeaders, body: bytes, tell: Tell[Any]) -> ToReply[Reply]:
            fails = body if use_case == self._fails else b""

            def reply(outcome: Reply) -> Reply:
                if fails == b"late":
                    raise NotFound("no such thing", extra={"key": "k"})
                return outcome

            self.asked_with.append(ref(reply))
            loop = asyncio.get_running_loop()
            if fails in (b"away", b"late"):
                self._note("fails", {}, body, headers)
                if fails == b"away":
                    raise StoreAway("away")
                loop.call_soon(tell, Reply(200, b""))
            else:
                begin(loop, use_case(body, headers), lambda task: tell(ended_with(task)))
            return reply

        return soon

    async def _body(self, body: bytes, headers: RequestHeaders) -> Reply:
        self._note("body", {}, body, headers)
        for _ in range(len(body) % 4):
            await ticks(1)
        return Reply(200, b'{"got":%d}' % len(body), None, 'ETag: "x"\r\n')

    async def _gated(self, body: bytes, headers: RequestHeaders) -> Reply:
        self._note("gate", {}, body, headers)
        await self._gate.wait()
        return Reply(201, body, {"Location": "/here"})

    async def _fails(self, body: bytes, headers: RequestHeaders) -> Reply:
        self._note("fails", {}, body, headers)
        await ticks(1)
        match body:
            case b"away":
                raise StoreAway("away")
            case b"bug":
                raise KeyError("canary")
            case b"{}":
                return Reply(200, b"{}")
            case b"stop":
                raise asyncio.CancelledError
            case b"head":
                return Reply(200, b"{}", None, "X: \N{SNOWMAN}\r\n")
            case b"304":
                return Reply(304, b"", None, 'ETag: "x"\r\n')
            case _:
                raise NotFound("no such thing", extra={"key": "k"})

    async def _key(self, key: str, body: bytes, headers: RequestHeaders) -> Reply:
        self._note("key", {"key": key}, body, headers)
        await ticks(1)
        return self._shown(key)

    def _key_now(self, params: Mapping[str, str], headers: RequestHeaders) -> Reply | None:
        key = params["key"]
        if not key.startswith("near"):
            return None
        self._note("key", params, b"", headers)
        return self._shown(key)

    def _shown(self, key: str) -> Reply:
        if key.endswith("-gone"):
            raise NotFound("no such key", extra={"key": key})
        if key.endswith("-ready"):
            return ready(200, b'"ready"', 'ETag: "r"\r\n')
        if key.endswith("-long"):
            return Reply(200, b'"%b"' % (b"x" * 40_000))
        return Reply(200, b'{"key":"%b"}' % key.encode())

    async def _call(self, call: Call) -> Reply:
        self._note(
            "call",
            {**call.params, **{f"?{name}": value for name, value in call.query.items()}},
            call.body,
            call.headers,
        )
        await ticks(1)
        return Reply(200, b'{"gone":%b}' % (b"true" if call.is_gone() else b"false"), {"Cache-Control": "no-store"})

    def _now(self, _params: Mapping[str, str], headers: RequestHeaders) -> Reply:
        self._note("call", {}, b"", headers)
        return Reply(200, b'{"gone":false}', {"Cache-Control": "no-store"})


class Connection:
    """A client's end."""

    def __init__(self, stand: Stand, protocol: Any, wire: Wire) -> None:
        self.stand = stand
        self.protocol = protocol
        self.wire = wire
        wire.set_protocol(protocol)
        protocol.connection_made(wire)

    async def says(self, *pieces: bytes, at_once: bool = False) -> None:
        """Bytes arrive, each piece once all that came of those before has happened, or all in one turn."""
        await settled()
        for piece in pieces:
            if self.wire.closed:
                return
            self.protocol.data_received(piece)
            if not at_once:
                await settled()
        await settled()

    async def hangs_up(self) -> None:
        """The client goes."""
        self.wire.close()
        await settled()


async def settled() -> None:
    """Let everything happen that needs no time to pass."""
    ready = cast(Any, asyncio.get_running_loop())._ready
    for _ in range(TURNS_MAX):
        await ticks(1)
        if not ready:
            return
    raise AssertionError("it never comes to rest")


def parsed(stream: bytes) -> list[tuple[bytes, tuple[bytes, ...], bytes]]:
    """Answers one by one: status line, sorted header lines, body. What is new each time is left out. An answer
    that another one follows at once is one to HEAD."""
    answers: list[tuple[bytes, tuple[bytes, ...], bytes]] = []
    stream = _DATE.sub(b"Date: now", _MADE_ID.sub(MADE, stream))
    while stream:
        head, ended, rest = stream.partition(b"\r\n\r\n")
        if not ended:
            return [*answers, (stream, (), b"")]
        status, *lines = head.split(b"\r\n")
        named = {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in lines}
        length = 0 if rest.startswith(b"HTTP/1.") else int(named.get(b"content-length", b"0"))
        answers.append((status, tuple(sorted(b"%b: %b" % each for each in named.items())), rest[:length]))
        stream = rest[length:]
    return answers


def _plain(facts: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    told = {name: repr(value) for name, value in facts.items() if name != "exc_info"}
    return tuple(sorted((name, _MADE_ID.sub(MADE, text.encode()).decode()) for name, text in told.items()))
