"""Deliveries: every status, the log of attempts, the list with its filters, and what people can do to them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.behaviours import Hang, Reply, Reset
from tests.support.client import DELIVERIES, Client, is_problem
from tests.support.sink import Sink
from tests.support.until import until
from tests.walk.conftest import MAX_RETRIES

FIELDS = {"id", "key", "kind", "url", "status", "size", "reason", "created_at", "attempts"}
UNKNOWN = "dlv_000123456789ab7cde8f0123456789abcd"


def instant(text: str) -> float:
    """RFC 3339 in UTC as Unix time."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text).timestamp()


async def dead_letter(client: Client, sink: Sink, key: str, path: str = "/gone") -> dict[str, Any]:
    """Make a delivery that is dead after one attempt, and give it."""
    known = {row["id"] for row in await client.deliveries(key=key)}
    sink.on(path, Reply(status=410))
    await client.send(sink.url(path), key, {}, max_size=1)

    async def died() -> list[dict[str, Any]]:
        return [row for row in await client.deliveries(key=key, status="dead") if row["id"] not in known]

    rows: list[dict[str, Any]] = await until(died, what="the delivery is dead")
    return rows[0]


async def test_a_delivered_one_says_all_about_itself(client: Client, sink: Sink, key: str) -> None:
    """Its batch, its webhook, and one attempt with status, latency and the beginning of the answer."""
    began = time.time()
    sink.next(Reply(status=201, body=b"thank you\r\n\x1b[31m"))
    for _ in range(2):
        await client.send(sink.url("/hook?a=1"), key, {}, max_size=2)
    (listed,) = await client.until_status(key, "delivered")

    delivery = await client.delivery(listed["id"])

    assert delivery == listed
    assert set(delivery) == FIELDS
    assert delivery["id"] == sink.requests[0].headers["webhook-id"]
    expected = {"key": key, "kind": "webhook", "url": sink.url("/hook?a=1"), "size": 2, "reason": "size"}
    assert expected.items() <= delivery.items()
    (attempt,) = delivery["attempts"]
    assert began - 0.01 <= instant(delivery["created_at"]) <= instant(attempt["at"]) + 0.01 <= time.time() + 0.02
    assert attempt.pop("latency_ms") > 0
    del attempt["at"]
    assert attempt == {"status_code": 201, "response_excerpt": "thank you [31m"}


async def test_statuses_from_pending_to_delivered(client: Client, sink: Sink, key: str) -> None:
    """delivering while a request is out, pending behind it, retrying between tries, delivered at the end."""
    sink.next(Reply(status=500, delay_s=0.3, headers=(("Retry-After", "1"),)))
    for number in range(2):
        await client.send(sink.url(), key, {"n": number}, max_size=1)
    await sink.wait_for_requests(1)

    first, second = sorted(await client.deliveries(key=key), key=lambda row: str(row["created_at"] + row["id"]))
    assert (first["status"], second["status"]) == ("delivering", "pending")
    assert (first["attempts"], second["attempts"]) == ([], [])

    rows = await client.until_status(key, "retrying", "pending")
    (retrying,) = [row for row in rows if row["status"] == "retrying"]
    assert 0.3 < instant(retrying["next_attempt_at"]) - time.time() <= 1.0
    assert [attempt["status_code"] for attempt in retrying["attempts"]] == [500]
    rows = await client.until_status(key, "delivered", "delivered")
    assert sorted(len(row["attempts"]) for row in rows) == [1, 2]
    assert all("next_attempt_at" not in row for row in rows)


async def test_every_kind_of_failure_is_in_the_log(client: Client, sink: Sink, key: str) -> None:
    """A status with its excerpt, or one short phrase when there was no answer."""
    sink.next(Reply(status=500, body=b"oops"), Reset(), Hang(), Reply(status=404, body=b""))
    await client.send(sink.url(), key, {}, max_size=1, webhook={"timeout": 0.2})

    (dead,) = await client.until_status(key, "dead")

    attempts = dead["attempts"]
    assert len(attempts) == 1 + MAX_RETRIES
    times = [instant(attempt.pop("at")) for attempt in attempts]
    assert times == sorted(times)
    assert 150 < attempts[2]["latency_ms"] < 1000
    for attempt in attempts:
        del attempt["latency_ms"]
    assert attempts == [
        {"status_code": 500, "response_excerpt": "oops"},
        {"error": "connection reset"},
        {"error": "timeout"},
        {"status_code": 404},
    ]


