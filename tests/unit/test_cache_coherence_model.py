"""Coherence in virtual time: however requests, pushes and answers overtake each other, no read is older than its bound.

Three nodes and a foreign client play on a few keys; lanes and links are slow by random amounts, links break or go
silent. Every value is the number of its write, and the server's history says what was there when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.cache import Cache, CacheRules
from actors.cache_ports import CacheWrite
from tests.support.doubles import Stage
from tests.support.memory_cache import PROOF_S, CacheServer, CacheTallies, CacheWire
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

KEYS = ("a", "b", "c")
NODES = 3
READER = 2
"""A node that writes nothing, so that only the link tells it what changes."""
PLAY_S = 6.0
LANE_S = 0.02
LINK_S = 0.04
SILENT_BOUND_S = LINK_S + PROOF_S
"""A push may be this late, and a link that goes silent right after a pong is believed for as long as a proof holds."""
EXAMPLES = 30


class Ledger:
    """What each key held from when on, and which reads were older than allowed."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.history: dict[str, list[tuple[float, bytes | None]]] = {key: [(self.now(), None)] for key in KEYS}
        self.own: dict[tuple[int, str], float] = {}
        """When the last write of a key that a node has acknowledged was begun there at the latest: its own bound."""
        self.bound_s = LINK_S
        self.reads = 0
        self.wrong: list[str] = []

    def held(self, key: str, value: bytes | None) -> None:
        """The server holds this from now on."""
        self.history[key].append((self.now(), value))

    def oldest(self, node: int, key: str, bound_s: float) -> float:
        """What a read that begins now may give must have been there at this time or later."""
        return max(self.now() - bound_s, self.own.get((node, key), 0.0))

    def judge(self, node: int, key: str, value: bytes | None, oldest: float) -> None:
        """A read gave this value."""
        self.reads += 1
        allowed = [held for (at, held), ends in zip(self.history[key], self._ends(key), strict=True) if ends >= oldest]
        if value not in allowed:
            self.wrong.append(f"node {node} read {key}={value!r} of before {oldest:.3f}, allowed {allowed}")

    def _ends(self, key: str) -> list[float]:
        starts = [at for at, _ in self.history[key]]
        return [*starts[1:], float("inf")]


class RecordedServer(CacheServer):
    """Notes in the ledger whatever changes."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Set, and note."""
        self.ledger.held(key, value)
        super().set(key, value, ttl_s)

    def delete(self, key: str) -> bool:
        """Delete, and note."""
        self.ledger.held(key, None)
        return super().delete(key)

    def flush(self) -> None:
        """Delete everything, and note."""
        for key in KEYS:
            self.ledger.held(key, None)
        super().flush()


