"""Receipts, marks and what is known of instances, in the real store."""

from __future__ import annotations

from itertools import permutations

import pytest

from actors.adapters.valkey.tasks import EARLY_MS, FOREIGN_MS
from actors.core.partition import mark_of
from actors.core.receipts import Receipt
from actors.ports import StoreAway
from actors.task_ports import Received
from tests.support.store import Hand, connected, dump, key_names, raw_client
from tests.support.tasks import INSTANCE, MARK, PARTITION, RESULT, TaskHand
from tests.support.until import passing
from tests.support.valkey import ValkeyServer

MARK_KEY = f"buzon:{{{PARTITION:02x}}}:k:{MARK}"
RECEIPTS: tuple[Receipt, ...] = ("error", "server_ack", "delivered", "read")


@pytest.fixture
def at_work(hand: Hand) -> TaskHand:
    """A node at work with tasks."""
    return TaskHand(hand)


async def _ttl_ms(at_work: TaskHand) -> int:
    return int(await at_work.hand.store._topology.runner.command("PTTL", MARK_KEY))


async def test_a_message_comes_further_and_never_back(at_work: TaskHand) -> None:
    """In whatever order it is told, it has come as far as the furthest; only that is news."""
    for number, order in enumerate(permutations(RECEIPTS)):
        mark = mark_of(INSTANCE, f"3EB0{number}")
        new = await at_work.queued(f"{number}@g.us")
        await at_work.ended(new, "delivered", result=RESULT, mark=mark)
        assert (await at_work.record(new)).receipt is None
        known = -1
        for receipt in order:
            answer = await at_work.tasks.receive(PARTITION, mark, receipt)
            assert answer == Received(new.task_id, RECEIPTS.index(receipt) > known)
            known = max(known, RECEIPTS.index(receipt))
            assert (await at_work.record(new)).receipt == RECEIPTS[known]


async def test_a_receipt_that_comes_before_the_task_is_settled_waits(at_work: TaskHand) -> None:
    """Nobody knows whose it is yet; then the record has it, the furthest of them."""
    new = await at_work.queued()
    await at_work.hand.claimed(new.task_id)
    assert await at_work.tasks.receive(PARTITION, MARK, "delivered") == Received("", True)
    assert await at_work.tasks.receive(PARTITION, MARK, "server_ack") == Received("", False)
    assert 0 < await _ttl_ms(at_work) <= EARLY_MS

    await at_work.settle(new, 1, "delivered", result=RESULT, mark=MARK)

    assert (await at_work.record(new)).receipt == "delivered"
    assert await at_work.tasks.receive(PARTITION, MARK, "read") == Received(new.task_id, True)
    assert (await at_work.record(new)).receipt == "read"


async def test_a_receipt_for_nobody_is_forgotten(at_work: TaskHand) -> None:
    """Ten minutes after the first, however many come."""
    await at_work.tasks.receive(PARTITION, MARK, "server_ack")
    await at_work.hand.store._topology.runner.command("PEXPIRE", MARK_KEY, 5000)
    await at_work.tasks.receive(PARTITION, MARK, "read")
    assert 0 < await _ttl_ms(at_work) <= 5000


async def test_a_receipt_makes_no_record_of_what_was_forgotten(at_work: TaskHand) -> None:
    """The mark may live a little longer than its task."""
    new = await at_work.queued()
    await at_work.sent(new)
    at_work.hand.server.command("DEL", f"buzon:{{{PARTITION:02x}}}:d:{new.task_id}")
    assert await at_work.tasks.receive(PARTITION, MARK, "read") == Received(new.task_id, True)
    assert not [name for name in key_names(at_work.hand.server) if ":d:" in name]


async def test_what_was_sent_through_the_api_is_known(at_work: TaskHand) -> None:
    """By us, from the settle on; by others, when they say so; a receipt alone says nothing of it."""
    other = mark_of(INSTANCE, "3EB0OTHER")
    assert not await at_work.tasks.is_sent(PARTITION, MARK)
    await at_work.tasks.receive(PARTITION, MARK, "server_ack")
    assert not await at_work.tasks.is_sent(PARTITION, MARK)
    new = await at_work.queued()
    await at_work.sent(new)
    assert await at_work.tasks.is_sent(PARTITION, MARK)
    assert not await at_work.tasks.is_sent(PARTITION, other)

    await at_work.tasks.note_foreign(PARTITION, other)

    assert await at_work.tasks.is_sent(PARTITION, other)
    assert await at_work.tasks.receive(PARTITION, other, "read") == Received("", True)


async def test_a_foreign_mark_is_forgotten_and_shortens_no_other(at_work: TaskHand) -> None:
    """After an hour; what we sent is known for as long as its task."""
    await at_work.tasks.note_foreign(PARTITION, MARK)
    assert 0 < await _ttl_ms(at_work) <= FOREIGN_MS
    at_work.hand.server.command("DEL", MARK_KEY)
    await at_work.sent(await at_work.queued())
    before = await _ttl_ms(at_work)
    await at_work.tasks.note_foreign(PARTITION, MARK)
    assert FOREIGN_MS < await _ttl_ms(at_work) <= before


async def test_facts_of_instances_are_kept_together(at_work: TaskHand) -> None:
    """By instance, whatever it is called; an empty one is taken away, the last word counts."""
    health = at_work.hand.store.health
    assert await health.read() == {}
    before = key_names(at_work.hand.server)
    await health.note({})
    assert key_names(at_work.hand.server) == before
    await health.note({("held", "a:b"): "no", ("sent_at", "a:b"): "1", ("held", "ünïcode"): "x"})
    assert await health.read() == {"a:b": {"held": "no", "sent_at": "1"}, "ünïcode": {"held": "x"}}

    await health.note({("held", "a:b"): "", ("sent_at", "a:b"): "2", ("held", "never"): ""})

    assert await health.read() == {"a:b": {"sent_at": "2"}, "ünïcode": {"held": "x"}}


async def test_facts_of_instances_are_bounded(at_work: TaskHand) -> None:
    """Whoever may post events chooses names: those not heard of for longest make room, with all that is known."""
    health = at_work.hand.store.health
    await health.note({("held", "first"): "why", ("sent_at", "first"): "1"})
    await health.note({("held", "second"): "why"})
    await passing(0.005)
    await health.note({("sent_at", f"i{number}"): "1" for number in range(998)})
    await health.note({("sent_at", "first"): "2"})
    await health.note({("state", "one more"): "open"})
    known = await health.read()
    assert len(known) == 1000
    assert "second" not in known
    assert (known["first"], known["one more"]) == ({"held": "why", "sent_at": "2"}, {"state": "open"})


async def test_a_receipt_comes_through_when_memory_is_full(own_valkey: ValkeyServer) -> None:
    """It is small, and who waits for it is told; a new task is refused."""
    async with connected(own_valkey) as store:
        at_work = TaskHand(Hand(own_valkey, store))
        new = await at_work.queued()
        with raw_client(own_valkey) as client:
            client.config_set("maxmemory", "1")
        with pytest.raises(StoreAway):
            await at_work.queued()
        await at_work.sent(new)
        assert (await at_work.tasks.receive(PARTITION, MARK, "read")).news
        assert "read" in str(dump(own_valkey)[MARK_KEY])
