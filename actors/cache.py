"""Cache: the supervisor of all entries: reads from the near cache or the store, one load a key, writes in groups.

Owns the near cache, the loads under way and the two group commits. Decides nothing about HTTP. Invariants:
- what a caller of this process was told is written is what every later read here sees: a write forgets its key, and
  the load that is under way for it, before its caller learns of the outcome;
- a load that was under way while its key changed is given to those who wait for it, and kept by nobody;
- for each key at most one load is under way that later readers may join.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from actors.cache_ports import (
    CacheMeters,
    CacheStore,
    CacheWrite,
    Loaded,
    OtherType,
    ReadHow,
    TooLong,
    WriteOutcome,
)
from actors.committer import Committer
from actors.near_cache import Entry, NearCache, entry_of, left_ms
from actors.ports import Overloaded, StoreAway
from actors.runtime.clock import Clock
from actors.runtime.outcome import Tell, settle
from actors.runtime.supervisor import Supervisor

WAITING_MAX = 8192
"""Callers that wait for loads; one more is refused."""
LOADED_BYTES_MAX = 64 * 2**20
"""A question for many keys reads no more than about this, so that one answer does not fill the memory."""
CALLS_MAX = 64
"""Calls of a kind under way at once. A store far away answers none for a while, and nobody waits for a turn."""
ANSWER_S = 1.1
"""A reader is told after this long that the store is slow, however many loads it has waited for."""
TIDY_S = 10.0
TIDY_KEYS = 1000
"""Keys that are looked at in one turn of the loop."""
PERIOD_S = 1.0
SLOW = StoreAway("the store is slow")

Waiter = asyncio.Future[Entry]


class ValueTooLong(Exception):
    """A key, or all that was asked for up to it, holds more than is read at once."""

    def __init__(self, key: str, size_bytes: int) -> None:
        super().__init__(key, size_bytes)
        self.key = key
        self.size_bytes = size_bytes


class CacheStats(Struct, frozen=True, kw_only=True):
    """What this node's cache has done since its start, and what it keeps now."""

    hits: int
    misses: int
    collapsed: int
    stale: int
    absent: int
    writes: int
    invalidations: int
    evicted: int
    near_entries: int
    near_bytes: int
    near_bytes_max: int


class CacheRules(Struct, frozen=True, kw_only=True):
    """`near_bytes_max` 0: nothing is kept near. `stale_s`: for how long after its proof an entry may be shown."""

    near_bytes_max: int
    stale_s: float


