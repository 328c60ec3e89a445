"""FastAPI's half: `POST /messages` queues a task, `GET /tasks/{task_id}` tells of it. Run by uvicorn, one process."""

from __future__ import annotations

import os
from typing import Any

from celery.result import AsyncResult  # type: ignore[import-untyped]  # it has no annotations
from fastapi import FastAPI
from pydantic import BaseModel, Field

from tests.bench.celery_stack.tasks import app as celery
from tests.bench.celery_stack.tasks import send_message

EVOLUTION_INSTANCE_NAME = os.environ.get("EVOLUTION_INSTANCE_NAME", "default")
PHONE = r"^\+?[0-9]{8,15}$"

app = FastAPI(title="messages")


class MessageRequest(BaseModel):
    """What is to be sent."""

    phone: str = Field(pattern=PHONE)
    message: str = Field(min_length=1, max_length=65_536)
    instance_name: str = EVOLUTION_INSTANCE_NAME


class MessageResponse(BaseModel):
    """That it was queued."""

    success: bool
    message: str
    task_id: str


class TaskResponse(BaseModel):
    """How far it is."""

    task_id: str
    status: str
    result: Any = None


@app.post("/messages", status_code=202)
async def post_message(request: MessageRequest) -> MessageResponse:
    """Queue it. The short blocking call costs the loop less than a hop to a thread would [measured]."""
    task = send_message.delay(request.phone, request.message, request.instance_name)
    return MessageResponse(success=True, message="Mensaje encolado correctamente para procesamiento", task_id=task.id)


@app.get("/tasks/{task_id}")
def get_task(task_id: str) -> TaskResponse:
    """What the result backend knows."""
    result = AsyncResult(task_id, app=celery)
    done = result.ready()
    return TaskResponse(task_id=task_id, status=result.status, result=result.result if done else None)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Answer at all."""
    return {"status": "healthy"}
