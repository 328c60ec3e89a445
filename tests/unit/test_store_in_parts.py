"""A part of the store is away: requests for it are put off, those for the rest are done in the same call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from actors.attempt import Attempts
from actors.buffers import Buffers
from actors.ownership import Ownership
from actors.ports import (
    Appended,
    Claim,
    Claimed,
    Close,
    ClosedBatch,
    Entry,
    Fenced,
    Next,
    NotDue,
    NothingOpen,
    Poisoned,
    Ready,
    Settle,
    StoreAway,
)
from tests.support.doubles import RULES, Stage, Webhooks, make_entry, value
from tests.support.memory_store import NODE, MemoryStore, hold_everything
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

HERE, GONE = make_entry("k"), make_entry("other")
T = TypeVar("T")


class PartlyAway(MemoryStore):
    """The partitions in `gone` are away."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[int] = set()

    async def append(self, entries: Sequence[Entry]) -> Sequence[Appended | StoreAway]:  # type: ignore[override]
        """BatchStore. Wider than a store that is one."""
        return await self._where_it_is(entries, super().append)

    async def close(  # type: ignore[override]
        self, closes: Sequence[Close]
    ) -> Sequence[ClosedBatch | NotDue | NothingOpen | Fenced | StoreAway]:
        """BatchStore."""
        return await self._where_it_is(closes, super().close)

    async def work(  # type: ignore[override]
        self, requests: Sequence[Claim | Settle]
    ) -> Sequence[Claimed | Poisoned | Next | NothingOpen | Fenced | StoreAway]:
        """DeliveryStore."""
        return await self._where_it_is(requests, super().work)

    async def _where_it_is(self, requests: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
        there = [request for request in requests if request.partition not in self.gone]
        answers = iter(await do(there))
        return [
            StoreAway("its server is away") if request.partition in self.gone else next(answers) for request in requests
        ]


async def _buffers(stage: Stage, store: PartlyAway) -> Buffers:
    ownership = Ownership(NODE, store, stage.clock, stage.meters)
    buffers = Buffers(store, ownership, stage.supervisor, stage.clock, stage.meters)
    buffers.make_delivery_id = lambda partition: f"dlv_{partition:02x}"
    await hold_everything(ownership)
    return buffers


@in_virtual_time
async def test_messages_of_the_rest_are_stored() -> None:
    """Only they are counted and remembered; the others' callers are put off."""
    async with Stage() as stage:
        store = PartlyAway()
        buffers = await _buffers(stage, store)
        store.gone.add(GONE.partition)
        kept: list[str] = []
        buffers.on_stored = lambda entries, received_us: kept.extend(
            entry.terms.key for entry, _ in zip(entries, received_us, strict=True)
        )

        here, gone = buffers.append(HERE), buffers.append(GONE)

        assert (await here).size == 1
        with pytest.raises(StoreAway, match="its server is away"):
            await gone
        assert kept == ["k"]
        assert value(stage.meters.accepted) == 1
        assert len(buffers) == 1
        assert stage.crashes == []


@in_virtual_time
async def test_a_batch_whose_server_is_away_closes_when_it_is_back() -> None:
    """Its timer comes again until then."""
    async with Stage() as stage:
        store = PartlyAway()
        buffers = await _buffers(stage, store)
        await buffers.append(make_entry("other", wait_ms=1000))
        store.gone.add(GONE.partition)
        await passing(3)
        assert store.deliveries == {}
        store.gone.clear()
        await passing(1)
        assert [batch.reason for batch in store.deliveries.values()] == ["timeout"]
        assert stage.crashes == []


@in_virtual_time
async def test_an_outcome_that_cannot_be_written_stays_in_hand() -> None:
    """It is written when the server is back; deliveries of the rest go on, also in the same call."""
    async with Stage() as stage:
        store = PartlyAway()
        webhooks = Webhooks()
        ownership = Ownership(NODE, store, stage.clock, stage.meters)
        attempts = Attempts(store, webhooks, ownership, RULES, stage.tools())
        await hold_everything(ownership)
        ready = []
        for key in ("k", "other"):
            entry = make_entry(key, key, max_size=1, batch_id=f"dlv_{make_entry(key).partition:02x}{key}")
            await store.append([entry])
            ready.append(Ready(entry.partition, entry.batch_id, entry.terms.host, 0))
        webhooks.on_send = lambda _request: store.gone.add(GONE.partition)
        slot = asyncio.Semaphore(16)

        async def run(one: Ready) -> None:
            await attempts.run(one, slot, lambda _outcome: None)

        jobs = [stage.supervisor.spawn("attempt", run(one)) for one in ready]
        await passing(2)

        assert [job.done() for job in jobs] == [True, False]
        assert list(attempts.in_hand) == [ready[1].delivery_id]
        store.gone.clear()
        await passing(1)
        assert attempts.in_hand == {}
        assert {batch.status for batch in store.deliveries.values()} == {"delivered"}
        assert len(webhooks.sent) == 2
        assert stage.crashes == []
