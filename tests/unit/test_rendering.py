"""Rendering: what a webhook gets for a batch, byte for byte."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.aggregation import parse_path
from actors.core.json_span import locate, value_at
from actors.core.message_order import message_id
from actors.core.policy import Aggregate, BufferOptions, Conversation, Format, Policy, Reason, Webhook
from actors.core.rendering import StoredMessage, render, rfc3339
from tests.support.json_text import OBJECTS, STRINGS, VALUES

HOWS: tuple[Aggregate, ...] = get_args(Aggregate)
REASONS: tuple[Reason, ...] = get_args(Reason)
RECEIVED_MS = 1_795_366_200_123
FIELD = "json.q"


def policy(
    aggregate_field: str | None = FIELD,
    aggregate: Aggregate = "join",
    *,
    format: Format | None = None,
    separator: str = "\n",
) -> Policy:
    """The newest message's policy."""
    options = BufferOptions(
        key="k", aggregate_field=aggregate_field, aggregate=aggregate, format=format, separator=separator
    )
    return Policy(webhook=Webhook(url="https://example.com/"), buffer=options)


def batch(*payloads: str) -> list[StoredMessage]:
    """Messages m0, m1 … received a millisecond after each other."""
    return [(f"m{index}", RECEIVED_MS + index, payload.encode()) for index, payload in enumerate(payloads)]


def body(of: Policy, *payloads: str, key: str = "k", reason: Reason = "size") -> str:
    """What goes out, as text."""
    return render(of, key=key, reason=reason, messages=batch(*payloads)).decode()


def test_merged_is_the_newest_payload_with_the_field_replaced() -> None:
    """A receiver written for single messages needs no change: everything else stays as the newest message had it."""
    older = '{"json":{"q":"uno"},"n":1}'
    newest = '{ "n" : 1.0e2 ,"z":"\\u00f1", "json":{"big":12345678901234567890.10, "q" : "dos" ,"x":[ ]},"a":-0}\n'
    assert body(policy(), older, newest) == newest.replace('"dos"', '"uno\\ndos"')


def test_seed_example() -> None:
    """The seed's own example, three messages."""
    payloads = [f'{{"json":{{"input":{{"data":{{"query":"{word}"}}}}}}}}' for word in ("uno", "dos", "tres")]
    assert msgspec.json.decode(body(policy("json.input.data.query"), *payloads)) == {
        "json": {"input": {"data": {"query": "uno\ndos\ntres"}}}
    }


@pytest.mark.parametrize(
    ("how", "merged"), [("join", '"a--\\u00e9"'), ("list", '["a","\\u00e9"]'), ("first", '"a"'), ("last", '"\\u00e9"')]
)
def test_each_aggregate(how: Aggregate, merged: str) -> None:
    """Join, list, first and last, in the order of acceptance, escapes as the caller wrote them."""
    payloads = ['{"json":{"q":"a"},"n":1}', '{"json":{"q":"\\u00e9"},"n":2}']
    assert body(policy(FIELD, how, separator="--"), *payloads) == f'{{"json":{{"q":{merged}}},"n":2}}'


def test_the_last_of_equal_keys_counts() -> None:
    """What decoders see is what is read and what is replaced."""
    payload = '{"json":{"q":1},"json":{"q":"a","q":"b"}}'
    assert body(policy(), payload, payload) == '{"json":{"q":1},"json":{"q":"a","q":"b\\nb"}}'


@pytest.mark.parametrize(
    ("format", "whole"), [("merged", '{"json":{"q":"a\\nb\\nc"},"n":3}'), ("envelope", None), (None, None)]
)
def test_a_conversation_is_in_whatsapps_order(format: Format | None, whole: str | None) -> None:
    """The texts, the messages of an envelope, and which message is the newest."""
    of = msgspec.structs.replace(policy(format=format), conversation=Conversation("ventas", "1@lid"))
    sent = {"c": 3, "a": 1, "b": 2}  # as they arrived
    messages = [
        (
            message_id("ventas", text, 1_717_689_097 + second),
            RECEIVED_MS,
            f'{{"json":{{"q":"{text}"}},"n":{second}}}'.encode(),
        )
        for text, second in sent.items()
    ]
    bodies = {render(of, key="k", reason="size", messages=messages) for _ in range(2)}
    assert len(bodies) == 1
    decoded = msgspec.json.decode(bodies.pop())
    if whole is not None:
        assert decoded == msgspec.json.decode(whole)
    elif format == "envelope":
        assert decoded["aggregated"] == "a\nb\nc"
        assert [each["payload"]["n"] for each in decoded["messages"]] == [1, 2, 3]
    else:
        assert decoded == {"json": {"q": "a\nb\nc"}, "n": 3}


def test_other_messages_stay_in_the_order_of_acceptance() -> None:
    """Whatever their callers call them."""
    late, early = (message_id("ventas", "x", second) for second in (1_717_689_098, 1_717_689_097))
    messages = [(late, RECEIVED_MS, b'{"json":{"q":"a"}}'), (early, RECEIVED_MS, b'{"json":{"q":"b"}}')]
    assert render(policy(), key="k", reason="size", messages=messages) == b'{"json":{"q":"a\\nb"}}'


def test_an_element_of_an_array_can_be_the_field() -> None:
    """List indexes are numbers in the path."""
    assert body(policy("m.1.t"), '{"m":[0,{"t":"a"}]}', '{"m":[0,{"t":"b"},2]}') == '{"m":[0,{"t":"a\\nb"},2]}'


