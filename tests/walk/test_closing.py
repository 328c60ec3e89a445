"""When a batch goes out: after its window, when its debounce falls quiet, at its cap, at its size, at its bytes."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from tests.support.client import Client
from tests.support.sink import Sink
from tests.support.until import passing, steady

LATE_S = 0.4
"""Generous: the machine is shared."""


async def test_a_window_closes_its_wait_after_the_first_message(client: Client, sink: Sink, key: str) -> None:
    """Later messages join it and don't move it."""
    began = time.time()
    for text in ("one", "two", "three"):
        await client.send(sink.url(), key, {"q": text}, wait_time=0.4, max_size=10, aggregate_field="q")
        if text != "three":
            await passing(0.12)

    (request,) = await sink.wait_for_requests(1)

    assert began + 0.4 <= request.at < began + 0.4 + LATE_S
    assert request.headers["x-buffer-reason"] == "timeout"
    assert request.body == b'{"q":"one\\ntwo\\nthree"}'


async def test_a_debounce_closes_its_wait_after_the_latest_message(client: Client, sink: Sink, key: str) -> None:
    """Each message puts it off."""
    for pause_s in (0.15, 0.15, 0.15, 0.0):
        sent_at = time.time()
        await client.send(sink.url(), key, {}, mode="debounce", wait_time=0.3, max_size=10)
        await passing(pause_s)

    (request,) = await sink.wait_for_requests(1)

    assert sent_at + 0.3 <= request.at < sent_at + 0.3 + LATE_S
    assert (request.headers["x-buffer-size"], request.headers["x-buffer-reason"]) == ("4", "timeout")


@pytest.mark.parametrize(("options", "cap_s"), [({"max_wait": 0.5}, 0.5), ({}, 5 * 0.15)], ids=["named", "default"])
async def test_a_debounce_never_closes_later_than_its_cap(
    client: Client, sink: Sink, key: str, options: dict[str, float], cap_s: float
) -> None:
    """A steady stream cannot starve it: `max_wait`, or five times `wait_time`, after its first message."""
    began = time.time()
    sent = 0
    while not sink.count:
        assert time.time() - began < cap_s + LATE_S
        await client.send(sink.url(), key, {"n": sent}, mode="debounce", wait_time=0.15, max_size=1000, **options)
        sent += 1
        await passing(0.02)

    assert began + cap_s <= sink.requests[0].at < began + cap_s + LATE_S
    assert 2 < int(sink.requests[0].headers["x-buffer-size"]) <= sent


async def test_a_full_batch_goes_out_at_once(client: Client, sink: Sink, key: str) -> None:
    """Its last message is told so; the next message opens another batch."""
    first = await client.send(sink.url(), key, {"n": 1}, max_size=2, wait_time=60)
    last = await client.send(sink.url(), key, {"n": 2}, max_size=2, wait_time=60)
    (request,) = await sink.wait_for_requests(1, 1)
    following = await client.send(sink.url(), key, {"n": 3}, max_size=2, wait_time=60)

    assert (first["flushed"], last["flushed"], following["flushed"]) == (False, True, False)
    assert last["buffer_info"] == {"current_size": 2, "max_size": 2, "time_remaining": 0.0}
    assert following["buffer_info"]["current_size"] == 1
    assert (request.headers["x-buffer-size"], request.headers["x-buffer-reason"]) == ("2", "size")


async def test_a_batch_of_one_goes_out_at_once(client: Client, sink: Sink, key: str) -> None:
    """`max_size` 1 buffers nothing."""
    taken = await client.send(sink.url(), key, {"n": 1}, max_size=1, wait_time=60)

    assert taken["flushed"] is True
    assert (await sink.wait_for_requests(1, 1))[0].headers["x-buffer-size"] == "1"


async def test_a_batch_goes_out_when_its_bytes_are_in(client: Client, sink: Sink, key: str) -> None:
    """Payload bytes count; the message that reaches `max_bytes` closes the batch and is in it."""
    payload = {"text": "x" * 89}  # 100 bytes as JSON
    answers = [await client.send(sink.url(), key, payload, max_bytes=250, max_size=50, wait_time=60) for _ in range(3)]

    (request,) = await sink.wait_for_requests(1, 1)

    assert [answer["flushed"] for answer in answers] == [False, False, True]
    assert answers[2]["buffer_info"] == {"current_size": 3, "max_size": 50, "time_remaining": 0.0}
    assert (request.headers["x-buffer-size"], request.headers["x-buffer-reason"]) == ("3", "bytes")


async def test_a_message_larger_than_max_bytes_is_a_batch_of_its_own(client: Client, sink: Sink, key: str) -> None:
    """It is taken whole, not refused and not cut."""
    taken = await client.send(sink.url(), key, {"text": "x" * 5000}, max_bytes=10, wait_time=60, format="merged")

    (request,) = await sink.wait_for_requests(1, 1)

    assert taken["flushed"] is True
    assert request.headers["x-buffer-reason"] == "bytes"
    assert len(request.body) == 5011