async def test_a_dead_one_is_tried_again_on_demand(client: Client, sink: Sink, key: str) -> None:
    """202; it goes out under the same id with the same bytes and a fresh budget of retries, and keeps its log."""
    sink.on("/gone", Reply(status=410), Reply(status=500), Reply(status=500), Reply(status=200))
    await client.send(sink.url("/gone"), key, {"n": 1}, max_size=1)
    (dead,) = await client.until_status(key, "dead")

    answer = await client.call("POST", f"{DELIVERIES}/{dead['id']}/retry")
    (delivered,) = await client.until_status(key, "delivered")

    assert (answer.status, answer.json["id"]) == (202, dead["id"])
    assert [attempt["status_code"] for attempt in delivered["attempts"]] == [410, 500, 500, 200]
    assert [request.headers["x-attempt"] for request in sink.requests] == ["1", "2", "3", "4"]
    assert {request.headers["webhook-id"] for request in sink.requests} == {dead["id"]}
    assert len({request.body for request in sink.requests}) == 1


async def test_a_waiting_one_is_tried_now_on_demand(client: Client, sink: Sink, key: str) -> None:
    """Nobody has to wait for its next attempt."""
    sink.next(Reply(status=503, headers=(("Retry-After", "600"),)))
    await client.send(sink.url(), key, {}, max_size=1)
    (waiting,) = await client.until_status(key, "retrying")

    answer = await client.call("POST", f"{DELIVERIES}/{waiting['id']}/retry")

    assert answer.status == 202
    await client.until_status(key, "delivered", within_s=3)


async def test_a_discarded_one_is_never_sent_again(client: Client, sink: Sink, key: str) -> None:
    """Dead or waiting; its record stays, it cannot be tried again, and the next of its key goes out."""
    sink.next(Reply(status=503, headers=(("Retry-After", "600"),)))
    for number in range(2):
        await client.send(sink.url(), key, {"n": number}, max_size=1)
    rows = await client.until_status(key, "retrying", "pending")
    (waiting,) = [row for row in rows if row["status"] == "retrying"]

    answer = await client.call("DELETE", f"{DELIVERIES}/{waiting['id']}")
    await client.until_status(key, "discarded", "delivered")

    assert answer.status == 200
    assert (await client.delivery(waiting["id"]))["status"] == "discarded"
    for method, end in (("DELETE", ""), ("POST", "/retry")):
        assert is_problem(await client.call(method, f"{DELIVERIES}/{waiting['id']}{end}"), 409)
    dead = await dead_letter(client, sink, key)
    assert (await client.call("DELETE", f"{DELIVERIES}/{dead['id']}")).status == 200
    await client.until_status(key, "discarded", "discarded", "delivered")
    assert sink.count == 3


async def test_what_is_done_cannot_be_changed(client: Client, sink: Sink, key: str) -> None:
    """409 for a delivered one, and for one whose request is out."""
    sink.next(Reply(delay_s=0.4))
    await client.send(sink.url(), key, {}, max_size=1)
    await sink.wait_for_requests(1)
    for status in ("delivering", "delivered"):
        (row,) = await client.until_status(key, status)
        for method, end in (("DELETE", ""), ("POST", "/retry")):
            assert is_problem(await client.call(method, f"{DELIVERIES}/{row['id']}{end}"), 409)
    assert sink.count == 1


@pytest.mark.parametrize("name", [UNKNOWN, "dlv_", "x", "retry", "%00", "..%2f", UNKNOWN.upper(), UNKNOWN + "0"])
async def test_an_unknown_delivery_is_a_404(client: Client, name: str) -> None:
    """To look at, to try again, to discard."""
    assert is_problem(await client.call("GET", f"{DELIVERIES}/{name}"), 404)
    assert is_problem(await client.call("DELETE", f"{DELIVERIES}/{name}"), 404)
    assert is_problem(await client.call("POST", f"{DELIVERIES}/{name}/retry"), 404)


