"""Database: the sessions that this node has with PostgreSQL, each call with a deadline.

Owns an asyncpg pool. A session that broke is replaced by the next call that needs one; nothing is tried twice. What the
driver raises because of the server or the way to it becomes `DatabaseAway`; what it raises because of a mistake of ours
stays what it is. No line from here names a password.
Invariants: no session outlives its deadline on a server that hangs; the server ends a transaction of ours that waits
for a frozen node, so that it cannot hold up the numbering of events for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from actors.inventory_ports import DatabaseAway

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Session = PoolConnectionProxy[asyncpg.Record]

UNREADABLE = "an unreadable URL"
CONNECT_S = 1.0
COMMAND_S = 1.0
"""For whoever waits for an answer; getting a session is part of it."""
WORK_S = 2.0
"""For what moves events, and for operators."""
SESSIONS_MAX = 10
IDLE_SESSION_S = 60.0

LEAST_S = 0.05
"""Left for a statement that got its session late."""

_AWAY = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InternalServerError,  # corrupted data and the like
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
)

_UNREADABLE = (ValueError, ArithmeticError, AttributeError, LookupError)
"""What the driver raises when it cannot make sense of a URL, or of the environment and files that fill it in."""


class Database:
    """One database by its URL. `close` it at the end; it opens itself. One event loop."""

    def __init__(self, url: str, sessions_max: int = SESSIONS_MAX, command_s: float = WORK_S) -> None:
        self.place = place_of(url)
        """Where it is, for people: host, port and name, nothing else."""
        self._url = url
        self._sessions_max = sessions_max
        self._command_s = command_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    def __repr__(self) -> str:
        return f"Database({self.place})"

    async def rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one statement and give its rows."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._command_s
        async with self.session() as session:
            return await session.fetch(statement, *arguments, timeout=max(ends_at - loop.time(), LEAST_S))

    async def row(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        """Run one statement and give its first row, if there is one."""
        rows = await self.rows(statement, *arguments)
        return rows[0] if rows else None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session of one's own for as long as the block lasts. Its calls have the usual deadline each."""
        with self.translated():
            pool, session = await self._acquired()
            try:
                yield session
            except TimeoutError:
                session.terminate()  # asking a server that hangs to cancel would hang as well
                raise
            finally:
                await pool.release(session, timeout=CONNECT_S)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A session in a transaction: committed at the end of the block, undone by an exception."""
        async with self.session() as session, session.transaction(isolation="read_committed"):
            yield session

    async def close(self) -> None:
        """End all sessions, those that are at work as well."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Say `DatabaseAway` for whatever the driver raises because of the server."""
        try:
            yield
        except asyncpg.DataError:  # an InterfaceError, and ours
            raise
        except _AWAY as error:
            raise DatabaseAway(f"PostgreSQL at {self.place}: {_reason(error)}") from error

    async def _acquired(self) -> tuple[asyncpg.Pool[asyncpg.Record], Session]:
        try:
            pool = await self._opened()
            return pool, await pool.acquire(timeout=CONNECT_S)
        except _UNREADABLE as error:  # its words may quote the URL
            kind = type(error).__name__
            raise DatabaseAway(f"PostgreSQL at {self.place}: its URL cannot be used ({kind})") from None

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            # Makes no session yet, so nothing here waits and nobody else can come in between.
            self._pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._sessions_max,
                max_inactive_connection_lifetime=IDLE_SESSION_S,
                timeout=CONNECT_S,
                command_timeout=self._command_s,
                server_settings=_session_settings(self._command_s),
                reset=_nothing,  # our statements leave nothing behind in a session; asking costs a round trip
            )
            await self._pool
        return self._pool


def place_of(url: str) -> str:
    """Where a PostgreSQL URL leads, without account and password."""
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ["localhost"]))
    except ValueError:
        return UNREADABLE
    if "#" in url or "@" in parts.path + parts.query:  # a password may have been cut there
        return UNREADABLE
    return f"{unquote(hosts)}{unquote(parts.path)}"


def _session_settings(command_s: float) -> dict[str, str]:
    """Sent with the greeting, so that they hold from the first statement on. PgBouncer must be told to ignore them."""
    return {
        "application_name": "buzon",
        "default_transaction_isolation": "read committed",
        "statement_timeout": f"{command_s:g}s",
        "idle_in_transaction_session_timeout": f"{command_s:g}s",
    }


async def _nothing(_session: object) -> None:
    await asyncio.sleep(0)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncpg.UndefinedTableError):
        return "its tables are missing (buzon migrate)"
    if isinstance(error, asyncpg.UndefinedColumnError):
        return "its tables are not of this version (buzon migrate)"
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def values(row: asyncpg.Record) -> dict[str, Any]:
    """A row as the keyword arguments of a Struct with the same fields."""
    return dict(row.items())
