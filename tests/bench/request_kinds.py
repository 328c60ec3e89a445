"""The kinds of requests that the load generator sends: how each is built, and what it is answered when it was taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.bench import cache_requests, inventory_requests, messages, publish_requests, task_requests
from tests.bench.cache_requests import CacheSpec
from tests.bench.inventory_requests import InventorySpec
from tests.bench.messages import MessageSpec
from tests.bench.publish_requests import PublishSpec
from tests.bench.task_requests import TaskSpec

RequestSpec: TypeAlias = MessageSpec | CacheSpec | TaskSpec | InventorySpec | PublishSpec


def builder(message: RequestSpec, port: int) -> Callable[[int], bytes]:
    """A function from a request's number to its bytes."""
    match message:
        case CacheSpec():
            return cache_requests.builder(message, port)
        case TaskSpec():
            return task_requests.builder(message, port)
        case InventorySpec():
            return inventory_requests.builder(message, port)
        case PublishSpec():
            return publish_requests.builder(port)
        case MessageSpec():
            return messages.builder(message, port)


def good_status(message: RequestSpec) -> int:
    """What a request is answered when it was taken."""
    match message:
        case CacheSpec(kind=kind) if kind in cache_requests.CREATED:
            return 201
        case InventorySpec(kind="command"):
            return 201
        case TaskSpec():
            return 202
        case _:
            return 200


def is_sampled(message: RequestSpec) -> bool:
    """Whether the answers are such that each can be checked by itself."""
    return isinstance(message, CacheSpec | InventorySpec)


def complaint(message: RequestSpec, number: int, answer: bytes) -> str:
    """What is wrong with the answer to request `number`; "" when it is right, or nobody can tell."""
    match message:
        case CacheSpec():
            return cache_requests.complaint(message, number, answer)
        case InventorySpec():
            return inventory_requests.complaint(message, number, answer)
        case _:
            return ""
