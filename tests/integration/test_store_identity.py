"""Whose the store is: the first node says it once and for ever; one that lost it, or is another's, is left alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.adapters.valkey.store import ValkeyStore
from actors.ports import StoreAway
from tests.support.store import Hand, connected, dump, entry, key_names, made, running, when_back
from tests.support.until import steady, until
from tests.support.valkey import ValkeyServer

STILL_S = 0.3
"""Long enough for several attempts to connect."""


def _kill_all(server: ValkeyServer) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@asynccontextmanager
async def _watched(server: ValkeyServer) -> AsyncIterator[tuple[ValkeyStore, list[str]]]:
    """A connected store and what it said of being unfit."""
    said: list[str] = []
    async with connected(server, prepare=lambda store: setattr(store, "on_unfit", said.append)) as store:
        yield store, said


async def test_a_new_store_is_told_what_its_data_is(own_store: ValkeyServer) -> None:
    """Format, number of partitions, whose it is, and the secret that its nodes share; nothing else is written."""
    async with connected(own_store) as store:
        with own_store.client() as client:
            found = client.hgetall("buzon:cfg")
        assert key_names(own_store) == {"buzon:cfg"}

        assert {field: found[field] for field in ("format", "partitions", "name")} == {
            "format": "2",
            "partitions": "256",
            "name": "buzon",
        }
        assert set(found) == {"format", "partitions", "name", "cluster", "secret"}
        assert re.fullmatch("[0-9a-f]{16}", found["cluster"])
        assert re.fullmatch("[0-9a-f]{64}", found["secret"])
        assert (store.cluster, store.secret.hex()) == (found["cluster"], found["secret"])


async def test_nodes_that_start_together_agree(own_valkey: ValkeyServer) -> None:
    """One of them writes, all read the same; and so does whoever comes later."""
    stores = [made(own_valkey.unix_url) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        jobs = [group.create_task(store.hot.run()) for store in stores]
        await until(lambda: all(store.hot.up.is_set() for store in stores), what="every lane")
        for job in jobs:
            job.cancel()
    before = dump(own_valkey)
    async with connected(own_valkey) as later:
        assert {(store.cluster, store.secret) for store in stores} == {(later.cluster, later.secret)}
    assert dump(own_valkey) == before


async def test_the_record_is_written_once(own_valkey: ValkeyServer) -> None:
    """Two nodes that both found nothing do not take each other's away."""
    async with connected(own_valkey) as store:
        before = dump(own_valkey)
        await store.cold.script(store._scripts["identity"], ["buzon:cfg"], ["cluster", "another", "secret", "another"])

    assert dump(own_valkey) == before


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("format", "1", "the store holds data with format 1, this node wants format 2"),
        ("format", "", "the store holds data with format , this node wants format 2"),
        ("partitions", "64", "the store holds data with partitions 64, this node wants partitions 256"),
        ("name", "other", "the store belongs to the cluster named other, this node's CLUSTER_NAME is buzon"),
        ("secret", "x", "the store's own record (buzon:cfg) is damaged"),
        ("cluster", "", "the store's own record (buzon:cfg) is damaged"),
    ],
)
async def test_a_store_of_another_kind_is_not_touched(
    own_valkey: ValkeyServer, field: str, value: str, sentence: str
) -> None:
    """The reason is said in one line, nobody gets through, nothing is written; once it is mended the store is used."""
    async with connected(own_valkey):
        pass
    with own_valkey.client() as client:
        right = client.hget("buzon:cfg", field)
    own_valkey.command("HSET", "buzon:cfg", field, value)
    before = dump(own_valkey)
    store = made(own_valkey.unix_url)
    async with running(store):
        await until(lambda: store.unfit, what="a look at the server")
        assert str(store.unfit) == store.hot.why_down == sentence
        await steady(lambda: not store.hot.up.is_set(), STILL_S)
        with pytest.raises(StoreAway, match=re.escape(sentence)):
            await store.batches.append([entry("k", "m1")])
        assert dump(own_valkey) == before

        own_valkey.command("HSET", "buzon:cfg", field, right)
        await until(lambda: store.connected, what="the store")
        assert store.unfit is None


