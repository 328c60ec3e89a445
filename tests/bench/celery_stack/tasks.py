"""Celery's half: the application, and the task that posts one message to Evolution.

Celery's defaults: a prefetch of four for each worker process, acknowledged before it runs, results kept for a day. One
keep-alive session for each worker process. Run by `celery worker`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import requests
from celery import Celery  # type: ignore[import-untyped]  # it has no annotations
from celery.app.task import Task  # type: ignore[import-untyped]  # nor have its parts

EVOLUTION_API_URL = os.environ["EVOLUTION_API_URL"]
EVOLUTION_API_KEY = os.environ["EVOLUTION_API_KEY"]
REDIS_URL = os.environ["REDIS_URL"]
MAX_RETRIES = 3
RETRY_DELAY_S = 5
TIMEOUT_S = 30

app = Celery("messages", broker=REDIS_URL, backend=REDIS_URL)
app.conf.task_default_queue = "transactional_messages"


@cache
def session() -> requests.Session:
    """This worker process's connection to Evolution."""
    made = requests.Session()
    made.trust_env = False  # else it looks for proxies and ~/.netrc before every request, a tenth of the task's CPU
    made.headers["apikey"] = EVOLUTION_API_KEY
    return made


@app.task(bind=True, max_retries=MAX_RETRIES, default_retry_delay=RETRY_DELAY_S)  # type: ignore[untyped-decorator]  # Celery's
def send_message(self: Task, phone: str, message: str, instance_name: str) -> dict[str, Any]:
    """Post it; on any failure again in five seconds, three times at most."""
    try:
        response = session().post(
            f"{EVOLUTION_API_URL}/message/sendText/{instance_name}",
            json={"number": phone, "text": message},
            timeout=TIMEOUT_S,
        )
        response.raise_for_status()
        key: str = response.json()["key"]["id"]
    except requests.RequestException as reason:
        raise self.retry(exc=reason) from reason
    return {"success": True, "phone": phone, "evolution_key": key}
