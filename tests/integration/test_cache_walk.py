"""Walking over all names of the cache: in bounded parts, each name that stays is found, nothing of the router's is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from actors.cache_ports import Slice, SliceCursor
from actors.ports import StoreAway
from tests.support.cache_store import HeardCache, cache_on, walked
from tests.support.store import raw_client, running
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

Topology = ValkeyServer | ValkeyCluster
MANY = [f"key:{number}" for number in range(10_000)]


@pytest.fixture
async def cache(any_topology: Topology) -> AsyncIterator[HeardCache]:
    """On Valkey, on Redis 7.0, and on a Valkey Cluster."""
    async with cache_on(any_topology) as store:
        yield store


async def _filled(store: Topology, names: Sequence[str]) -> None:
    """Put these names there, by a client that waits as long as a busy server needs."""
    await asyncio.to_thread(_fill, store, names)


def _fill(store: Topology, names: Sequence[str]) -> None:
    found: dict[int, tuple[ValkeyServer, list[str]]] = {}
    for name in names:
        server = store.of(name) if isinstance(store, ValkeyCluster) else store
        found.setdefault(id(server), (server, []))[1].append(name)
    for server, its in found.values():
        with raw_client(server) as client:
            pipe = client.pipeline(transaction=False)
            for name in its:
                pipe.set(name, "1")
            pipe.execute()


def _flat(slices: list[list[str]]) -> list[str]:
    return sorted(name for names in slices for name in names)


@pytest.mark.parametrize("limit", [1000, 100, 37])
async def test_ten_thousand_names(cache: HeardCache, any_topology: Topology, limit: int) -> None:
    """Each once where nothing changes, never more in a slice than wanted, and the parts are worth the call."""
    await _filled(any_topology, MANY)
    slices = await walked(cache, limit=limit)
    assert _flat(slices) == sorted(MANY)
    assert max(map(len, slices)) <= limit
    assert len(slices) < 6 * len(MANY) / limit


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_smaller_slices_than_a_server_gives(cache: HeardCache, any_topology: Topology, limit: int) -> None:
    """The buckets of its table are given in parts of their own."""
    await _filled(any_topology, MANY[:2000])
    slices = await walked(cache, limit=limit)
    assert _flat(slices) == sorted(MANY[:2000])
    assert max(map(len, slices)) == limit


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a", "a*", "ab", "b:1", "b:2", "ñandú"]),
        ("a*", ["a", "a*", "ab"]),
        ("a\\*", ["a*"]),
        ("?", ["a"]),
        ("b:[2-9]", ["b:2"]),
        ("ñ*", ["ñandú"]),
        ("buzon:*", []),
        ("", []),
    ],
)
async def test_patterns(cache: HeardCache, any_topology: Topology, pattern: str, found: list[str]) -> None:
    """Redis globs."""
    await _filled(any_topology, ["a", "a*", "ab", "b:1", "b:2", "ñandú"])
    assert _flat(await walked(cache, pattern)) == found
    assert _flat(await walked(cache, pattern, 1)) == found


async def test_only_strings_that_can_be_named_and_are_not_the_routers(any_store: ValkeyServer) -> None:
    """Other types, names that are no text, and those of the reserved prefixes are left out."""
    await asyncio.to_thread(_mess, any_store)
    for reserved, expected in ((("buzon:",), ["buzon", "k", "own:x"]), (("buzon:", "own:"), ["buzon", "k"])):
        cache = HeardCache(any_store.unix_url, reserved)
        async with running(cache):
            await until(lambda: cache.connected, what="the cache")  # noqa: B023  it is this turn's
            for limit in (1, 1000):
                assert _flat(await walked(cache, limit=limit)) == expected


def _mess(server: ValkeyServer) -> None:
    with raw_client(server) as client:
        for name in (b"k", b"buzon:cfg", b"buzon:{00}:x", b"buzon", b"own:x", b"\xff\xfe", b"half \xc3"):
            client.set(name, "1")
        client.rpush("list", "1")
        client.hset("hash", "a", "1")
        client.xadd("stream", {"a": "1"})
        for _ in range(100):
            client.get("absent")  # each look moves a bucket of a table that grows: while it does, names come twice


@pytest.mark.parametrize(
    "cursor",
    [SliceCursor(-1), SliceCursor(9), SliceCursor(0, -5), SliceCursor(0, 2**64), SliceCursor(2**70, 2**70, "x")],
)
async def test_a_cursor_that_leads_nowhere_is_at_the_end(
    cache: HeardCache, any_topology: Topology, cursor: SliceCursor
) -> None:
    """It came from outside."""
    await _filled(any_topology, MANY[:10])
    assert await cache.slice("*", cursor, 10) == Slice((), None)


async def test_any_place_is_one(cache: HeardCache, any_topology: Topology) -> None:
    """A number that no server gave leads somewhere, or to the end; it never raises and gives no name that is not."""
    await _filled(any_topology, MANY[:100])
    for place in (1, 7, 2**14 - 1, 2**32, 2**63, 2**64 - 1, 1234567890123456789):
        for name in ("", "key:5", "\U0010ffff"):
            part = await cache.slice("*", SliceCursor(0, place, name), 10)
            assert set(part.names) <= set(MANY)
            assert len(part.names) <= 10


async def test_names_that_stay_are_found_though_others_come_and_go(any_store: ValkeyServer) -> None:
    """Also while the server's table grows and shrinks under the walk."""
    stay = [f"stay:{number}" for number in range(500)]
    async with cache_on(any_store) as cache:
        await _filled(any_store, stay)
        found: list[str] = []
        cursor: SliceCursor | None = SliceCursor()
        turn = 0
        while cursor is not None:
            part = await cache.slice("*", cursor, 50)
            found += part.names
            cursor = part.following
            if turn % 2:
                any_store.command("EVAL", "for i=1,3000 do redis.call('DEL','come:'..i) end", 0)
            else:
                any_store.command("EVAL", "for i=1,3000 do redis.call('SET','come:'..i,1) end", 0)
            turn += 1
        assert set(stay) <= set(found)


async def test_a_walk_that_would_miss_names_is_refused(own_valkey: ValkeyServer) -> None:
    """A server that is away is no server without names."""
    async with cache_on(own_valkey) as cache:
        await asyncio.to_thread(own_valkey.kill9)
        await until(lambda: not cache.connected, what="the end of its lanes")
        with pytest.raises(StoreAway):
            await cache.slice("*", SliceCursor(), 10)
