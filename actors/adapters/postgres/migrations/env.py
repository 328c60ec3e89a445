"""Environment: how Alembic reaches the database (its async template, over asyncpg). Run by Alembic, never imported."""

from __future__ import annotations

import asyncio

import asyncpg
from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def _online(url: str) -> None:
    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        # asyncpg reads the URL, as it does at run time: SQLAlchemy's own reading knows other parameters.
        return await asyncpg.connect(url, timeout=5, server_settings={"application_name": "buzon migrate"})

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(_online(context.config.attributes["url"]))
