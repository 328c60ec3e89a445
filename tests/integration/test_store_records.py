"""Records of which the first answer stays, and what the store's key names give away and leave behind: nothing."""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256

import pytest

from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.keys import idempotency
from actors.ports import Claimed
from tests.support.store import Hand, connected, key_names
from tests.support.until import until
from tests.support.valkey import ValkeyServer

SCOPE = sha256(b"POST /x key").hexdigest()
ONE, OTHER = b"1" * 16, b"2" * 16
MINUTE_MS = 60_000

NAME = re.compile(
    r"buzon:(cfg|idem:[0-9a-f]{64}|\{[0-9a-f]{2}\}:"
    r"(own|open|ready|busy|live|done|dead|[mbq]:[A-Za-z0-9_-]{22}|i:[0-9]+|[do]:dlv_[0-9a-f]{34}))"
)
"""Every name a key of ours may have."""

HOSTILE_KEYS = [
    "{00}",
    "}{:buzon:{01}:own",
    "*",
    "h?llo[a-z]",
    "a\r\nFLUSHALL\r\n",
    "\0",
    "a\0b",
    " ",
    "\t\n",
    "ключ",
    "😀" * 128,
    "x" * 512,
    "..//",
    "buzon:cfg",
    "'; return redis.call('FLUSHALL') --",
    "\x1b[31m",
    "\u202e",
]


async def test_a_record_begins_once(hand: Hand) -> None:
    """The first caller finds nothing, whoever comes next finds the first one's fingerprint, whatever their own is."""
    records = hand.store.records

    assert await records.begin(SCOPE, ONE, MINUTE_MS) is None
    assert await records.begin(SCOPE, ONE, MINUTE_MS) == ONE
    assert await records.begin(SCOPE, OTHER, MINUTE_MS) == ONE


async def test_of_many_that_begin_at_once_one_is_first(hand: Hand) -> None:
    """A record has one author."""
    prints = [bytes([number]) * 16 for number in range(20)]

    found = await asyncio.gather(*(hand.store.records.begin(SCOPE, mark, MINUTE_MS) for mark in prints))

    assert found.count(None) == 1
    assert set(found) - {None} == {prints[found.index(None)]}


async def test_the_first_answer_stays(hand: Hand) -> None:
    """A second one is not written; its caller is told the first."""
    records = hand.store.records
    await records.begin(SCOPE, ONE, MINUTE_MS)

    assert await records.finish(SCOPE, ONE, b"200 first", MINUTE_MS) == ONE + b"200 first"
    assert await records.finish(SCOPE, ONE, b"200 second", MINUTE_MS) == ONE + b"200 first"
    assert await records.begin(SCOPE, ONE, MINUTE_MS) == ONE + b"200 first"


async def test_an_answer_is_kept_byte_for_byte_even_when_its_beginning_is_gone(hand: Hand) -> None:
    """A slow answer outlives the record it began with and still becomes the first answer."""
    answer = bytes(range(256))

    assert await hand.store.records.finish(SCOPE, ONE, answer, MINUTE_MS) == ONE + answer
    assert await hand.store.records.begin(SCOPE, ONE, MINUTE_MS) == ONE + answer


async def test_scopes_do_not_touch_each_other(hand: Hand) -> None:
    """Each has its own record."""
    other = sha256(b"POST /y key").hexdigest()
    await hand.store.records.begin(SCOPE, ONE, MINUTE_MS)

    assert await hand.store.records.begin(other, OTHER, MINUTE_MS) is None


