"""The benchmark's WhatsApp sends: `POST /messages` as prepared bytes of constant length.

Message n goes to contact n modulo `contacts` through instance n modulo `instances`, and has n in its text.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from msgspec import Struct

PATH = "/messages"
INSTANCES_MAX = 10
ACCEPTED = {
    "success": True,
    "message": "Mensaje encolado correctamente para procesamiento",
    "task_id": "00000000-0000-0000-0000-000000000000",
}
"""What a task is answered, in length: for the handler that does nothing."""


class TaskSpec(Struct, frozen=True, kw_only=True, tag="task"):
    """Tasks for so many contacts and instances."""

    contacts: int
    instances: int = 1


class Body(Struct, frozen=True):
    """What is posted, as a server has to see it."""

    phone: str
    message: str
    instance_name: str | None = None
    message_id: str | None = None


def document(contact: str, number: str, instance: str) -> dict[str, str]:
    """What is posted."""
    return {
        "phone": f"+52{contact}",
        "message": f"Hola Carlos, este es un mensaje de prueba {number}",
        "instance_name": f"bench-{instance}",
    }


def number_of(text: str) -> int:
    """The number in the text of a message."""
    return int(text.rpartition(" ")[2])


def builder(spec: TaskSpec, port: int) -> Callable[[int], bytes]:
    """A function from a task's number to its whole HTTP request."""
    assert spec.instances <= INSTANCES_MAX, "one digit keeps Content-Length constant"
    body = json.dumps(document("%010d", "%09d", "%d"), separators=(",", ":")).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body % (0, 0, 0))}\r\n\r\n"
    )
    template, contacts, instances = head.encode() + body, spec.contacts, spec.instances

    def build(number: int) -> bytes:
        return template % (number % contacts, number, number % instances)

    return build
