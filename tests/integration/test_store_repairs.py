"""Repairs that nobody waits for: what a new owner finds, who begins a store, ids of messages that come back late."""

from __future__ import annotations

from typing import Any

from actors.adapters.valkey.identity import Identity
from actors.adapters.valkey.question import ask
from actors.adapters.valkey.replay import Replay
from actors.adapters.valkey.scripts import load_all
from actors.adapters.valkey.store import ValkeyStore
from actors.core.partition import locate
from actors.ports import Entry
from tests.support.store import Hand, connected, dump, entry, store_ms
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITION = locate("k")[1]
WINDOW_MS = 1000
SHORT_MS = 80


async def test_what_was_in_hand_is_nobodys_claim_any_more(hand: Hand) -> None:
    """It is ready, and not in hand as well: else it would be given back while its next attempt is under way."""
    name = await hand.frozen("k", "m1")
    await hand.claimed(name)
    assert list((await hand.store.partitions.census([PARTITION])).claimed) == [name]

    await Hand(hand.server, hand.store, "node-2").take(PARTITION)

    assert list((await hand.store.partitions.census([PARTITION])).claimed) == []
    assert [ready.delivery_id for ready in await hand.ready(PARTITION)] == [name]


async def test_of_two_that_find_the_store_empty_one_begins_it(own_valkey: ValkeyServer) -> None:
    """The other looked before and writes after: it finds whose the store is, and changes nothing."""
    async with connected(own_valkey) as store:
        before = dump(own_valkey)
        connection = store._connection()
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
        looks = 0

        async def late(*command: Any) -> Any:
            nonlocal looks
            looks += command[0] == "HGETALL"
            return {} if looks == 1 and command[0] == "HGETALL" else await ask(connection, *command)

        identity = Identity("buzon", load_all())
        await identity.check(late)
        await connection.disconnect()

        assert looks == 2
        assert (identity.cluster, identity.secret) == (store.cluster, store.secret)
        assert dump(own_valkey) == before


async def _brought_back(store: ValkeyStore, window_ms: int, *entries: Entry) -> int:
    connection = store._connection()
    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    try:
        return await Replay(load_all(), window_ms, apart=False).run(connection, entries, False)
    finally:
        await connection.disconnect()


async def test_what_was_taken_in_the_window_before_does_not_come_back(any_store: ValkeyServer) -> None:
    """Its batch has been closed since, so only the window knows it."""
    async with connected(any_store, window_ms=WINDOW_MS) as store:
        hand = Hand(any_store, store)

        async def late_in_the_window() -> bool:
            return 750 <= await store_ms(any_store) % WINDOW_MS <= 900

        await until(late_in_the_window, what="the end of a window")
        await hand.frozen("k", "m1")
        ends = await store_ms(any_store) // WINDOW_MS + 1

        async def next_window() -> bool:
            return await store_ms(any_store) // WINDOW_MS >= ends

        await until(next_window, what="the next window")

        assert await _brought_back(store, WINDOW_MS, entry("k", "m1")) == 0
        assert await hand.open_ids("k") == []


async def test_what_a_batch_holds_that_outlived_its_windows_does_not_come_back(any_store: ValkeyServer) -> None:
    """No window knows it any more; what it holds, it holds."""
    async with connected(any_store, window_ms=SHORT_MS) as store:
        hand = Hand(any_store, store)
        await hand.append("k", "m1", "m2")
        ends = await store_ms(any_store) + 4 * SHORT_MS

        async def windows_over() -> bool:
            return await store_ms(any_store) >= ends

        await until(windows_over, what="four windows")

        assert await _brought_back(store, SHORT_MS, entry("k", "m1"), entry("k", "m2")) == 0
        assert await hand.open_ids("k") == ["m1", "m2"]