async def test_dead_ones_are_tried_again_in_bulk(client: Client, sink: Sink, key: str) -> None:
    """Those of one key, between two instants; how many is in the answer."""
    made = [await dead_letter(client, sink, key, f"/gone/{number}") for number in range(3)]
    other = await dead_letter(client, sink, f"{key}-other")
    for number in range(3):
        sink.on(f"/gone/{number}", Reply())
    middle = made[1]["created_at"]

    async def retry(**wish: object) -> int:
        answer = await client.call("POST", f"{DELIVERIES}/retry", {"status": "dead", "key": key, **wish})
        assert answer.status == 200, answer
        assert answer.json.keys() == {"requeued"}
        return int(answer.json["requeued"])

    assert await retry(until="2020-01-01T00:00:00Z") == 0
    assert await retry(since="2999-01-01T00:00:00+02:00") == 0
    assert await retry(since=middle, until=middle) == 1
    await client.until_status(key, "dead", "dead", "delivered")
    assert await retry(since=made[0]["created_at"]) == 2
    await client.until_status(key, "delivered", "delivered", "delivered")
    assert await retry() == 0
    assert (await client.delivery(other["id"]))["status"] == "dead"


async def test_bulk_retry_without_a_key_takes_all(client: Client, sink: Sink, key: str) -> None:
    """Of every key, in the given time."""
    since = datetime.now(UTC).isoformat()
    keys = [f"{key}-{number}" for number in range(5)]
    await asyncio.gather(*(dead_letter(client, sink, each) for each in keys))
    sink.on("/gone", Reply())

    answer = await client.call("POST", f"{DELIVERIES}/retry", {"status": "dead", "since": since})

    assert answer.json == {"requeued": 5}
    for each in keys:
        await client.until_status(each, "delivered")


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({}, "$.status"),
        ({"status": "delivered"}, "$.status"),
        ({"status": 1}, "$.status"),
        ({"status": "dead", "since": "yesterday"}, "$.since"),
        ({"status": "dead", "since": "2026-01-01T00:00:00"}, "$.since"),
        ({"status": "dead", "until": 1}, "$.until"),
        ({"status": "dead", "key": ""}, "$.key"),
        ({"status": "dead", "key": "x" * 257}, "$.key"),
        ([], "$"),
    ],
)
async def test_a_bad_bulk_retry_is_a_400(client: Client, wish: object, pointer: str) -> None:
    """Naming the field; an instant needs its time zone."""
    assert is_problem(await client.call("POST", f"{DELIVERIES}/retry", wish), 400, pointer=pointer)


async def test_the_list_is_filtered_by_status_and_key(client: Client, sink: Sink, key: str) -> None:
    """Every status gives its own, each row once, page by page."""
    dead = await dead_letter(client, sink, key)
    gone = await dead_letter(client, sink, key)
    await client.call("DELETE", f"{DELIVERIES}/{gone['id']}")
    await client.send(sink.url(), key, {}, max_size=1)
    await client.until_status(key, "dead", "discarded", "delivered")
    sink.next(Reply(status=503, headers=(("Retry-After", "2"),)))
    for _ in range(2):
        await client.send(sink.url(), key, {}, max_size=1)
    rows = await client.until_status(key, "dead", "discarded", "delivered", "retrying", "pending")

    for status in ("dead", "discarded", "delivered", "retrying", "pending", "delivering"):
        expected = [row["id"] for row in rows if row["status"] == status]
        assert [row["id"] for row in await client.deliveries(key=key, status=status)] == expected
        of_all_keys = await client.deliveries(status=status, limit=7)
        assert all(row["status"] == status for row in of_all_keys)
        assert {row["id"] for row in of_all_keys} >= set(expected)
    everything = [row["id"] for row in await client.deliveries(limit=7)]
    assert len(everything) == len(set(everything))
    assert {row["id"] for row in rows} <= set(everything)
    assert dead["id"] in everything
    assert await client.deliveries(key=f"{key}-nobody") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("status=bogus", "status"), ("status=", "status"), ("key=", "key"), ("key=" + "x" * 257, "key")],
)
async def test_a_bad_filter_is_a_400(client: Client, query: str, pointer: str) -> None:
    """Naming the parameter."""
    assert is_problem(await client.call("GET", f"{DELIVERIES}?{query}"), 400, pointer=pointer)


async def test_the_key_of_a_filter_may_be_anything(client: Client, sink: Sink, key: str) -> None:
    """Percent-encoded; a plus is a space, as in every query."""
    odd = f"{key} +/&=😀"
    await client.send(sink.url(), odd, {}, max_size=1)

    assert (await client.until_status(odd, "delivered"))[0]["key"] == odd
