"""What a webhook gets: the merged payload, byte for byte but for one field, or the envelope with every message."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import msgspec
import pytest

from tests.support.client import MESSAGE, Client, is_problem, message
from tests.support.sink import Sink

FIELD = "json.input.data.query"


def nested(text: object) -> dict[str, Any]:
    """The payload of the older service's example."""
    return {"json": {"input": {"data": {"query": text}}}}


async def delivered(client: Client, sink: Sink, key: str, payloads: list[object], **options: Any) -> bytes:
    """Send payloads as one batch and give the body that arrives."""
    for payload in payloads:
        await client.send(sink.url(), key, payload, max_size=len(payloads), wait_time=60, **options)
    (request,) = await sink.wait_for_requests(1)
    return request.body


@pytest.mark.parametrize(
    ("aggregate", "separator", "expected"),
    [
        ("join", None, "uno\ndos\ntres"),
        ("join", " · ", "uno · dos · tres"),
        ("join", "", "unodostres"),
        ("join", '"\\\n\u2028', 'uno"\\\n\u2028dos"\\\n\u2028tres'),
        ("list", None, ["uno", "dos", "tres"]),
        ("first", None, "uno"),
        ("last", None, "tres"),
    ],
)
async def test_the_field_of_the_newest_payload_holds_the_aggregate(
    client: Client, sink: Sink, key: str, aggregate: str, separator: str | None, expected: object
) -> None:
    """In the order of acceptance."""
    options = {"aggregate": aggregate, "aggregate_field": FIELD}
    if separator is not None:
        options["separator"] = separator

    body = await delivered(client, sink, key, [nested(text) for text in ("uno", "dos", "tres")], **options)

    assert msgspec.json.decode(body) == nested(expected)


@pytest.mark.parametrize(("aggregate", "expected"), [("list", [1, None, {"a": []}]), ("first", 1), ("last", {"a": []})])
async def test_anything_can_be_aggregated_but_not_joined(
    client: Client, sink: Sink, key: str, aggregate: str, expected: object
) -> None:
    """Numbers, nothing and objects, as they came; to join them is a 400 that names the field."""
    payloads: list[object] = [{"q": 1}, {"q": None}, {"q": {"a": []}}]
    for payload in payloads:
        refused = await client.call("POST", MESSAGE, message(sink.url(), key, payload, aggregate_field="q"))
        assert is_problem(refused, 400, pointer="$.payload.q")

    body = await delivered(client, sink, key, payloads, aggregate=aggregate, aggregate_field="q")

    assert msgspec.json.decode(body) == {"q": expected}


async def test_a_path_may_go_through_lists(client: Client, sink: Sink, key: str) -> None:
    """An index is a number; a number may be a key as well."""
    payloads: list[object] = [{"a": [{}, {"0": {"text": text}}]} for text in ("x", "y")]

    body = await delivered(client, sink, key, payloads, aggregate_field="a.1.0.text")

    assert body == b'{"a":[{},{"0":{"text":"x\\ny"}}]}'


@pytest.mark.parametrize("field", ["a.2", "a.x", "a.-1", "a.01", "b", "a.0.text.x", "A", "a.0."])
async def test_a_payload_without_the_field_is_refused(client: Client, sink: Sink, key: str, field: str) -> None:
    """400, naming it, and nothing is buffered."""
    payload = {"a": [{"text": "x"}, {}]}
    answer = await client.call(
        "POST", MESSAGE, message(sink.url(), key, payload, aggregate_field=field, aggregate="last")
    )

    assert is_problem(answer, 400, pointer=f"$.payload.{field}")
    assert (await client.buffer(key)).status == 404


async def test_merging_leaves_every_other_byte_alone(client: Client, sink: Sink, key: str) -> None:
    """Spacing, escapes, spelling of numbers, order of members, equal keys: the receiver sees the newest payload."""
    newest = (
        b'{ "n" : 1.0e2,"big":0.10000000000000000000001 , "z":"\\u00f1\\/", "q" : "dos" ,"e":[ ],'
        b'"dup":1,"dup":2,"q2":"q", "deep":{"q":"not me"}, "u":"\xc3\xb1\xf0\x9f\x98\x80"}'
    )
    older = b'{"q":"uno"}'
    for payload in (older, newest):
        body = message(sink.url(), key, None, aggregate_field="q", max_size=2, wait_time=60)
        text = msgspec.json.encode(body).replace(b'"payload":null', b'"payload":' + payload)
        assert (await client.call("POST", MESSAGE, text)).status == 200

    (request,) = await sink.wait_for_requests(1)

    assert request.body == newest.replace(b'"dos"', b'"uno\\ndos"')


async def test_an_envelope_holds_every_message(client: Client, sink: Sink, key: str) -> None:
    """Key, reason, count, and each message with its id, when it was received, and its payload as it was."""
    began = time.time()
    first = await client.send(sink.url(), key, {"n": 1.50}, max_size=2, wait_time=60)
    await client.send(sink.url(), key, {"n": [2]}, max_size=2, wait_time=60, message_id="mine")

    (request,) = await sink.wait_for_requests(1)
    envelope = msgspec.json.decode(request.body)

    received = [datetime.fromisoformat(each.pop("received_at")).timestamp() for each in envelope["messages"]]
    assert began - 0.01 <= received[0] <= received[1] <= time.time()
    assert list(envelope) == ["key", "reason", "count", "messages"]
    assert envelope == {
        "key": key,
        "reason": "size",
        "count": 2,
        "messages": [
            {"message_id": first["message_id"], "payload": {"n": 1.5}},
            {"message_id": "mine", "payload": {"n": [2]}},
        ],
    }


async def test_an_envelope_may_carry_the_aggregate(client: Client, sink: Sink, key: str) -> None:
    """`format: envelope` with an aggregate_field."""
    payloads: list[object] = [{"q": "a"}, {"q": "b"}]

    body = await delivered(client, sink, key, payloads, aggregate_field="q", format="envelope", separator="|")

    envelope = msgspec.json.decode(body)
    assert (envelope["aggregated"], envelope["count"]) == ("a|b", 2)
    assert [each["payload"] for each in envelope["messages"]] == payloads


async def test_merged_without_a_field_is_the_newest_payload(client: Client, sink: Sink, key: str) -> None:
    """`format: merged` alone."""
    assert await delivered(client, sink, key, [{"n": 1}, {"n": 2}], format="merged") == b'{"n":2}'


async def test_a_key_of_any_characters_is_in_the_envelope(client: Client, sink: Sink, key: str) -> None:
    """As it was given."""
    odd = f'{key} "\\/\u2028\n😀'

    body = await delivered(client, sink, odd, [{}])

    assert msgspec.json.decode(body)["key"] == odd