async def test_the_newest_messages_options_hold_for_the_whole_batch(client: Client, sink: Sink, key: str) -> None:
    """Its webhook, its headers, its separator and its size; the first message's are forgotten."""
    await client.send(sink.url("/old"), key, {"q": "1"}, aggregate_field="q", separator="-", max_size=9, wait_time=60)
    await client.send(
        sink.url("/new"),
        key,
        {"q": "2"},
        aggregate_field="q",
        separator="+",
        max_size=2,
        wait_time=60,
        webhook={"method": "PUT", "headers": {"X-Which": "new"}},
    )

    (request,) = await sink.wait_for_requests(1, 1)

    assert (request.path, request.method, request.headers["x-which"]) == ("/new", "PUT", "new")
    assert request.body == b'{"q":"1+2"}'


async def test_a_windows_deadline_is_the_one_its_first_message_set(client: Client, sink: Sink, key: str) -> None:
    """A later message with another `wait_time` neither puts it off nor pulls it in."""
    began = time.time()
    await client.send(sink.url(), key, {}, wait_time=0.5, max_size=9)
    for wait_s in (0.05, 30):
        answer = await client.send(sink.url(), key, {}, wait_time=wait_s, max_size=9)
        assert 0.2 < answer["buffer_info"]["time_remaining"] <= 0.5

    (request,) = await sink.wait_for_requests(1, 2)

    assert began + 0.5 <= request.at < began + 0.5 + LATE_S
    assert request.headers["x-buffer-size"] == "3"


async def test_time_remaining_counts_down(client: Client, sink: Sink, key: str) -> None:
    """In seconds, to the batch's deadline; `current_size` counts what is in."""
    answers = []
    for pause_s in (0.2, 0.0):
        answers.append((await client.send(sink.url(), key, {}, wait_time=20, max_size=7))["buffer_info"])
        await passing(pause_s)

    assert [(info["current_size"], info["max_size"]) for info in answers] == [(1, 7), (2, 7)]
    assert 19.9 < answers[0]["time_remaining"] <= 20.0
    assert 19.0 < answers[1]["time_remaining"] <= 19.81


async def test_a_batch_is_not_sent_before_its_time(client: Client, sink: Sink, key: str) -> None:
    """Nor is it sent twice."""
    await client.send(sink.url(), key, {}, wait_time=0.3)

    await steady(lambda: sink.count == 0, 0.25, what="nothing goes out early")
    await sink.wait_for_requests(1)
    await steady(lambda: sink.count == 1, 0.4, what="it goes out once")


async def test_defaults_are_those_of_the_older_service(client: Client, sink: Sink, key: str) -> None:
    """wait_time 20, max_size 5, POST, an envelope without an aggregate_field."""
    for number in range(5):
        answer = await client.send(sink.url(), key, {"n": number})
        if number == 0:
            assert answer["buffer_info"]["max_size"] == 5
            assert 19 < answer["buffer_info"]["time_remaining"] <= 20

    (request,) = await sink.wait_for_requests(1, 1)

    assert (request.method, request.headers["x-buffer-size"]) == ("POST", "5")
    assert request.body.startswith(b'{"key":')


async def test_the_largest_batch_goes_out_whole(client: Client, sink: Sink, key: str) -> None:
    """Sixteen megabytes in messages of almost one: nothing is cut, and it is one request."""
    text = "x" * 1_000_000
    answers = [
        await client.send(
            sink.url(), key, {"n": number, "text": text}, max_bytes=16 * 1024 * 1024, max_size=1000, wait_time=60
        )
        for number in range(17)
    ]

    (request,) = await sink.wait_for_requests(1, 10)
    await client.until_status(key, "delivered")

    assert [answer["flushed"] for answer in answers] == [False] * 16 + [True]
    envelope = msgspec.json.decode(request.body)
    assert [each["payload"]["n"] for each in envelope["messages"]] == list(range(17))
    assert {each["payload"]["text"] for each in envelope["messages"]} == {text}


async def test_a_thousand_messages_are_one_batch(client: Client, sink: Sink, key: str) -> None:
    """The largest `max_size`, filled by many clients at once."""
    answers = []
    for first in range(0, 1000, 100):
        sends = (client.send(sink.url(), key, {"n": first + n}, max_size=1000, wait_time=60) for n in range(100))
        answers += await asyncio.gather(*sends)

    (request,) = await sink.wait_for_requests(1, 10)

    assert sorted(answer["buffer_info"]["current_size"] for answer in answers) == list(range(1, 1001))
    assert sum(answer["flushed"] for answer in answers) == 1
    messages = msgspec.json.decode(request.body)["messages"]
    assert sorted(each["payload"]["n"] for each in messages) == list(range(1000))
