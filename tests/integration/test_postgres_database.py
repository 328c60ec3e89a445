"""The sessions with PostgreSQL: deadlines, coming back by themselves, and what they say."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import traceback
from pathlib import Path
from time import monotonic

import asyncpg
import pytest

from actors.adapters.postgres.database import CONNECT_S, WORK_S, Database, place_of
from actors.adapters.postgres.embedded import EmbeddedPostgres
from actors.inventory_ports import DatabaseAway
from tests.support.inventory_rig import Inventory, opened
from tests.support.postgres import MadeCluster, kill9
from tests.support.until import until

SLACK_S = 0.7
HIDDEN = "s3cr%25et"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"postgresql://ana:{HIDDEN}@db.example:5433/stock", "db.example:5433/stock"),
        (f"postgresql://ana:{HIDDEN}@/stock?host=/run/pg", "/run/pg/stock"),
        (f"postgresql://ana:{HIDDEN}@a:1,b:2/stock?password={HIDDEN}", "a:1,b:2/stock"),
        (f"postgresql://ana:{HIDDEN}@[::1/stock", "an unreadable URL"),
        (f"postgresql://ana:{HIDDEN}#x@db/stock", "an unreadable URL"),
        (f"postgresql://ana:{HIDDEN}/x@db/stock", "an unreadable URL"),
        (f"postgresql://ana:{HIDDEN}?x@db/stock", "an unreadable URL"),
    ],
)
def test_it_shows_where_it_leads_and_no_password(url: str, place: str) -> None:
    """In lines for people and in tracebacks alike."""
    assert place_of(url) == place
    assert HIDDEN not in repr(Database(url))


@pytest.mark.parametrize("wrong", ["port", "database", "hangs"])
async def test_a_database_that_is_away_is_said_in_time(wrong: str, database_url: str) -> None:
    """Refused, unknown, or silent: one line with the place, no password, within the deadline of a connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        urls = {
            "port": f"postgresql://ana:{HIDDEN}@127.0.0.1:1/stock",
            "hangs": f"postgresql://ana:{HIDDEN}@127.0.0.1:{port}/stock",
            "database": database_url.replace("/inventario?", "/no_such?"),
        }
        database = Database(urls[wrong])
        began = monotonic()

        with pytest.raises(DatabaseAway, match=r"^PostgreSQL at ") as caught:
            await database.row("SELECT 1")

        assert monotonic() - began < CONNECT_S + SLACK_S
        assert HIDDEN not in str(caught.value)
        assert "\n" not in str(caught.value)
        await database.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ana:{HIDDEN}@127.0.0.1:notaport/stock",
        f"postgresql://ana:{HIDDEN}@127.0.0.1:99999/stock",
        f"postgresql://ana:{HIDDEN}@a..b/stock",
        f"postgresql://ana:{HIDDEN}@a,,b/stock",
        f"postgresql://ana:{HIDDEN}#x@db/stock",
        f"postgresql://ana:{HIDDEN}/x@db/stock",
        f"postgresql://ana:{HIDDEN}?x@db/stock",
        f"postgresql://ana:{HIDDEN}@db/stock?sslmode={HIDDEN}",
        f"postgresql://ana:{HIDDEN}@[::1/stock",
        f"http://ana:{HIDDEN}@db/stock",
    ],
)
async def test_a_url_that_the_driver_cannot_read_is_a_database_that_is_away(url: str) -> None:
    """In one line without a piece of the password, also in the traceback."""
    database = Database(url)
    for _ in range(2):
        with pytest.raises(DatabaseAway, match=r"^PostgreSQL at ") as caught:
            await database.row("SELECT 1")
        told = "".join(traceback.format_exception(caught.value))
        assert "s3cr" not in told
        assert "\n" not in str(caught.value)
    await database.close()


async def test_a_statement_that_takes_too_long_is_given_up(inventory: Inventory) -> None:
    """By the server as well: nothing of it goes on there."""
    began = monotonic()
    with pytest.raises(DatabaseAway):
        await inventory.database.row("SELECT pg_sleep(30)")
    assert monotonic() - began < WORK_S + SLACK_S
    busy = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"

    async def idle() -> bool:
        row = await inventory.database.row(busy)
        return row is not None and row["n"] == 0

    await until(idle, what="the end of the statement on the server")


async def test_a_mistake_of_ours_stays_what_it_is(inventory: Inventory) -> None:
    """Only what the server or the way to it is to blame for is `DatabaseAway`."""
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await inventory.database.row("SELEC 1")
    with pytest.raises(asyncpg.DataError):
        await inventory.database.row("SELECT $1::int", "one")


async def test_missing_tables_name_the_command_that_makes_them(inventory: Inventory) -> None:
    """The router goes on without an inventory."""
    with pytest.raises(DatabaseAway, match="its tables are missing"):
        await inventory.database.row("SELECT * FROM nothing_of_that_name")
    with pytest.raises(DatabaseAway, match="its tables are not of this version"):
        await inventory.database.row("SELECT nothing_of_that_name FROM inventario")


async def test_a_damaged_database_is_one_that_is_away(inventory: Inventory) -> None:
    """The node goes on and asks again; there is nothing that a restart of it would mend."""
    damaged = "DO $$ BEGIN RAISE EXCEPTION 'invalid page in block 0' USING ERRCODE = 'data_corrupted'; END $$"
    with pytest.raises(DatabaseAway, match="invalid page"):
        await inventory.database.row(damaged)


async def test_sessions_come_back_after_a_crash_and_a_freeze_is_bounded(
    short_path: Path, made_cluster: MadeCluster
) -> None:
    """Nobody has to do anything: the first call after the engine's return finds it."""
    made_cluster.copy_to(short_path)
    engine = EmbeddedPostgres(short_path)
    try:
        await engine.start()
        async with opened(engine.url) as inventory:
            await asyncio.gather(*(inventory.database.row("SELECT 1") for _ in range(5)))
            await kill9(engine)
            with pytest.raises(DatabaseAway):
                await inventory.database.row("SELECT 1")
            await engine.start()

            async def back() -> bool:
                try:
                    return await inventory.database.row("SELECT 1") is not None
                except DatabaseAway:
                    return False

            await until(back, 1.0, what="an answer")

            row = await inventory.database.row("SELECT pg_backend_pid() AS pid")
            assert row is not None
            os.kill(row["pid"], signal.SIGSTOP)
            began = monotonic()
            try:
                with pytest.raises(DatabaseAway, match="no answer in time"):
                    await inventory.database.row("SELECT 1")
                assert monotonic() - began < WORK_S + SLACK_S
                await until(back, 1.0, what="an answer on another session")
            finally:
                os.kill(row["pid"], signal.SIGCONT)
    finally:
        await engine.stop()
