"""Open batches in the real store: what an append answers, what closes a batch, and that a message is in it once."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from actors.core.partition import locate
from actors.ports import Appended, Claimed, Close, ClosedBatch, Fenced, NotDue, NothingOpen
from tests.support.store import HOST, IDS, LONG_MS, Hand, dump, entry, flat, keys_in, store_ms, stored

OTHER_POLICY = b'{"webhook":{"url":"https://example.net/other"},"buffer":{"key":"k"}}'


async def test_the_first_message_opens_a_batch(hand: Hand) -> None:
    """It answers what the batch holds now and when it falls due; looking at the key shows the message."""
    before = await store_ms(hand.server)
    (first,) = await hand.append("k", "m1", payload=b'{"a":1}', wait_ms=5000)
    after = await store_ms(hand.server)

    assert before + 5000 <= first.deadline_ms <= after + 5000
    assert first == Appended(1, 7, 5000, first.deadline_ms, False, None, first.received_us)
    assert first.received_us // 1000 == first.deadline_ms - 5000
    batch = await hand.store.batches.peek("k")
    assert batch is not None
    assert (batch.key, batch.size, batch.size_bytes, batch.partition) == ("k", 1, 7, locate("k")[1])
    assert batch.messages == [("m1", first.deadline_ms - 5000, b'{"a":1}')]
    assert 0 < batch.remaining_ms <= 5000


async def test_messages_are_kept_in_order_and_byte_for_byte(hand: Hand) -> None:
    """Whatever bytes a payload has, it comes back as it was, in the order of acceptance."""
    payloads = [b"", b"\0", b"a\r\n$5\r\nhello\r\n", "ñ😀".encode(), bytes(range(256)), b"x" * 100_000]
    for number, payload in enumerate(payloads):
        await hand.append("k", f"m{number}", payload=payload)

    batch = await hand.store.batches.peek("k")

    assert batch is not None
    assert [(name, payload) for name, _, payload in batch.messages] == [
        (f"m{number}", payload) for number, payload in enumerate(payloads)
    ]
    assert batch.size_bytes == sum(map(len, payloads))


async def test_the_message_that_fills_a_batch_closes_it(hand: Hand) -> None:
    """At `max_size` the batch is frozen in the same call, under the id that message brought, and a new one begins."""
    batch_id = IDS.delivery_id(locate("k")[1])
    await hand.append("k", "m1", "m2", max_size=3)

    (full,) = await hand.append("k", "m3", max_size=3, batch_id=batch_id)
    (after,) = await hand.append("k", "m4", max_size=3)

    assert full.closed == ClosedBatch(batch_id, 3, HOST, "size", True)
    assert (full.size, full.size_bytes, full.remaining_ms, full.duplicate) == (3, 6, 0, False)
    assert (after.size, after.closed) == (1, None)
    assert [name for name, _, _ in (await hand.claimed(batch_id)).messages] == ["m1", "m2", "m3"]


async def test_a_batch_closes_when_its_bytes_are_in(hand: Hand) -> None:
    """`max_bytes` counts bytes, not characters, and the message that reaches it is the last one in."""
    accent = "é".encode()
    outcomes = [(await hand.append("k", name, payload=accent, max_bytes=6))[0] for name in ("m1", "m2", "m3", "m4")]

    assert [outcome.size_bytes for outcome in outcomes] == [2, 4, 6, 2]
    closed = [outcome.closed for outcome in outcomes]
    assert closed[2] is not None
    assert (closed[2].reason, closed[2].size) == ("bytes", 3)
    assert closed[:2] == [None, None]


async def test_size_is_named_when_size_and_bytes_are_reached_at_once(hand: Hand) -> None:
    """One reason is given, always the same one."""
    (only,) = await hand.append("k", "m1", payload=b"{}", max_size=1, max_bytes=1)

    assert only.closed is not None
    assert only.closed.reason == "size"


async def test_many_messages_in_one_call_are_answered_each_in_its_place(hand: Hand) -> None:
    """A call that mixes keys, partitions, duplicates and a batch that fills up halfway does them one after another."""
    other = next(key for key in ("a", "b", "c") if locate(key)[1] != locate("k")[1])
    names = [("k", "m1"), (other, "m1"), ("k", "m2"), ("k", "m1"), ("k", "m3"), (other, "m2"), (other, "m1")]

    outcomes = stored(await hand.store.batches.append([entry(key, name, max_size=2) for key, name in names]))

    assert [(outcome.size, outcome.duplicate, outcome.closed is not None) for outcome in outcomes] == [
        (1, False, False),
        (1, False, False),
        (2, False, True),
        (0, True, False),
        (1, False, False),
        (2, False, True),
        (0, True, False),
    ]
    assert await hand.open_ids("k") == ["m3"]


async def test_a_second_batch_of_a_key_is_not_first_in_line(hand: Hand) -> None:
    """Until the first is delivered; then the next one that closes is first again. Other keys don't matter."""
    first, second = [(await hand.append("k", name, max_size=1))[0].closed for name in ("m1", "m2")]
    (other,) = await hand.append("other", "m1", max_size=1)
    assert first is not None
    assert second is not None
    assert other.closed is not None
    assert (first.first_in_line, second.first_in_line, other.closed.first_in_line) == (True, False, True)

    await hand.ended(first.delivery_id, "delivered")
    await hand.ended(second.delivery_id, "delivered")
    (third,) = await hand.append("k", "m3", payload=b"{}", max_bytes=1)

    assert third.closed is not None
    assert third.closed.first_in_line