def test_older_messages_that_do_not_fit_the_newest_policy_are_skipped() -> None:
    """They came under another policy; the batch goes out all the same."""
    older = ['{"other":1}', '{"json":[1]}', '{"json":{"q":7}}', '{"json":{"q":"x"}}']
    newest = '{"json":{"q":"y"}}'
    assert body(policy(), *older, newest) == '{"json":{"q":"x\\ny"}}'
    assert body(policy(FIELD, "list"), *older, newest) == '{"json":{"q":[7,"x","y"]}}'
    assert body(policy(FIELD, "first"), *older, newest) == '{"json":{"q":7}}'


@pytest.mark.parametrize("newest", ['{"json":{}}', "{}"])
def test_a_newest_payload_without_the_field_goes_into_an_envelope(newest: str) -> None:
    """No accepted message is like that; if one is, nothing of the batch is lost and nothing raises."""
    sent = msgspec.json.decode(body(policy(), '{"json":{"q":"x"}}', newest))
    assert sent["aggregated"] == "x"
    assert [message["payload"] for message in sent["messages"]] == [{"json": {"q": "x"}}, msgspec.json.decode(newest)]
    assert "aggregated" not in msgspec.json.decode(body(policy(), newest))


def test_envelope_is_the_default_without_a_field() -> None:
    """All messages with id, time and payload as the caller wrote it; no aggregate."""
    assert body(policy(None), '{"a" : 1.0}', '{"b":"\\u00f1"}', key='k"ñ', reason="timeout") == (
        '{"key":"k\\"ñ","reason":"timeout","count":2,"messages":['
        '{"message_id":"m0","received_at":"2026-11-22T16:50:00.123Z","payload":{"a" : 1.0}},'
        '{"message_id":"m1","received_at":"2026-11-22T16:50:00.124Z","payload":{"b":"\\u00f1"}}]}'
    )


def test_envelope_on_demand_carries_the_aggregate() -> None:
    """With a field and the format `envelope`, the aggregate is a member of its own."""
    sent = body(policy(format="envelope"), '{"json":{"q":"a"}}', '{"json":{"q":"b"}}')
    assert sent.startswith('{"key":"k","reason":"size","count":2,"aggregated":"a\\nb","messages":[{"message_id":"m0",')


def test_merged_on_demand_without_a_field_is_the_newest_payload() -> None:
    """There is nothing to replace."""
    assert body(policy(None, format="merged"), '{"a":1}', ' {"b": 2}') == ' {"b": 2}'


@settings(deadline=None, max_examples=50)
@given(st.lists(OBJECTS, min_size=1, max_size=4), st.text(max_size=8), st.sampled_from(REASONS), st.text(max_size=6))
def test_an_envelope_holds_every_message_as_it_was(
    payloads: list[str], key: str, reason: Reason, message_id: str
) -> None:
    """Count, order, ids, times and payload bytes; the same input gives the same bytes."""
    messages = [(f"{message_id}{index}", RECEIVED_MS + index, text.encode()) for index, text in enumerate(payloads)]
    sent = render(policy(None), key=key, reason=reason, messages=messages)
    assert sent == render(policy(None), key=key, reason=reason, messages=tuple(messages))
    envelope = msgspec.json.decode(sent)
    assert (envelope["key"], envelope["reason"], envelope["count"]) == (key, reason, len(payloads))
    assert [message["message_id"] for message in envelope["messages"]] == [message[0] for message in messages]
    for index, text in enumerate(payloads):
        assert value_at(sent, ("messages", str(index), "payload")) == text.encode()


FIELDS = st.sampled_from(["a", "b", "a.b", "a.0", "a.0.b", ""])


@settings(deadline=None, max_examples=60)
@given(st.lists(OBJECTS, min_size=1, max_size=4), FIELDS, st.sampled_from(HOWS), st.sampled_from([None, "envelope"]))
def test_whatever_is_stored_has_a_body(payloads: list[str], field: str, how: Aggregate, shape: Format | None) -> None:
    """Any mix of payloads, fitting or not: one JSON object, the same at every attempt."""
    under = policy(field, how, format=shape)
    sent = body(under, *payloads)
    assert sent == body(under, *payloads)
    assert isinstance(msgspec.json.decode(sent), dict)


@settings(deadline=None)
@given(OBJECTS, st.lists(st.one_of(STRINGS, VALUES), min_size=1, max_size=4), st.sampled_from(HOWS))
def test_merging_touches_only_the_field(around: str, values: list[str], how: Aggregate) -> None:
    """Every byte of the newest payload but the field's own is what its caller sent."""
    if how == "join":
        values = [msgspec.json.encode(value).decode() for value in values]
    payloads = [f'{{"before": {around} ,"json":{{"q":{value}}} , "after":{around}}}' for value in values]
    sent = body(policy(FIELD, how), *payloads).encode()
    newest = payloads[-1].encode()
    was, now = locate(newest, parse_path(FIELD)), locate(sent, parse_path(FIELD))
    assert was is not None
    assert now is not None
    assert sent[: now[0]] == newest[: was[0]]
    assert sent[now[1] :] == newest[was[1] :]


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_rfc_3339_to_the_millisecond(instant_ms: int) -> None:
    """UTC, always three digits, and exactly the instant."""
    text = rfc3339(instant_ms)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(instant_ms // 1000, UTC).replace(
        microsecond=instant_ms % 1000 * 1000
    )
