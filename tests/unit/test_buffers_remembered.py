"""What is remembered of messages when a part of the store is away: those that were stored, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.buffers import Buffers
from actors.ports import Appended, Entry, StoreAway
from tests.support.buffer_rig import BufferRig
from tests.support.doubles import Stage, make_entry, value
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import in_virtual_time


class PartlyAway(MemoryStore):
    """Of one partition the server is away."""

    gone = -1

    async def append(self, entries: Sequence[Entry]) -> Sequence[Appended]:
        """BatchStore: StoreAway stands for what was not stored."""
        stored = iter(await super().append([entry for entry in entries if entry.partition != self.gone]))
        away = StoreAway("its server is away")
        return [away if entry.partition == self.gone else next(stored) for entry in entries]  # type: ignore[misc]  # so says the port


@in_virtual_time
async def test_what_was_not_stored_is_not_remembered() -> None:
    """It was not acknowledged: to bring it back later would be to invent it. Its neighbours keep their own times."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        store = PartlyAway()
        buffers = Buffers(store, rig.ownership, stage.supervisor, stage.clock, stage.meters)
        remembered: list[tuple[str, int]] = []
        buffers.on_stored = lambda entries, times: remembered.extend(
            (entry.message_id, time) for entry, time in zip(entries, times, strict=True)
        )
        entries = [make_entry(key, message_id) for key, message_id in (("a", "m1"), ("b", "m2"), ("c", "m3"))]
        assert len({entry.partition for entry in entries}) == 3
        store.gone = entries[1].partition
        asked = [buffers.append(entry) for entry in entries]
        first, last = await asked[0], await asked[2]
        with pytest.raises(StoreAway, match="its server is away"):
            await asked[1]
        assert remembered == [("m1", first.received_us), ("m3", last.received_us)]
        assert value(stage.meters.accepted) == 2
        buffers.forget_partitions(range(256))
        await asyncio.sleep(0)