class Cache:
    """The cache of one node."""

    def __init__(
        self, store: CacheStore, rules: CacheRules, supervisor: Supervisor, clock: Clock, meters: CacheMeters
    ) -> None:
        self.near = NearCache(rules.near_bytes_max, rules.stale_s)
        self._store = store
        self._clock = clock
        self.now = clock.boottime
        self._meters = meters
        self._hits = meters.cache_reads["hit"]
        self._flights: dict[str, list[Waiter]] = {}
        self._waiting = 0
        # Asking for the running loop is a system call on Python 3.11.
        self._new_future = asyncio.get_running_loop().create_future
        commits = meters.cache_commits
        self._loads: Committer[str, Loaded | TooLong] = Committer(
            "cache loads", store.load, supervisor, clock, commits, CALLS_MAX
        )
        self._writes: Committer[CacheWrite, WriteOutcome] = Committer(
            "cache writes", store.write, supervisor, clock, commits, CALLS_MAX
        )
        self._writes.on_committed = self._committed

    def read_now(self, key: str, now: float) -> Entry | None:
        """The entry if it is near and fresh; else None, and `read` must be asked. `now` is the boottime."""
        entry = self.near.get(key, now)
        if entry is not None:
            self._hits.inc()
            if entry.value is None:
                self._meters.cache_absent.inc()
        return entry

    async def read(self, key: str) -> tuple[Entry, ReadHow]:
        """The entry, and how it was come by; its value is None when there is nothing, or no string.

        Raises StoreAway when the store is away and nothing near may be shown, Overloaded, ValueTooLong.
        """
        entry = self.read_now(key, self.now())
        if entry is not None:
            return entry, "hit"
        how: ReadHow = "collapsed" if key in self._flights else "miss"
        try:
            entry = await (self._joined(key) if how == "collapsed" else self._board(key))
        except StoreAway as error:
            entry, how = self._stale(key, error), "stale"
        self._count(how, entry)
        return entry, how

    async def read_many(self, keys: Iterable[str]) -> tuple[dict[str, Entry], ReadHow]:
        """The same for many keys in one go; `stale` when one of them is, `miss` when one had to be loaded.

        Raises what `read` raises, when that is true of one.
        """
        found, missing = self.near.get_many(keys, self.now())
        self._hits.inc(len(found))
        how: ReadHow = "hit"
        if missing:
            how = await self._load_many(missing, found)
        return found, how

    def left_ms(self, entry: Entry) -> int:
        """For how long an entry stays, at least 1; NEVER: for ever."""
        return left_ms(entry, self.now())

    def all_left_ms(self, entries: Iterable[Entry]) -> list[int]:
        """The same of many, at one moment."""
        now = self.now()
        return [left_ms(entry, now) for entry in entries]

    def submit(self, write: CacheWrite, tell: Tell[WriteOutcome]) -> None:
        """Do one write; `tell` is called later, once: StoreAway when whether it was done is unknown. Raises
        Overloaded."""

        def answer(outcome: WriteOutcome | Exception) -> None:
            if isinstance(outcome, StoreAway):
                self._forget(write.key)
            tell(outcome)

        self._writes.submit(write, len(write.value) + len(write.key), answer)

    async def write(self, write: CacheWrite) -> WriteOutcome:
        """The same, to be awaited. Raises StoreAway, Overloaded."""
        reply: asyncio.Future[WriteOutcome] = self._new_future()
        self.submit(write, partial(settle, reply))
        return await reply

    async def write_each(self, writes: Sequence[CacheWrite]) -> list[WriteOutcome]:
        """Do many writes in one go, each by itself. Raises StoreAway when one was not done, or may not have been."""
        try:
            outcomes = await self._store.write(writes)
        finally:
            for write in writes:
                self._forget(write.key)
        done: list[WriteOutcome] = []
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            done.append(outcome)
        self._meters.cache_writes.inc(len(done))
        return done

    async def write_all(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome] | OtherType:
        """Do all writes, or none when one of the keys is no string."""
        try:
            outcomes = await self._store.write_all(writes)
        finally:
            for write in writes:
                self._forget(write.key)
        if not isinstance(outcomes, OtherType):
            self._meters.cache_writes.inc(len(outcomes))
        return outcomes

    def on_invalidated(self, names: Sequence[bytes] | None) -> None:
        """Take note of what has changed in the store; None: everything."""
        if names is None:
            self.forget_all()
            self._meters.cache_invalidations.inc()
            return
        for name in names:
            self._forget(name.decode("utf-8", "replace"))
        self._meters.cache_invalidations.inc(len(names))

    def forget_all(self) -> None:
        """Keep nothing near, and nothing that is being loaded."""
        self.near.empty()
        self._flights.clear()

    def stats(self) -> CacheStats:
        """The numbers of now."""
        meters, near = self._meters, self.near
        return CacheStats(
            hits=int(meters.cache_reads["hit"].value),
            misses=int(meters.cache_reads["miss"].value),
            collapsed=int(meters.cache_reads["collapsed"].value),
            stale=int(meters.cache_reads["stale"].value),
            absent=int(meters.cache_absent.value),
            writes=int(meters.cache_writes.value),
            invalidations=int(meters.cache_invalidations.value),
            evicted=near.evicted,
            near_entries=len(near),
            near_bytes=near.bytes,
            near_bytes_max=near.bytes_max,
        )

    async def run(self) -> None:
        """Drop, now and then, what can never be shown again. A service: ends only by cancellation."""
        tidied_at = self.now()
        while True:
            await asyncio.sleep(PERIOD_S)
            if self.now() - tidied_at >= TIDY_S:
                await self._tidy()
                tidied_at = self.now()
            self._meters.cache_near_entries.set(len(self.near))
            self._meters.cache_near_bytes.set(self.near.bytes)
            evicted = self._meters.cache_near_evicted
            evicted.inc(self.near.evicted - evicted.value)

    async def _tidy(self) -> None:
        keys = self.near.keys()
        for first in range(0, len(keys), TIDY_KEYS):
            self.near.tidy(keys[first : first + TIDY_KEYS], self.now())
            await asyncio.sleep(0)

    async def drained(self) -> None:
        """Wait until every write that was begun has its answer."""
        await self._writes.drained()

    async def _load_many(self, keys: Sequence[str], found: dict[str, Entry]) -> ReadHow:
        """Join the loads that are under way, and load the rest with one question."""
        joined = [(key, self._board(key)) for key in keys if key in self._flights]
        flights: dict[str, list[Waiter]] = {key: [] for key in keys if key not in self._flights}
        self._flights |= flights
        began = self._clock.monotonic()
        outcomes: dict[str, Entry | Exception] = await self._loaded(flights)
        for key, waiter in joined:
            outcomes[key] = await _outcome(waiter)
        await self._look_again([key for key, _ in joined], outcomes, began)
        worst: ReadHow = "miss"
        for key, outcome in outcomes.items():
            if isinstance(outcome, Entry):
                found[key] = outcome
            elif isinstance(outcome, StoreAway):
                found[key], worst = self._stale(key, outcome), "stale"
                self._count("stale", found[key])
            else:
                raise outcome
        entries = [(key, outcome) for key, outcome in outcomes.items() if isinstance(outcome, Entry)]
        misses = sum(key in flights for key, _ in entries)
        self._meters.cache_reads["miss"].inc(misses)
        self._meters.cache_reads["collapsed"].inc(len(entries) - misses)
        self._meters.cache_absent.inc(sum(entry.value is None for _, entry in entries))
        return worst

    async def _loaded(self, flights: Mapping[str, list[Waiter]]) -> dict[str, Entry | Exception]:
        if not flights:
            return {}
        outcomes: Sequence[Loaded | TooLong | Exception] = [StoreAway("the load was given up")] * len(flights)
        try:
            outcomes = await self._store.load(list(flights), LOADED_BYTES_MAX)
        except StoreAway as error:
            outcomes = [error] * len(flights)
        finally:
            land = self._landed
            landed = [
                land(key, flight, outcome) for (key, flight), outcome in zip(flights.items(), outcomes, strict=True)
            ]
        return dict(zip(flights, landed, strict=True))

    async def _look_again(self, keys: Sequence[str], outcomes: dict[str, Entry | Exception], began: float) -> None:
        """Load once more what has expired on its way here: others asked for it before that, those who joined them may
        have asked after. Whatever is found now was there after they asked."""
        now = self.now()
        late = [key for key in keys if isinstance(entry := outcomes[key], Entry) and now >= entry.deadline]
        if not late:
            return
        waiters = [(key, self._board(key)) for key in late]
        outcomes |= dict.fromkeys(late, SLOW)
        try:
            async with asyncio.timeout(ANSWER_S - (self._clock.monotonic() - began)):
                for key, waiter in waiters:
                    outcomes[key] = await _outcome(waiter)
        except TimeoutError:
            return

    async def _joined(self, key: str) -> Entry:
        """What a load that others began gives."""
        began = self._clock.monotonic()
        outcomes = {key: await _outcome(self._board(key))}
        await self._look_again((key,), outcomes, began)
        outcome = outcomes[key]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _board(self, key: str) -> Waiter:
        """Wait with those who wait for the load of a key, or begin one."""
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many callers wait for the cache's store")
        flight = self._flights.get(key)
        waiter = self._new_future()
        if flight is None:
            flight = [waiter]
            self._loads.submit(key, len(key), partial(self._landed, key, flight))
            self._flights[key] = flight
        else:
            flight.append(waiter)
        self._waiting += 1
        return waiter

    def _landed(self, key: str, flight: list[Waiter], loaded: Loaded | TooLong | Exception) -> Entry | Exception:
        """Give what was loaded to those who wait for it, and keep it if the key has not changed meanwhile."""
        unchanged = self._flights.get(key) is flight
        if unchanged:
            del self._flights[key]
        self._waiting -= len(flight)
        if isinstance(loaded, Loaded):
            entry = entry_of(loaded)
            if unchanged and self.now() < loaded.proof.until:
                self.near.put(key, entry)
            for waiter in flight:
                if not waiter.done():
                    waiter.set_result(entry)
            return entry
        error = ValueTooLong(key, loaded.size_bytes) if isinstance(loaded, TooLong) else loaded
        for waiter in flight:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # whoever waited may have gone, and that is no error
        return error

    def _stale(self, key: str, error: StoreAway) -> Entry:
        entry = self.near.stale(key, self.now())
        if entry is None:
            raise error
        return entry

    def _committed(self, writes: Sequence[CacheWrite], _outcomes: Sequence[Any]) -> None:
        for write in writes:
            self._forget(write.key)
        self._meters.cache_writes.inc(len(writes))

    def _forget(self, key: str) -> None:
        self.near.forget(key)
        self._flights.pop(key, None)

    def _count(self, how: ReadHow, entry: Entry) -> None:
        self._meters.cache_reads[how].inc()
        if entry.value is None:
            self._meters.cache_absent.inc()


async def _outcome(waiter: Waiter) -> Entry | Exception:
    try:
        return await waiter
    except (StoreAway, Overloaded, ValueTooLong) as error:
        return error
