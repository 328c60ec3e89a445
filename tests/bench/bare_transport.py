"""The floor under the channels: `python -m tests.bench.bare_transport PORT` writes prebuilt frames to bare transports.

On uvloop, without a framework, a store or a check: whoever asks for /ws is a subscriber, and the body of every POST is
the text of a frame that all subscribers get. What is posted within one tick of the loop goes out as one write.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from tests.bench.channel_frames import text_frame

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
) + text_frame(b'{"type":"subscribed"}')
"""The key is always the same one of the RFC."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Room:
    """All subscribers, and what goes out at the end of this tick."""

    def __init__(self) -> None:
        self.subscribers: set[asyncio.Transport] = set()
        self._pending: list[bytes] = []

    def publish(self, payload: bytes) -> None:
        """Send to everyone with whatever else comes in this tick."""
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(text_frame(payload))

    def _flush(self) -> None:
        block = b"".join(self._pending)
        self._pending.clear()
        for transport in self.subscribers:
            transport.write(block)


class Connection(asyncio.Protocol):
    """Takes requests that come whole or in parts, one after the other."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody has gone."""
        self._room.subscribers.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        data = self._buffer + data
        head, ends, rest = data.partition(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0] or 0)
        if not ends or len(rest) < size:
            self._buffer = data
            return
        self._buffer = b""
        if head.startswith(b"GET /ws"):
            self._room.subscribers.add(self._transport)
            self._transport.write(UPGRADED)
            return
        if size:
            self._room.publish(rest)
        self._transport.write(ANSWER)


async def serve(port: int) -> None:
    """Serve until killed."""
    room = Room()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(room), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
