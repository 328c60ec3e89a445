"""Runs the stack on a store of its own: uvicorn in one process, and a Celery parent with its two worker processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tests.bench.rig import START_S, Rig
from tests.support.node import answers_200
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port

WORKERS = 2
API = "tests.bench.celery_stack.api:app"
TASKS = "tests.bench.celery_stack.tasks"


async def start(rig: Rig, store: ValkeyServer, evolution: Mapping[str, str]) -> tuple[int, dict[str, int]]:
    """The port of its API, and the processes. Whether the workers are up shows when a task is done; they log nothing.

    `evolution` are the settings that say where that is.
    """
    port = free_port()
    environment = {**evolution, "REDIS_URL": f"redis+socket://{store.socket_path}", "PYTHONWARNINGS": "ignore"}
    api = rig.program("uvicorn", api_command(API, port), server=True, environment=environment)
    worker = rig.program("celery", worker_command(), server=True, environment=environment)
    await until(lambda: answers_200(port, "/readyz"), START_S, what="FastAPI answers")
    return port, {"uvicorn": api.pid, "celery": worker.pid}


def api_command(app: str, port: int) -> list[str]:
    """uvicorn as it is fastest: uvloop and httptools, and no line for each request."""
    quiet = ("--log-level", "warning", "--no-access-log")
    return [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), *quiet]


def worker_command() -> list[str]:
    """Celery's worker as it comes, but that it does not log two lines for each task."""
    return [
        sys.executable,
        "-m",
        "celery",
        "-A",
        TASKS,
        "worker",
        "--concurrency",
        str(WORKERS),
        "--loglevel",
        "WARNING",
    ]
