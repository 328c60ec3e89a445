"""Cache: one load a key, nothing kept that changed under way, stale when the store is away, and its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from actors import cache as cache_module
from actors.cache import Cache, CacheRules, ValueTooLong
from actors.cache_ports import NEVER, UNPROVEN, CacheWrite, Loaded, OtherType, Proof, TooLong
from actors.core.entity_tag import entity_tag
from actors.ports import Overloaded, StoreAway
from tests.support.doubles import Stage, Tally
from tests.support.memory_cache import SAME, CacheServer, CacheTallies, CacheWire
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

STALE_S = 60.0


class Rig:
    """A cache on a wire to a server of its own; nothing takes time unless `lane_s` says so."""

    def __init__(self, stage: Stage, lane_s: float = 0.0, random: Random = SAME) -> None:
        self.server = CacheServer()
        self.wire = CacheWire(self.server, random, lane_s=lane_s)
        self.meters = CacheTallies()
        self._stage = stage
        self.cache = self.another()
        self.wire.on_invalidated = self.cache.on_invalidated

    def another(self) -> Cache:
        """A cache that asks the wire as it is now."""
        rules = CacheRules(near_bytes_max=1 << 20, stale_s=STALE_S)
        return Cache(self.wire, rules, self._stage.supervisor, self._stage.clock, self.meters)

    async def has(self, ttl_s: float | None = None, **values: bytes) -> None:
        """Let the server hold these, and everybody have heard of it; what was counted until then is not."""
        for key, value in values.items():
            self.server.set(key, value, ttl_s)
        await ticks()
        self.meters.cache_invalidations = Tally()

    async def value(self, key: str) -> bytes | None:
        """What a read gives."""
        return (await self.cache.read(key))[0].value

    def counts(self) -> dict[str, int]:
        """Reads by how they were answered."""
        return {how: int(tally.value) for how, tally in self.meters.cache_reads.items() if tally.value}


@asynccontextmanager
async def rig(lane_s: float = 0.0) -> AsyncIterator[Rig]:
    """A rig on a stage."""
    async with Stage() as stage:
        yield Rig(stage, lane_s)
        assert not stage.crashes


@in_virtual_time
async def test_the_second_read_does_not_ask_the_store() -> None:
    """Nor does one of a key that holds nothing."""
    async with rig() as r:
        await r.has(k=b'{"a":1}')
        assert r.cache.read_now("k", r.cache.now()) is None
        assert await r.value("k") == b'{"a":1}'
        assert await r.value("k") == b'{"a":1}'
        assert [await r.value("nothing") for _ in range(2)] == [None, None]
        near = r.cache.read_now("k", r.cache.now())
        assert near is not None
        assert near.etag == entity_tag(b'{"a":1}')
        assert r.server.loads == [["k"], ["nothing"]]
        assert r.counts() == {"miss": 2, "hit": 3}
        assert r.meters.cache_absent.value == 2


@in_virtual_time
async def test_one_load_for_all_who_want_the_same() -> None:
    """A hundred singles and a batch share it; the batch loads the rest with one question."""
    async with rig(lane_s=0.01) as r:
        await r.has(k=b"1", l=b"2")
        singles = [asyncio.ensure_future(r.value("k")) for _ in range(100)]
        await ticks(2)
        found, how = await r.cache.read_many(["k", "l", "l", "nothing"])
        assert {key: entry.value for key, entry in found.items()} == {"k": b"1", "l": b"2", "nothing": None}
        assert how == "miss"
        assert await asyncio.gather(*singles) == [b"1"] * 100
        assert sorted(r.server.loads) == [["k"], ["l", "nothing"]]
        assert r.counts() == {"miss": 3, "collapsed": 100}


@in_virtual_time
async def test_a_load_joined_from_a_batch_answers_singles() -> None:
    """The other way round."""
    async with rig(lane_s=0.01) as r:
        await r.has(k=b"1")
        batch = asyncio.ensure_future(r.cache.read_many(["k", "l"]))
        await ticks(2)
        assert await r.value("k") == b"1"
        await batch
        assert r.server.loads == [["k", "l"]]


@in_virtual_time
async def test_what_a_caller_was_told_is_written_is_what_it_reads() -> None:
    """Also when a load from before the write is still under way: nobody new joins it, and it is not kept."""
    async with rig() as r:
        await r.has(k=b"1")
        await r.value("k")
        assert await r.cache.write(CacheWrite(key="k", op="set", value=b"2")) == "done"
        assert await r.value("k") == b"2"
        assert await r.cache.write(CacheWrite(key="k", op="delete")) == "done"
        assert await r.value("k") is None
        assert r.meters.cache_writes.value == 2


@in_virtual_time
async def test_a_load_overtaken_by_a_change_is_given_but_not_kept() -> None:
    """Its waiters asked before the change was known; whoever asks after it gets a load of his own."""
    async with rig() as r:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        load = r.wire.load

        async def held_up(keys: list[str], bytes_max: int = 0) -> object:
            loaded = await load(keys)
            if not gate.done():
                await gate
            return loaded

        r.wire.load = held_up  # type: ignore[method-assign,assignment]  # a slow way back for the first load
        cache = r.another()
        await r.has(k=b"1")
        early = asyncio.ensure_future(cache.read("k"))
        await ticks()
        r.server.set("k", b"2")
        cache.on_invalidated([b"k"])
        gate.set_result(None)
        late = await cache.read("k")
        assert (await early)[0].value == b"1"
        assert late[0].value == b"2"
        kept = cache.read_now("k", cache.now())
        assert kept is not None
        assert kept.value == b"2"


@in_virtual_time
async def test_everything_is_forgotten_when_the_store_was_flushed() -> None:
    """A push without names."""
    async with rig() as r:
        await r.has(k=b"1")
        await r.value("k")
        r.cache.on_invalidated(None)
        assert len(r.cache.near) == 0
        assert r.meters.cache_invalidations.value == 1


@in_virtual_time
async def test_a_name_that_is_no_text_changes_nothing_here() -> None:
    """Any program may write any name."""
    async with rig() as r:
        await r.has(k=b"1")
        await r.value("k")
        r.cache.on_invalidated([b"\xff\xfe", b"other"])
        assert r.cache.read_now("k", r.cache.now()) is not None
        assert r.meters.cache_invalidations.value == 2


@in_virtual_time
async def test_what_was_read_unproven_is_not_kept() -> None:
    """While nobody listens to the server every read asks it."""
    async with rig() as r:
        r.wire.proof = UNPROVEN
        await r.has(k=b"1")
        assert [await r.value("k") for _ in range(3)] == [b"1"] * 3
        assert r.counts() == {"miss": 3}
        assert len(r.cache.near) == 0


@in_virtual_time
async def test_the_time_to_live_is_kept_here_too() -> None:
    """Counted from before the question left, so never longer than in the store; what is left is never below 1 ms."""
    async with rig() as r:
        await r.has(ttl_s=0.3, k=b"1")
        entry, _ = await r.cache.read("k")
        assert r.cache.left_ms(entry) == 300
        await passing(0.2)
        assert r.cache.left_ms(entry) == 100
        assert r.cache.read_now("k", r.cache.now()) is entry
        r.server.listeners.clear()  # nobody says that it expired
        await passing(0.1)
        assert r.cache.left_ms(entry) == 1
        assert r.cache.read_now("k", r.cache.now()) is None
        assert await r.value("k") is None
        await r.has(always=b"1")
        assert r.cache.left_ms((await r.cache.read("always"))[0]) == NEVER


class Slowest(Random):
    """Every delay is as long as it can be."""

    def uniform(self, a: float, b: float) -> float:
        """The longest."""
        return b


@pytest.mark.parametrize("batch", [False, True])
@in_virtual_time
async def test_nobody_who_asks_after_the_expiry_is_given_the_value(*, batch: bool) -> None:
    """Though a load from before is still under way, whose answer says that it is there."""
    async with Stage() as stage:
        r = Rig(stage, lane_s=0.2, random=Slowest())
        r.server.set("k", b"1", ttl_s=0.3)
        await ticks()
        early = asyncio.ensure_future(r.cache.read("k"))
        await passing(0.35)
        late = r.cache.read_many(["k"]) if batch else r.cache.read("k")
        found, how = await late
        assert (await early)[0].value == b"1"
        assert (found["k"] if isinstance(found, dict) else found).value is None
        assert how in ("collapsed", "miss")


@pytest.mark.parametrize("batch", [False, True])
@in_virtual_time
async def test_a_second_look_ends_in_time(*, batch: bool) -> None:
    """However slow the store is, and however many keys of a batch have expired on their way."""
    async with Stage() as stage:
        r = Rig(stage, lane_s=0.45, random=Slowest())
        keys = ["k", "l", "m"]
        for key in keys:
            r.server.set(key, b"1", ttl_s=0.6)
        await ticks()
        early = asyncio.ensure_future(r.cache.read_many(keys))
        await passing(0.7)
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreAway, match="slow"):
            await (r.cache.read_many(keys) if batch else r.cache.read("k"))
        assert asyncio.get_running_loop().time() - began <= cache_module.ANSWER_S + 0.001
        await early
        await passing(2)
        assert r.cache._waiting == 0


@in_virtual_time
async def test_while_the_store_is_away_what_is_near_is_shown_as_stale() -> None:
    """For `stale_s` after its proof; nothing else can be answered."""
    async with rig() as r:
        r.wire.proof = Proof(asyncio.get_running_loop().time() + 0.9)
        await r.has(k=b"1")
        await r.value("k")
        r.wire.away = True
        assert (await r.cache.read("k"))[1] == "hit"
        await passing(1.0)
        entry, how = await r.cache.read("k")
        assert (entry.value, how) == (b"1", "stale")
        found, how = await r.cache.read_many(["k"])
        assert (found["k"].value, how) == (b"1", "stale")
        with pytest.raises(StoreAway):
            await r.cache.read("unknown")
        with pytest.raises(StoreAway):
            await r.cache.read_many(["k", "unknown"])
        await passing(STALE_S)
        with pytest.raises(StoreAway):
            await r.cache.read("k")


@in_virtual_time
async def test_a_write_whose_outcome_is_unknown_is_forgotten_too() -> None:
    """It may have been done: what was near before must not be shown any more, not even as stale."""
    async with rig() as r:
        await r.has(k=b"1")
        await r.value("k")
        r.wire.on_invalidated = lambda _names: None
        r.wire.outcome_lost = True
        with pytest.raises(StoreAway):
            await r.cache.write(CacheWrite(key="k", op="set", value=b"2"))
        with pytest.raises(StoreAway):
            await r.cache.read("k")
        r.wire.outcome_lost = False
        assert await r.value("k") == b"2"


@in_virtual_time
async def test_batches_of_writes_are_forgotten_whatever_came_of_them() -> None:
    """Done, refused as a whole, or unknown."""
    async with rig() as r:
        r.wire.on_invalidated = lambda _names: None
        await r.has(a=b"1", b=b"1")
        await r.cache.read_many("ab")
        both = [CacheWrite(key=key, op="set", value=b"2") for key in "ab"]
        assert await r.cache.write_all(both) == ["done", "done"]
        assert {key: entry.value for key, entry in (await r.cache.read_many("ab"))[0].items()} == {
            "a": b"2",
            "b": b"2",
        }
        assert await r.cache.write_each([CacheWrite(key="a", op="delete"), CacheWrite(key="x", op="delete")]) == [
            "done",
            "absent",
        ]
        assert await r.value("a") is None
        r.server.others.add("b")
        assert await r.cache.write_all(both) == OtherType("b")
        assert r.meters.cache_writes.value == 4
        r.wire.away = True
        with pytest.raises(StoreAway):
            await r.cache.write_all(both)
        assert len(r.cache.near) == 0


@in_virtual_time
async def test_what_other_programs_stored_is_shown_as_a_string() -> None:
    """What is no JSON, no UTF-8 or nested beyond reason; its tag is that of what is stored."""
    async with rig() as r:
        shown = {
            b"hola": b'"hola"',
            b"NaN": b'"NaN"',
            b"": b'""',
            b'{"a":1} x': b'"{\\"a\\":1} x"',
            b"\xff\xfe": '"��"'.encode(),
            '"ñ"'.encode(): '"ñ"'.encode(),
            b" [1, 2]\n": b" [1, 2]\n",
            b'"\xff"': '"\\"�\\""'.encode(),
        }
        for stored, value in shown.items():
            r.server.set("k", stored)
            entry, _ = await r.cache.read("k")
            assert (entry.value, entry.etag) == (value, entity_tag(stored))


@in_virtual_time
async def test_a_value_too_long_to_be_read_is_said_to_be() -> None:
    """To those who wait for it alone."""
    async with rig() as r:

        async def load(keys: list[str], bytes_max: int = 0) -> list[TooLong | Loaded]:
            return [TooLong(99) if key == "long" else Loaded(b"1", NEVER, NEVER, 0.0, UNPROVEN) for key in keys]

        r.wire.load = load  # type: ignore[method-assign,assignment]  # a store with something very large in it
        cache = r.another()
        with pytest.raises(ValueTooLong) as long:
            await cache.read("long")
        assert (long.value.key, long.value.size_bytes) == ("long", 99)
        assert (await cache.read("k"))[0].value == b"1"
        with pytest.raises(ValueTooLong):
            await cache.read_many(["k", "long"])


@in_virtual_time
async def test_callers_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused at once; when the others have their answers there is room again."""
    monkeypatch.setattr(cache_module, "WAITING_MAX", 3)
    async with rig(lane_s=0.01) as r:
        waiting = [asyncio.ensure_future(r.value(key)) for key in "aab"]
        await ticks(2)
        with pytest.raises(Overloaded):
            await r.cache.read("a")
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert r.cache._waiting == 0
        assert await r.value("c") is None


