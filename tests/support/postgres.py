"""A real PostgreSQL for tests: the embedded engine, and a database with the inventory's tables for each test.

Owns one engine and its folder for as long as a test worker lives. Databases are copies of one that was migrated once,
and clusters of one that was made once, which takes a hundredth and a tenth of the time; they go with their folders.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from actors.adapters.postgres.embedded import EmbeddedPostgres
from actors.adapters.postgres.schema import migrate

T = TypeVar("T")
TEMPLATE = "plantilla"


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

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)


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
            self._run(self._make_template())
        except BaseException:
            self.close()
            raise

    def url_of(self, database: str) -> str:
        """The URL of a database of this engine."""
        return urlunsplit(urlsplit(self.engine.url)._replace(path=f"/{database}"))

    def new_database(self, template: str = TEMPLATE) -> str:
        """Make a database of its own for somebody, with the inventory's empty tables; gives its URL."""
        name = next(self._names)
        self._run(self._execute(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return self.url_of(name)

    def close(self) -> None:
        """End the engine at once, since a checkpoint would write out all these databases, and remove its folder."""
        self._run(self.engine.stop(within_s=0))
        self._loop.close()
        shutil.rmtree(self.directory)

    async def _make_template(self) -> None:
        await self._execute(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.url_of(TEMPLATE))

    async def _execute(self, statement: str) -> None:
        session = await asyncpg.connect(self.engine.url)
        try:
            await session.execute(statement)
        finally:
            await session.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)
