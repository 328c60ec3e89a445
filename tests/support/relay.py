"""Relay: a TCP port that passes everything on to another, until a test cuts it.

Changes no byte. `cut` breaks every connection, and new ones are closed at once until `mend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.support.until import until
from tests.support.virtual_time import ticks

CHUNK_BYTES = 1 << 16


class Relay:
    """Stands in front of a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = True
        self._passing = 0
        """Connections that have not come to their end on both sides."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    def cut(self) -> None:
        """Break every connection; none gets through."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Let connections through again."""
        self._open = True

    async def close(self) -> None:
        """Stop; nothing of any connection is left then."""
        self.cut()
        assert self._server is not None
        self._server.close()
        await ticks()  # who was let in at the last moment has begun
        await until(lambda: not self._passing, what="all connections are gone")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passing += 1
        self._writers.add(writer)
        try:
            await self._pass_on(reader, writer)
        finally:
            await self._end(writer)
            self._passing -= 1

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(forth)
        if not self._open:
            forth.transport.abort()
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, forth))
                pumps.create_task(self._pump(back, writer))
        finally:
            await self._end(forth)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._writers.discard(writer)


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    """A relay for one test."""
    relay = Relay(port)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.close()