async def test_a_window_keeps_the_deadline_of_its_first_message(hand: Hand) -> None:
    """Later messages of any wait don't move it."""
    (first,) = await hand.append("k", "m1", wait_ms=5000)

    later = [(await hand.append("k", f"w{wait}", wait_ms=wait))[0] for wait in (50, 5000, 86_400_000)]

    assert {outcome.deadline_ms for outcome in later} == {first.deadline_ms}
    assert all(0 < outcome.remaining_ms <= 5000 for outcome in later)


async def test_a_debounce_waits_for_quiet_but_not_for_ever(hand: Hand) -> None:
    """The deadline moves with each message, and never beyond `max_wait` after the first."""
    (first,) = await hand.append("k", "m1", wait_ms=1000, max_wait_ms=3000)
    began_ms = first.deadline_ms - 1000

    (moved,) = await hand.append("k", "m2", wait_ms=2500, max_wait_ms=3000)
    (capped,) = await hand.append("k", "m3", wait_ms=5000, max_wait_ms=3000)
    (sooner,) = await hand.append("k", "m4", wait_ms=50, max_wait_ms=3000)

    assert moved.deadline_ms >= began_ms + 2500
    assert moved.remaining_ms == 2500
    assert capped.deadline_ms == began_ms + 3000
    assert sooner.remaining_ms == 50


async def test_a_window_message_leaves_a_debounced_deadline_alone(hand: Hand) -> None:
    """The newest options hold, but a window never sets a deadline that is set already; a debounce does."""
    (first,) = await hand.append("k", "m1", wait_ms=1000, max_wait_ms=9000)
    (window,) = await hand.append("k", "m2", wait_ms=50)
    (debounced,) = await hand.append("k", "m3", wait_ms=5000, max_wait_ms=9000)

    assert window.deadline_ms == first.deadline_ms
    assert debounced.remaining_ms == 5000


@pytest.mark.parametrize("by_size", [True, False], ids=["closed by size", "closed by its owner"])
async def test_the_newest_message_says_where_the_batch_goes(hand: Hand, by_size: bool) -> None:
    """Policy, host and trace of the last message are frozen with the batch, however it closes."""
    await hand.append("k", "m1", trace="00-old")
    newest = {"policy": OTHER_POLICY, "host": "example.net:443", "trace": "00-new", "max_size": 2 if by_size else 9}
    (outcome,) = await hand.append("k", "m2", **newest)

    closed = outcome.closed or await hand.close("k")

    assert isinstance(closed, ClosedBatch)
    claimed = await hand.claimed(closed.delivery_id)
    assert closed.host == "example.net:443"
    assert (claimed.key, claimed.policy, claimed.trace) == ("k", OTHER_POLICY, "00-new")
    assert claimed.reason == ("size" if by_size else "manual")
    assert (await hand.record(closed.delivery_id)).url == "https://example.net/other"


