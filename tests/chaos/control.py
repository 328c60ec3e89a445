"""Control: how the harness steers its helper processes: one JSON line each way over a Unix socket.

A desk offers its methods named `do_…`; what they return goes back. A helper ends when the harness hangs up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

LINE_BYTES_MAX = 16 * 1024 * 1024


async def serve(desk: object, path: Path) -> None:
    """Serve one caller until it hangs up. The socket has its name when it listens, not before."""
    over = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(msgspec.json.encode(await _answer(desk, line)) + b"\n")
        writer.close()
        over.set()

    unborn = path.with_name(path.name + "~")
    server = await asyncio.start_unix_server(connected, unborn, limit=LINE_BYTES_MAX)
    unborn.rename(path)
    await over.wait()
    server.close()


async def _answer(desk: object, line: bytes) -> dict[str, object]:
    request = msgspec.json.decode(line)
    try:
        return {"is": await getattr(desk, f"do_{request.pop('do')}")(**request)}
    except (OSError, ValueError, KeyError, AssertionError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


class Refused(Exception):
    """The helper could not do it, and says why."""


class Remote:
    """The harness' end. Requests are answered one after the other."""

    def __init__(self, last_words: Callable[[], str]) -> None:
        self._last_words = last_words
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._turn = asyncio.Lock()

    async def connect(self, path: Path) -> None:
        """Call a helper that listens."""
        self._reader, self._writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)

    async def ask(self, what: str, /, *, within_s: float = 10.0, **words: object) -> Any:
        """Have something done and give what comes of it. Raises Refused, TimeoutError, ConnectionError."""
        async with self._turn, asyncio.timeout(within_s):
            self._writer.write(msgspec.json.encode({"do": what, **words}) + b"\n")
            line = await self._reader.readline()
        if not line:
            raise ConnectionError(f"the helper has ended: {self._last_words()}")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["is"]

    def hang_up(self) -> None:
        """Let the helper end."""
        self._writer.close()
