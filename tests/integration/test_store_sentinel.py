"""A store behind Sentinel: the node follows the master wherever it goes, and nothing it acknowledged stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.adapters.valkey.store import ValkeyStore
from actors.ports import Entry, StoreAway
from actors.tail import Tail
from tests.support.sentinels import SERVICE, Sentinels
from tests.support.store import Hand, entry, made, running, stored, when_back
from tests.support.until import steady, until
from tests.support.valkey import ValkeyServer

LEFT_S = 2.0
"""A server that is the master no more is left within this time."""
FOLLOWED_S = 20.0
"""Sentinels that vote for each other try again only after twice their failover timeout."""


class Node:
    """A store with the tail of its node: what is acknowledged is remembered."""

    def __init__(self, url: str) -> None:
        self.store = made(url)
        self.tail = Tail(self.store.away)
        self.replayed: list[tuple[int, int]] = []
        self.store.unreplayed = self.tail.entries
        self.store.on_replayed = lambda count, added: self.replayed.append((count, added))

    async def append(self, *entries: Entry) -> None:
        """Append, and remember what was acknowledged."""
        outcomes = stored(await self.store.batches.append(entries))
        self.tail.keep(entries, asyncio.get_running_loop().time(), [outcome.received_us for outcome in outcomes])


def _is_on(store: ValkeyStore, server: ValkeyServer) -> bool:
    return store.connected and store.hot.peer == store.cold.peer == ("127.0.0.1", server.port)


async def _failed_over(sentinels: Sentinels, from_server: ValkeyServer) -> None:
    async def another() -> bool:
        return await asyncio.to_thread(sentinels.primary) is not from_server

    await until(another, FOLLOWED_S, every_s=0.02, what="another master")


async def _ids(store: ValkeyStore, server: ValkeyServer) -> Sequence[str]:
    return await Hand(server, store).open_ids("k")


@pytest.mark.parametrize("sentinels", ["valkey", "redis"], indirect=True)
async def test_the_node_follows_the_master(sentinels: Sentinels) -> None:
    """A planned failover: within two seconds it writes to the new master, and no more to the old one, though that
    still takes writes. What was acknowledged is all there, once and in order."""
    node = Node(sentinels.url)
    async with running(node.store):
        await until(lambda: node.store.connected, what="the store")
        old = await asyncio.to_thread(sentinels.primary)
        assert _is_on(node.store, old)
        await node.append(entry("k", "before"))
        await asyncio.to_thread(sentinels.ask, "failover", SERVICE)
        await _failed_over(sentinels, old)
        new = await asyncio.to_thread(sentinels.primary)
        await until(lambda: _is_on(node.store, new), LEFT_S, what="the new master")

        await node.append(entry("k", "after"))

        assert await _ids(node.store, new) == ["before", "after"]
        assert node.replayed == [(1, 0)]
        assert "buzon-test" not in str(old.command("CLIENT", "LIST"))


async def test_a_replica_that_lagged_gets_back_what_it_never_had(sentinels: Sentinels) -> None:
    """The primary dies with what it had not passed on; the node that acknowledged it writes it to the next master
    before anybody else can write."""
    node = Node(sentinels.url)
    async with running(node.store):
        await until(lambda: node.store.connected, what="the store")
        primary, replica = await asyncio.to_thread(lambda: (sentinels.primary(), sentinels.replica()))
        await node.append(entry("k", "m0"))
        await until(lambda: replica.command("EXISTS", "buzon:cfg") == 1, what="replication")
        await asyncio.to_thread(sentinels.cut_replication)
        for number in range(1, 6):
            await node.append(entry("k", f"m{number}"))
        await asyncio.to_thread(primary.kill9)
        await until(lambda: _is_on(node.store, replica), FOLLOWED_S, what="the replica as master")
        await node.append(entry("k", "later"))

        assert await _ids(node.store, replica) == [*(f"m{number}" for number in range(6)), "later"]
        assert node.replayed[0][0] == 6
        assert node.replayed[0][1] >= 5


async def test_a_master_that_was_frozen_is_not_believed_when_it_wakes(sentinels: Sentinels) -> None:
    """It thinks that it is the master still; nobody writes to it."""
    node = Node(sentinels.url)
    async with running(node.store):
        await until(lambda: node.store.connected, what="the store")
        old = await asyncio.to_thread(sentinels.primary)
        await node.append(entry("k", "m0"))
        old.freeze()
        with pytest.raises(StoreAway):
            await node.append(entry("k", "caught"))
        await _failed_over(sentinels, old)
        new = await asyncio.to_thread(sentinels.primary)
        await until(lambda: _is_on(node.store, new), LEFT_S, what="the new master")

        old.thaw()
        await node.append(entry("k", "m1"))
        await steady(lambda: _is_on(node.store, new), 0.5, what="the node stays")
        assert await _ids(node.store, new) == ["m0", "m1"]


async def test_sentinels_that_are_away_disturb_nobody(sentinels: Sentinels) -> None:
    """The store is used as before; a node that starts meanwhile waits and says why."""
    node = Node(sentinels.url)
    async with running(node.store):
        await until(lambda: node.store.connected, what="the store")
        for child in sentinels.children:
            child.freeze()
        late = made(sentinels.url)
        async with running(late):
            why = f"no sentinel knows a master of {SERVICE}"
            await until(lambda: late.why_away == why, what="a reason")
            assert node.store.connected
            await node.append(entry("k", "m1"))
            assert await when_back(lambda: Hand(sentinels.servers[0], node.store).open_ids("k")) == ["m1"]

            sentinels.children[1].thaw()
            await until(lambda: late.connected, what="the store, through one sentinel")
