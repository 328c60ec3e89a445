"""Memory cache: a cache's store in virtual time, as a server on a wire: requests take effect in order, late or never.

A `CacheServer` holds values and tells its listeners what changes; a `CacheWire` is one node's way to it, with a lane
and a link that can each be slow, and a link that can be cut or go silent. Everything goes by the loop's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

from actors.cache_ports import (
    NEVER,
    UNPROVEN,
    CacheWrite,
    Loaded,
    OtherType,
    Proof,
    ReadHow,
    Slice,
    SliceCursor,
    Tally,
    TooLong,
    WriteOutcome,
)
from actors.core.entity_tag import entity_tag
from actors.ports import CommitMeters, Gauge, StoreAway
from tests.support import doubles
from tests.support.doubles import TallyMeters
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock

T = TypeVar("T")
PROOF_S = 0.9
PING_S = 0.3
SAME = Random(1)  # noqa: S311  delays, no secrets


class CacheTallies:
    """Meters of the cache that can be read."""

    def __init__(self) -> None:
        self.cache_commits: CommitMeters = TallyMeters()
        self.cache_reads: Mapping[ReadHow, Tally] = {
            "hit": doubles.Tally(),
            "miss": doubles.Tally(),
            "collapsed": doubles.Tally(),
            "stale": doubles.Tally(),
        }
        self.cache_absent: Tally = doubles.Tally()
        self.cache_writes: Tally = doubles.Tally()
        self.cache_invalidations: Tally = doubles.Tally()
        self.cache_near_evicted: Tally = doubles.Tally()
        self.cache_near_bytes: Gauge = doubles.Tally()
        self.cache_near_entries: Gauge = doubles.Tally()


class CacheServer:
    """What all nodes share. Expiry is exact when it is asked for; an untouched one is told `expiry_late_s` late."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._held: dict[str, tuple[bytes, float | None]] = {}
        self._done: set[tuple[str, str]] = set()
        self.others: set[str] = set()
        """Keys that hold no string."""
        self.loads: list[list[str]] = []
        self.listeners: list[Callable[[list[str] | None], None]] = []

    def get(self, key: str) -> tuple[bytes, float | None] | None:
        """A value and when it ends."""
        held = self._held.get(key)
        if held is not None and held[1] is not None and held[1] <= self._clock.monotonic():
            self.delete(key)
            return None
        return held

    def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Set, and tell."""
        self._held[key] = (value, None if ttl_s is None else self._clock.monotonic() + ttl_s)
        self._tell([key])

    def delete(self, key: str) -> bool:
        """Delete, and tell if there was something."""
        there = self._held.pop(key, None) is not None
        if there:
            self._tell([key])
        return there

    def flush(self) -> None:
        """Delete everything, and tell it in one word."""
        self._held.clear()
        self._tell(None)

    def names(self) -> list[str]:
        """All names."""
        return [key for key in sorted(self._held) if self.get(key) is not None]

    def do(self, write: CacheWrite) -> WriteOutcome:
        """One write, as the script does it."""
        if write.once and (write.once, write.key) in self._done:
            return "done"
        outcome = self._do(write)
        if write.once and outcome == "done":
            self._done.add((write.once, write.key))
        return outcome

    def _do(self, write: CacheWrite) -> WriteOutcome:
        held = self.get(write.key)
        if write.key in self.others:
            return "other_type"
        tag = None if held is None else entity_tag(held[0])
        if write.if_match and (tag is None or (write.if_match != "*" and tag not in write.if_match.split(","))):
            return "mismatch"
        if write.if_none_match and tag is not None and write.if_none_match in ("*", tag):
            return "mismatch"
        if write.op == "set":
            self.set(write.key, write.value, write.ttl_ms / 1000 or None)
        elif held is None:
            return "absent"
        elif write.op == "delete":
            self.delete(write.key)
        else:
            self.set(write.key, held[0], write.ttl_ms / 1000 or None)
        return "done"

    def _tell(self, keys: list[str] | None) -> None:
        for listener in self.listeners:
            listener(keys)


class CacheWire:
    """One node's way to the server: a `CacheStore`. Delays are drawn anew each time, up to the given seconds."""

    def __init__(self, server: CacheServer, random: Random = SAME, *, lane_s: float = 0.0, link_s: float = 0.0) -> None:
        self.server = server
        self.on_invalidated: Callable[[Sequence[bytes] | None], None] = lambda _names: None
        self.away = False
        self.proof = Proof(float("inf"))
        """Until `link` runs, everything is proved for ever."""
        self.link_silent = False
        self.outcome_lost = False
        self._random = random
        self._lane_s = lane_s
        self._link_s = link_s
        self._clock = VirtualClock()
        self._lane_free_at = 0.0
        self._link_free_at = 0.0
        self._link_number = 0
        server.listeners.append(self._push)

    async def load(self, keys: Sequence[str], bytes_max: int = 0) -> Sequence[Loaded | TooLong | StoreAway]:
        """Look, in the lane's order."""
        asked_at, proof = self._clock.boottime(), self.proof
        self.server.loads.append(list(keys))

        def look() -> list[Loaded | TooLong | StoreAway]:
            return [self._loaded(key, asked_at, proof) for key in keys]

        return await self._in_order(look)

    async def write(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome | StoreAway]:
        """Write, in the lane's order."""
        return await self._in_order(lambda: [self.server.do(write) for write in writes])

    async def write_all(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome] | OtherType:
        """All or none."""

        def do() -> list[WriteOutcome] | OtherType:
            for write in writes:
                if write.key in self.server.others:
                    return OtherType(write.key)
            return [self.server.do(write) for write in writes]

        return await self._in_order(do)

    async def slice(self, pattern: str, cursor: SliceCursor, limit: int) -> Slice:
        """Names by their first letters; the only glob known here is a star at the end."""
        names = [
            name for name in self.server.names() if name > cursor.name and name.startswith(pattern.removesuffix("*"))
        ]
        following = SliceCursor(0, 0, names[limit - 1]) if len(names) > limit else None
        return await self._in_order(lambda: Slice(names[:limit], following))

    async def link(self) -> None:
        """Prove, as a link with its pings does, until it is cancelled."""
        self.proof = UNPROVEN
        while True:
            sent_at, number = self._clock.boottime(), self._link_number
            if not self.link_silent:
                asyncio.get_running_loop().call_at(self._link_at(), self._pong, sent_at, number)
            await passing(PING_S)

    def cut(self) -> None:
        """The link breaks and is noticed: what was proved is so no more, what was on its way is lost."""
        self.proof.until = min(self.proof.until, self._clock.boottime())
        self.proof = UNPROVEN
        self._link_number += 1

    def _pong(self, sent_at: float, number: int) -> None:
        if number == self._link_number and not self.link_silent:
            if self.proof is UNPROVEN:
                self.proof = Proof(0.0)
            self.proof.until = sent_at + PROOF_S

    def _push(self, keys: list[str] | None) -> None:
        if not self.link_silent:
            names = None if keys is None else [key.encode() for key in keys]
            asyncio.get_running_loop().call_at(self._link_at(), self._pushed, names, self._link_number)

    def _pushed(self, names: Sequence[bytes] | None, number: int) -> None:
        if number == self._link_number and not self.link_silent:
            self.on_invalidated(names)

    def _link_at(self) -> float:
        """The link carries everything in order."""
        self._link_free_at = max(self._link_free_at, self._clock.monotonic() + self._random.uniform(0, self._link_s))
        return self._link_free_at

    async def _in_order(self, act: Callable[[], T]) -> T:
        """Act at the server after a while, answer after another; both in the order of the questions."""
        if self.away:
            raise StoreAway("away")
        now = self._clock.monotonic()
        acts_at = max(self._lane_free_at, now + self._random.uniform(0, self._lane_s))
        self._lane_free_at = acts_at
        await self._at(acts_at)
        if self.away:
            raise StoreAway("the outcome is unknown")
        outcome = act()
        self._lane_free_at = max(self._lane_free_at, acts_at + self._random.uniform(0, self._lane_s))
        await self._at(self._lane_free_at)
        if self.outcome_lost:
            raise StoreAway("the outcome is unknown")
        return outcome

    def _at(self, when: float) -> Awaitable[None]:
        return passing(max(when - self._clock.monotonic(), 0.0))

    def _loaded(self, key: str, asked_at: float, proof: Proof) -> Loaded:
        held = None if key in self.server.others else self.server.get(key)
        if held is None:
            return Loaded(None, NEVER, NEVER, asked_at, proof)
        value, ends_at = held
        if ends_at is None:
            return Loaded(value, NEVER, NEVER, asked_at, proof)
        left_ms = round((ends_at - self._clock.monotonic()) * 1000)
        return Loaded(value, round(self._clock.wall() * 1000) + left_ms, left_ms, asked_at, proof)
