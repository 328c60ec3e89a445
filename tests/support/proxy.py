"""Proxy: stands between a store and its clients, notes what they send, and loses answers on demand.

Listens on a Unix socket of its own. Changes no byte; never reconnects for anybody.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.valkey import ValkeyServer

CHUNK_BYTES = 1 << 20


class Proxy:
    """A context manager. `heard` has what clients sent, as it was read, over all connections."""

    def __init__(self, server: ValkeyServer, socket_path: Path) -> None:
        self.url = f"unix://{socket_path}?db=0"
        self.heard: list[bytes] = []
        self.swallowing = False
        """While true, what the store answers goes nowhere."""
        self.delay_s = 0.0
        """How long everything is on its way, in each direction."""
        self._server = server
        self._path = socket_path
        self._listener: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(self._connected, self._path, limit=CHUNK_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        await asyncio.gather(*self._pumps)

    def cut(self) -> None:
        """Break every connection now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self._server.socket_path, limit=CHUNK_BYTES)
        self._writers |= {writer, forth}
        for pump in (self._forward(reader, forth), self._answer(back, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await _read(reader):
            self.heard.append(data)
            self._pass_on(writer, data)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await _read(reader):
            if not self.swallowing:
                self._pass_on(writer, data)
        writer.close()

    def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, writer.write, data)
        else:
            writer.write(data)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(CHUNK_BYTES)
    except ConnectionError:
        return b""
