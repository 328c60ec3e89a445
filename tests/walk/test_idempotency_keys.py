"""Idempotency keys: the same request again gets the first answer again, and is applied once."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.behaviours import Reply
from tests.support.client import BUFFERS, DELIVERIES, MESSAGE, Client, is_problem, message, quoted
from tests.support.sink import Sink
from tests.support.until import passing
from tests.support.valkey import ValkeyServer

REPLAYED = "Idempotency-Replayed"


async def test_the_first_answer_comes_again(client: Client, sink: Sink, key: str) -> None:
    """Byte for byte, marked as replayed, and nothing is added; another key is another request."""
    body = message(sink.url(), key, {"n": 1}, wait_time=60)
    answers = [await client.call("POST", MESSAGE, body, headers={"Idempotency-Key": f"{key}-a"}) for _ in range(3)]
    other = await client.call("POST", MESSAGE, body, headers={"Idempotency-Key": f"{key}-b"})

    assert [answer.status for answer in (*answers, other)] == [200] * 4
    assert [answer.headers.get(REPLAYED) for answer in (*answers, other)] == [None, "true", "true", None]
    assert len({answer.body for answer in answers}) == 1
    assert other.json["buffer_info"]["current_size"] == 2
    assert (await client.buffer(key)).json["size"] == 2


async def test_another_body_under_the_same_key_is_a_409(client: Client, sink: Sink, key: str) -> None:
    """And changes nothing; the first request's answer is still there."""
    headers = {"Idempotency-Key": key}
    first = await client.call("POST", MESSAGE, message(sink.url(), key, {"n": 1}, wait_time=60), headers=headers)

    other = await client.call("POST", MESSAGE, message(sink.url(), key, {"n": 2}, wait_time=60), headers=headers)

    assert is_problem(other, 409)
    assert (await client.buffer(key)).json["size"] == 1
    again = await client.call("POST", MESSAGE, message(sink.url(), key, {"n": 1}, wait_time=60), headers=headers)
    assert again.body == first.body


async def test_copies_at_the_same_time_are_applied_once(client: Client, sink: Sink, key: str) -> None:
    """Each gets the same message id."""
    body = message(sink.url(), key, {}, wait_time=60, max_size=100)
    headers = {"Idempotency-Key": key}

    answers = await asyncio.gather(*(client.call("POST", MESSAGE, body, headers=headers) for _ in range(30)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["message_id"] for answer in answers}) == 1
    assert (await client.buffer(key)).json["size"] == 1


async def test_bad_input_uses_no_key_up(client: Client, sink: Sink, key: str) -> None:
    """A corrected request may carry the same one."""
    headers = {"Idempotency-Key": key}
    bad = await client.call("POST", MESSAGE, message(sink.url(), key, {}, max_size=0), headers=headers)

    good = await client.call("POST", MESSAGE, message(sink.url(), key, {}, wait_time=60), headers=headers)

    assert is_problem(bad, 400)
    assert (good.status, good.headers.get(REPLAYED)) == (200, None)


@pytest.mark.parametrize("value", ["x" * 256, "ñ", '"unclosed', "a\tb"])
async def test_a_key_is_printable_ascii(client: Client, sink: Sink, key: str, value: str) -> None:
    """1…255 characters, bare or as a quoted string."""
    answer = await client.call(
        "POST", MESSAGE, message(sink.url(), key, {}, max_size=1), headers={"Idempotency-Key": value}
    )

    assert is_problem(answer, 400, pointer="Idempotency-Key")
    assert sink.count == 0


async def test_a_quoted_key_is_the_bare_one(client: Client, sink: Sink, key: str) -> None:
    """Structured field or not."""
    body = message(sink.url(), key, {}, wait_time=60)
    for value, replayed in ((f'"{key}"', None), (key, "true")):
        answer = await client.call("POST", MESSAGE, body, headers={"Idempotency-Key": value})
        assert answer.headers.get(REPLAYED) == replayed


async def test_a_flush_is_applied_once(client: Client, sink: Sink, key: str) -> None:
    """Its answer comes again, and the batch that was opened since stays."""
    path = f"{BUFFERS}/{quoted(key)}/flush"
    headers = {"Idempotency-Key": key}
    await client.send(sink.url(), key, {}, wait_time=60)
    first = await client.call("POST", path, headers=headers)
    await client.send(sink.url(), key, {}, wait_time=60)

    again = await client.call("POST", path, headers=headers)

    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert again.headers[REPLAYED] == "true"
    assert (await client.buffer(key)).json["size"] == 1
    assert (await client.flush(key)).json["delivery_id"] != first.json["delivery_id"]


async def test_retries_are_applied_once(client: Client, sink: Sink, key: str) -> None:
    """One by one and in bulk."""
    sink.on("/hook", Reply(status=410))
    await client.send(sink.url(), key, {}, max_size=1)
    (dead,) = await client.until_status(key, "dead")
    single, bulk = f"{DELIVERIES}/{dead['id']}/retry", f"{DELIVERIES}/retry"
    wish = {"status": "dead", "key": key}
    for path, body, attempts in ((single, None, 2), (bulk, wish, 3)):
        first = await client.call("POST", path, body, headers={"Idempotency-Key": key})
        await sink.wait_for_requests(attempts)
        (row,) = await client.until_status(key, "dead")

        again = await client.call("POST", path, body, headers={"Idempotency-Key": key})

        assert (again.status, again.body, again.headers[REPLAYED]) == (first.status, first.body, "true")
        assert len((await client.delivery(row["id"]))["attempts"]) == attempts


async def test_a_key_is_forgotten_after_its_time(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, key: str
) -> None:
    """IDEMPOTENCY_TTL: then it may stand for another request, which is taken like any other and never lost."""
    node = make_node({"IDEMPOTENCY_TTL": "1s"}, redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    path = f"{BUFFERS}/{quoted(key)}/flush"
    headers = {"Idempotency-Key": key}
    deliveries = set()
    for number in range(2):
        body = message(sink.url(), key, {"n": number}, wait_time=60)

        taken = await client.call("POST", MESSAGE, body, headers=headers)
        flushed = await client.call("POST", path, headers=headers)

        assert (taken.status, taken.json["duplicate"], taken.headers.get(REPLAYED)) == (200, False, None)
        assert (flushed.status, flushed.headers.get(REPLAYED)) == (200, None)
        deliveries.add(flushed.json["delivery_id"])
        await passing(1.1)
    assert len(deliveries) == 2
    assert (await client.buffer(key)).status == 404
