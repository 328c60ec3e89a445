"""A store on a Redis Cluster: what one server's trouble is to the rest, and that the node follows what moves.

That everything a store does is done on a Cluster as well, the store's other tests show.
"""

from __future__ import annotations

import asyncio

import pytest

from actors.adapters.valkey.cluster import SLOTS
from actors.adapters.valkey.echo import Echo
from actors.adapters.valkey.keys import OWNERS
from actors.adapters.valkey.store import ValkeyStore
from actors.core.partition import PARTITIONS, locate
from actors.ports import Appended, Close, ClosedBatch, Entry, ListCursor, Owner, StoreAway
from actors.tail import Tail
from tests.support.store import IDS, Hand, all_open, connected, entry, made, running, stored
from tests.support.until import steady, until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

KEYS = [f"key {number}" for number in range(60)]
FOLLOWED_S = 5.0


def _partitions(cluster: ValkeyCluster, *members: ValkeyServer) -> set[int]:
    return {partition for partition, owner in enumerate(OWNERS) if cluster.of(owner) in members}


def _entries(message_id: str = "m") -> list[Entry]:
    return [entry(key, message_id) for key in KEYS]


class Watched:
    """A store with a tail; what it replayed."""

    def __init__(self) -> None:
        self.replayed: list[tuple[int, int]] = []
        self.tail = Tail()

    def prepare(self, store: ValkeyStore) -> None:
        """Join both."""
        store.unreplayed = self.tail.entries
        store.on_replayed = lambda count, added: self.replayed.append((count, added))

    async def append(self, store: ValkeyStore, entries: list[Entry]) -> None:
        """Append, and remember."""
        outcomes = stored(await store.batches.append(entries))
        self.tail.keep(entries, asyncio.get_running_loop().time(), [outcome.received_us for outcome in outcomes])


async def test_partitions_are_where_their_slots_are(cluster: ValkeyCluster) -> None:
    """Every master has some, each partition one; a write goes to the one that has it."""
    async with connected(cluster) as store:
        held = {shard.hot.peer: shard.partitions for shard in store._topology.shards}
        assert held == {("127.0.0.1", member.port): _partitions(cluster, member) for member in cluster.members}
        assert len(SLOTS) == PARTITIONS
        stored(await store.batches.append(_entries()))

        for key in KEYS:
            name = f"{OWNERS[locate(key)[1]][:-3]}m:{locate(key)[0]}"
            assert cluster.of(name).command("EXISTS", name) == 1
        assert len(await all_open(store, limit=7)) == len(KEYS)


async def test_a_server_that_is_away_takes_only_its_own_along(own_cluster: ValkeyCluster) -> None:
    """Each request has its own answer; what looks over everything sees what is there; a list that would lack rows is
    refused. When the server is back, what was acknowledged of its partitions is there, and no other is disturbed."""
    down = own_cluster.members[1]
    gone = _partitions(own_cluster, down)
    watched = Watched()
    async with connected(own_cluster, prepare=watched.prepare) as store:
        hand = Hand(own_cluster, store)
        await hand.take(*range(PARTITIONS))
        await watched.append(store, _entries("before"))
        owners = await store.partitions.owners(range(PARTITIONS))
        await asyncio.to_thread(down.kill9)
        await until(lambda: not store.connected, what="the end of its lanes")

        outcomes = await store.batches.append(_entries("after"))
        for key, outcome in zip(KEYS, outcomes, strict=True):
            assert isinstance(outcome, StoreAway if locate(key)[1] in gone else Appended)
        wishes = [
            Close(
                partition=partition,
                epoch=hand.epochs[partition],
                kid=kid,
                deadline_ms=None,
                reason="manual",
                batch_id=IDS.delivery_id(partition),
            )
            for kid, partition in map(locate, KEYS)
        ]
        for wish, closed in zip(wishes, await store.batches.close(wishes), strict=True):
            assert isinstance(closed, StoreAway if wish.partition in gone else ClosedBatch)
        assert store.usable
        assert set(store.away()) == gone
        assert store.why_away != ""
        assert await store.partitions.owners(range(PARTITIONS)) == owners
        taken = await store.partitions.acquire("node-2", 0, [(at, owner.epoch) for at, owner in enumerate(owners)])
        for at, owner in enumerate(taken):
            assert owner == Owner(owners[at].epoch, "") if at in gone else owner.node == "node-2"
        _, ready = await store.partitions.sweep(range(PARTITIONS), 0, 100)
        assert {each.partition for each in ready} == {wish.partition for wish in wishes} - gone
        assert (await store.partitions.census(range(PARTITIONS))).undelivered == len(ready)
        with pytest.raises(StoreAway):
            await store.batches.list_open(ListCursor(), 1000)

        await asyncio.to_thread(own_cluster.start_member, down)
        await until(lambda: store.connected, FOLLOWED_S, what="the server")

        of_it = [key for key in KEYS if locate(key)[1] in gone]
        assert watched.replayed == [(len(of_it), 0)]
        assert {batch.key for batch in await all_open(store)} == set(of_it)
        assert store.away() == frozenset()


async def _write(store: ValkeyStore, key: str, taken: list[str], done: asyncio.Event) -> None:
    """Write to one key for ever, one message after the other; whoever is put off comes again with the same message."""
    while not done.is_set():
        name = f"m{len(taken)}"
        try:
            stored(await store.batches.append([entry(key, name)]))
        except StoreAway:
            await asyncio.sleep(0)
        else:
            taken.append(name)


