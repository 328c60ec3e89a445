"""A webhook that costs next to nothing: `python -m tests.bench.sink_fast PORT` on uvloop, one protocol, no framework.

Counts requests and the messages in them, can hold its answers back and let them go, and can log what it got and
when. Steered over the same port by paths that start with `/_/`. Answers 200 to everything else; a GET is not counted.
What it counts and answers can be replaced (`tests/bench/evolution_fast.py`).
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

LOG_MAX = 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Received(Struct, frozen=True):
    """One logged request: when its last byte came (monotonic clock), its head and its body."""

    at: float
    head: bytes
    body: bytes


class Counts(Struct):
    """What came since the start, and how many requests wait for their answer."""

    requests: int = 0
    messages: int = 0
    held: int = 0


class Sink:
    """The state that all connections share."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.holding = False
        self.recording = False
        self.held: list[tuple[asyncio.Transport, bytes]] = []
        self.log: list[Received] = []
        self.latest = Received(0.0, b"", b"")
        self._awaited: list[tuple[int, asyncio.Transport]] = []

    def reply(self, head: bytes, body: bytes) -> bytes:
        """Count the messages of a request and give its answer."""
        self.counts.messages += header_number(head, b"X-Buffer-Size: ", 1)
        return OK

    def page(self, head: bytes) -> bytes:
        """What a GET is answered."""
        return OK

    def receive(self, transport: asyncio.Transport, head: bytes, body: bytes) -> None:
        """Count one request and answer it, now or later."""
        counts = self.counts
        counts.requests += 1
        reply = self.reply(head, body)
        if self.recording or counts.requests == 1:
            self.latest = Received(monotonic(), head, body)
            if self.recording and len(self.log) < LOG_MAX:
                self.log.append(self.latest)
        if self.holding:
            self.held.append((transport, reply))
            counts.held += 1
        else:
            transport.write(reply)
        if self._awaited:
            self._tell()

    def steer(self, transport: asyncio.Transport, path: str) -> None:
        """Do what a path under `/_/` says."""
        word, _, amount = path.partition("/")
        match word:
            case "wait":
                self._awaited.append((int(amount), transport))
                self._tell()
                return
            case "hold":
                self.holding = True
            case "release":
                self._release()
            case "record":
                self.recording = True
            case "log":
                return answer(transport, self.log)
            case "latest":
                return answer(transport, self.latest)
        answer(transport, self.counts)

    def _release(self) -> None:
        self.holding = False
        for transport, reply in self.held:
            transport.write(reply)
        self.held.clear()
        self.counts.held = 0

    def _tell(self) -> None:
        for waiting in [each for each in self._awaited if each[0] <= self.counts.messages]:
            self._awaited.remove(waiting)
            answer(waiting[1], self.counts)


class Connection(asyncio.Protocol):
    """Frames HTTP/1.1 requests with Content-Length; that is all our clients send."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, related by behaviour only

    def data_received(self, data: bytes) -> None:
        """Handle every whole request in what has come so far."""
        data = self._buffer + data if self._buffer else data
        while (head_end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:head_end]
            end = head_end + 4 + header_number(head, b"Content-Length: ", 0)
            if len(data) < end:
                break
            if head.startswith((b"GET /_/", b"POST /_/")):
                self._sink.steer(self._transport, head.split(b" ", 2)[1][3:].decode())
            elif head.startswith(b"GET "):
                self._transport.write(self._sink.page(head))
            else:
                self._sink.receive(self._transport, head, data[head_end + 4 : end])
            data = data[end:]
        self._buffer = data


def header_number(head: bytes, name: bytes, default: int) -> int:
    """The number in a header, given as `Name: `; exact case first because that is quick."""
    at = head.find(name)
    if at < 0:
        at = head.lower().find(name.lower())
    return int(head[at + len(name) :].split(b"\r", 1)[0]) if at >= 0 else default


def answer(transport: asyncio.Transport, document: object) -> None:
    """200 with a JSON document."""
    transport.write(json_answer(document))


def json_answer(document: object, status: str = "200 OK") -> bytes:
    """A whole answer with a JSON document."""
    body = msgspec.json.encode(document)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve(port: int, sink: Sink) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(sink), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Sink()))
