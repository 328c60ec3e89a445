"""Which servers may be used, and what happens when one restarts, is full, loads its data or becomes a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.adapters.valkey import greeting as adapter
from actors.adapters.valkey.store import ValkeyStore
from actors.core.partition import locate
from actors.ports import Claimed, ClosedBatch, Entry, Next, Owner, StoreAway
from tests.support.store import Hand, connected, dump, entry, key_names, made, running, stored, when_back
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITION = locate("k")[1]
TORN_BYTES = 4
FILL = "for i = 1, 10000 do redis.call('SET', ARGV[1] .. ':' .. i, i) end"


class Told:
    """What a store told its node about changes of its server."""

    def __init__(self, *acknowledged: Entry) -> None:
        self.acknowledged: Sequence[Entry] = acknowledged
        self.events: list[str | tuple[int, int]] = []

    def watch(self, store: ValkeyStore) -> None:
        """Join it as the composition root does."""
        store.unreplayed = lambda: self.acknowledged
        store.on_replayed = lambda count, added: self.events.append((count, added))
        store.on_changed = lambda: self.events.append("changed")


async def _back(store: ValkeyStore) -> None:
    await until(lambda: store.connected, 8, what="the store's lanes")


async def test_a_restart_is_noticed_once(own_store: ValkeyServer) -> None:
    """By the server's run id; nothing that was stored is appended again, and owners keep their epochs."""
    told = Told(entry("k", "m1"), entry("k", "m2"))
    async with connected(own_store, prepare=told.watch) as store:
        hand = Hand(own_store, store)
        await store.batches.append(told.acknowledged)
        (epoch,) = await hand.take(PARTITION)
        await asyncio.to_thread(own_store.restart)

        assert await when_back(lambda: hand.open_ids("k")) == ["m1", "m2"]

        await _back(store)
        assert told.events == [(2, 0), "changed"]
        assert await store.partitions.owners([PARTITION]) == [Owner(epoch, "node-1")]
        await asyncio.to_thread(own_store.restart)
        await when_back(lambda: store.hot.call("PING"))
        assert told.events == [(2, 0), "changed"] * 2


async def test_what_a_restart_lost_is_appended_before_anything_else(own_store: ValkeyServer) -> None:
    """The end of its log is torn off; a caller that is the first to reach it comes after what was acknowledged."""
    told = Told(*(entry("k", f"m{number}") for number in range(3)))
    async with connected(own_store, prepare=told.watch) as store:
        for one in told.acknowledged:
            await store.batches.append([one])
        await asyncio.to_thread(own_store.kill9)
        await until(lambda: not store.hot.up.is_set(), what="the end of the lane")

        async def first_to_reach_it() -> None:
            await store.hot.up.wait()
            await store.batches.append([entry("k", "later")])

        async with asyncio.TaskGroup() as group:
            group.create_task(first_to_reach_it())
            own_store.cut_aof(TORN_BYTES)
            await asyncio.to_thread(own_store.start)

        assert await when_back(lambda: Hand(own_store, store).open_ids("k")) == ["m0", "m1", "m2", "later"]
        assert told.events == [(3, 1), "changed"]


async def test_a_lost_closing_comes_back_under_its_id(own_valkey: ValkeyServer) -> None:
    """The message that filled a batch closes it again, with the same content and the same delivery id."""
    told = Told(*(entry("k", f"m{number}", max_size=3) for number in range(3)))
    async with connected(own_valkey, prepare=told.watch) as store:
        await store.batches.append(told.acknowledged[:2])
        (full,) = stored(await store.batches.append(told.acknowledged[2:]))
        await asyncio.to_thread(own_valkey.kill9)
        own_valkey.cut_aof(TORN_BYTES)
        await asyncio.to_thread(own_valkey.start)
        await _back(store)

        claimed = await Hand(own_valkey, store).claim(told.acknowledged[2].batch_id)

        assert full.closed is not None
        assert full.closed.delivery_id == told.acknowledged[2].batch_id
        assert isinstance(claimed, Claimed)
        assert [name for name, _, _ in claimed.messages] == ["m0", "m1", "m2"]


