"""Desk: what other nodes ask and ring of this one. Does it as the owner, or says that it is not.

Never passes anything on. Invariant: every entry of a request gets one answer, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import assert_never

from actors.buffers import Buffers
from actors.core.ids import partition_of
from actors.core.partition import locate
from actors.deliveries import Deliveries
from actors.forwarding import Owners
from actors.node_ports import (
    Hint,
    Look,
    NotOwner,
    PeerAnswer,
    PeerAppend,
    PeerDiscard,
    PeerDrop,
    PeerFlush,
    PeerRequest,
    PeerRetry,
)
from actors.ports import Appended, DueBatch, Entry, Fenced, Overloaded, Ready, StoreAway


class Desk:
    """`node_ports.PeerDesk`, and the ear for hints."""

    def __init__(self, buffers: Buffers, deliveries: Deliveries, ownership: Owners) -> None:
        self._buffers = buffers
        self._deliveries = deliveries
        self._ownership = ownership

    async def serve(self, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Do it if this node owns the partition. Raises StoreAway, Overloaded. `within_s` is kept by the caller."""
        if isinstance(request, PeerAppend):
            return await self._append(request.entries)
        partition = _partition_of(request)
        if not self._ownership.epoch(partition):
            return self._not_owner(partition)
        answer = await self._change(request, partition)
        return NotOwner(answer.epoch, answer.node) if isinstance(answer, Fenced) else answer

    def on_hints(self, hints: Sequence[Hint]) -> None:
        """Take what other nodes rang. Those for another owner's partitions go no further than buffers and
        deliveries; of the rest one may be old or made up: the store has the last word on each."""
        due = []
        for hint in hints:
            match hint:
                case Ready():
                    self._deliveries.offer(hint)
                case DueBatch():
                    due.append(hint)
                case Look():
                    self._ownership.reclaim()
                case _:
                    assert_never(hint)
        with suppress(Overloaded):  # the sweep finds them
            self._buffers.heard(due)

    async def _append(self, entries: Sequence[Entry]) -> Sequence[Appended | NotOwner | StoreAway]:
        begun = [self._begin(entry) for entry in entries]
        outcomes: list[Appended | NotOwner | StoreAway] = []
        try:
            for each in begun:
                try:
                    outcomes.append(await each if isinstance(each, asyncio.Future) else each)
                except StoreAway as error:
                    outcomes.append(error)
        except BaseException:
            for each in begun:
                if isinstance(each, asyncio.Future):
                    each.cancel()  # nobody waits for it: what it raises is nobody's
            raise
        return outcomes

    def _begin(self, entry: Entry) -> asyncio.Future[Appended] | NotOwner | StoreAway:
        if not self._ownership.epoch(entry.partition):
            return self._not_owner(entry.partition)
        try:
            return self._buffers.append(entry)
        except Overloaded as error:
            return StoreAway(str(error))

    async def _change(self, request: PeerFlush | PeerDrop | PeerRetry | PeerDiscard, partition: int) -> PeerAnswer:
        match request:
            case PeerFlush(key, batch_id):
                return await self._buffers.flush(key, batch_id)
            case PeerDrop(key):
                return await self._buffers.drop(key)
            case PeerRetry(delivery_id):
                return await self._deliveries.retry(delivery_id, partition)
            case PeerDiscard(delivery_id):
                return await self._deliveries.discard(delivery_id, partition)
            case _:
                assert_never(request)

    def _not_owner(self, partition: int) -> NotOwner:
        known = self._ownership.known(partition)
        return NotOwner(known.epoch, known.node)


def _partition_of(request: PeerFlush | PeerDrop | PeerRetry | PeerDiscard) -> int:
    if isinstance(request, PeerFlush | PeerDrop):
        return locate(request.key)[1]
    return partition_of(request.delivery_id)
