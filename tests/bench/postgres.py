"""PostgreSQL for a benchmark: the embedded engine beside the server under test, its databases, and what it costs.

Owns the engine and its folder's content. Everything of it runs on the cores it is given: the sessions come from the
postmaster and stay where that is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from actors.adapters.postgres.embedded import EmbeddedPostgres
from tests.bench.readings import cpu_s, reaped_cpu_s
from tests.support.workers import children


class PostgresEngine:
    """One engine. `close` ends it and writes out nothing: it is thrown away."""

    def __init__(self, directory: Path, cores: Sequence[int]) -> None:
        self._engine = EmbeddedPostgres(directory)
        self._cores = cores

    async def start(self) -> None:
        """Make the cluster and start."""
        await self._engine.start()
        for pid in (self._pid, *children(self._pid)):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(pid, self._cores)

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return urlunsplit(urlsplit(self._engine.url)._replace(path=f"/{database}"))

    async def database(self, name: str, template: str = "template1") -> str:
        """Make a database, as a copy of another one in which nobody works; gives its URL."""
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url_of(name)

    async def drop(self, name: str) -> None:
        """Remove a database, and what it would still write to the disk; ends its sessions."""
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def cpu_s(self) -> float:
        """User + system time of all its processes since its start, of sessions that have ended as well."""
        total = cpu_s(self._pid) + reaped_cpu_s(self._pid)
        for pid in children(self._pid):
            with suppress(FileNotFoundError):  # a session that has just ended
                total += cpu_s(pid)
        return total

    async def close(self) -> None:
        """End it at once."""
        await self._engine.stop(within_s=0)

    async def _execute(self, statement: str) -> None:
        session = await asyncpg.connect(self._engine.url)
        try:
            await session.execute(statement)
        finally:
            await session.close()

    @property
    def _pid(self) -> int:
        pid = self._engine.pid
        assert pid is not None, "the engine has ended"
        return pid