async def test_a_record_is_forgotten_in_its_time(hand: Hand) -> None:
    """Both the beginning and the answer expire."""
    records = hand.store.records
    await records.begin(SCOPE, ONE, 100)
    await records.finish("f" * 64, ONE, b"answer", 100)

    async def forgotten() -> bool:
        return await records.begin(SCOPE, OTHER, 50) is None

    await until(forgotten, what="the end of the record")
    await until(lambda: idempotency("f" * 64) not in key_names(hand.server), what="the end of the answer")


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=ascii)
async def test_what_a_user_writes_never_becomes_part_of_a_key_name(hand: Hand, key: str) -> None:
    """Through the whole life of a message; and key, id and payload come back as they were."""
    payload = key.encode()
    message_id = "".join(character if " " <= character <= "~" else "?" for character in key)[:128]
    await hand.append(key, message_id, payload=payload)
    batch = await hand.store.batches.peek(key)
    assert batch is not None
    assert (batch.key, [(name, text) for name, _, text in batch.messages]) == (key, [(message_id, payload)])
    names = key_names(hand.server)

    delivery = await hand.frozen(key, "another")
    names |= key_names(hand.server)
    claimed = await hand.claim(delivery)
    assert isinstance(claimed, Claimed)
    assert claimed.key == key
    names |= key_names(hand.server)
    await hand.settle(delivery, 1, "dead")
    assert (await hand.record(delivery)).key == key
    names |= key_names(hand.server)
    await hand.requeue(delivery)
    await hand.ended(delivery, "delivered")
    names |= key_names(hand.server)

    assert {name for name in names if not NAME.fullmatch(name)} == set()
    assert len({name.partition(":")[2][:4] for name in names if name != "buzon:cfg"}) == 1


async def _busy_life(hand: Hand) -> None:
    """Batches that end in every possible way, over several keys."""
    for number in range(3):
        key = f"key {number}"
        await hand.append(key, "a", "b", max_size=2)
        await hand.append(key, "c", payload=b"xxxx", max_bytes=4)
        await hand.frozen(key, "d", wait_ms=50, max_wait_ms=100)
        await hand.append(key, "e", wait_ms=86_400_000)
        await hand.cancel(key)
        await hand.frozen(key, "f")
    for number, status in enumerate(("delivered", "dead", "poison", "discarded") * 3):
        (first, *_) = await hand.ready(*range(256), ahead_ms=60_000)
        if status == "discarded":
            await hand.discard(first.delivery_id)
        elif status == "poison":
            await _poison(hand, first.delivery_id)
        else:
            await hand.ended(first.delivery_id, "retrying" if number % 2 else status)
    while ready := await hand.ready(*range(256), ahead_ms=60_000):
        await hand.ended(ready[0].delivery_id, "delivered")
    await hand.store.records.begin(SCOPE, ONE, 100)
    await hand.store.records.finish("f" * 64, ONE, b"answer", 100)


async def _poison(hand: Hand, delivery_id: str) -> None:
    await hand.make_due(delivery_id)
    while isinstance(await hand.claim(delivery_id), Claimed):
        await hand.take(int(delivery_id[4:6], 16))
        await hand.make_due(delivery_id)


async def test_when_all_is_done_nothing_is_left_but_owners_and_the_format(any_store: ValkeyServer) -> None:
    """Whatever ended, and how: every key that stays has a time to live, and is gone after it."""
    async with connected(any_store, window_ms=100, kept=Kept(delivered_ms=200, dead_ms=300)) as store:
        hand = Hand(any_store, store)
        await _busy_life(hand)

        everlasting = key_names(any_store, everlasting=True)
        assert {name.rpartition(":")[2] for name in everlasting} == {"own", "cfg"}

        async def only_owners() -> bool:
            return key_names(any_store) == everlasting

        await until(only_owners, what="an empty store")


async def test_while_messages_wait_nothing_expires(any_store: ValkeyServer) -> None:
    """Neither an open batch nor an undelivered one has a time to live, however old it gets."""
    async with connected(any_store, window_ms=100, kept=Kept(delivered_ms=100, dead_ms=100)) as store:
        hand = Hand(any_store, store)
        await hand.append("open", "m1", wait_ms=50)
        waiting = await hand.frozen("k", "m1")
        await hand.frozen("k", "m2")
        await hand.ended(waiting, "retrying")
        await hand.claimed(await hand.frozen("other", "m1"))

        expiring = key_names(any_store, everlasting=False)

        assert {name.split(":")[2] for name in expiring} == {"i"}
