"""The cache on many servers: what moves is followed, what is away takes only its own along, and a proof never outlives
the news that its server may not have the key any more."""

from __future__ import annotations

import asyncio

import pytest

from actors.cache_ports import Loaded, OtherType, SliceCursor
from actors.ports import StoreAway
from tests.support.cache_store import (
    HeardCache,
    boottime,
    cache_on,
    deleting,
    did,
    loaded,
    setting,
    values,
    walked,
)
from tests.support.sentinels import SERVICE, Sentinels
from tests.support.store import running
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

KEYS = [f"key {number}" for number in range(60)]
FOLLOWED_S = 8.0


def _other(cluster: ValkeyCluster, key: str) -> ValkeyServer:
    return next(member for member in cluster.members if member is not cluster.of(key))


async def test_each_key_is_proven_by_its_own_server(cluster: ValkeyCluster) -> None:
    """Every master has a link of its own, and what changes on any is told."""
    async with cache_on(cluster) as cache:
        await did(cache, *map(setting, KEYS))
        proofs = {key: (await loaded(cache, key)).proof for key in KEYS}
        for key in KEYS:
            assert proofs[key] is cache._servers.of_key(key).proof
        assert len(set(map(id, proofs.values()))) == len(cluster.members)
        await until(lambda: set(KEYS) <= set(cache.heard), 1.0, what="what changed")


async def test_all_or_nothing_over_many_servers(cluster: ValkeyCluster) -> None:
    """All are looked at before the first is changed."""
    cluster.command("SADD", KEYS[30], "x")
    async with cache_on(cluster) as cache:
        assert await cache.write_all([setting(key) for key in KEYS]) == OtherType(KEYS[30])
        assert await values(cache, *KEYS) == [None] * len(KEYS)


async def test_a_key_that_moves_is_followed(own_cluster: ValkeyCluster) -> None:
    """Reads and writes find it on its new server, at once or when they come again; what was read before is proven no
    more, also that there was nothing; and what changes on the new server is told."""
    key = KEYS[0]
    there = _other(own_cluster, key)
    async with cache_on(own_cluster) as cache:
        await did(cache, *map(setting, KEYS))
        nothing = f"{{{key}}}nothing"
        before = [await loaded(cache, each) for each in (key, nothing)]
        await asyncio.to_thread(own_cluster.move, key, there)

        (found,) = await cache.load([key])
        assert isinstance(found, Loaded), found
        assert found.value == b"1"
        assert found.proof is not before[0].proof
        assert all(each.proof.until <= boottime() for each in before)
        assert await did(cache, setting(key, b"2"), deleting(KEYS[1])) == ["done", "done"]
        assert there.command("GET", key) == "2"
        await until(cache.proven, FOLLOWED_S, what="the proofs of the new view")
        cache.heard.clear()
        there.command("SET", nothing, "1")
        await until(lambda: nothing in cache.heard, 1.0, what="what changed on the new server")
        found = await loaded(cache, nothing)
        assert found.proof is cache._servers.of_key(key).proof
        assert found.proof.until > boottime()


async def test_a_move_that_nobody_asks_about_is_noticed(own_cluster: ValkeyCluster) -> None:
    """Soon: nothing that was read before it is proven by then."""
    key = KEYS[0]
    async with cache_on(own_cluster) as cache:
        before = await loaded(cache, key)
        await asyncio.to_thread(own_cluster.move, key, _other(own_cluster, key))
        moved_at = boottime()
        await until(lambda: before.proof.until <= boottime(), 3.0, what="the end of the proof")
        assert before.proof.until - moved_at < 2.0