async def test_a_store_of_an_older_format_is_not_filled_in(own_valkey: ValkeyServer) -> None:
    """It says nothing of clusters: its data is of a kind that this node cannot read."""
    own_valkey.command("HSET", "buzon:cfg", "format", 1, "partitions", 256)
    before = dump(own_valkey)
    store = made(own_valkey.unix_url)
    async with running(store):
        await until(lambda: store.unfit, what="a look at the server")
        await steady(lambda: not store.connected, STILL_S)

    assert "format 1" in str(store.unfit)
    assert dump(own_valkey) == before


async def test_a_store_that_was_emptied_is_not_begun_anew(own_store: ValkeyServer) -> None:
    """Everybody who works with it is told why, once in the log; it stays empty. With its data back it is used again."""
    async with _watched(own_store) as (store, said):
        await store.batches.append([entry("k", "m1")])
        with own_store.client() as client:
            data = client.hgetall("buzon:cfg")
        cluster = store.cluster
        store.unreplayed = lambda: [entry("k", "m1")]
        own_store.command("FLUSHALL")
        _kill_all(own_store)
        await until(lambda: store.unfit, what="a look at the server")

        with pytest.raises(StoreAway, match=f"the store is empty: it held cluster {cluster}"):
            await store.batches.append([entry("k", "m2")])
        await steady(lambda: not store.connected, STILL_S)
        assert own_store.command("DBSIZE") == 0
        assert said == [str(store.unfit)]

        own_store.command("HSET", "buzon:cfg", *(text for pair in data.items() for text in pair))
        await when_back(lambda: store.batches.append([entry("k", "m3")]))
        assert store.unfit is None
        assert store.cluster == cluster


async def test_a_process_that_knows_nothing_begins_an_empty_store_anew(own_store: ValkeyServer) -> None:
    """A restart of the nodes is how people say that the data is gone for good."""
    async with connected(own_store) as store:
        before = store.cluster, store.secret
    own_store.command("FLUSHALL")

    async with connected(own_store) as fresh:
        assert (await Hand(own_store, fresh).append("k", "m1"))[0].size == 1
        assert fresh.cluster != before[0]
        assert fresh.secret != before[1]


async def test_the_store_of_another_cluster_is_left_alone(own_store: ValkeyServer) -> None:
    """Another server stands where ours was: nothing is written to it, not even what was acknowledged."""
    async with _watched(own_store) as (store, said):
        ours = store.cluster
        store.unreplayed = lambda: [entry("k", "m1")]
        own_store.command("HSET", "buzon:cfg", "cluster", "0123456789abcdef")
        before = dump(own_store)
        _kill_all(own_store)
        await until(lambda: store.unfit, what="a look at the server")
        await steady(lambda: not store.connected, STILL_S)

        assert dump(own_store) == before
        assert said == [str(store.unfit)]
        assert "the store holds cluster 0123456789abcdef" in said[0]
        own_store.command("HSET", "buzon:cfg", "cluster", ours)
        await until(lambda: store.connected, what="the store")


async def test_another_database_of_the_same_server_is_another_store(own_store: ValkeyServer) -> None:
    """Databases that changed places under a running node are noticed like an emptied store."""
    async with _watched(own_store) as (store, said):
        own_store.command("SWAPDB", 0, 1)
        _kill_all(own_store)
        await until(lambda: store.unfit, what="a look at the server")
        assert "the store is empty" in said[0]

        own_store.command("SWAPDB", 0, 1)
        await until(lambda: store.connected, what="the store")


async def test_a_store_that_is_rejected_is_looked_at_again(own_store: ValkeyServer) -> None:
    """Who notices that the store is not ours while the connection stands ends it; the next greeting decides."""
    async with _watched(own_store) as (store, said):
        waiting = store.hot.call("BLPOP", "nothing", 0.9)

        store.reject("the store has been emptied")

        assert not store.hot.up.is_set()
        assert said == ["the store has been emptied"] == [str(store.unfit)]
        with pytest.raises(StoreAway, match="emptied"):
            await waiting
        with pytest.raises(StoreAway, match="emptied"):
            await store.batches.append([entry("k", "m1")])
        await until(lambda: store.connected, what="the store")
        assert store.unfit is None


async def test_the_secret_is_in_no_sentence(own_store: ValkeyServer) -> None:
    """Neither in a reason nor in how a store prints itself."""
    async with connected(own_store) as store:
        secret = store.secret.hex()
        own_store.command("HSET", "buzon:cfg", "name", "other")
        _kill_all(own_store)
        await until(lambda: store.unfit, what="a look at the server")

        for text in (str(store.unfit), store.hot.why_down, repr(store), repr(store._identity)):
            assert secret not in text
