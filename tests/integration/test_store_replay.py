"""What nodes acknowledged and the store lost comes back: once, in the order in which it was received, whoever had it.

The store goes back to an earlier state; then each node writes again what it acknowledged since, on its own and in any
order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.adapters.valkey.replay import TOGETHER_S, Replay
from actors.adapters.valkey.scripts import load_all
from actors.adapters.valkey.store import ValkeyStore
from actors.core.partition import locate
from actors.ports import Entry
from actors.tail import Tail
from tests.support.store import (
    IDS,
    WINDOW_MS,
    Hand,
    connected,
    dump,
    entry,
    flat,
    keys_in,
    made,
    running,
    stored,
)
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITION = locate("k")[1]
OTHER_POLICY = b'{"webhook":{"url":"https://example.net/other"},"buffer":{"key":"k"}}'


class Node:
    """One node's store and tail."""

    def __init__(self, server: ValkeyServer, nodes: int) -> None:
        self.store = made(server.unix_url)
        self.tail = Tail(self.store.away)
        self.replayed: list[tuple[int, int]] = []
        self.store.unreplayed = lambda: [
            replace(each, batch_id=IDS.delivery_id(each.partition)) for each in self.tail.entries()
        ]
        self.store.on_replayed = lambda count, added: self.replayed.append((count, added))
        self.store.others = lambda: nodes > 1

    async def append(self, one: Entry) -> None:
        """Append a message and remember it."""
        (outcome,) = stored(await self.store.batches.append([one]))
        self.tail.keep([one], asyncio.get_running_loop().time(), [outcome.received_us])


@asynccontextmanager
async def _nodes(server: ValkeyServer, count: int) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = [Node(server, count) for _ in range(count)]
        for node in nodes:
            await stack.enter_async_context(running(node.store))
        await until(lambda: all(node.store.connected for node in nodes), what="every node")
        yield nodes


async def _rolled_back(server: ValkeyServer, aof_bytes: int, nodes: Sequence[Node]) -> None:
    """The store crashes and comes back as it was when its log was so long."""
    await asyncio.to_thread(server.kill9)
    await until(lambda: not any(node.store.usable for node in nodes), what="the end of every lane")
    server.cut_aof(server.aof_bytes() - aof_bytes)
    await asyncio.to_thread(server.start)
    await until(lambda: all(node.store.connected for node in nodes), 8, what="every node")


async def _batches(hand: Hand, key: str = "k") -> list[list[str]]:
    """The messages of every batch of the key that has closed, in line; and of the open one. All of its partition that
    is ready is delivered on the way."""
    found = []
    while ready := await hand.ready(locate(key)[1]):
        for each in ready:
            claimed = await hand.claimed(each.delivery_id)
            await hand.settle(each.delivery_id, claimed.attempt, "delivered")
            if claimed.key == key:
                found.append([name for name, _, _ in claimed.messages])
    return [*found, await hand.open_ids(key)]