class Game:
    """Three nodes, a foreign client, and whoever cuts the links."""

    def __init__(self, stage: Stage, seed: int, forgetful: type[Cache]) -> None:
        self.random = Random(seed)  # noqa: S311  a game, no secrets
        self.ledger = Ledger()
        self.server = RecordedServer(self.ledger)
        self.number = 0
        self.quiet_since = [0.0] * NODES
        """Since when each node's link has been neither cut nor silent."""
        self.wires = [CacheWire(self.server, self.random, lane_s=LANE_S, link_s=LINK_S) for _ in range(NODES)]
        rules = CacheRules(near_bytes_max=1 << 20, stale_s=0)
        self.caches = [forgetful(wire, rules, stage.supervisor, stage.clock, CacheTallies()) for wire in self.wires]
        for wire, cache in zip(self.wires, self.caches, strict=True):
            wire.on_invalidated = cache.on_invalidated

    async def play(self) -> None:
        """Everybody at once, for a while."""
        ends_at = self.ledger.now() + PLAY_S
        async with asyncio.TaskGroup() as group:
            links = [group.create_task(wire.link()) for wire in self.wires]
            players = [group.create_task(self._client(node, ends_at)) for node in range(NODES) for _ in range(4)]
            players.append(group.create_task(self._foreigner(ends_at)))
            players.append(group.create_task(self._saboteur(ends_at)))
            await asyncio.wait(players)
            for link in links:
                link.cancel()

    async def _client(self, node: int, ends_at: float) -> None:
        cache, random = self.caches[node], self.random
        while self.ledger.now() < ends_at:
            await passing(random.uniform(0, 0.03))
            key = random.choice(KEYS)
            roll = random.random()
            if roll < 0.2 and node != READER:
                await self._write(node, cache, key)
            elif roll < 0.8:
                oldest = self.ledger.oldest(node, key, self._bound_s(node))
                entry, _ = await cache.read(key)
                self.ledger.judge(node, key, entry.value, oldest)
            else:
                each_oldest = {each: self.ledger.oldest(node, each, self._bound_s(node)) for each in KEYS}
                found, _ = await cache.read_many(KEYS)
                for each, entry in found.items():
                    self.ledger.judge(node, each, entry.value, each_oldest[each])

    async def _write(self, node: int, cache: Cache, key: str) -> None:
        began = self.ledger.now()
        self.number += 1
        value = b"%d" % self.number
        write = self.random.choice(
            (
                CacheWrite(key=key, op="set", value=value),
                CacheWrite(key=key, op="set", value=value, ttl_ms=self.random.randint(5, 200)),
                CacheWrite(key=key, op="delete"),
            )
        )
        if self.random.random() < 0.3:
            await cache.write_all([write])
        else:
            await cache.write(write)
        # What the server held when this write was begun is over for this node; the write itself came after that.
        self.ledger.own[node, key] = max(self.ledger.own.get((node, key), 0.0), self._done_at(key, value, began))

    def _done_at(self, key: str, value: bytes, began: float) -> float:
        """When the write took effect, as far as the history tells; when it was begun at the earliest."""
        return next((at for at, held in reversed(self.ledger.history[key]) if held == value), began)

    async def _foreigner(self, ends_at: float) -> None:
        while self.ledger.now() < ends_at:
            await passing(self.random.uniform(0, 0.1))
            self.number += 1
            key, roll = self.random.choice(KEYS), self.random.random()
            if roll < 0.6:
                self.server.set(key, b"%d" % self.number, self.random.choice((None, 0.05)))
            elif roll < 0.95:
                self.server.delete(key)
            else:
                self.server.flush()

    async def _saboteur(self, ends_at: float) -> None:
        while self.ledger.now() < ends_at:
            await passing(self.random.uniform(0.2, 1.5))
            node = self.random.randrange(NODES)
            self.quiet_since[node] = float("inf")
            self.wires[node].link_silent = True
            await passing(self.random.uniform(0.0, 2.0))
            self.wires[node].cut()
            self.wires[node].link_silent = False
            self.quiet_since[node] = self.ledger.now()

    def _bound_s(self, node: int) -> float:
        return LINK_S if self.quiet_since[node] <= self.ledger.now() - SILENT_BOUND_S else SILENT_BOUND_S


async def play(seed: int, cache: type[Cache] = Cache) -> Ledger:
    """One game; gives what came of it."""
    async with Stage() as stage:
        game = Game(stage, seed, cache)
        await game.play()
        assert not stage.crashes
        return game.ledger


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32))
@in_virtual_time
async def test_no_read_is_older_than_its_bound(seed: int) -> None:
    """A node's own writes are seen at once, those of others within what a push takes, or what a proof holds."""
    ledger = await play(seed)
    assert ledger.reads > 100
    assert not ledger.wrong, ledger.wrong[:3]


class KeepsWhatItWrote(Cache):
    """Does not forget a key that was written here."""

    def _committed(self, writes: object, _outcomes: object) -> None:
        pass


class KeepsOvertaken(Cache):
    """Keeps a load although its key changed under way."""

    def _forget(self, key: str) -> None:
        self.near.forget(key)


class BelievesForEver(Cache):
    """Keeps what nobody proves."""

    def _landed(self, key: str, flight: list, loaded: object) -> object:  # type: ignore[type-arg,override]  # planted
        entry = super()._landed(key, flight, loaded)  # type: ignore[arg-type]  # as it is
        entry.proof = type(entry.proof)(float("inf"))  # type: ignore[union-attr]  # only loads that succeed here
        return entry


FAULTS: tuple[type[Cache], ...] = (KeepsWhatItWrote, KeepsOvertaken, BelievesForEver)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_a_planted_fault_is_found(fault: type[Cache]) -> None:
    """Within some games: the check can fail."""
    found: Callable[..., None] = in_virtual_time(_finds)
    assert any(_wrong(found, seed, fault) for seed in range(20))


def _wrong(finds: Callable[..., None], seed: int, fault: type[Cache]) -> bool:
    wrong: list[str] = []
    finds(seed, fault, wrong)
    return bool(wrong)


async def _finds(seed: int, fault: type[Cache], wrong: list[str]) -> None:
    wrong += (await play(seed, fault)).wrong