async def test_much_that_was_acknowledged_comes_back_in_order(own_valkey: ValkeyServer) -> None:
    """More than one call can carry, to a server that lost all messages."""
    told = Told(*(entry("k", f"m{number}") for number in range(400)))
    async with connected(own_valkey, prepare=told.watch):
        pass
    async with connected(own_valkey, prepare=told.watch) as store:
        await asyncio.to_thread(own_valkey.restart)

        assert await when_back(lambda: Hand(own_valkey, store).open_ids("k")) == [f"m{n}" for n in range(400)]
        assert told.events == [(400, 400), "changed"]


async def test_a_server_that_cannot_take_what_was_acknowledged_is_not_used_yet(own_store: ValkeyServer) -> None:
    """Nobody passes before it could: not even a reader, who would not see what was acknowledged."""
    told = Told(entry("k", "m1"))
    async with connected(own_store, prepare=told.watch) as store:
        await asyncio.to_thread(own_store.kill9)
        await until(lambda: not store.cold.up.is_set(), what="the end of the lanes")
        await asyncio.to_thread(own_store.start, "--min-replicas-to-write", "1")
        await until(lambda: "NOREPLICAS" in store.hot.why_down, what="a refused replay")
        assert not store.connected
        with pytest.raises(StoreAway):
            await store.batches.peek("k")

        own_store.command("CONFIG", "SET", "min-replicas-to-write", 0)

        assert await when_back(lambda: Hand(own_store, store).open_ids("k")) == ["m1"]
        assert told.events == [(1, 1), "changed"]


