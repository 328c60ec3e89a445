"""Buffer rig: buffer actors in virtual time, over a store in memory.

For the tests of buffers. Checks nothing itself; `poison` names deliveries that crash the actor that hands them on.
"""

from __future__ import annotations

from actors.buffers import Buffers
from actors.ownership import Ownership
from actors.ports import Ready
from actors.runtime.wheel import EARLY_S, FINE_S
from tests.support.doubles import Stage, make_entry
from tests.support.memory_store import NODE, MemoryStore, hold_everything

LATE_S_MAX = FINE_S + EARLY_S + 0.003
"""A slot of the wheel, a millisecond of the store's clock, and the store's answer."""


class BufferRig:
    """Buffers over a store in memory; `ready` is what was handed on to be delivered."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.store = MemoryStore()
        self.ownership = Ownership(NODE, self.store, stage.clock, stage.meters)
        self.buffers = Buffers(self.store, self.ownership, stage.supervisor, stage.clock, stage.meters)
        self.ready: list[tuple[float, Ready]] = []
        self.buffers.on_closed = self._closed
        self.buffers.make_delivery_id = self._delivery_id
        self.ownership.on_lost = self.buffers.forget_partitions
        self.made = 0
        self.poison: set[str] = set()

    async def start(self) -> BufferRig:
        """Hold every partition, and be allowed to act for ever."""
        await hold_everything(self.ownership)
        return self

    def _closed(self, ready: Ready) -> None:
        """Note what may start; an actor whose delivery is named poison crashes."""
        if ready.delivery_id in self.poison:
            raise RuntimeError("poison")
        self.ready.append((self.stage.clock.monotonic(), ready))

    def _delivery_id(self, partition: int) -> str:
        self.made += 1
        return f"dlv_{partition:02x}{self.made}"

    def closed_ids(self) -> list[str]:
        """The deliveries that may start."""
        return [ready.delivery_id for _, ready in self.ready]

    async def crash(self, key: str, number: int) -> None:
        """Have the key's actor crash: it raises while it hands a full batch on."""
        entry = make_entry(key, f"crash {number}", max_size=1, batch_id=f"poison {key} {number}")
        self.poison.add(entry.batch_id)
        self.store.lines.pop(entry.terms.kid, None)  # else it waits behind the one before, and nothing is handed on
        await self.buffers.append(entry)
