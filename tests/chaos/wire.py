"""Wire: the driver's way to one node: kept-alive connections, one request at a time on each, as many as are needed.

Written for little CPU beside the nodes it loads. Never retries; a connection that broke is an answer like any other.
"""

from __future__ import annotations

import asyncio
from typing import cast

from tests.chaos.evidence import BROKEN, TIMED_OUT

TIMEOUT_S = 2.0
"""Longer than the 1.2 s within which a node must have answered."""


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reusable = True
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.head = b""
        """Of the latest answer, in lower case."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for the first request."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and give status and body of its answer; BROKEN when there is none."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Gather an answer."""
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"\r\ncontent-length: ")
        length = int(head[at + 18 :].split(b"\r", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        body, self._buffer = self._buffer[head_end + 4 :], b""
        self.head = head
        self.reusable = b"\r\nconnection: close" not in head
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """No answer will come."""
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((BROKEN, b""))

    def close(self) -> None:
        """Hang up."""
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()


class Node:
    """The way to one node."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.avoided = False
        self.passed_over_until = 0.0
        self._idle: list[Connection] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """POST JSON; gives status and body. BROKEN and TIMED_OUT are statuses, too."""
        status, answer, _ = await self.ask("POST", path, body)
        return status, answer

    async def get(self, path: str) -> tuple[int, bytes]:
        """GET."""
        status, body, _ = await self.ask("GET", path)
        return status, body

    async def ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes, bytes]:
        """Any request; gives status, body and the answer's head in lower case. `headers`: whole lines."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{headers}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return await self._ask(f"{head}\r\n".encode() + body)

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._idle:
            connection.close()

    async def _ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                connection = self._take() or await self._connect()
                status, body = await connection.ask(request)
        except TimeoutError:
            if connection is not None:
                connection.close()
            return TIMED_OUT, b"", b""
        except OSError:
            return BROKEN, b"", b""
        head = connection.head if status > BROKEN else b""
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return status, body, head

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return connection
