"""The cache's load, one process: `python -m tests.chaos.coherence_load SOCKET`.

Clients that read, write, delete and expire keys through all nodes and as a foreign client of the store, and note what
they did and saw (`coherence_ledger`). Most keys are changed by one client at a time, so that their order is known; some
are contended; the pinned ones are written once and read through every node all the time. Sent again is nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

import msgspec
import uvloop
from msgspec import Struct

from tests.chaos.coherence_ledger import FOR_EVER, FOREIGN, NOTHING, Line, Looked, Refused, Wrote
from tests.chaos.coherence_ways import GARBLED, ForeignWay, NodeWay, Outcome, Precondition, Reading, Way
from tests.chaos.control import serve
from tests.chaos.evidence import OK
from tests.support.until import passing

GROUPS = 8
PINNED = "pinned"
PINNED_S = 0.05
CATCH_UP_S = 0.2
SOON_S = 0.080
"""Writes are looked for elsewhere until somewhat later than they must be known there."""
TTL_MS = (50, 600)
READERS, SINGLE_READERS, WRITERS = 8, 12, 12
"""Clients, each with one request at a time."""
FOREIGN_SHARE = 0.25


class Begin(Struct, frozen=True, kw_only=True):
    """A load. `store` is the server's Unix socket; rates are a second, times 0 never."""

    ledger: str
    nodes: dict[str, int]
    store: str
    prefix: str
    seed: str
    slots: int = 300
    contended: int = 30
    pinned: int = 20
    batch_keys: int = 100
    batches_per_s: float = 200.0
    gets_per_s: float = 300.0
    writes_per_s: float = 300.0
    patterns_every_s: float = 0.0
    flush_every_s: float = 0.0
    foreign_flush_every_s: float = 0.0


class Counts(Struct):
    """How much was done. A key that was read in a batch is one read."""

    reads: int = 0
    writes: int = 0
    refused: int = 0