async def test_a_full_server_takes_back_what_it_had_acknowledged(own_store: ValkeyServer) -> None:
    """And is used, so that it can be emptied; new messages are refused."""
    told = Told(entry("k", "m1"), entry("k", "m2"))
    async with connected(own_store, prepare=told.watch) as store:
        hand = Hand(own_store, store)
        for one in told.acknowledged:
            await store.batches.append([one])
        await hand.take(PARTITION)
        await asyncio.to_thread(own_store.kill9)
        (log,) = own_store.directory.glob("appendonlydir/*.incr.aof")
        own_store.cut_aof(log.stat().st_size // 2)
        await asyncio.to_thread(own_store.start, "--maxmemory", "1", "--maxmemory-policy", "noeviction")

        assert await when_back(lambda: hand.open_ids("k")) == ["m1", "m2"]
        assert told.events in ([(2, 1), "changed"], [(2, 2), "changed"])
        with pytest.raises(StoreAway, match="memory"):
            await hand.append("k", "m3")
        await hand.take(PARTITION)
        assert isinstance(await hand.close("k"), ClosedBatch)


async def test_the_first_server_is_no_change(own_store: ValkeyServer) -> None:
    """Nothing was acknowledged before it."""
    told = Told(entry("k", "m1"))
    async with connected(own_store, prepare=told.watch) as store:
        assert told.events == []
        assert await store.batches.peek("k") is None


async def test_while_a_server_loads_its_data_it_is_away(own_store: ValkeyServer) -> None:
    """Callers are told so at once; afterwards it is as it was."""
    async with connected(own_store) as store:
        await store.batches.append([entry("k", "m1")])
        for number in range(12):
            own_store.command("EVAL", FILL, 0, number)
        await asyncio.to_thread(own_store.kill9)
        starting = asyncio.create_task(asyncio.to_thread(own_store.start, "--key-load-delay", "-10"))
        await until(lambda: "loading" in store.hot.why_down, every_s=0.001, what="a server that loads")

        with pytest.raises(StoreAway, match="the store is loading its data"):
            await store.batches.append([entry("k", "later")])

        await starting
        await _back(store)
        assert await Hand(own_store, store).open_ids("k") == ["m1"]


async def test_a_replica_is_not_used(own_store: ValkeyServer) -> None:
    """Neither when it is one from the start, nor when it becomes one; as a master again it is."""
    own_store.command("REPLICAOF", "127.0.0.1", "1")
    store = made(own_store.unix_url)
    async with running(store):
        await until(lambda: "replica" in store.hot.why_down, what="a look at the server")
        for lane in (store.hot, store.cold):
            with pytest.raises(StoreAway):
                await lane.call("PING")
        own_store.command("REPLICAOF", "NO", "ONE")
        await _back(store)
        own_store.command("REPLICAOF", "127.0.0.1", "1")

        with pytest.raises(StoreAway, match="READONLY"):
            await store.batches.append([entry("k", "m1")])
        await until(lambda: "replica" in store.hot.why_down, what="another look at the server")

        own_store.command("REPLICAOF", "NO", "ONE")
        await when_back(lambda: store.batches.append([entry("k", "m1")]))
        assert await Hand(own_store, store).open_ids("k") == ["m1"]


async def test_a_full_store_takes_no_message_but_can_be_emptied(own_store: ValkeyServer) -> None:
    """An append is refused whole; closing, claiming, settling, dropping and taking over go on."""
    async with connected(own_store) as store:
        hand = Hand(own_store, store)
        await hand.append("k", "m1", "m2")
        await hand.append("dropped", "m1")
        names = [await hand.frozen(f"k{number}", "m1") for number in range(5)]
        own_store.command("CONFIG", "SET", "maxmemory", 1)
        before = dump(own_store)
        with pytest.raises(StoreAway, match="memory"):
            await store.batches.append([entry("k", "m3"), entry("k", "m1"), entry("new", "m1", max_size=1)])
        with pytest.raises(StoreAway, match="memory"):
            await store.records.begin("f" * 64, b"1" * 16, 1000)
        assert dump(own_store) == before
        assert store.connected

        closed = await hand.close("k")
        assert isinstance(closed, ClosedBatch)
        assert await hand.cancel("dropped") == 1
        assert await hand.ended(closed.delivery_id, "delivered") == Next(None)
        await hand.ended(names[0], "retrying")
        await hand.ended(names[1], "dead")
        assert isinstance(await hand.requeue(names[1]), Next)
        assert isinstance(await hand.discard(names[2]), Next)
        await hand.claimed(names[3])
        assert await hand.release(names[3]) == Next(None)
        await hand.take(PARTITION)
        await store.partitions.resign([(PARTITION, hand.epochs[PARTITION])])
        assert (await store.partitions.census(range(256))).undelivered == 4

        own_store.command("CONFIG", "SET", "maxmemory", 0)
        (outcome,) = await hand.append("k", "m3")
        assert (outcome.size, outcome.duplicate) == (1, False)


async def test_a_server_is_known_by_its_kind_and_version(own_store: ValkeyServer) -> None:
    """And nothing of it can lose what was acknowledged."""
    async with connected(own_store) as store:
        assert store.server is not None
        assert store.server.unsafe == ()
        assert store.server_name == store.server.name
        kind, _, version = store.server_name.partition(" ")
        assert (kind, version.split(".")[0]) in {("Valkey", "9"), ("Redis", "7")}


async def test_a_server_that_is_too_old_is_not_used(own_store: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version is said, and which one is needed."""
    monkeypatch.setattr(adapter, "VERSION_MIN", (99, 0))
    store = made(own_store.unix_url)
    async with running(store):
        await until(lambda: store.unfit, what="a look at the server")

        assert "is too old" in str(store.unfit)
        assert not store.connected
        assert key_names(own_store) == set()


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("appendonly", "no", "appendonly is off"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru, not noeviction"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy is volatile-ttl, not noeviction"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is on"),
        ("appendfsync", "no", "appendfsync is no"),
    ],
)
async def test_a_setting_that_can_lose_messages_is_named(
    own_store: ValkeyServer, setting: str, value: str, sentence: str
) -> None:
    """The server is used, and whoever runs it is told."""
    own_store.command("CONFIG", "SET", setting, value)
    async with connected(own_store) as store:
        assert store.server is not None
        assert store.server.unsafe == (sentence,)


async def test_a_server_that_hides_its_settings_is_believed(own_store: ValkeyServer) -> None:
    """A user that may not ask for them works as well."""
    own_store.command("ACL", "SETUSER", "app", "on", ">secret", "~buzon:*", "&*", "+@all", "-config")
    store = made(f"unix://app:secret@{own_store.socket_path}?db=0")
    async with running(store):
        await _back(store)

        assert store.server is not None
        assert store.server.unsafe == ()
        (outcome,) = await Hand(own_store, store).append("k", "m1")
        assert outcome.size == 1


async def test_a_server_that_wants_a_password_says_so(own_store: ValkeyServer) -> None:
    """Nobody gets through without; with it all is well."""
    own_store.command("CONFIG", "SET", "requirepass", "secret")
    store = made(own_store.unix_url)
    async with running(store):
        await until(lambda: "authenticated" in store.hot.why_down, what="a refusal")
        assert not store.connected
    store = made(f"unix://:secret@{own_store.socket_path}?db=0")
    async with running(store):
        await _back(store)
