"""Signs of life and the cluster's log in the real store: who may write which record, and what is never overwritten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from actors.adapters.valkey.keys import CONFIG, LOG, NODES
from actors.adapters.valkey.membership import EVENTS_STORED_MAX
from actors.adapters.valkey.store import ValkeyStore
from actors.node_ports import NodeEvent, NodeRecord, NodeReplaced
from actors.ports import StoreAway
from tests.support.store import Hand, connected, dump, key_names, store_ms
from tests.support.until import until
from tests.support.valkey import ValkeyServer

A = NodeRecord(node="a", incarnation="a" * 16, beat=1, address="10.0.0.1:7000", version="0.0.1", machine="ñ", pid=17)
B = NodeRecord(node="b", incarnation="b" * 16, beat=1)
TRIMMED_LATE = 100
"""A stream is cut at the border of one of its nodes: so many lines more may be there."""


async def beat(hand: Hand, own: NodeRecord, *buried: NodeRecord, events: Sequence[NodeEvent] = ()) -> list[NodeRecord]:
    """One beat; gives all records, by their names."""
    records = await hand.store.membership.beat(own, buried, events)
    return sorted(records, key=lambda record: record.node)


def later(record: NodeRecord, beats: int = 1) -> NodeRecord:
    """The record some beats later."""
    return replace(record, beat=record.beat + beats)


async def test_a_beat_is_seen_by_everybody(hand: Hand) -> None:
    """All that the record says, the own one among them; the newest of each node and nothing older."""
    assert await beat(hand, A) == [A]
    assert await beat(hand, B) == [A, B]
    grown = replace(later(A), partitions=256, open_batches=3, undelivered=2, oldest_waiting_ms=1, leaving=True)
    assert await beat(hand, grown) == [grown, B]
    assert await beat(hand, later(B)) == [grown, later(B)]
    assert key_names(hand.server) == {CONFIG, NODES}


async def test_records_do_not_fade(hand: Hand) -> None:
    """Who is dead is judged by nodes, not by the store's clock."""
    await beat(hand, A)
    assert key_names(hand.server, everlasting=True) == {CONFIG, NODES}


async def test_a_name_belongs_to_the_process_that_came_last(hand: Hand) -> None:
    """Its first beat takes it; the one before learns of that with its next beat, and changes nothing any more."""
    await beat(hand, later(A, 400))
    again = replace(A, incarnation="c" * 16)
    assert await beat(hand, again) == [again]
    before = dump(hand.server)

    with pytest.raises(NodeReplaced, match="NODE_ID: another process uses the name a on this store"):
        await beat(hand, later(A, 401), events=[NodeEvent(node="a", what="fenced")])

    assert dump(hand.server) == before
    assert await beat(hand, later(again)) == [later(again)]


async def test_a_process_whose_record_is_gone_writes_it_again(hand: Hand) -> None:
    """Others buried it while it was frozen: it is alive."""
    await beat(hand, A)
    await beat(hand, B, A)
    assert await beat(hand, later(A)) == [later(A), B]


async def test_the_dead_are_buried_as_they_were_seen(hand: Hand) -> None:
    """One that has beaten since is alive, and so is another process of its name."""
    await beat(hand, later(A, 4))
    await beat(hand, B)
    for stale in (A, later(A, 3), later(A, 40), replace(A, beat=5, incarnation="f" * 16)):
        assert await beat(hand, later(B), stale) == [later(A, 4), later(B)]
    assert await beat(hand, later(B, 2), later(A, 4), replace(B, node="nobody")) == [later(B, 2)]


async def test_a_number_that_begins_like_another_is_another(hand: Hand) -> None:
    """Beat 1 was seen, beat 12 stands there."""
    await beat(hand, A)
    await beat(hand, later(A, 11))
    assert [record.node for record in await beat(hand, B, A)] == ["a", "b"]


async def test_who_leaves_takes_its_record_along(hand: Hand) -> None:
    """Unless another process has the name by now; leaving twice is nothing."""
    await beat(hand, A)
    await beat(hand, B)
    await hand.store.membership.leave(replace(A, incarnation="c" * 16), [])
    assert await beat(hand, later(B)) == [A, later(B)]
    for _ in range(2):
        await hand.store.membership.leave(later(A), [NodeEvent(node="a", what="left")])
    assert await beat(hand, later(B, 2)) == [later(B, 2)]
    events, _ = await hand.store.membership.events("", 10)
    assert [(event.node, event.what) for event in events] == [("a", "left")] * 2


