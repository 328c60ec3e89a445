"""Open batches in the store: implements BatchStore by one script call for each method."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.replies import fenced, messages_of
from actors.adapters.valkey.runner import Runner, Transition, Walk
from actors.core.partition import locate
from actors.core.policy import Reason, Terms
from actors.core.recent import Recent
from actors.ports import (
    Appended,
    Close,
    ClosedBatch,
    Entry,
    Fenced,
    ListCursor,
    NotDue,
    NothingOpen,
    OpenBatch,
    StoreAway,
)

PACKED_MAX, PACKED_BYTES_MAX = 4096, 3072
"""Of so many keys it is remembered what their messages have in common, as `append` takes it, if it is no longer than
that: to send it in one piece costs the node half."""
_DUPLICATE, _BY_SIZE, _BY_BYTES, _FIRST = 1, 2, 3, 4
_NOTHING = NothingOpen()
_pack = msgspec.msgpack.Encoder().encode


class ValkeyBatches:
    """`window_ms` is how long a message id is remembered at least."""

    def __init__(self, runner: Runner, window_ms: int) -> None:
        self._runner = runner
        self._window_ms = window_ms
        self._packed: Recent[Terms, bytes] = Recent(PACKED_MAX)
        self._append: Transition[Entry, Appended] = Transition("append", self._append_arguments, _appended_all)

    def append(self, entries: Sequence[Entry]) -> Awaitable[Sequence[Appended | StoreAway]]:
        """Store messages, all in one call."""
        return self._runner.begin(self._append, entries)

    def _append_arguments(self, entries: Sequence[Entry]) -> list[Any]:
        arguments: list[Any] = [self._window_ms]
        for entry in entries:
            packed = self._packed[entry.terms] or self._pack(entry.terms)
            arguments += (packed, entry.message_id, entry.dedupe, entry.payload, entry.trace, entry.batch_id)
        return arguments

    def _pack(self, terms: Terms) -> bytes:
        packed = _pack(
            (
                PREFIXES[terms.partition],
                terms.kid,
                terms.key,
                terms.policy.decode(),
                terms.host,
                terms.wait_ms,
                terms.max_wait_ms,
                terms.max_size,
                terms.max_bytes,
            )
        )
        if len(packed) <= PACKED_BYTES_MAX:
            self._packed.remember(terms, packed)
        return packed

    def close(
        self, closes: Sequence[Close]
    ) -> Awaitable[Sequence[ClosedBatch | NotDue | NothingOpen | Fenced | StoreAway]]:
        """Freeze batches, all in one call."""
        return self._runner.begin(_CLOSE, closes)

    async def cancel(self, partition: int, epoch: int, kid: str) -> int | NothingOpen | Fenced:
        """Drop the open batch; gives how many messages it held."""
        reply = await self._runner.hot("cancel", partition, [PREFIXES[partition], epoch, kid])
        if reply[0] == b"OK":
            return int(reply[1])
        return fenced(reply) if reply[0] == b"FENCED" else _NOTHING

    async def peek(self, key: str) -> OpenBatch | None:
        """The open batch of a key with its messages."""
        kid, partition = locate(key)
        reply = await self._runner.cold("peek", (OWNERS[partition],), [PREFIXES[partition], kid])
        if reply[0] == b"NONE":
            return None
        return OpenBatch(
            key=key,
            size=reply[1],
            size_bytes=reply[2],
            remaining_ms=reply[3],
            partition=partition,
            messages=messages_of(reply[4]),
        )

    async def list_open(self, cursor: ListCursor, limit: int) -> tuple[Sequence[OpenBatch], ListCursor | None]:
        """A page of open batches, by partition and deadline."""
        rows, following = await self._runner.page(Walk(index="open"), cursor, limit)
        batches = [
            OpenBatch(key=key.decode(), size=size, size_bytes=size_bytes, remaining_ms=left, partition=row.partition)
            for row in rows
            for key, size, size_bytes, left in (row.content,)
        ]
        return batches, following


def _appended_all(entries: Sequence[Entry], flat: list[Any]) -> list[Appended]:
    received_us = flat.pop()
    answers = []
    fields = iter(flat)
    for entry, size, size_bytes, remaining_ms, deadline_ms, code in zip(
        entries, fields, fields, fields, fields, fields, strict=True
    ):
        if code < _BY_SIZE:
            duplicate = code == _DUPLICATE
            answers.append(Appended(size, size_bytes, remaining_ms, deadline_ms, duplicate, None, received_us))
        else:
            reason: Reason = "size" if code in {_BY_SIZE, _BY_SIZE + _FIRST} else "bytes"
            closed = ClosedBatch(entry.batch_id, size, entry.terms.host, reason, code > _FIRST)
            answers.append(Appended(size, size_bytes, 0, deadline_ms, False, closed, received_us))
    return answers


def _close_arguments(closes: Sequence[Close]) -> list[Any]:
    arguments: list[Any] = []
    for wish in closes:
        deadline = "" if wish.deadline_ms is None else wish.deadline_ms
        arguments += (PREFIXES[wish.partition], wish.epoch, wish.kid, deadline, wish.reason, wish.batch_id)
    return arguments


def _closed_all(closes: Sequence[Close], replies: list[Any]) -> list[ClosedBatch | NotDue | NothingOpen | Fenced]:
    return [_closed(wish, reply) for wish, reply in zip(closes, replies, strict=True)]


def _closed(wish: Close, reply: list[Any]) -> ClosedBatch | NotDue | NothingOpen | Fenced:
    match reply[0]:
        case b"OK":
            return ClosedBatch(wish.batch_id, reply[1], reply[2].decode(), wish.reason, reply[3] == 1)
        case b"LATER":
            return NotDue(reply[1], reply[2])
        case b"FENCED":
            return fenced(reply)
        case _:
            return _NOTHING


_CLOSE = Transition("close", _close_arguments, _closed_all)
