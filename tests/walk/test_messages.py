"""Taking a message: the fields of the answer, and a message id that comes again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.behaviours import Reply
from tests.support.client import MESSAGE, Client, is_problem, message
from tests.support.sink import Sink
from tests.support.until import passing


async def test_the_answer_has_the_older_services_fields_and_two_more(client: Client, sink: Sink, key: str) -> None:
    """Status, id, the batch as it is now; whether it was known, whether it filled the batch."""
    answer = await client.send(sink.url(), key, {}, wait_time=15, max_size=5)

    remaining = answer["buffer_info"].pop("time_remaining")
    assert 14.9 < remaining <= 15
    assert answer.pop("message_id").startswith("msg_")
    assert answer == {
        "status": "success",
        "buffer_info": {"current_size": 1, "max_size": 5},
        "duplicate": False,
        "flushed": False,
    }


async def test_ids_are_made_or_kept(client: Client, sink: Sink, key: str) -> None:
    """Two messages never share a made one; a given one comes back as it is."""
    made = [(await client.send(sink.url(), key, {}))["message_id"] for _ in range(2)]
    given = await client.send(sink.url(), key, {}, message_id=' ~ any printable: "ascii" \\ ')

    assert len(set(made)) == 2
    assert given["message_id"] == ' ~ any printable: "ascii" \\ '


async def test_a_known_message_is_not_added_twice(client: Client, sink: Sink, key: str) -> None:
    """Whatever else it says this time: the answer shows the batch, and the batch holds the first one only."""
    first = await client.send(sink.url(), key, {"n": 1}, message_id="m", wait_time=60, max_size=2)
    again = await client.send(sink.url("/other"), key, {"n": 2}, message_id="m", wait_time=5, max_size=9)

    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert (again["flushed"], again["buffer_info"]["current_size"]) == (False, 1)
    assert again["buffer_info"]["time_remaining"] > 50
    await client.send(sink.url(), key, {"n": 3}, wait_time=60, max_size=2)
    (request,) = await sink.wait_for_requests(1)
    assert b'{"n":1}' in request.body
    assert b'{"n":2}' not in request.body


async def test_a_known_message_is_not_added_after_its_batch_has_gone(client: Client, sink: Sink, key: str) -> None:
    """Filled, flushed or timed out and delivered: it opens no new batch."""
    ways: list[dict[str, Any]] = [{"max_size": 1}, {"wait_time": 60}, {"wait_time": 0.05}]
    for number, options in enumerate(ways, 1):
        name = f"m{number}"
        await client.send(sink.url(), key, {}, message_id=name, **options)
        if options == {"wait_time": 60}:
            assert (await client.flush(key)).status == 200
        await client.until_status(key, *["delivered"] * number)

        again = await client.send(sink.url(), key, {}, message_id=name, **options)

        assert (again["duplicate"], again["flushed"], again["buffer_info"]["current_size"]) == (True, False, 0)
        assert (await client.buffer(key)).status == 404
    assert sink.count == 3


async def test_a_known_message_joins_no_later_batch(client: Client, sink: Sink, key: str) -> None:
    """The answer shows the batch that is open now."""
    await client.send(sink.url(), key, {}, message_id="m", max_size=1)
    await client.send(sink.url(), key, {}, message_id="n", wait_time=60)

    again = await client.send(sink.url(), key, {}, message_id="m", wait_time=60)

    assert (again["duplicate"], again["buffer_info"]["current_size"]) == (True, 1)


async def test_an_id_belongs_to_its_key(client: Client, sink: Sink, key: str) -> None:
    """The same id under another key is another message."""
    answers = [await client.send(sink.url(), key + end, {}, message_id="m", max_size=1) for end in ("", "-", "--")]

    assert [answer["duplicate"] for answer in answers] == [False] * 3
    await sink.wait_for_requests(3)


async def test_copies_sent_at_the_same_time_are_one_message(client: Client, sink: Sink, key: str) -> None:
    """Fifty at once, over as many connections: one is new."""
    answers = await asyncio.gather(
        *(client.send(sink.url(), key, {}, message_id="m", max_size=2, wait_time=60) for _ in range(50))
    )

    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 49
    assert (await client.buffer(key)).json["size"] == 1


async def test_a_duplicate_moves_no_deadline(client: Client, sink: Sink, key: str) -> None:
    """A debounce is put off by messages, not by echoes of them."""
    options: dict[str, Any] = {"mode": "debounce", "wait_time": 0.4, "max_size": 9, "message_id": "m"}
    await client.send(sink.url(), key, {}, **options)
    sent = 1
    while not sink.count:
        sent += 1
        assert (await client.send(sink.url(), key, {}, **options))["duplicate"]
        assert sent < 20
        await passing(0.05)

    assert sink.requests[0].headers["x-buffer-size"] == "1"
    assert sink.count == 1


async def test_the_answer_waits_for_no_webhook(client: Client, sink: Sink, key: str) -> None:
    """A message that fills a batch is answered when it is stored."""
    sink.next(Reply(delay_s=0.8))
    async with asyncio.timeout(0.5):
        taken = await client.send(sink.url(), key, {}, max_size=1)
        assert taken["flushed"]
    await client.until_status(key, "delivered")


@pytest.mark.parametrize("name", ["", "x" * 129, "ñ", "a\tb", "a\n", "\x7f", "a\x00"])
async def test_an_id_is_printable_ascii(client: Client, sink: Sink, key: str, name: str) -> None:
    """1…128 characters; anything else is a 400 and changes nothing."""
    answer = await client.call("POST", MESSAGE, message(sink.url(), key, {}, message_id=name, max_size=1))

    assert is_problem(answer, 400, pointer="$.message_id")
    assert await client.deliveries(key=key) == []


async def test_unknown_fields_are_ignored_beside_the_message_only(client: Client, sink: Sink, key: str) -> None:
    """A typo inside `webhook` or `buffer` would change behaviour silently."""
    body = message(sink.url(), key, {}, max_size=1)
    for part in ("webhook", "buffer"):
        refused = await client.call("POST", MESSAGE, {**body, part: {**body[part], "max_sise": 1}})
        assert is_problem(refused, 400, pointer=f"$.{part}.max_sise")

    assert (await client.call("POST", MESSAGE, {**body, "priority": 1})).status == 200
