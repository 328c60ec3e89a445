"""Monitor: what each node makes the store write, read from the store's own MONITOR on a connection of its own.

A script's writes follow its call in the stream, so what a fence refused is told apart from what was applied.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from msgspec import Struct

from actors.adapters.valkey.scripts import CACHE_NAMES, NAMES, load_all

LINE_BYTES_MAX = 64 * 1024 * 1024
LINE = re.compile(
    rb"\+[0-9.]+ \[\d+ (?:lua|127\.0\.0\.1:(?P<port>\d+)|[^\]]*)\]"
    rb' "(?P<command>[^"]*)"(?: "(?P<first>[^"]*))?'
)
WRITES = frozenset(
    b"append copy decr decrby del expire expireat getdel getex getset hdel hincrby hmset hset hsetnx incr incrby"
    b" linsert lmove lpop lpush lrem lset ltrim mset pexpire pexpireat persist psetex rename restore rpop rpush sadd"
    b" set setex setnx spop srem unlink xadd xdel xtrim zadd zincrby zpopmax zpopmin zrem zremrangebyrank"
    b" zremrangebyscore".split()
)


class Write(Struct, frozen=True, kw_only=True):
    """Something was written. `port` is the client's, as the store sees it; `script` "" for a plain command."""

    at: float
    port: int
    script: str
    command: str
    key: str


class Monitor:
    """Listens as long as the block lasts; `writes` is complete when it is left."""

    def __init__(self, store_socket: Path) -> None:
        self.writes: list[Write] = []
        self._path = store_socket
        self._names = {script.sha.encode(): script.name for script in load_all((*NAMES, *CACHE_NAMES)).values()}
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter
        self._port = 0
        self._script = ""

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_unix_connection(self._path, limit=LINE_BYTES_MAX)
        self._writer.write(b"MONITOR\r\n")
        assert await reader.readline() == b"+OK\r\n"
        self._task = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._writer.close()
        assert self._task is not None
        await self._task

    def hear(self, line: bytes) -> None:
        """One line of the stream."""
        match = LINE.match(line)
        if match is None:
            return
        command = match["command"].lower()
        first = match["first"] or b""
        in_script = b" lua] " in line[:64]
        if not in_script:
            self._port = int(match["port"] or 0)
            self._script = self._names.get(first, "?") if command in (b"evalsha", b"eval") else ""
        if command in WRITES:
            script = self._script if in_script else ""
            key = first.decode("latin-1")
            command_name = command.decode()
            self.writes.append(Write(at=monotonic(), port=self._port, script=script, command=command_name, key=key))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.hear(line)
