"""The cache's entries in the real store: loads, writes, preconditions, times to live, what is no entry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha1

import pytest

from actors.adapters.valkey.cache_calls import CALL_BYTES, LOOK_KEYS_MAX, VALUE_BYTES_MAX
from actors.cache_ports import NEVER, CacheWrite, Loaded, OtherType, SliceCursor, TooLong
from actors.core.entity_tag import entity_tag
from actors.ports import StoreAway
from tests.support.cache_store import HeardCache, boottime, cache_on, deleting, did, expiring, loaded, setting, values
from tests.support.store import store_ms
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

ONE, TWO = entity_tag(b"1"), entity_tag(b"2")
OTHER = sha1(b"other", usedforsecurity=False).hexdigest()
DAY_MS = 86_400_000
YEARS_292_MS = 292 * 365 * DAY_MS


@pytest.fixture
async def cache(any_topology: ValkeyServer | ValkeyCluster) -> AsyncIterator[HeardCache]:
    """On Valkey, on Redis 7.0, and on a Valkey Cluster."""
    async with cache_on(any_topology) as store:
        yield store


async def test_entries_are_plain_strings(cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster) -> None:
    """Another program reads and writes the very bytes, under the very name."""
    assert await did(cache, setting("a:ñ/ ?", b'{"a": 1}'), setting("empty", b"")) == ["done", "done"]
    assert any_topology.command("GET", "a:ñ/ ?") == '{"a": 1}'
    any_topology.command("SET", "theirs", "not JSON")

    assert await values(cache, "theirs", "a:ñ/ ?", "nothing", "empty") == [b"not JSON", b'{"a": 1}', None, b""]


async def test_reads_and_writes_take_effect_in_the_order_asked(cache: HeardCache) -> None:
    """Also of one key in one batch, and of a read that left just after a write."""
    assert await did(cache, setting("k"), deleting("k"), deleting("k"), setting("k", b"2"), expiring("k", 9000)) == [
        *("done", "done", "absent", "done", "done"),
    ]
    assert await values(cache, "k") == [b"2"]


async def test_a_time_to_live_is_exact(cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster) -> None:
    """To the millisecond, however long; a set gives a new one, also none; an expiry leaves the value alone."""
    for ttl_ms in (1500, 1501, DAY_MS + 7, YEARS_292_MS):
        before, asked_at = await store_ms(any_topology), boottime()
        await did(cache, setting("k", b"1", ttl_ms))
        found = await loaded(cache, "k")
        after, answered_at = await store_ms(any_topology), boottime()
        assert before + ttl_ms <= found.expires_ms <= after + ttl_ms
        assert any_topology.command("PEXPIRETIME", "k") == found.expires_ms
        assert found.expires_ms - after <= found.left_ms <= ttl_ms
        assert asked_at <= found.asked_at <= answered_at
    before = await store_ms(any_topology)
    assert await did(cache, expiring("k", 70_999)) == ["done"]
    again, after = await loaded(cache, "k"), await store_ms(any_topology)
    assert before + 70_999 <= again.expires_ms <= after + 70_999
    assert again.value == b"1"
    assert await did(cache, expiring("k", 0), expiring("k", 0), expiring("nothing", 5)) == ["done", "done", "absent"]
    assert ((await loaded(cache, "k")).expires_ms, (await loaded(cache, "k")).left_ms) == (NEVER, NEVER)
    await did(cache, setting("k", b"1", 5000), setting("k", b"1"))
    assert any_topology.command("PTTL", "k") == -1


async def test_what_is_no_string_is_no_entry(cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster) -> None:
    """It reads as nothing, and no write touches it."""
    any_topology.command("RPUSH", "list", "a")
    assert await values(cache, "list") == [None]
    writes = setting("list"), deleting("list"), expiring("list", 5), setting("list", if_match="*"), deleting("list")
    assert await did(cache, *writes, setting("k")) == ["other_type"] * 5 + ["done"]
    assert any_topology.command("LRANGE", "list", 0, -1) == ["a"]


@pytest.mark.parametrize(
    ("stored", "if_match", "if_none_match", "holds"),
    [
        (True, "*", "", True),
        (False, "*", "", False),
        (True, "", "*", False),
        (False, "", "*", True),
        (True, ONE, "", True),
        (True, f"{OTHER},{ONE}", "", True),
        (True, TWO, "", False),
        (True, f"{OTHER}{ONE}", "", False),
        (False, ONE, "", False),
        (True, "", ONE, False),
        (True, "", f"{TWO},{ONE}", False),
        (True, "", f"{TWO},{OTHER}", True),
        (False, "", ONE, True),
        (True, ONE, TWO, True),
        (True, ONE, ONE, False),
    ],
)
@pytest.mark.parametrize("op", ["set", "delete", "expire"])
async def test_preconditions(
    cache: HeardCache, op: str, *, stored: bool, if_match: str, if_none_match: str, holds: bool
) -> None:
    """Judged on the bytes that are stored at that moment; a condition that does not hold comes before all else."""
    if stored:
        await did(cache, setting("k"))
    when = {"if_match": if_match, "if_none_match": if_none_match}
    write = {
        "set": setting("k", b"2", 60_000, **when),
        "delete": deleting("k", **when),
        "expire": expiring("k", 60_000, **when),
    }[op]
    # One before and one behind it: what belongs to a write is not taken for a part of the next.
    outcomes = await did(cache, setting("{k}before"), write, setting("{k}behind", b"3", 5000))
    changed = holds and (stored or op == "set")
    assert outcomes == ["done", "done" if changed else "absent" if holds else "mismatch", "done"]
    found = await loaded(cache, "k")
    expected = {"set": b"2", "delete": None, "expire": b"1"}[op] if changed else b"1" if stored else None
    assert found.value == expected
    assert (found.left_ms > 0) == (changed and op != "delete")
    assert await values(cache, "{k}before", "{k}behind") == [b"1", b"3"]


@pytest.mark.parametrize("keys", [["{k}a", "{k}b", "{k}c"], [f"k{number}" for number in range(20)]])
async def test_all_or_nothing(cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster, keys: list[str]) -> None:
    """One key that is no string, and nothing is changed; which one is said. Also when the keys are on many servers."""
    any_topology.command("SADD", keys[1], "x")
    assert await cache.write_all([setting(key, b"9") for key in keys]) == OtherType(keys[1])
    assert await cache.write_all([deleting(key) for key in keys]) == OtherType(keys[1])
    assert await values(cache, *keys) == [None] * len(keys)
    any_topology.command("DEL", keys[1])

    assert await cache.write_all([setting(key, b"9", 5000) for key in keys]) == ["done"] * len(keys)
    assert await values(cache, *keys) == [b"9"] * len(keys)
    assert await cache.write_all([deleting(key) for key in [*keys, "none"]]) == ["done"] * len(keys) + ["absent"]


async def test_many_keys_at_once(cache: HeardCache) -> None:
    """More of one slot than Lua takes in one command, among some of others; each value comes to its key."""
    keys = [f"{{k}}{number}" if number % 50 else f"k{number}" for number in range(2 * LOOK_KEYS_MAX + 205)]
    await did(cache, *(setting(key, key.encode()) for key in keys[::2]))
    assert await values(cache, *keys) == [None if at % 2 else key.encode() for at, key in enumerate(keys)]


async def test_large_values_come_in_more_than_one_call(cache: HeardCache) -> None:
    """No reply is larger than its bound unless a single value is; what is longer than is read at once is said."""
    size = CALL_BYTES // 2 - 1
    contents = {f"{{k}}{number}": bytes([number]) * size for number in range(5)}
    contents["{k}5"] = b"x" * (CALL_BYTES + 1)
    for key, value in contents.items():
        await did(cache, setting(key, value))
    found = await cache.load(["{k}nothing", *contents, "{k}none"])
    read = [each for each in found if isinstance(each, Loaded)]
    assert [each.value for each in read] == [None, *contents.values(), None]
    calls = [read[0].asked_at, read[3].asked_at, read[5].asked_at, read[6].asked_at]
    assert [each.asked_at for each in read] == [*calls[:1] * 3, *calls[1:2] * 2, calls[2], *calls[3:] * 2]
    assert calls == sorted(set(calls))


async def test_a_value_that_is_too_long_is_not_read(
    cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster
) -> None:
    """Its length is told, and no tag is its tag; the neighbours are read."""
    any_topology.command("SETRANGE", "{k}long", VALUE_BYTES_MAX, "x")
    any_topology.command("SETRANGE", "{k}longest", VALUE_BYTES_MAX - 1, "x")
    await did(cache, setting("{k}short"))
    found = await cache.load(["{k}long", "{k}short", "{k}longest"])
    assert found[0] == TooLong(VALUE_BYTES_MAX + 1)
    assert [len(each.value or b"") for each in found[1:] if isinstance(each, Loaded)] == [1, VALUE_BYTES_MAX]
    assert await did(cache, deleting("{k}long", if_match=ONE), deleting("{k}long", if_match="*")) == [
        *("mismatch", "done"),
    ]


async def test_what_is_done_once_is_not_done_over_what_came_after(
    cache: HeardCache, any_topology: ValkeyServer | ValkeyCluster
) -> None:
    """A resend is told that it is done; another request, another key, and a request that was refused are not."""
    first = CacheWrite(key="k}", op="set", value=b"1", ttl_ms=60_000, if_none_match="*", once="r1")
    assert await did(cache, setting("k}", b"0")) == ["done"]
    assert await did(cache, first) == ["mismatch"]
    assert await did(cache, deleting("k}"), first) == ["done", "done"]
    assert await values(cache, "k}") == [b"1"]
    assert await did(cache, setting("k}", b"2"), first, first) == ["done", "done", "done"]
    assert await values(cache, "k}") == [b"2"]
    assert await cache.write_all([first, CacheWrite(key="l", op="set", value=b"1", once="r1")]) == ["done", "done"]
    assert await values(cache, "k}", "l") == [b"2", b"1"]
    assert await did(cache, CacheWrite(key="k}", op="set", value=b"3", once="r2")) == ["done"]
    assert await did(cache, CacheWrite(key="k}", op="delete", once="r3"), setting("k}", b"4")) == ["done", "done"]
    assert await did(cache, CacheWrite(key="k}", op="delete", once="r3"), setting("m")) == ["done", "done"]
    assert await values(cache, "k}", "m") == [b"4", b"1"]


async def test_a_question_for_many_keys_stops_at_its_bound(cache: HeardCache) -> None:
    """What has been read by then is answered; the rest is said to be too much."""
    keys = [f"{{k}}{number:02}" for number in range(20)]
    for key in keys:
        await did(cache, setting(key, b"1" * 1_000_000))
    found = await cache.load(keys, bytes_max=6_000_000)
    read = sum(isinstance(each, Loaded) for each in found)
    assert 6 < read < 20
    assert found[read:] == [TooLong(read * 1_000_000)] * (20 - read)
    assert all(isinstance(each, Loaded) for each in await cache.load(keys))


async def test_a_full_server_refuses_sets_and_nothing_else(own_store: ValkeyServer) -> None:
    """Also a set that comes behind a delete in the same batch; a batch that is all or nothing is refused whole, one
    that only deletes is done. Whoever is refused is told that the store is away, and the lane stays open."""
    async with cache_on(own_store) as cache:
        await did(cache, *(setting(key) for key in "abcdef"))
        own_store.command("CONFIG", "SET", "maxmemory", 1)
        outcomes = await cache.write([deleting("a"), setting("b", b"2"), expiring("c", 0), setting("g"), deleting("z")])
        assert [str(each).split()[0] for each in outcomes] == ["done", "OOM", "done", "OOM", "absent"]
        assert [isinstance(each, StoreAway) for each in outcomes] == [False, True, False, True, False]
        with pytest.raises(StoreAway, match="OOM"):
            await cache.write_all([deleting("d"), setting("e", b"2")])
        assert await cache.write_all([deleting("c"), expiring("d", 5000)]) == ["done", "done"]
        assert await values(cache, *"abcdeg") == [None, b"1", None, b"1", b"1", None]
        assert cache.connected

        own_store.command("CONFIG", "SET", "maxmemory", 0)
        assert await did(cache, setting("g")) == ["done"]


async def test_a_hang_costs_those_it_catches_a_second_and_others_nothing(own_store: ValkeyServer) -> None:
    """However many ask; and within two seconds of the thaw everything is as before."""
    async with cache_on(own_store) as cache:
        await did(cache, setting("k"))
        loop = asyncio.get_running_loop()
        own_store.freeze()
        began = loop.time()
        caught = await asyncio.gather(*(cache.load([f"k{number}"]) for number in range(5)))
        assert all(isinstance(answer, StoreAway) for (answer,) in caught)
        assert loop.time() - began < 1.2
        took_s = []
        for _ in range(100):
            asked_at = loop.time()
            assert isinstance((await cache.load(["k"]))[0], StoreAway)
            assert isinstance((await cache.write([setting("k")]))[0], StoreAway)
            took_s.append(loop.time() - asked_at)
        assert sorted(took_s)[90] < 0.1
        assert max(took_s) < 0.9, "nobody waits the server's second; a busy machine may make somebody wait a bit"
        own_store.thaw()

        async def served() -> bool:
            return all(isinstance(found, Loaded) for found in await cache.load(["k", "other"]))

        await until(served, 2.0, what="full service")
        await until(cache.proven, 2.0, what="a proof")


async def test_scripts_the_server_forgot_are_sent_again(cache: HeardCache, any_topology: ValkeyServer) -> None:
    """And each write is done once."""
    any_topology.command("SCRIPT", "FLUSH")
    assert await did(cache, setting("k", if_none_match="*"), setting("{k}2")) == ["done", "done"]
    assert await values(cache, "k") == [b"1"]


async def test_an_unfit_store_is_not_used(cache: HeardCache) -> None:
    """Every question is refused, and why; until it is fit again."""
    cache.unfit = lambda: "the store is somebody else's"
    for ask in (
        lambda: cache.load(["k"]),
        lambda: cache.write([setting("k")]),
        lambda: cache.write_all([setting("k")]),
        lambda: cache.slice("*", SliceCursor(), 10),
    ):
        with pytest.raises(StoreAway, match="somebody else's"):
            await ask()
    assert (cache.connected, cache.usable, cache.why_away) == (False, False, "the store is somebody else's")
    cache.unfit = lambda: None
    assert (cache.connected, cache.usable, cache.why_away) == (True, True, "")
    assert await values(cache, "k") == [None]


async def test_nothing_is_asked_for_nothing(cache: HeardCache) -> None:
    """An empty batch is answered."""
    nothing: list[CacheWrite] = []
    assert (await cache.load([]), await cache.write(nothing), await cache.write_all(nothing)) == ([], [], [])


async def test_what_the_server_says_of_itself(any_store: ValkeyServer) -> None:
    """In numbers; its own channels are nobody else's affair."""
    async with cache_on(any_store) as cache:
        await did(cache, setting("a", ttl_ms=60_000), setting("b"))
        with any_store.client() as client, client.pubsub() as theirs:
            theirs.subscribe("news", "buzon:bell:x", "weather")
            for _ in range(3):
                theirs.get_message(timeout=5)
            stats = await cache.server_stats()
        assert stats.pubsub_channels == 2
        assert (stats.keyspace["db0"]["keys"], stats.keyspace["db0"]["expires"]) == (2, 1)
        assert stats.redis_version.startswith("7.")
        assert stats.used_memory_human[-1] in "KM"
        assert min(stats.total_commands_processed, stats.connected_clients) > 0
        assert stats.uptime_in_seconds >= 0
        assert (await cache.server_info())["role"] == "master"
