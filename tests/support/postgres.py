"""A real PostgreSQL for tests: the embedded engine, and a database with the inventory's tables that are empty.

Owns one engine and its folder for as long as a test worker lives. A database for each test would take the machine's
disk more than all tests together: one is emptied instead, of its sessions as well.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from actors.adapters.postgres.embedded import EmbeddedPostgres
from actors.adapters.postgres.schema import migrate
from tests.support.until import until
from tests.support.workers import alive, children

T = TypeVar("T")
MIGRATED = "inventario"
EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DROP TABLE IF EXISTS inventario_resumen_nuevo;
DELETE FROM inventario; DELETE FROM eventos; DELETE FROM inventario_resumen; DELETE FROM relevo; DELETE FROM proyeccion;
INSERT INTO relevo DEFAULT VALUES; INSERT INTO proyeccion DEFAULT VALUES;
SELECT setval(pg_get_serial_sequence(name, 'id'), 1, false)
FROM unnest(ARRAY['inventario', 'lineas_inventario', 'eventos']) AS name;
"""


class MadeCluster:
    """The folder of an engine that was started once and stopped: others begin with a copy of it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="buzon-pg-", dir="/tmp"))
        self.engine = EmbeddedPostgres(self.directory)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self.engine.start())
        finally:
            loop.run_until_complete(self.engine.stop())
            loop.close()

    def copy_to(self, data_dir: Path) -> None:
        """Give a node's folder a cluster, with owners and rights as they are."""
        target = data_dir / "postgres"
        target.mkdir(mode=0o700, parents=True)
        subprocess.run(  # noqa: S603  our own folders
            ["cp", "-a", "--reflink=auto", self.engine.cluster, target / "data"],  # noqa: S607  any cp will do
            check=True,
        )

    @asynccontextmanager
    async def running(self, data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
        """An engine of one test's own, on such a copy, to be killed or frozen."""
        self.copy_to(data_dir)
        engine = EmbeddedPostgres(data_dir)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop(within_s=0)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)


async def kill9(engine: EmbeddedPostgres) -> None:
    """End it as a crash would, for good: its sessions answer on until they notice, a moment after it is gone."""
    assert engine.pid is not None
    sessions = list(children(engine.pid))
    os.kill(engine.pid, signal.SIGKILL)
    await engine.wait_exit()
    await until(lambda: not alive(sessions), what="an engine without sessions")


class PostgresServer:
    """A running engine. Used from fixtures that are not coroutines, so it brings a loop of its own."""

    def __init__(self, made: MadeCluster) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="buzon-pg-", dir="/tmp"))
        self.engine = EmbeddedPostgres(self.directory)
        made.copy_to(self.directory)
        self._loop = asyncio.new_event_loop()
        self._names = (f"test_{number}" for number in count())
        try:
            self._run(self.engine.start())
            self._run(_execute(self.engine.url, f"CREATE DATABASE {MIGRATED}"))
            self._run(migrate(self.url_of(MIGRATED)))
        except BaseException:
            self.close()
            raise

    def url_of(self, database: str) -> str:
        """The URL of a database of this engine."""
        return urlunsplit(urlsplit(self.engine.url)._replace(path=f"/{database}"))

    def emptied(self) -> str:
        """The database with the inventory's tables, emptied; gives its URL."""
        url = self.url_of(MIGRATED)
        self._run(_execute(url, EMPTY))
        return url

    def new_database(self, encoding: str = "UTF8") -> str:
        """Make a database without tables; gives its URL."""
        name = next(self._names)
        more = "" if encoding == "UTF8" else f"TEMPLATE template0 ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C'"
        self._run(_execute(self.engine.url, f"CREATE DATABASE {name} {more}"))
        return self.url_of(name)

    def close(self) -> None:
        """End the engine at once, since a checkpoint would write out what is thrown away, and remove its folder."""
        self._run(self.engine.stop(within_s=0))
        self._loop.close()
        shutil.rmtree(self.directory)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)


async def _execute(url: str, statements: str) -> None:
    session = await asyncpg.connect(url)
    try:
        await session.execute(statements)
    finally:
        await session.close()