async def test_an_id_of_a_key_is_taken_once(hand: Hand) -> None:
    """A second time it answers what the open batch holds and changes nothing."""
    (first,) = await hand.append("k", "m1", payload=b"[1]")
    await hand.append("k", "m2", payload=b"[22]")
    before = dump(hand.server)

    (again,) = await hand.append("k", "m1", payload=b"[other]", wait_ms=50, max_wait_ms=60, max_size=3)

    assert dump(hand.server) == before
    assert (again.size, again.size_bytes, again.duplicate, again.closed) == (2, 7, True, None)
    assert again.deadline_ms == first.deadline_ms
    assert 0 < again.remaining_ms <= LONG_MS


async def test_an_id_twice_in_one_call_is_taken_once(hand: Hand) -> None:
    """The second of the pair is the duplicate."""
    outcomes = await hand.append("k", "m1", "m1")

    assert [outcome.duplicate for outcome in outcomes] == [False, True]
    assert await hand.open_ids("k") == ["m1"]


async def test_the_same_id_under_another_key_is_another_message(hand: Hand) -> None:
    """Also when both keys live in one partition."""
    first, second = keys_in(7, 2)

    outcomes = flat([await hand.append(first, "m1"), await hand.append(second, "m1")])

    assert [(outcome.duplicate, outcome.size) for outcome in outcomes] == [(False, 1), (False, 1)]


async def test_an_id_stays_taken_when_its_batch_is_gone(hand: Hand) -> None:
    """Frozen, delivered or dropped: a resent message is a duplicate of a batch that is not open any more."""
    kept = await hand.frozen("k", "m1")
    frozen = await hand.append("k", "m1")
    await hand.ended(kept, "delivered")
    delivered = await hand.append("k", "m1")
    await hand.append("k", "m2")
    assert await hand.cancel("k") == 1
    dropped = await hand.append("k", "m2")

    assert [replace(each, received_us=0) for each in (*frozen, *delivered, *dropped)] == [
        Appended(0, 0, 0, 0, True, None)
    ] * 3


async def test_messages_that_arrive_together_fill_batches_to_the_brim(hand: Hand) -> None:
    """Two hundred callers at once: every message is in exactly one batch and no batch holds more than its size."""
    answers = await asyncio.gather(*(hand.append("k", f"m{number}", max_size=5) for number in range(200)))

    closed = [outcome.closed for outcome in flat(answers) if outcome.closed is not None]
    assert [batch.size for batch in closed] == [5] * 40
    assert [batch.first_in_line for batch in closed] == [True] + [False] * 39
    seen: list[str] = []
    for batch in closed:
        claimed = await hand.claimed(batch.delivery_id)
        seen.extend(name for name, _, _ in claimed.messages)
        await hand.settle(batch.delivery_id, claimed.attempt, "delivered")
    assert seen == [f"m{number}" for number in range(200)]


async def test_a_batch_closes_at_the_deadline_its_owner_believes(hand: Hand) -> None:
    """The store looks at the deadline, not at a clock: a timer that is right closes, whenever it comes."""
    first, _ = await hand.append("k", "m1", "m2")

    closed = await hand.close("k", deadline_ms=first.deadline_ms, reason="timeout")

    assert isinstance(closed, ClosedBatch)
    assert (closed.size, closed.host, closed.reason, closed.first_in_line) == (2, HOST, "timeout", True)
    assert await hand.store.batches.peek("k") is None


async def test_a_batch_that_closes_later_than_believed_stays_open(hand: Hand) -> None:
    """The owner is told the true deadline and nothing has changed."""
    (first,) = await hand.append("k", "m1", wait_ms=5000)
    await hand.epoch(locate("k")[1])
    before = dump(hand.server)

    answer = await hand.close("k", deadline_ms=first.deadline_ms - 1, reason="timeout")

    assert dump(hand.server) == before
    assert isinstance(answer, NotDue)
    assert answer.deadline_ms == first.deadline_ms
    assert 0 < answer.remaining_ms <= 5000


