"""Walks over all names: what they give, where they stop, and that they never take more than their share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors import cache_walks
from actors.cache import Cache, CacheRules
from actors.cache_ports import Slice, SliceCursor
from actors.cache_walks import CacheWalks
from actors.ports import Overloaded, StoreAway
from tests.support.doubles import Stage
from tests.support.memory_cache import CacheServer, CacheTallies, CacheWire
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

FIRST = SliceCursor()


class Rig:
    """Walks over a server that holds `names`."""

    def __init__(self, stage: Stage, names: int) -> None:
        self.server = CacheServer()
        self.wire = CacheWire(self.server)
        self.cache = Cache(
            self.wire, CacheRules(near_bytes_max=1 << 20, stale_s=0), stage.supervisor, stage.clock, CacheTallies()
        )
        self.wire.on_invalidated = self.cache.on_invalidated
        self.walks = CacheWalks(self.cache, self.wire, stage.clock)
        for number in range(names):
            self.server.set(f"k{number:06}", b"1")


@asynccontextmanager
async def rig(names: int = 0) -> AsyncIterator[Rig]:
    """A rig on a stage."""
    async with Stage() as stage:
        yield Rig(stage, names)


@in_virtual_time
async def test_names_come_in_pages_until_there_are_no_more() -> None:
    """Each once, never more than asked for."""
    async with rig(names=1200) as r:
        found: list[str] = []
        cursor: SliceCursor | None = FIRST
        while cursor is not None:
            names, cursor = await r.walks.names("*", cursor, 700)
            assert len(names) <= 700
            found += names
        assert found == [f"k{number:06}" for number in range(1200)]


@in_virtual_time
async def test_without_a_limit_everything_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then where to go on."""
    async with rig(names=1200) as r:
        names, cursor = await r.walks.names("*", FIRST, None)
        assert (len(names), cursor) == (1200, None)
        monkeypatch.setattr(cache_walks, "NAMES_MAX", 1000)
        names, cursor = await r.walks.names("*", FIRST, None)
        assert (len(names), cursor) == (1000, SliceCursor(0, 0, "k000999"))


@in_virtual_time
async def test_a_list_stops_after_a_while_and_says_where_to_go_on() -> None:
    """However much there is left to walk through."""
    async with rig() as r:

        async def slow(_pattern: str, cursor: SliceCursor, _limit: int) -> Slice:
            await passing(0.5)
            return Slice([f"n{cursor.place}"], SliceCursor(0, cursor.place + 1))

        r.wire.slice = slow  # type: ignore[method-assign,assignment]  # a store without end
        names, cursor = await r.walks.names("*", FIRST, None)
        assert (names, cursor) == (["n0", "n1", "n2", "n3"], SliceCursor(0, 4))


@in_virtual_time
async def test_a_deletion_takes_what_matches_and_no_more() -> None:
    """Near entries of it too; what it could not delete is not counted."""
    async with rig(names=1200) as r:
        r.server.set("other", b"1")
        r.server.set("list", b"1")
        r.server.others.add("list")
        await r.cache.read_many(["k000001", "other"])
        assert await r.walks.delete_matching("k*") == 1200
        assert r.server.names() == ["list", "other"]
        assert r.cache.read_now("k000001", r.cache.now()) is None
        assert await r.walks.count() == 2
        assert await r.walks.flush() == 1
        assert await r.walks.count() == 1


@in_virtual_time
async def test_what_somebody_else_deleted_under_a_walk_is_forgotten_too() -> None:
    """The walk does not meet its name, and a silent link does not tell it; what is acknowledged holds here at once."""
    async with rig(names=1) as r:
        await ticks()
        await r.cache.read_many(["k000000"])
        assert r.cache.read_now("k000000", r.cache.now()) is not None
        r.wire.link_silent = True
        r.server.delete("k000000")
        assert await r.walks.delete_matching("k*") == 0
        entry, _ = await r.cache.read("k000000")
        assert entry.value is None


@in_virtual_time
async def test_a_walk_that_takes_too_long_is_given_up() -> None:
    """It says so; what it did is done."""
    async with rig(names=1) as r:
        real = r.wire.slice

        async def slow(pattern: str, cursor: SliceCursor, limit: int) -> Slice:
            await passing(10)
            return Slice((await real(pattern, cursor, limit)).names, FIRST)

        r.wire.slice = slow  # type: ignore[method-assign]  # a store without end
        with pytest.raises(TimeoutError):
            await r.walks.delete_matching("*")
        assert r.server.names() == []


@in_virtual_time
async def test_a_store_that_goes_away_ends_the_walk() -> None:
    """With StoreAway, and room for the next."""
    async with rig(names=1) as r:
        r.wire.away = True
        for _ in range(cache_walks.WALKS_MAX + 1):
            with pytest.raises(StoreAway):
                await r.walks.count()


@in_virtual_time
async def test_walks_at_once_are_bounded() -> None:
    """Others wait their turn, in the order of asking; those that delete have turns of their own."""
    async with rig(names=1) as r:
        under_way = most = 0
        real = r.wire.slice

        async def counted(pattern: str, cursor: SliceCursor, limit: int) -> Slice:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await passing(0.1)
            under_way -= 1
            return await real(pattern, cursor, limit)

        r.wire.slice = counted  # type: ignore[method-assign]  # to look at it
        walks = [asyncio.ensure_future(r.walks.count()) for _ in range(3 * cache_walks.WALKS_MAX)]
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        assert await r.walks.delete_matching("x*") == 0
        assert asyncio.get_running_loop().time() - began < 0.15
        assert await asyncio.gather(*walks) == [1] * 3 * cache_walks.WALKS_MAX
        assert most == cache_walks.WALKS_MAX + 1


@in_virtual_time
async def test_walks_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused at once."""
    monkeypatch.setattr(cache_walks, "WAITING_MAX", 2)
    async with rig(names=1) as r:
        r.wire._lane_s = 0.1
        walks = [asyncio.ensure_future(r.walks.count()) for _ in range(cache_walks.WALKS_MAX + 2)]
        await ticks()
        with pytest.raises(Overloaded):
            await r.walks.names("*", FIRST, 10)
        assert await asyncio.gather(*walks) == [1] * (cache_walks.WALKS_MAX + 2)


@in_virtual_time
async def test_a_walk_whose_turn_does_not_come_is_refused() -> None:
    """Nobody waits longer than TURN_S; those under way go on, and their places are free again afterwards."""
    async with rig(names=1) as r:
        real = r.wire.slice

        async def slow(pattern: str, cursor: SliceCursor, limit: int) -> Slice:
            await passing(5)
            return await real(pattern, cursor, limit)

        r.wire.slice = slow  # type: ignore[method-assign]  # a store that is busy
        walks = [asyncio.ensure_future(r.walks.count()) for _ in range(cache_walks.WALKS_MAX)]
        await ticks()
        began = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded):
            await r.walks.count()
        assert asyncio.get_running_loop().time() - began == pytest.approx(cache_walks.TURN_S)
        assert await asyncio.gather(*walks) == [1] * cache_walks.WALKS_MAX
        assert await r.walks.count() == 1
