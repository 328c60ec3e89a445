"""Sink: a webhook receiver that writes down what arrives and misbehaves on demand.

Runs inside a test (`async with Sink() as sink`) or as a process of its own (`python -m tests.support.sink`, which
prints its URL and keeps a JSON line per request in `--log`). Listens on loopback only.
What it answers, in this order: `sink.next(…)` for whoever comes next, `sink.on(path, …)`, the language of paths in
`behaviours.behaviour_of`, else 200 and `{"ok":true}`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from msgspec import Struct

from tests.support.behaviours import Behaviour, Drip, Flood, GzipBomb, Hang, Raw, Reply, Reset, behaviour_of
from tests.support.until import NeverHappened

__all__ = ["Drip", "Flood", "GzipBomb", "Hang", "Raw", "Received", "Reply", "Reset", "Sink"]

FLOOD_CHUNK = b"x" * 65536
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
REQUEST_BYTES_MAX = 64 * 1024 * 1024
CLOSE_WITH_RST = struct.pack("ii", 1, 0)
"""SO_LINGER on with 0 seconds: close() drops what is unsent and sends RST."""


class Received(Struct, frozen=True, kw_only=True):
    """One request. `headers` by lower-case name, repeated ones joined by a comma; `connection` counts from 1."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    raw_headers: list[tuple[str, str]]
    body: bytes
    connection: int