async def test_the_log_is_read_page_by_page_from_its_end(hand: Hand) -> None:
    """With the store's time; each line once, whatever comes in meanwhile."""
    before_ms = await store_ms(hand.server)
    told = [NodeEvent(node="a", what="took", other=f"n{number}", count=number, detail="ñ") for number in range(7)]
    await beat(hand, A, events=told[:3])
    await beat(hand, later(A), events=told[3:])
    found: list[NodeEvent] = []
    cursor: str | None = ""
    sizes = []
    while cursor is not None:
        page, cursor = await hand.store.membership.events(cursor, 3)
        sizes.append(len(page))
        found += page
        await hand.store.membership.beat(later(A, 2), [], [NodeEvent(node="a", what="later")])
    assert [replace(event, id="", at_ms=0) for event in found] == told[::-1]
    assert sizes == [3, 3, 1]
    assert len({event.id for event in found}) == 7
    now_ms = await store_ms(hand.server)
    assert all(before_ms <= event.at_ms <= now_ms for event in found)
    page, goes_on = await hand.store.membership.events("", 1)
    assert goes_on == page[0].id


async def test_a_page_that_holds_the_rest_is_the_last(hand: Hand) -> None:
    """An empty log too."""
    assert await hand.store.membership.events("", 5) == ([], None)
    await beat(hand, A, events=[NodeEvent(node="a", what="took", count=number) for number in range(5)])
    page, goes_on = await hand.store.membership.events("", 5)
    assert [event.count for event in page] == [4, 3, 2, 1, 0]
    assert goes_on is None
    assert await hand.store.membership.events(page[-1].id, 5) == ([], None)


async def test_the_log_does_not_grow_for_ever(hand: Hand) -> None:
    """Its oldest lines go; and when nobody writes any more it goes itself."""
    for number in range(30):
        lines = [NodeEvent(node="a", what="fenced", count=number * 50 + each) for each in range(50)]
        await beat(hand, later(A, number), events=lines)
    held, goes_on = await hand.store.membership.events("", 10 * EVENTS_STORED_MAX)
    assert EVENTS_STORED_MAX <= len(held) <= EVENTS_STORED_MAX + TRIMMED_LATE
    assert goes_on is None
    assert (await hand.store.membership.events("", 1))[0][0].count == 1499
    assert LOG not in key_names(hand.server, everlasting=True)


@asynccontextmanager
async def _watched(server: ValkeyServer) -> AsyncIterator[tuple[Hand, list[str]]]:
    said: list[str] = []

    def prepare(store: ValkeyStore) -> None:
        store.on_unfit = said.append

    async with connected(server, prepare=prepare) as store:
        yield Hand(server, store), said


async def test_a_store_that_became_another_clusters_is_let_go(own_store: ValkeyServer) -> None:
    """The beat finds it while the connection stands: nothing is written, nobody uses the store any more."""
    async with _watched(own_store) as (hand, said):
        await beat(hand, A)
        own_store.command("HSET", CONFIG, "cluster", "0123456789abcdef")
        before = dump(own_store)

        with pytest.raises(StoreAway, match="the store belongs to another cluster now"):
            await beat(hand, later(A), B, events=[NodeEvent(node="a", what="took")])

        assert not hand.store.connected
        with pytest.raises(StoreAway):
            await hand.append("k", "m1")
        assert dump(own_store) == before
        assert len(said) == 1


async def test_a_store_that_was_emptied_is_noticed_by_the_next_beat(own_store: ValkeyServer) -> None:
    """Within a third of a second, not at the next reconnect: until then messages would go into a store without owner
    or identity."""
    async with _watched(own_store) as (hand, said):
        await beat(hand, A)
        own_store.command("FLUSHALL")

        with pytest.raises(StoreAway, match="the store has been emptied"):
            await beat(hand, later(A))

        assert own_store.command("DBSIZE") == 0
        assert said == ["the store has been emptied"]


async def test_two_processes_of_one_name_do_not_both_go_on(own_valkey: ValkeyServer) -> None:
    """Whichever beats first last wins; the other is told with its next beat, however they interleave."""
    async with connected(own_valkey) as one, connected(own_valkey) as other:
        processes = [(one, A), (other, replace(A, incarnation="c" * 16))]
        await asyncio.gather(*(store.membership.beat(record, [], []) for store, record in processes))
        outcomes = await asyncio.gather(
            *(store.membership.beat(later(record), [], []) for store, record in processes), return_exceptions=True
        )
        assert sorted(isinstance(outcome, NodeReplaced) for outcome in outcomes) == [False, True]


async def test_signs_of_life_get_through_when_memory_is_full(own_store: ValkeyServer) -> None:
    """Else a full store would make all nodes look dead to each other."""
    async with _watched(own_store) as (hand, _):
        await beat(hand, A)
        own_store.command("CONFIG", "SET", "maxmemory", 1)
        assert await beat(hand, later(A), events=[NodeEvent(node="a", what="took")]) == [later(A)]
        await hand.store.membership.leave(A, [])
        own_store.command("CONFIG", "SET", "maxmemory", 0)
        await until(lambda: hand.store.connected, what="the store")