async def test_messages_of_a_key_keep_their_order_whoever_had_them(own_store: ValkeyServer) -> None:
    """Two nodes took turns; each brings back every other message."""
    async with _nodes(own_store, 2) as nodes:
        await nodes[0].append(entry("k", "m0"))
        kept = own_store.aof_bytes()
        for number in range(1, 20):
            await nodes[number % 2].append(entry("k", f"m{number}"))
        times = [each.received_us for node in nodes for each in node.tail.entries()]
        await _rolled_back(own_store, kept, nodes)
        await nodes[1].append(entry("k", "later"))

        batch = await nodes[0].store.batches.peek("k")

        assert batch is not None
        assert [name for name, _, _ in batch.messages] == [*(f"m{number}" for number in range(20)), "later"]
        assert [at for _, at, _ in batch.messages[:-1]] == sorted(at // 1000 for at in times)
        assert sorted(node.replayed[0] for node in nodes) == [(10, 9), (10, 10)]
        assert batch.size == 21
        assert batch.size_bytes == 42


async def test_batches_that_fill_up_again_close_in_order_and_are_not_overfilled(own_valkey: ValkeyServer) -> None:
    """Only when every node had the time to bring back what it had."""
    async with _nodes(own_valkey, 3) as nodes:
        await nodes[0].append(entry("k", "m00", max_size=4))
        await nodes[0].append(entry("k", "m01", max_size=4))
        kept = own_valkey.aof_bytes()
        for number in range(2, 23):
            await nodes[number % 3].append(entry("k", f"m{number:02}", max_size=4))
        began = asyncio.get_running_loop().time()
        await _rolled_back(own_valkey, kept, nodes)
        assert asyncio.get_running_loop().time() - began > TOGETHER_S

        batches = await _batches(Hand(own_valkey, nodes[0].store))

        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
        assert flat(batches) == [f"m{number:02}" for number in range(23)]


async def test_a_node_alone_does_not_wait_for_others(own_valkey: ValkeyServer) -> None:
    """Its lanes open as soon as it has brought back what it had."""
    async with _nodes(own_valkey, 1) as nodes:
        kept = own_valkey.aof_bytes()
        for number in range(300):
            await nodes[0].append(entry("k", f"m{number:03}", max_size=100))
        await asyncio.to_thread(own_valkey.kill9)
        own_valkey.cut_aof(own_valkey.aof_bytes() - kept)
        await asyncio.to_thread(own_valkey.start)
        back_at = asyncio.get_running_loop().time()
        await until(lambda: nodes[0].store.connected, what="the node")

        assert asyncio.get_running_loop().time() - back_at < TOGETHER_S
        assert nodes[0].replayed == [(300, 300)]
        batches = await _batches(Hand(own_valkey, nodes[0].store))
        assert [len(batch) for batch in batches] == [100, 100, 100, 0]
        assert flat(batches) == [f"m{number:03}" for number in range(300)]


async def test_a_batch_closes_again_when_its_bytes_are_in(own_valkey: ValkeyServer) -> None:
    """As the append would have closed it."""
    async with _nodes(own_valkey, 1) as nodes:
        kept = own_valkey.aof_bytes()
        for number in range(7):
            await nodes[0].append(entry("k", f"m{number}", b"123", max_bytes=9))
        await _rolled_back(own_valkey, kept, nodes)

        hand = Hand(own_valkey, nodes[0].store)
        rows = await hand.ready(PARTITION)
        assert (await hand.record(rows[0].delivery_id)).reason == "bytes"
        assert await _batches(hand) == [["m0", "m1", "m2"], ["m3", "m4", "m5"], ["m6"]]


async def _replay(store: ValkeyStore, entries: Sequence[Entry]) -> int:
    """Bring messages back over a connection of their own."""
    connection = store._connection()
    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    try:
        return await Replay(load_all(), WINDOW_MS, apart=False).run(connection, entries, False)
    finally:
        await connection.disconnect()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_a_window_is_what_its_first_message_makes_it(any_store: ValkeyServer, order: tuple[int, ...]) -> None:
    """Deadline, policy and times are as they were, in whatever order the messages come back."""
    async with connected(any_store) as store:
        hand = Hand(any_store, store)
        outcomes = []
        messages = [
            entry("k", "m0", wait_ms=5000),
            entry("k", "m1", wait_ms=50_000),
            entry("k", "m2", wait_ms=9000, policy=OTHER_POLICY, host="example.net:443", trace="00-new"),
        ]
        for message in messages:
            outcomes += stored(await store.batches.append([message]))
        before = dump(any_store)
        await hand.cancel("k")
        for name in [name for name in dump(any_store) if ":i:" in name]:
            any_store.command("DEL", name)

        lost = [replace(messages[at], received_us=outcomes[at].received_us) for at in order]
        assert [await _replay(store, [each]) for each in lost] == [1, 1, 1]
        assert await _replay(store, lost) == 0

        after = dump(any_store)
        del after[f"buzon:{{{PARTITION:02x}}}:own"]
        assert {name: after[name] for name in after if ":i:" not in name} == {
            name: before[name] for name in before if ":i:" not in name
        }


async def test_a_debounce_ends_as_long_after_its_last_message_as_it_would_have(any_store: ValkeyServer) -> None:
    """And never later than its longest wait after the first."""
    async with connected(any_store) as store:
        await store.batches.append([entry("unrelated", "m")])
        now_us = int((await store.cold.call("TIME"))[0]) * 1_000_000

        def message(name: str, after_ms: int, wait_ms: int) -> Entry:
            at = now_us + 1000 * after_ms
            return entry("k", name, wait_ms=wait_ms, max_wait_ms=30_000, received_us=at)

        late, early, capped = (
            message("late", 9000, 10_000),
            message("early", 1000, 12_000),
            message("c", 12_000, 29_000),
        )
        deadlines = []
        for each in (late, early, capped):
            await _replay(store, [each])
            name = f"buzon:{{{PARTITION:02x}}}:m:{locate('k')[0]}"
            deadlines.append(int(await store.cold.call("HGET", name, "d")))

        now_ms = now_us // 1000
        assert deadlines == [now_ms + 19_000, now_ms + 19_000, now_ms + 31_000]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(1, 12), max_size=st.sampled_from([2, 3, 100]))