async def test_partitions_that_move_are_followed(own_cluster: ValkeyCluster) -> None:
    """One caller writes to a partition while its slot goes to another master: what was acknowledged is all there, in
    order, once."""
    key = KEYS[0]
    tag = OWNERS[locate(key)[1]]
    at = own_cluster.of(tag)
    to = next(member for member in own_cluster.members if member is not at)
    taken: list[str] = []
    done = asyncio.Event()
    async with connected(own_cluster) as store, asyncio.TaskGroup() as group:
        writing = group.create_task(_write(store, key, taken, done))
        await until(lambda: len(taken) > 20, what="some messages")
        await asyncio.to_thread(own_cluster.move, tag, to)
        moved_at = len(taken)
        await until(lambda: len(taken) > moved_at + 50, FOLLOWED_S, what="messages on the other master")
        done.set()
        await writing
        await until(lambda: store.connected, what="every server")

        assert await Hand(own_cluster, store).open_ids(key) == taken
        assert to.command("EXISTS", f"{tag[:-3]}m:{locate(key)[0]}") == 1


async def test_what_has_moved_is_tried_again_where_it_is(own_cluster: ValkeyCluster) -> None:
    """The server said that it did nothing: its caller need not know. Reads and plain commands alike."""
    key = KEYS[0]
    tag = OWNERS[locate(key)[1]]
    to = next(member for member in own_cluster.members if member is not own_cluster.of(tag))
    async with connected(own_cluster) as store:
        hand = Hand(own_cluster, store)
        await hand.append(key, "m0")
        await asyncio.to_thread(own_cluster.move, tag, to)

        (outcome,) = await hand.append(key, "m1")

        assert outcome.size == 2
        assert await hand.open_ids(key) == ["m0", "m1"]
        assert isinstance(await hand.close(key), ClosedBatch)


async def test_a_replica_that_takes_over_is_followed(own_cluster: ValkeyCluster) -> None:
    """With what it had not got yet from its master: the node that acknowledged it brings it back."""
    primary = own_cluster.members[2]
    replica = await asyncio.to_thread(own_cluster.add_replica, primary)
    watched = Watched()
    async with connected(own_cluster, prepare=watched.prepare) as store:
        held = sum(locate(key)[1] in _partitions(own_cluster, primary) for key in KEYS)
        await watched.append(store, _entries("m0"))
        await until(lambda: replica.command("DBSIZE") == primary.command("DBSIZE"), what="replication")
        primary.command("ACL", "SETUSER", "default", "-psync", "-sync")
        primary.command("CLIENT", "KILL", "TYPE", "replica")
        await watched.append(store, _entries("m1"))
        await asyncio.to_thread(primary.kill9)
        await asyncio.to_thread(replica.command, "CLUSTER", "FAILOVER", "TAKEOVER")
        await until(lambda: store.connected, FOLLOWED_S, what="the new master")
        await watched.append(store, _entries("m2"))

        assert {shard.hot.peer for shard in store._topology.shards} >= {("127.0.0.1", replica.port)}
        assert watched.replayed == [(2 * held, held)]
        for key in KEYS:
            assert await Hand(own_cluster, store).open_ids(key) == ["m0", "m1", "m2"]


async def test_a_cluster_that_was_emptied_is_not_begun_anew(own_cluster: ValkeyCluster) -> None:
    """Nobody uses any of its servers, though only one of them has the store's own record."""
    async with connected(own_cluster) as store:
        stored(await store.batches.append(_entries()))
        own_cluster.command("FLUSHALL")
        own_cluster.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: store.unfit, what="a look at the servers")

        await steady(lambda: not store.usable, 0.3, what="nobody gets through")
        with pytest.raises(StoreAway):
            await store.batches.append(_entries("later"))
        assert "the store is empty" in store.why_away
        assert {member.command("DBSIZE") for member in own_cluster.members} == {0}


async def test_what_is_published_comes_back(cluster: ValkeyCluster) -> None:
    """Whichever of the servers is spoken to, and whichever is listened to."""
    async with connected(cluster) as store:
        loop = asyncio.get_running_loop()
        echo = Echo.of(store, "node-1", loop.time, lambda: 0.0)
        listening = asyncio.ensure_future(echo.run())
        await until(lambda: echo._heard >= 1, what="an echo")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_servers_that_forget_their_scripts_are_no_error(cluster: ValkeyCluster) -> None:
    """On any of them, in the middle of a commit."""
    async with connected(cluster) as store:
        for number in range(10):
            cluster.command("SCRIPT", "FLUSH", "SYNC")
            stored(await store.batches.append(_entries(f"m{number}")))

        assert await Hand(cluster, store).open_ids(KEYS[0]) == [f"m{number}" for number in range(10)]


async def test_a_cluster_whose_servers_are_all_away_says_so(own_cluster: ValkeyCluster) -> None:
    """And is found again through the servers that its URL names."""
    for member in own_cluster.members:
        await asyncio.to_thread(member.kill9)
    store = made(own_cluster.url)
    async with running(store):
        with pytest.raises(StoreAway):
            await store.batches.append(_entries())
        assert store.why_away.startswith("no server of the cluster is known")
        for member in own_cluster.members:
            await asyncio.to_thread(own_cluster.start_member, member)

        await until(lambda: store.connected, FOLLOWED_S, what="the cluster")
