"""Bell: hints to other nodes through the store's publish/subscribe; `echo` hears them.

The hints of one loop tick for one node leave in one message. Whatever is lost on the way the sweep finds later, so
nothing here waits, tries again or raises. Anybody may publish: what is no hint is nothing.
Invariants: at most HINTS_MAX hints and MESSAGE_BYTES_MAX bytes a message; what is heard has the shape of a hint, and
that is all that is known of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from actors.adapters.valkey.keys import RESERVED_PREFIX
from actors.core.ids import partition_of_delivery
from actors.core.partition import KID_CHARACTERS, PARTITIONS
from actors.node_ports import Hint, Look
from actors.ports import Counter, DueBatch, Ready, StoreAway

HINTS_MAX = 512
MESSAGE_BYTES_MAX = 256 * 1024
AHEAD_MS_MAX = 1000
"""Nobody rings for what is further away: the sweep sees it in time."""
_HOST_CHARACTERS_MAX = 512
_INSTANT_MS_MAX = 2**53

Partition = Annotated[int, Meta(ge=0, lt=PARTITIONS)]
AheadMs = Annotated[int, Meta(ge=0, le=AHEAD_MS_MAX)]
InstantMs = Annotated[int, Meta(gt=0, le=_INSTANT_MS_MAX)]
Kid = Annotated[str, Meta(min_length=KID_CHARACTERS, max_length=KID_CHARACTERS)]


class _Ready(Struct, frozen=True, array_like=True, tag=1):
    delivery_id: Annotated[str, Meta(max_length=64)]
    host: Annotated[str, Meta(max_length=_HOST_CHARACTERS_MAX)]
    due_in_ms: AheadMs


class _Due(Struct, frozen=True, array_like=True, tag=2):
    partition: Partition
    kid: Kid
    deadline_ms: InstantMs
    due_in_ms: AheadMs


class _Look(Struct, frozen=True, array_like=True, tag=3):
    pass


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Annotated[list[_Ready | _Due | _Look], Meta(max_length=HINTS_MAX)]).decode


def channel(node: str) -> str:
    """Where a node hears its bell."""
    return f"{RESERVED_PREFIX}bell:{node}"


class ValkeyBell:
    """`node_ports.Bell`. `call` sends a command on a lane of the store and raises StoreAway while that is down."""

    def __init__(self, call: Callable[..., asyncio.Future[Any]], rings: Counter) -> None:
        self._call = call
        self._rings = rings
        self._call_soon = asyncio.get_running_loop().call_soon
        self._waiting: dict[str, list[Hint]] = {}

    def ring(self, node: str, hint: Hint) -> None:
        """Tell a node something at the end of this tick. Never waits, never raises."""
        if not self._waiting:
            self._call_soon(self._send)
        hints = self._waiting.get(node)
        if hints is None:
            self._waiting[node] = [hint]
        elif len(hints) < HINTS_MAX:
            hints.append(hint)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for node, hints in waiting.items():
            with suppress(StoreAway):  # the sweep finds all of it
                self._call("PUBLISH", channel(node), encode_hints(hints))
                self._rings.inc(len(hints))


def encode_hints(hints: Sequence[Hint]) -> bytes:
    """One message."""
    return _encode([_written(hint) for hint in hints])


def _written(hint: Hint) -> tuple[int | str, ...]:
    match hint:
        case Ready(_, delivery_id, host, due_in_ms):
            return 1, delivery_id, host, due_in_ms
        case DueBatch(partition, kid, deadline_ms, due_in_ms):
            return 2, partition, kid, deadline_ms, due_in_ms
        case Look():
            return (3,)


def decode_hints(message: bytes) -> Sequence[Hint]:
    """What was rung; nothing when it is no message of a node's."""
    if len(message) > MESSAGE_BYTES_MAX:
        return ()
    try:
        return [hint for each in _decode(message) if (hint := _heard(each)) is not None]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()


def _heard(written: _Ready | _Due | _Look) -> Hint | None:
    match written:
        case _Ready(delivery_id, host, due_in_ms):
            partition = partition_of_delivery(delivery_id)
            return None if partition is None else Ready(partition, delivery_id, host, due_in_ms)
        case _Due(partition, kid, deadline_ms, due_in_ms):
            return DueBatch(partition, kid, deadline_ms, due_in_ms)
        case _Look():
            return Look()
