"""Replies: the shapes that several scripts answer with, as the values of the ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.core.ids import partition_of
from actors.ports import Fenced, Ready

FIELDS_PER_MESSAGE = 3


def fenced(reply: Sequence[Any]) -> Fenced:
    """`{FENCED, epoch, node}`."""
    return Fenced(int(reply[1]), reply[2].decode())


def messages_of(flat: Sequence[bytes]) -> list[tuple[str, int, bytes]]:
    """`{id, received µs, payload, id, …}` as triples (id, received ms, payload)."""
    rows = iter(flat)
    return [
        (message_id.decode(), int(received) // 1000, payload)
        for message_id, received, payload in zip(rows, rows, rows, strict=True)
    ]


def following(delivery_id: bytes, host: bytes) -> Ready | None:
    """The delivery that may start now; an empty id is none."""
    if not delivery_id:
        return None
    name = delivery_id.decode()
    return Ready(partition_of(name), name, host.decode(), 0)


def pairs(flat: Any) -> dict[bytes, bytes]:
    """HGETALL's answer, which is a map (RESP3, plain command) or a flat list (inside a script's reply)."""
    if isinstance(flat, dict):
        return flat
    rows = iter(flat)
    return dict(zip(rows, rows, strict=True))