@in_virtual_time
async def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    """Neither the load of others, nor a batch's that others have joined."""
    async with rig(lane_s=0.01) as r:
        await r.has(k=b"1")
        first = asyncio.ensure_future(r.cache.read("k"))
        await ticks(2)
        second = asyncio.ensure_future(r.cache.read("k"))
        await ticks(2)
        first.cancel()
        assert (await second)[0].value == b"1"
        batch = asyncio.ensure_future(r.cache.read_many(["l"]))
        await ticks(2)
        joined = asyncio.ensure_future(r.cache.read("l"))
        await ticks(2)
        batch.cancel()
        with pytest.raises(StoreAway):  # nobody will ever know
            await joined
        assert await r.value("l") is None


@in_virtual_time
async def test_what_is_of_no_use_any_more_is_dropped_by_and_by() -> None:
    """And the gauges say what is there."""
    async with Stage() as stage:
        r = Rig(stage)
        stage.supervisor.service("cache", r.cache.run)
        await r.has(k=b"1")
        await r.has(ttl_s=5, short=b"1")
        await r.cache.read_many(["k", "short"])
        r.server.listeners.clear()
        await passing(2)
        assert r.cache.stats().near_entries == 2
        await passing(12)
        stats = r.cache.stats()
        assert stats.near_entries == 1
        assert stats.near_bytes == r.cache.near.bytes
        assert (stats.misses, stats.hits, stats.near_bytes_max) == (2, 0, 1 << 20)