class CoherenceLoad:
    """One row's clients."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._chance = Random(begin.seed)  # noqa: S311  a repeatable run, no secret
        self._nodes: list[NodeWay] = [NodeWay(name, port, self._chance) for name, port in begin.nodes.items()]
        self._foreign = ForeignWay(Path(begin.store))
        self._ledger = Path(begin.ledger).open("wb", buffering=1 << 16)  # noqa: SIM115  closed by `stop`
        self._encode = msgspec.json.Encoder().encode
        self._names = [f"{begin.prefix}:{slot % GROUPS}:{slot}" for slot in range(begin.slots)]
        self._names += [f"{begin.prefix}:{PINNED}:{slot}" for slot in range(begin.slots, begin.slots + begin.pinned)]
        self._number = NOTHING
        self._busy: set[int] = set()
        self._known: dict[int, int] = {}
        self._in_doubt: set[int] = set()
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.counts = Counts()

    async def start(self) -> None:
        """Write the pinned keys, and set all clients going."""
        begin = self._begin
        await self._put(self._foreign, range(begin.slots, begin.slots + begin.pinned), FOR_EVER)
        self._several(READERS, begin.batches_per_s, self._read_batch)
        self._several(SINGLE_READERS, begin.gets_per_s, self._read_one)
        self._several(WRITERS, begin.writes_per_s, self._change)
        for every_s, act in (
            (begin.patterns_every_s, self._delete_matching),
            (begin.flush_every_s, self._flush),
            (begin.foreign_flush_every_s, self._flush_as_a_foreigner),
        ):
            if every_s:
                self._several(1, 1 / every_s, act)
        for node in self._nodes if begin.pinned else []:
            self._several(1, 1 / PINNED_S, partial(self._read_pinned, node))

    async def stop(self) -> Counts:
        """Let every client finish, then read everything once more everywhere."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        every = range(len(self._names))
        ways: list[Way] = [self._foreign, *self._nodes]
        for way in ways:
            for start in range(0, len(every), 1000):
                await self._read(way, every[start : start + 1000])
        for node in self._nodes:
            node.close()
        await self._foreign.close()
        self._ledger.close()
        return self.counts

    def _several(self, clients: int, per_s: float, act: Callable[[], Awaitable[None]]) -> None:
        spawn = asyncio.get_running_loop().create_task
        self._tasks += [spawn(self._again_and_again(clients / per_s, act)) for _ in range(clients if per_s else 0)]

    async def _again_and_again(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        due = monotonic() + self._chance.uniform(0, every_s)
        while True:
            while not self._stopped and (wait_s := due - monotonic()) > 0:
                await passing(min(wait_s, 0.5))
            if self._stopped:
                return
            await act()
            due = max(due, monotonic() - CATCH_UP_S) + every_s * self._chance.uniform(0.5, 1.5)

    async def _read_batch(self) -> None:
        await self._read(self._node(), self._chance.sample(range(self._begin.slots), self._begin.batch_keys))

    async def _read_one(self) -> None:
        await self._read(self._node(), [self._any_slot()])

    async def _read_pinned(self, node: NodeWay) -> None:
        await self._read(node, range(self._begin.slots, len(self._names)), what=PINNED)

    async def _delete_matching(self) -> None:
        node, group = self._node(), self._chance.randrange(GROUPS)
        slots = range(group, self._begin.slots, GROUPS)
        began = monotonic()
        outcome = await node.delete_matching(f"{self._begin.prefix}:{group}:*")
        self._note_deleted(node, slots, began, outcome)
        await self._read(node, slots)

    async def _flush(self) -> None:
        await self._empty(self._node())

    async def _flush_as_a_foreigner(self) -> None:
        await self._empty(self._foreign)

    async def _empty(self, way: Way) -> None:
        began = monotonic()
        outcome = await way.flush()
        self._note_deleted(way, range(len(self._names)), began, outcome)
        await self._read(way, range(len(self._names)))

    async def _change(self) -> None:
        """Change something by chance, and look for it at once where it was changed, and soon elsewhere."""
        chance = self._chance
        way: Way = self._foreign if chance.random() < FOREIGN_SHARE else self._node()
        many = chance.random() < 0.08
        slots = self._some_slots(chance.randint(2, 20) if many else 1)
        if not slots:
            return
        alone = [slot for slot in slots if slot >= self._begin.contended]
        self._busy.update(alone)
        try:
            await self._changed(way, slots)
        finally:
            self._busy.difference_update(alone)
        readers = [self._node()] if way is self._foreign else [way, self._node()]
        for reader, wait_s in zip(readers, (0.0, chance.uniform(0, SOON_S)), strict=False):
            if wait_s and reader is not way:
                await passing(wait_s)
            await self._read(reader, slots)

    async def _changed(self, way: Way, slots: Sequence[int]) -> None:
        chance = self._chance
        ttl_ms = chance.randint(*TTL_MS) if chance.random() < 0.4 else FOR_EVER
        first = slots[0]
        kind = chance.random()
        if kind < 0.15:
            began = monotonic()
            outcome = await way.delete([self._names[slot] for slot in slots])
            self._note_deleted(way, slots, began, outcome)
        elif kind < 0.4 and len(slots) == 1 and first in self._known and first not in self._in_doubt:
            await self._expire(way, first, ttl_ms)
        elif kind < 0.55 and len(slots) == 1 and isinstance(way, NodeWay) and first >= self._begin.contended:
            await self._put_if(way, first, ttl_ms)
        else:
            await self._put(way, slots, ttl_ms)

    async def _put(self, way: Way, slots: Sequence[int], ttl_ms: int) -> None:
        numbers = {slot: self._next_number() for slot in slots}
        began = monotonic()
        outcome = await way.set({self._names[slot]: number for slot, number in numbers.items()}, ttl_ms)
        self._note_put(way, numbers, ttl_ms, began, outcome)

    async def _put_if(self, way: NodeWay, slot: int, ttl_ms: int) -> None:
        """With a precondition: that it was met is as good as a look into the store."""
        known = self._known.get(slot, NOTHING)
        demand: Precondition = self._chance.choice(("same", "other", "none") if known else ("other", "none"))
        number = self._next_number()
        began = monotonic()
        outcome = await way.set({self._names[slot]: number}, ttl_ms, demand, known)
        if outcome.applied:
            if demand == "other":
                self._note(Refused(way.name, "If-Match", began, monotonic(), GARBLED, "done though nothing matched"))
            else:
                self._note(Looked(FOREIGN, [slot], [known if demand == "same" else NOTHING], (), began, monotonic()))
        self._note_put(way, {slot: number}, ttl_ms, began, outcome)

    async def _expire(self, way: Way, slot: int, ttl_ms: int) -> None:
        known, began = self._known[slot], monotonic()
        outcome = await way.expire(self._names[slot], ttl_ms)
        self._note_changed(Wrote(way.name, "expire", [slot], [known], ttl_ms, began, monotonic()), outcome)

    def _note_put(self, way: Way, numbers: dict[int, int], ttl_ms: int, began: float, outcome: Outcome) -> None:
        slots = list(numbers)
        line = Wrote(way.name, "set", slots, list(numbers.values()), ttl_ms, began, monotonic())
        self._note_changed(line, outcome)
        if outcome.applied:
            self._known.update((slot, number) for slot, number in numbers.items() if slot >= self._begin.contended)

    def _note_deleted(self, way: Way, slots: Collection[int], began: float, outcome: Outcome) -> None:
        line = Wrote(way.name, "delete", list(slots), (), FOR_EVER, began, monotonic())
        self._note_changed(line, outcome)
        if outcome.applied:
            for slot in slots:
                self._known.pop(slot, None)

    def _note_changed(self, line: Wrote, outcome: Outcome) -> None:
        if outcome.applied is None:
            self._in_doubt.update(line.slots)
            self._note(msgspec.structs.replace(line, acked=None))
            self._refused(line.via, line.op, line.began, outcome)
        elif outcome.applied:
            self.counts.writes += len(line.slots)
            self._note(line)

    async def _read(self, way: Way, slots: Sequence[int], what: str = "read") -> None:
        began = monotonic()
        reading = await way.read([self._names[slot] for slot in slots])
        if reading.status != OK:
            self._refused(way.name, what, began, reading)
            return
        self.counts.reads += len(slots)
        self._note(
            Looked(way.name, list(slots), reading.numbers, reading.lefts, began, monotonic(), reading.stale),
        )

    def _refused(self, via: str, what: str, began: float, answer: Outcome | Reading) -> None:
        self.counts.refused += 1
        self._note(Refused(via, what, began, monotonic(), answer.status, answer.detail))

    def _note(self, line: Line) -> None:
        self._ledger.write(self._encode(line) + b"\n")

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _node(self) -> NodeWay:
        return self._chance.choice(self._nodes)

    def _any_slot(self) -> int:
        """Some much more often than others."""
        return int(self._begin.slots * self._chance.random() ** 2)

    def _some_slots(self, count: int) -> list[int]:
        """Different ones that nobody else is changing; fewer when there are not so many."""
        slots = {self._any_slot() for _ in range(count)}
        return [slot for slot in slots if slot not in self._busy]


class Desk:
    """What the harness may ask."""

    def __init__(self) -> None:
        self._load: CoherenceLoad | None = None

    async def do_begin(self, **words: object) -> None:
        """Start a load."""
        assert self._load is None, "a load is running"
        self._load = CoherenceLoad(msgspec.convert(words, Begin))
        await self._load.start()

    async def do_counts(self) -> Counts:
        """How it stands."""
        assert self._load is not None, "no load is running"
        return self._load.counts

    async def do_stop(self) -> Counts:
        """Stop."""
        assert self._load is not None, "no load is running"
        load, self._load = self._load, None
        return await load.stop()


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