async def test_a_batch_closes_on_demand_before_its_time(hand: Hand) -> None:
    """Without a deadline the close asks for nothing."""
    await hand.append("k", "m1", wait_ms=86_400_000)

    closed = await hand.close("k")

    assert isinstance(closed, ClosedBatch)
    assert closed.reason == "manual"


async def test_closing_again_under_the_same_id_gives_the_same_answer(hand: Hand) -> None:
    """A close whose answer got lost can be repeated, and takes nothing that came since."""
    await hand.append("k", "m1")
    batch_id = IDS.delivery_id(locate("k")[1])
    closed = await hand.close("k", batch_id=batch_id)
    await hand.append("k", "m2")
    before = dump(hand.server)

    again = await hand.close("k", batch_id=batch_id)

    assert again == closed
    assert dump(hand.server) == before
    assert await hand.open_ids("k") == ["m2"]


async def test_nothing_open_is_nothing_to_close_or_drop(hand: Hand) -> None:
    """A key nobody has heard of, and one whose batch is closed."""
    assert await hand.close("k") == NothingOpen()
    assert await hand.cancel("k") == NothingOpen()
    assert await hand.store.batches.peek("k") is None

    await hand.frozen("k", "m1")

    assert await hand.close("k") == NothingOpen()
    assert await hand.cancel("k") == NothingOpen()


async def test_closes_of_one_call_are_answered_each_in_its_place(hand: Hand) -> None:
    """Two wishes for one batch: one gets it. A partition that is another's is refused and the rest done."""
    ours, theirs = keys_in(1, 1)[0], keys_in(2, 1)[0]
    await hand.append(ours, "m1")
    await hand.append(theirs, "m1")
    (epoch,) = await hand.take(1)
    (foreign,) = await Hand(hand.server, hand.store, "node-2").take(2)
    wishes = [
        Close(
            partition=locate(key)[1],
            epoch=held,
            kid=locate(key)[0],
            deadline_ms=None,
            reason="manual",
            batch_id=IDS.delivery_id(locate(key)[1]),
        )
        for key, held in ((ours, epoch), (theirs, epoch), (ours, epoch))
    ]

    first, second, third = await hand.store.batches.close(wishes)

    assert isinstance(first, ClosedBatch)
    assert second == Fenced(foreign, "node-2")
    assert third == NothingOpen()
    assert await hand.open_ids(theirs) == ["m1"]


async def test_a_dropped_batch_is_gone_whole(hand: Hand) -> None:
    """It answers how many messages it held; the key starts over and nothing of it is ever delivered."""
    (old,) = await hand.append("k", "m1", wait_ms=5000)
    await hand.append("k", "m2")

    assert await hand.cancel("k") == 2

    assert await hand.store.batches.peek("k") is None
    (new,) = await hand.append("k", "m3", wait_ms=9000)
    assert (new.size, new.remaining_ms) == (1, 9000)
    assert new.deadline_ms > old.deadline_ms
    assert await hand.open_ids("k") == ["m3"]


async def test_a_frozen_batch_never_changes(hand: Hand) -> None:
    """Every claim of it gives the same messages, policy and reason, whatever its key gets meanwhile."""
    name = await hand.frozen("k", "m1", "m2", payload=b'{"a":1}')
    claims = []
    for number in range(3):
        claimed = await hand.claimed(name)
        claims.append(claimed)
        await hand.append("k", f"later-{number}", "m1", payload=b"other", policy=OTHER_POLICY)
        await hand.close("k")
        await hand.settle(name, claimed.attempt, "retrying")

    assert {_content(claim) for claim in claims} == {_content(claims[0])}
    assert [message_id for message_id, _, _ in claims[0].messages] == ["m1", "m2"]
    assert [claim.attempt for claim in claims] == [1, 2, 3]


def _content(claim: Claimed) -> tuple[object, ...]:
    return (claim.key, claim.reason, claim.policy, claim.trace, claim.created_ms, tuple(claim.messages))