def test_the_order_in_which_nodes_come_back_does_not_matter(
    valkey: ValkeyServer, data: st.DataObject, count: int, max_size: int
) -> None:
    """Messages of two keys, dealt out to three nodes with some of them twice: each is there once, by its time."""
    keys = [keys_in(partition, 1)[0] for partition in (1, 2)]
    messages = [
        entry(keys[data.draw(st.integers(0, 1))], f"m{number:02}", max_size=max_size, received_us=1_000_000 + number)
        for number in range(count)
    ]
    dealt = [data.draw(st.lists(st.sampled_from(messages), unique_by=id)) for _ in range(2)]
    dealt.append([message for message in messages if message not in dealt[0] + dealt[1]])
    asyncio.run(_comes_back(valkey, keys, messages, [sorted(each, key=_received) for each in dealt]))


def _received(message: Entry) -> int:
    return message.received_us


async def _comes_back(
    server: ValkeyServer, keys: Sequence[str], messages: Sequence[Entry], dealt: Sequence[Sequence[Entry]]
) -> None:
    server.command("FLUSHALL")
    async with connected(server) as store:
        hand = Hand(server, store)
        replay = Replay(load_all(), WINDOW_MS, apart=False)
        connection = store._connection()
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
        for share in dealt:
            await replay._restored(connection, share, [], [])
        for share in dealt:
            await replay._reclosed(
                connection, [replace(each, batch_id=IDS.delivery_id(each.partition)) for each in share]
            )
        await connection.disconnect()
        for key in keys:
            batches = await _batches(hand, key)
            assert flat(batches) == [each.message_id for each in messages if each.terms.key == key]
            assert all(len(batch) == messages[0].terms.max_size for batch in batches[:-1])
            assert len(batches[-1]) < messages[0].terms.max_size


async def test_long_batches_are_taken_apart_in_bites(any_store: ValkeyServer) -> None:
    """A script may hand on only so many values at once: not when all of them make room, nor when most stay open."""
    async with connected(any_store) as store:
        names = [f"m{number:04}" for number in range(4000)]
        messages = [entry("k", name, max_size=9999, received_us=1000 + at) for at, name in enumerate(names)]
        await _replay(store, [*messages[1:], messages[0]])
        assert await Hand(any_store, store).open_ids("k") == names

        await _replay(store, [entry("k", "last", max_size=100)])

        batches = await _batches(Hand(any_store, store))
        assert [len(batch) for batch in batches] == [100, 3901]
        assert flat(batches) == [*names, "last"]
