"""The link: what changes is told, and a proof lasts no longer than what was heard."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.adapters.valkey.cache_link import IDLE_S, PROVEN_S
from actors.adapters.valkey.cache_store import CacheOptions, ValkeyCache
from actors.cache_ports import UNPROVEN
from actors.core.cache_names import NEAR_PREFIX
from actors.near_cache import NEAR_S_MAX
from tests.support.cache_store import HeardCache, boottime, cache_on, deleting, did, loaded, setting
from tests.support.proxy import Proxy
from tests.support.store import running
from tests.support.until import passing, steady, until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

HEARD_S = 1.0


async def _heard(cache: HeardCache, *names: str) -> None:
    await until(lambda: set(names) <= set(cache.heard), HEARD_S, what=f"{names} among {cache.heard}")
    cache.heard.clear()


async def test_whatever_changes_is_told(any_topology: ValkeyServer | ValkeyCluster) -> None:
    """Whoever changed it, and however: this node, another program, a flush, an expiry."""
    async with cache_on(any_topology) as cache:
        await did(cache, *(setting(f"k{number}") for number in range(20)))
        await _heard(cache, *(f"k{number}" for number in range(20)))
        await did(cache, deleting("k0"))
        await _heard(cache, "k0")
        for words in (("SET", "k1", 2), ("DEL", "k2"), ("APPEND", "k3", "x"), ("PEXPIRE", "k4", 60_000)):
            any_topology.command(*words)
            await _heard(cache, str(words[1]))
        any_topology.command("SET", "k5", "1", "PX", 50)
        await _heard(cache, "k5")
        await until(lambda: any_topology.command("EXISTS", "k5") == 0, what="its expiry")
        await _heard(cache, "k5")
        any_topology.command("FLUSHALL")
        await _heard(cache, "*")


async def test_what_is_the_routers_own_is_not_told(any_store: ValkeyServer) -> None:
    """Its names change all the time, and are no entries; but for what it keeps near itself."""
    async with cache_on(any_store) as cache:
        any_store.command("MSET", "buzon:x", 1, "k", 1, "buzon:{00}:y", 1)
        any_store.command("SET", "buzon:z", 1)
        any_store.command("SET", f"{NEAR_PREFIX}n", 1)
        any_store.command("SET", "last", 1)
        await until(lambda: "last" in cache.heard, HEARD_S, what="what changed")
        assert cache.heard == ["k", f"{NEAR_PREFIX}n", "last"]


async def test_a_proof_goes_on_while_the_server_answers(any_store: ValkeyServer) -> None:
    """It is one and the same, and always of the last second."""
    async with cache_on(any_store) as cache:
        (proof,) = cache.proofs()
        assert (await loaded(cache, "k")).proof is proof
        began = boottime()
        await steady(lambda: boottime() < proof.until <= boottime() + PROVEN_S, 1.5, what="the proof")
        assert cache.proofs() == [proof]
        assert proof.until > began + 1.5


async def test_a_link_that_is_killed_ends_its_proof(any_store: ValkeyServer) -> None:
    """At once; the next connection begins another, and hears. Callers notice nothing."""
    async with cache_on(any_store) as cache:
        (proof,) = cache.proofs()
        (number,) = await until(lambda: _pinging(any_store), what="its first ping")
        any_store.command("CLIENT", "KILL", "ID", number)
        await until(lambda: proof.until < boottime(), PROVEN_S / 3, what="the end of the proof")
        ended = proof.until
        assert (await loaded(cache, "k")).proof is not proof
        await until(cache.proven, what="the next proof")
        (later,) = cache.proofs()
        assert later is not proof
        assert proof.until == ended
        any_store.command("SET", "k", "1")
        await _heard(cache, "k")


def _pinging(server: ValkeyServer) -> list[str]:
    lines = str(server.command("CLIENT", "LIST")).splitlines()
    return [line.split()[0].removeprefix("id=") for line in lines if "cmd=ping" in line and "name=buzon-test" in line]


async def test_a_link_that_hears_nothing_proves_nothing(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """Every answer is lost on the way, and no connection ends: within a second nothing is proven. What is read after
    the return is proven anew."""
    async with Proxy(own_valkey, tmp_path / "p") as proxy, cache_on(own_valkey, proxy.url) as cache:
        (proof,) = cache.proofs()
        first = proof.until
        await until(lambda: proof.until > first, what="an answered ping")
        proxy.swallowing = True
        began = boottime()
        own_valkey.command("SET", "k", "1")
        await until(lambda: proof.until < boottime(), 1.2, what="the end of the proof")
        assert proof.until <= began + PROVEN_S
        assert "k" not in cache.heard
        await until(lambda: cache.proofs() == [UNPROVEN], 1.5, what="the end of the link")
        proxy.swallowing = False
        await until(cache.proven, what="another proof")
        assert cache.proofs() != [proof]


async def test_a_pong_proves_nothing_younger_than_its_ping(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """On a network that takes 100 ms each way the proof is shorter by that much."""
    async with Proxy(own_valkey, tmp_path / "p") as proxy:
        proxy.delay_s = 0.1
        async with cache_on(own_valkey, proxy.url) as cache:
            (proof,) = cache.proofs()
            await steady(lambda: proof.until <= boottime() + PROVEN_S - 2 * proxy.delay_s, 1.0, what="the bound")
            assert proof.until > boottime()


async def test_a_frozen_server_proves_nothing(own_valkey: ValkeyServer) -> None:
    """And when it thaws, what it had said before is no proof of now."""
    async with cache_on(own_valkey) as cache:
        (proof,) = cache.proofs()
        own_valkey.freeze()
        await until(lambda: proof.until < boottime(), 1.2, what="the end of the proof")
        own_valkey.thaw()
        await until(cache.proven, what="the cache after the thaw")


async def test_a_restart_ends_all_proofs(own_valkey: ValkeyServer) -> None:
    """Another run may have lost what was written; what was read from the one before is proven by nothing."""
    async with cache_on(own_valkey) as cache:
        (proof,) = cache.proofs()
        await asyncio.to_thread(own_valkey.restart)
        await until(lambda: cache.proven() and cache.proofs() != [proof], what="the next run")
        assert proof.until < boottime()


async def test_a_server_that_is_no_master_any_more_proves_nothing(own_valkey: ValkeyServer) -> None:
    """A replica hears late of what changes: as soon as a write finds out, its link is left as well."""
    async with cache_on(own_valkey) as cache:
        (proof,) = cache.proofs()
        own_valkey.command("REPLICAOF", "127.0.0.1", 1)
        (outcome,) = await cache.write([setting("k")])
        assert "READONLY" in str(outcome)
        await until(lambda: cache.proofs() == [UNPROVEN] and proof.until < boottime(), what="the end of the proof")
        assert not cache.connected
        own_valkey.command("REPLICAOF", "NO", "ONE")
        await until(cache.proven, what="a master again")


async def test_a_link_that_may_not_track_proves_nothing_and_disturbs_nobody(own_valkey: ValkeyServer) -> None:
    """Everything is asked of the store; when it is allowed, the link begins to listen."""
    own_valkey.command("ACL", "SETUSER", "default", "-client|tracking")
    cache = HeardCache(own_valkey.unix_url)
    async with running(cache):
        cache.listen()
        await until(lambda: cache.connected, what="the cache")
        before = own_valkey.command("INFO", "stats")
        await passing(1.0)
        after = own_valkey.command("INFO", "stats")
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert after["total_connections_received"] - before["total_connections_received"] < 5
        assert await did(cache, setting("k")) == ["done"]
        found = await loaded(cache, "k")
        assert (found.value, found.proof) == (b"1", UNPROVEN)
        assert not cache.proven()
        own_valkey.command("ACL", "SETUSER", "default", "+client|tracking")
        await until(cache.proven, what="a proof")


@pytest.mark.parametrize("kill", [True, False])
async def test_loads_are_proven_only_by_what_listened_before_them(any_store: ValkeyServer, *, kill: bool) -> None:
    """A value read while nobody listens has no proof, also none that comes later."""
    async with cache_on(any_store) as cache:
        shard = cache._servers.home
        if kill:
            shard.link.lane.drop("the test")
        else:
            shard._linked_run = "another run"
        found = await loaded(cache, "k")
        assert found.proof is UNPROVEN


async def test_a_link_to_another_run_is_left(any_store: ValkeyServer) -> None:
    """Once the hot lane has found a server that is not the one the link listens to."""
    async with cache_on(any_store) as cache:
        shard = cache._servers.home
        shard._linked_run = "another run"
        assert cache.proofs() == [UNPROVEN]
        shard.hot.drop("the test")
        await until(cache.proven, what="a link to the same run")


async def test_nobody_listens_until_somebody_reads(any_store: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would tell of each key that the router itself writes. The first load opens the link, and a long while
    without one closes it; where nothing is kept near it never opens."""
    async with running(cache := HeardCache(any_store.unix_url)):
        await cache.reached()
        await did(cache, setting("k"))
        await steady(lambda: cache.proofs() == [UNPROVEN] and cache.heard == [], 0.3, what="nobody listening")
        assert (await loaded(cache, "k")).proof is UNPROVEN
        await until(cache.proven, what="the link")
        monkeypatch.setattr("actors.adapters.valkey.cache_link.IDLE_S", 0.5)
        await until(lambda: not cache.proven(), 2.0, what="the link closing")
        await did(cache, setting("k", b"2"))
        await steady(lambda: cache.proofs() == [UNPROVEN] and cache.heard == [], 0.3, what="nobody listening")
        assert (await loaded(cache, "k")).value == b"2"
        await until(cache.proven, what="the link again")


async def test_where_nothing_is_kept_nobody_listens(any_store: ValkeyServer) -> None:
    """However much is read."""
    options = CacheOptions(url=any_store.unix_url, client_name="buzon-test", near=False)
    cache = ValkeyCache(options, lambda: 0.0, boottime)
    async with running(cache):
        await cache.reached()
        await cache.load(["k"])
        await passing(0.2)
        assert (await loaded(cache, "k")).proof is UNPROVEN


def test_no_entry_is_believed_for_as_long_as_a_link_stays_open_unused() -> None:
    """Else what is only ever read near would lose its link."""
    assert NEAR_S_MAX < IDLE_S