class Sink:
    """The receiver. `minimal` counts and always answers 200, for benchmarks; without `keep` only the log remembers."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        minimal: bool = False,
        log: Path | None = None,
        tls: ssl.SSLContext | None = None,
        keep: bool = True,
    ) -> None:
        self.requests: list[Received] = []
        self.count = 0
        self.connections = 0
        self.open_connections = 0
        self.minimal = minimal
        self.resets_left = 0
        self._next: deque[Behaviour] = deque()
        self._scripts: dict[str, deque[Behaviour]] = {}
        self._turns: dict[str, int] = {}
        self._host = host
        self._port = port
        self._tls = tls
        self._keep = keep
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else None
        self._server: asyncio.Server | None = None
        self._live: set[_Connection] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen; `address` and `url` are known from here on."""
        loop = asyncio.get_running_loop()
        make: Callable[[], asyncio.Protocol] = lambda: (_Fast if self.minimal else _Connection)(self)  # noqa: E731
        self._server = await loop.create_server(make, self._host, self._port, backlog=1024, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)  # what was just being accepted is a connection now
            while self._live:
                for connection in tuple(self._live):
                    connection.cut()
                await asyncio.sleep(0)
            await self._server.wait_closed()
        if self._log is not None:
            os.close(self._log)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._host, self._port

    def url(self, path: str = "/hook") -> str:
        """The address of a path here."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}{path}"

    def next(self, *behaviours: Behaviour) -> None:
        """Script the next requests, whatever their path."""
        self._next.extend(behaviours)

    def on(self, path: str, *behaviours: Behaviour) -> None:
        """Script one path (without its query): one behaviour a request, the last one for ever."""
        self._scripts[path] = deque(behaviours)

    def reset_connections(self, count: int) -> None:
        """Answer the next `count` connections with RST, before anything is read."""
        self.resets_left = count

    async def wait_for_requests(self, count: int, deadline_s: float = 5.0) -> list[Received]:
        """Wait until `count` requests have come in all, and give them; NeverHappened after `deadline_s`."""
        await self._wait(lambda: self.count >= count, deadline_s, f"{count} requests")
        return self.requests

    async def wait_for_connections(self, count: int, deadline_s: float = 5.0) -> None:
        """Wait until `count` connections have been accepted in all."""
        await self._wait(lambda: self.connections >= count, deadline_s, f"{count} connections")

    async def wait_until_idle(self, deadline_s: float = 5.0) -> None:
        """Wait until no connection is open."""
        await self._wait(lambda: self.open_connections == 0, deadline_s, "no open connection")

    async def _wait(self, happened: Callable[[], bool], deadline_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                while not happened():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            seen = f"{self.count} requests on {self.connections} connections, {self.open_connections} open"
            raise NeverHappened(f"{what} not within {deadline_s:g} s; seen: {seen}") from None

    def connected(self, connection: _Connection) -> None:
        """A connection opened."""
        self._live.add(connection)
        self.connections += 1
        self.open_connections += 1
        self._changed.set()

    def disconnected(self, connection: _Connection) -> None:
        """A connection ended."""
        self._live.discard(connection)
        self.open_connections -= 1
        self._changed.set()

    def take(self, request: Received) -> Behaviour:
        """Write a request down and say how to answer it."""
        if self._keep:
            self.requests.append(request)
        self.count += 1
        if self._log is not None:
            os.write(self._log, _line(request))
        self._changed.set()
        return self._behaviour(request.path)

    def answered(self, connection: int, status: int, *, whole: bool) -> None:
        """Connection `connection` was answered; `whole` is false when the answer never ends well."""

    def counted(self, requests: int) -> None:
        """Count requests that nobody wants to look at."""
        self.count += requests
        self._changed.set()

    def peek(self, path: str) -> Behaviour:
        """What the next request of this path gets, without using it up."""
        script = self._scripts.get(path.partition("?")[0])
        if self._next:
            return self._next[0]
        return script[0] if script else behaviour_of(path, self._turns.get(path, 0))

    def _behaviour(self, path: str) -> Behaviour:
        chosen = self.peek(path)
        script = self._scripts.get(path.partition("?")[0])
        if self._next:
            self._next.popleft()
        elif script is None:
            self._turns[path] = self._turns.get(path, 0) + 1
        elif len(script) > 1:
            script.popleft()
        return chosen


class _Connection(asyncio.Protocol):
    """One connection: reads requests one after the other, acts each one out before it looks at the next."""

    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._acting = False
        self._timer: asyncio.TimerHandle | None = None
        self._flood_left = 0
        self._writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it if that is the script."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._sink.connected(self)
        self._number = self._sink.connections
        if self._sink.resets_left:
            self._sink.resets_left -= 1
            self._reset()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and whatever was to be written to it."""
        self._sink.disconnected(self)
        self._flood_left = 0
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """End it now."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Gather bytes until a request is complete."""
        self._buffer += data
        if len(self._buffer) > REQUEST_BYTES_MAX:
            self.cut()
        elif not self._acting:
            self._look()

    def _look(self) -> None:
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = CONTENT_LENGTH.search(self._buffer, 0, head_end + 2)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < end and self._sink.peek(_path(self._buffer)) != Reset():
            return
        request = _parse(self._buffer[:head_end], self._buffer[head_end + 4 : end], self._number)
        self._buffer = self._buffer[end:]
        self._acting = True
        self._act(self._sink.take(request))

    def _act(self, behaviour: Behaviour) -> None:
        match behaviour:
            case Reply(delay_s=delay_s) if delay_s:
                self._later(delay_s, lambda: self._reply(behaviour))
            case Reply():
                self._reply(behaviour)
            case Hang():
                pass
            case Drip(part="head"):
                self._drip(f"HTTP/1.1 {behaviour.status} OK\r\nX-Slow: ".encode(), behaviour.every_s)
            case Drip():
                self.transport.write(_head(behaviour.status, (("Content-Length", "1000000"),)))
                self._sink.answered(self._number, behaviour.status, whole=False)
                self._drip(b"", behaviour.every_s)
            case Reset("request"):
                self._reset()
            case Reset():
                self.transport.write(_head(200, (("Content-Length", "100"),)) + b"only so much")
                self._sink.answered(self._number, 200, whole=False)
                self._later(0.02, self._reset)  # lets the bytes before the RST arrive: RST overtakes what is unread
            case Flood(size_bytes):
                self.transport.write(_head(200, (("Content-Length", str(size_bytes)),)))
                self._sink.answered(self._number, 200, whole=False)
                self._flood_left = size_bytes
                self._flood()
            case GzipBomb(inflated_bytes):
                body = _bomb(inflated_bytes)
                self._reply(Reply(headers=(("Content-Encoding", "gzip"),), body=body))
            case Raw(data, close):
                self.transport.write(data)
                if close:
                    self.transport.close()

    def _reply(self, reply: Reply) -> None:
        ending = (("Connection", "close"),) if reply.close else ()
        length = () if reply.status == HTTPStatus.NO_CONTENT else (("Content-Length", str(len(reply.body))),)
        body = b"" if reply.status == HTTPStatus.NO_CONTENT else reply.body
        if self.transport.is_closing():
            return
        self.transport.write(_head(reply.status, (*reply.headers, *length, *ending)) + body)
        self._sink.answered(self._number, reply.status, whole=True)
        if reply.close:
            self.transport.close()
            return
        self._acting = False
        if self._buffer:
            self._look()

    def _drip(self, first: bytes, every_s: float) -> None:
        self.transport.write(first[:1] or b"x")
        self._later(every_s, lambda: self._drip(first[1:], every_s))

    def _flood(self) -> None:
        while self._flood_left > 0 and not self._writing_paused and not self.transport.is_closing():
            self.transport.write(FLOOD_CHUNK[: self._flood_left])
            self._flood_left -= len(FLOOD_CHUNK)

    def pause_writing(self) -> None:
        """Their buffers are full."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """They read on."""
        self._writing_paused = False
        self._flood()

    def _reset(self) -> None:
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RST)
        self.transport.abort()

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, act)


class _Fast(_Connection):
    """The minimal mode: count, answer, next."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    def data_received(self, data: bytes) -> None:
        """Answer every complete request in the buffer with one write."""
        buffer = self._buffer + data if self._buffer else data
        start = answered = 0
        while (head_end := buffer.find(b"\r\n\r\n", start)) >= 0:
            length = CONTENT_LENGTH.search(buffer, start, head_end + 2)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if end > len(buffer):
                break
            start, answered = end, answered + 1
        self._buffer = buffer[start:]
        if answered:
            self._sink.counted(answered)
            self.transport.write(self.ANSWER * answered)


