"""Runs the stack on a database that has its tables: uvicorn in one process, on the core of the server under test."""

from __future__ import annotations

from tests.bench.celery_stack.stack import api_command
from tests.bench.rig import START_S, Rig
from tests.support.node import answers_200
from tests.support.until import until
from tests.support.valkey import free_port

API = "tests.bench.sqlalchemy_stack.api:app"


async def start(rig: Rig, database_url: str) -> tuple[int, int]:
    """Its port and its process."""
    port = free_port()
    environment = {"DATABASE_URL": database_url.replace("postgresql://", "postgresql+asyncpg://", 1)}
    api = rig.program("uvicorn", api_command(API, port), server=True, environment=environment)
    await until(lambda: answers_200(port, "/readyz"), START_S, what="FastAPI answers")
    return port, api.pid