async def test_a_server_that_is_away_takes_only_its_own_along(own_cluster: ValkeyCluster) -> None:
    """Each key has its own answer; a walk, and a batch that is all or nothing, are refused; nothing is proven of what
    is away. When the server is back all is as before."""
    down = own_cluster.members[1]
    gone = [key for key in KEYS if own_cluster.of(key) is down]
    async with cache_on(own_cluster) as cache:
        await did(cache, *map(setting, KEYS))
        was = await loaded(cache, gone[0])
        await asyncio.to_thread(down.kill9)
        await until(lambda: not cache.connected, what="the end of its lanes")

        for outcomes in (await cache.load(KEYS), await cache.write([setting(key, b"2") for key in KEYS])):
            for key, outcome in zip(KEYS, outcomes, strict=True):
                assert isinstance(outcome, StoreAway) == (key in gone)
        with pytest.raises(StoreAway):
            await cache.write_all([setting(key, b"3") for key in KEYS])
        with pytest.raises(StoreAway):
            await walked(cache)
        assert await values(cache, *(key for key in KEYS if key not in gone)) == [b"2"] * (len(KEYS) - len(gone))
        assert was.proof.until <= boottime()
        assert cache.usable
        assert cache.why_away != ""

        await asyncio.to_thread(own_cluster.start_member, down)
        await asyncio.to_thread(own_cluster.wait_until_ok, own_cluster.members)
        await until(cache.proven, FOLLOWED_S, what="the server")
        assert await values(cache, *gone) == [b"1"] * len(gone)
        assert sorted(name for names in await walked(cache, limit=7) for name in names) == sorted(KEYS)


async def test_a_replica_that_takes_over_is_followed(own_cluster: ValkeyCluster) -> None:
    """The old master lives on and thinks for a while that it is one: what it proved ends, and the cache is where its
    keys are."""
    primary = own_cluster.members[2]
    key = next(key for key in KEYS if own_cluster.of(key) is primary)
    replica = await asyncio.to_thread(own_cluster.add_replica, primary)
    async with cache_on(own_cluster) as cache:
        await did(cache, *map(setting, KEYS))
        was = await loaded(cache, key)
        await until(lambda: replica.command("DBSIZE") == primary.command("DBSIZE"), what="replication")
        await asyncio.to_thread(replica.command, "CLUSTER", "FAILOVER", "TAKEOVER")
        taken_at = boottime()
        await until(lambda: was.proof.until <= boottime(), 3.0, what="the end of the proof")
        assert was.proof.until - taken_at < 2.0
        await until(lambda: _peer(cache, key) == ("127.0.0.1", replica.port), FOLLOWED_S, what="the new master")
        await until(cache.proven, FOLLOWED_S, what="proofs")
        assert await values(cache, *KEYS) == [b"1"] * len(KEYS)
        cache.heard.clear()
        replica.command("SET", key, "2")
        await until(lambda: key in cache.heard, 1.0, what="what changed on the new master")


def _peer(cache: HeardCache, key: str) -> tuple[str, int] | None:
    return cache._servers.of_key(key).link.lane.peer


async def test_a_walk_of_a_cluster_with_a_hole_is_refused(own_cluster: ValkeyCluster) -> None:
    """A slot that nobody has may hold names."""
    async with cache_on(own_cluster) as cache:
        await did(cache, *map(setting, KEYS))
        for member in own_cluster.members:
            member.command("CLUSTER", "DELSLOTS", 5)

        async def refused() -> bool:
            try:
                await cache.slice("*", SliceCursor(), 10)
            except StoreAway:
                return True
            return False

        await until(refused, FOLLOWED_S, what="the refusal")


async def test_the_cache_follows_the_master_of_sentinels(sentinels: Sentinels) -> None:
    """A planned failover: within two seconds of the news it reads, writes and listens there, and the old one, which
    still lives, proves nothing any more."""
    cache = HeardCache(sentinels.url)
    async with running(cache):
        cache.listen()
        await until(cache.proven, what="the cache")
        old = await asyncio.to_thread(sentinels.primary)
        await did(cache, setting("k"))
        (proof,) = cache.proofs()
        await until(lambda: sentinels.replica().command("GET", "k") == "1", what="replication")
        await asyncio.to_thread(sentinels.ask, "failover", SERVICE)

        async def another() -> bool:
            return await asyncio.to_thread(sentinels.primary) is not old

        await until(another, 20.0, every_s=0.02, what="another master")
        new = await asyncio.to_thread(sentinels.primary)
        await until(lambda: _is_on(cache, new) and cache.proven(), 3.0, what="the new master")

        assert proof.until < boottime()
        assert cache.proofs() != [proof]
        assert await did(cache, setting("k", b"2")) == ["done"]
        assert new.command("GET", "k") == "2"
        cache.heard.clear()
        new.command("SET", "k", "3")
        await until(lambda: "k" in cache.heard, 1.0, what="what changed on the new master")
        assert "buzon-test" not in str(old.command("CLIENT", "LIST"))


def _is_on(cache: HeardCache, server: ValkeyServer) -> bool:
    return all(lane.peer == ("127.0.0.1", server.port) for lane in cache._servers.home.lanes.values())
