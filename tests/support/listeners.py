"""Listeners: a real edge with the three ways to listen, over channels in memory, and raw clients to talk to it.

`talk` opens a connection whose bytes are the test's own; `RawSocket` reads frames one by one and answers nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from actors.ports import Counter, Gauge
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from router.realtime.hall import Realtime
from router.realtime.limits import RealtimeLimits
from router.realtime.routes import register
from tests.support.doubles import Tally
from tests.support.edge import EdgeServer
from tests.support.memory_service import MemoryService

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class RealtimeTallies:
    """Meters that can be read."""

    def __init__(self) -> None:
        self.connections: Gauge = Tally()
        self.channel_slow: Counter = Tally()


class Place:
    """A running edge, its hall and its channels."""

    def __init__(self, limits: RealtimeLimits) -> None:
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop.time, loop.call_at)
        self.crashes: list[BaseException] = []
        self.supervisor = Supervisor(clock, lambda _phrase, _name, error: self.crashes.append(error), print)
        self.service = MemoryService()
        self.meters = RealtimeTallies()
        self.hall = Realtime(self.service, self.supervisor, clock, self.meters, lambda: 0.5, limits)
        self.server = EdgeServer(lambda app: register(app, self.hall))

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self.server.port is not None
        return self.server.port


@asynccontextmanager
async def place(**limits: Any) -> AsyncIterator[Place]:
    """A running edge whose limits are the usual ones but for these."""
    opened = Place(RealtimeLimits(**limits))
    async with opened.server:
        try:
            yield opened
        finally:
            await opened.hall.drain(0.0, 0.0)
            await opened.supervisor.stop()
    assert not opened.crashes


class RawSocket:
    """A WebSocket that does nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def say(self, value: object) -> None:
        """Send a JSON frame."""
        self.write(frame(TEXT, value if isinstance(value, bytes) else msgspec.json.encode(value)))

    async def read(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload."""
        first, size = await self.reader.readexactly(2)
        assert first & 0x70 == 0, "reserved bits"
        assert size & 0x80 == 0, "a server does not mask"
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def hear(self) -> Any:
        """The next message, as JSON; whatever is no message fails."""
        opcode, payload = await self.read()
        assert opcode == TEXT, (opcode, payload)
        return msgspec.json.decode(payload)

    async def closed(self) -> tuple[int, str]:
        """The next frame is the last one: its code and reason."""
        while True:
            opcode, payload = await self.read()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame."""
    mask = os.urandom(4)
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if size < 1 << 16 else _masked(payload, mask)
    return bytes([(0x80 if fin else 0) | opcode]) + length + mask + masked


def _masked(payload: bytes, mask: bytes) -> bytes:
    repeated = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ repeated).to_bytes(len(payload), "big")


def upgrade(path: str, *lines: str) -> bytes:
    """A request that asks for a WebSocket."""
    head = (
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *lines,
    )
    return "\r\n".join((*head, "", "")).encode()


@asynccontextmanager
async def talk(port: int, first: bytes = b"", *, receive_bytes: int = 0) -> AsyncIterator[RawSocket]:
    """A connection on which these bytes were sent first. `receive_bytes` bounds the kernel's buffer."""
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    raw = RawSocket(*await asyncio.open_connection(sock=sock, limit=1 << 16))
    if first:
        raw.write(first)
    try:
        yield raw
    finally:
        await raw.close()


@asynccontextmanager
async def listening(port: int, path: str, *lines: str, receive_bytes: int = 0) -> AsyncIterator[RawSocket]:
    """A WebSocket whose handshake is done."""
    async with talk(port, upgrade(path, *lines), receive_bytes=receive_bytes) as raw:
        raw.head = await raw.reader.readuntil(b"\r\n\r\n")
        assert raw.head.startswith(b"HTTP/1.1 101 "), raw.head
        assert ACCEPT in raw.head
        yield raw