def _path(head: bytes) -> str:
    return head.split(b" ", 2)[1].decode("latin-1")


def _head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _parse(head: bytes, body: bytes, connection: int) -> Received:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers: dict[str, str] = {}
    for name, value in pairs:
        plain = name.lower()
        headers[plain] = f"{headers[plain]}, {value}" if plain in headers else value
    return Received(
        at=time.time(),
        method=method,
        path=path,
        headers=headers,
        raw_headers=pairs,
        body=body,
        connection=connection,
    )


def _line(request: Received) -> bytes:
    try:
        body = {"body": request.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(request.body).decode()}
    facts = {
        "at": request.at,
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "sha256": hashlib.sha256(request.body).hexdigest(),
        "connection": request.connection,
    }
    return json.dumps(facts | body).encode() + b"\n"


@lru_cache(maxsize=4)
def _bomb(inflated_bytes: int) -> bytes:
    deflater = zlib.compressobj(wbits=31)
    zeros = bytes(1024 * 1024)
    packed = b"".join(deflater.compress(zeros) for _ in range(inflated_bytes // len(zeros)))
    return packed + deflater.flush()


async def _serve(sink: Sink) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with sink:
        print(sink.url(""), flush=True)
        await stopped.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, help="append one JSON line per request to this file")
    parser.add_argument("--minimal", action="store_true", help="count only, always 200: for benchmarks")
    chosen = parser.parse_args()
    asyncio.run(_serve(Sink(port=chosen.port, minimal=chosen.minimal, log=chosen.log, keep=False)))


if __name__ == "__main__":
    main()
