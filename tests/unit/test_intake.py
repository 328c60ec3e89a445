"""Intake: what is accepted, what is refused and how the refusal names the field."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from actors.core.intake import Accepted, BadMessage, Limits, accept, admit, limits_of, parse
from actors.core.json_limits import BadField, JsonLimit
from actors.core.policy import BufferOptions, Message, Policy, Webhook
from actors.core.rendering import render
from tests.support.json_text import OBJECTS

SEED_EXAMPLE = b"""{
  "webhook": {
    "url": "https://api.example.com/webhook",
    "method": "POST",
    "headers": {"Authorization": "Bearer token123"}
  },
  "buffer": {
    "key": "user123@domain.net",
    "wait_time": 20,
    "aggregate_field": "json.input.data.query",
    "max_size": 5
  },
  "payload": {"json": {"input": {"data": {"query": "mensaje de ejemplo"}}}}
}"""


MISSING = "is missing, and buffer.aggregate_field names it"
NO_STRING = "must be a string to be joined"
TOO_SHORT = "must not be less than wait_time"


def request(payload: str = '{"q":"a"}', **options: object) -> bytes:
    """A request body with that payload and these buffer options."""
    buffer = {"key": "k", **options}
    return b'{"webhook":{"url":"https://example.com/"},"buffer":%b,"payload":%b}' % (
        msgspec.json.encode(buffer),
        payload.encode(),
    )


def refusal(body: bytes) -> BadField:
    """How the body is refused."""
    with pytest.raises(BadField) as caught:
        parse(body)
    return caught.value


def test_the_seed_example_is_accepted() -> None:
    """With its defaults, its payload byte for byte and its policy in the form that is stored."""
    accepted = parse(SEED_EXAMPLE)
    assert accepted.message.buffer.key == "user123@domain.net"
    assert accepted.message.message_id is None
    assert accepted.payload == b'{"json": {"input": {"data": {"query": "mensaje de ejemplo"}}}}'
    assert accepted.limits == Limits(20_000, 0, 5, 1024 * 1024)
    policy = msgspec.json.decode(accepted.policy, type=Policy)
    assert policy == Policy(webhook=accepted.message.webhook, buffer=accepted.message.buffer)
    assert b"conversation" not in accepted.policy


def test_unknown_fields_beside_webhook_and_buffer_are_ignored() -> None:
    """Inside the two they would change behaviour silently and are refused; elsewhere clients may send more."""
    assert parse(request()[:-1] + b',"extra":{"a":[1]}}').payload == b'{"q":"a"}'
    with pytest.raises(msgspec.ValidationError, match=r"unknown field `wait_tme` - at `\$.buffer`"):
        parse(request(wait_tme=3))


@pytest.mark.parametrize("payload", ["null", "[]", '"text"', "1", "true"])
def test_a_payload_is_an_object(payload: str) -> None:
    """Whatever else JSON knows is refused."""
    error = refusal(request(payload))
    assert (error.pointer, error.detail) == ("$.payload", "must be an object")


@pytest.mark.parametrize(
    ("payload", "options", "pointer", "detail"),
    [
        ("{}", {"aggregate_field": "a.b"}, "$.payload.a.b", MISSING),
        ('{"a":{"b":1}}', {"aggregate_field": "a.b.c"}, "$.payload.a.b.c", MISSING),
        ('{"a":[1]}', {"aggregate_field": "a.1"}, "$.payload.a.1", MISSING),
        ('{"a":1}', {"aggregate_field": "a"}, "$.payload.a", NO_STRING),
        ('{"a":null}', {"aggregate_field": "a"}, "$.payload.a", NO_STRING),
        ('{"a":"x","a":2}', {"aggregate_field": "a"}, "$.payload.a", NO_STRING),
        ('{"a":1}', {"aggregate_field": "a", "format": "envelope"}, "$.payload.a", NO_STRING),
        ("{}", {"mode": "debounce", "wait_time": 2, "max_wait": 1.9}, "$.buffer.max_wait", TOO_SHORT),
        ("{}", {"key": "😀" * 129}, "$.buffer.key", "longer than 512 bytes"),
        ('{"a":1e999}', {}, "$.payload", "a number is out of range"),
        ('{"a":' + "1" * 400 + ".0}", {}, "$.payload", "a number is out of range"),
        ('{"a":[' + "9" * 5000 + "]}", {}, "$.payload.a[0]", "an integer is outside the range of int64"),
    ],
)
def test_what_types_cannot_say_is_refused_by_name(
    payload: str, options: dict[str, object], pointer: str, detail: str
) -> None:
    """Each rule of the contract beyond types, with the field it is about."""
    error = refusal(request(payload, **options))
    assert (error.pointer, error.detail) == (pointer, detail)


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        ('{"a":1}', {"aggregate_field": "a", "aggregate": "list"}),
        ('{"a":{}}', {"aggregate_field": "a", "aggregate": "first"}),
        ('{"a":null}', {"aggregate_field": "a", "aggregate": "last"}),
        ('{"a":[{"t":"x"}]}', {"aggregate_field": "a.0.t"}),
        ('{"0":"x"}', {"aggregate_field": "0"}),
        ("{}", {"mode": "debounce", "wait_time": 2, "max_wait": 2}),
        ("{}", {"mode": "window", "wait_time": 20, "max_wait": 1}),
        ("{}", {"key": "😀" * 128}),
        ("{}", {"key": "a\x00b/:@ ñ\r\n"}),
        ('{"n":[9223372036854775807,-9223372036854775808,1e308,-0]}', {}),
    ],
)
def test_what_the_contract_allows_is_accepted(payload: str, options: dict[str, object]) -> None:
    """The other side of each rule: `max_wait` means nothing in a window, a key may hold any character."""
    assert parse(request(payload, **options)).payload == payload.encode()


HOSTILE = {
    "empty": b"",
    "malformed": b'{"webhook":',
    "not an object": b"[]",
    "only nesting": b"[" * 100_000,
    "byte order mark": b"\xef\xbb\xbf" + SEED_EXAMPLE,
    "trailing": SEED_EXAMPLE + b"x",
    "NaN": request('{"a":NaN}'),
    "Infinity": request('{"a":-Infinity}'),
    "2^64": request('{"a":18446744073709551616}'),
    "too large a limit": request(max_size=2**70),
    "huge wait": request()[:-1].replace(b'"k"', b'"k","wait_time":1e999') + b"}",
    "lone surrogate in the payload": request('{"a":"\\ud800 and more text"}'),
    "lone surrogate at the end": request('{"a":"\\ud800"}'),
    "lone surrogate in the key": request().replace(b'"k"', b'"\\udc00 and more text"'),
    "raw NUL": request('{"a":"\x00"}'),
    "bad UTF-8 in the payload": request().replace(b'"a"', b'"\xff"'),
    "bad UTF-8 in a payload's key": request().replace(b'"q"', b'"\xc3"'),
    "bad UTF-8 in the buffer": request().replace(b'"k"', b'"\xff"'),
    "UTF-16": SEED_EXAMPLE.decode().encode("utf-16"),
    "deep payload": request('{"a":' * 32 + "1" + "}" * 32),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused(name: str) -> None:
    """Malformed, deep, huge, not UTF-8: always an error that the edge knows, never another exception."""
    with pytest.raises((BadField, msgspec.DecodeError)):
        parse(HOSTILE[name])


def test_equal_keys_the_last_counts() -> None:
    """As in every decoder: for the payload as a whole and for the fields of the options."""
    body = request().replace(b'"payload"', b'"payload":{"first":1},"payload"').replace(b'"k"', b'"x","key":"y"')
    assert parse(body).payload == b'{"q":"a"}'
    assert parse(body).message.buffer.key == "y"


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=60), st.integers(0, len(SEED_EXAMPLE)), st.integers(0, 30))
@example(b"\xff", 200, 1)
def test_no_bytes_raise_anything_else(noise: bytes, at: int, cut: int) -> None:
    """Any damage to a good body is accepted or refused, and nothing else happens."""
    with suppress(BadMessage, JsonLimit, msgspec.DecodeError):
        assert isinstance(parse(SEED_EXAMPLE[:at] + noise + SEED_EXAMPLE[at + cut :]), Accepted)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(OBJECTS, min_size=1, max_size=3),
    st.sampled_from([None, "a", "b", "a.b", "a.0"]),
    st.sampled_from(["join", "list", "first", "last"]),
)
def test_what_is_accepted_can_be_rendered(payloads: list[str], field: str | None, how: str) -> None:
    """Under the newest one's policy; with a field the newest payload takes the aggregate, never an envelope."""
    options = {} if field is None else {"aggregate_field": field, "aggregate": how}
    accepted = []
    for payload in payloads:
        with suppress(BadMessage):
            accepted.append(parse(request(payload, **options)))
    if accepted:
        newest = accepted[-1]
        policy = msgspec.json.decode(newest.policy, type=Policy)
        messages = [(f"m{index}", index, each.payload) for index, each in enumerate(accepted)]
        sent = msgspec.json.decode(render(policy, key="k", reason="size", messages=messages))
        assert set(sent) == (
            {"key", "reason", "count", "messages"} if field is None else set(msgspec.json.decode(newest.payload))
        )


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        (BufferOptions(key="k"), Limits(20_000, 0, 5, 1024 * 1024)),
        (BufferOptions(key="k", max_wait=60), Limits(20_000, 0, 5, 1024 * 1024)),
        (BufferOptions(key="k", mode="debounce"), Limits(20_000, 100_000, 5, 1024 * 1024)),
        (BufferOptions(key="k", mode="debounce", max_wait=30.5), Limits(20_000, 30_500, 5, 1024 * 1024)),
        (BufferOptions(key="k", mode="debounce", wait_time=86_400), Limits(86_400_000, 432_000_000, 5, 1024 * 1024)),
        (BufferOptions(key="k", wait_time=0.05, max_size=1000, max_bytes=1), Limits(50, 0, 1000, 1)),
        (BufferOptions(key="k", wait_time=0.0701), Limits(71, 0, 5, 1024 * 1024)),
    ],
)
def test_limits(options: BufferOptions, limits: Limits) -> None:
    """Milliseconds, defaults filled in, a debounce always capped."""
    assert limits_of(options) == limits


@given(st.integers(50, 86_400_000), st.sampled_from(["window", "debounce"]))
def test_whole_milliseconds_stay_what_they_are(wait_ms: int, mode: str) -> None:
    """No float makes a wait a millisecond longer or shorter."""
    options = msgspec.convert({"key": "k", "wait_time": wait_ms / 1000, "mode": mode}, BufferOptions)
    limits = limits_of(options)
    assert limits.wait_ms == wait_ms
    assert limits.max_wait_ms == (5 * wait_ms if mode == "debounce" else 0)


@given(st.floats(0.05, 86_400))
def test_nothing_is_due_early(wait_s: float) -> None:
    """A wait between two milliseconds ends at the later one."""
    wait_ms = limits_of(BufferOptions(key="k", wait_time=wait_s)).wait_ms
    assert -0.001 <= wait_ms - wait_s * 1000 < 1


@pytest.mark.parametrize(
    ("payload", "detail"),
    [(b"[]", "must be an object"), (b'{"a":"\xff"}', "not valid UTF-8"), (b'{"a":1e999}', "a number is out of range")],
)
def test_a_message_that_was_decoded_elsewhere_is_checked_too(payload: bytes, detail: str) -> None:
    """The decoder keeps a payload raw: neither its UTF-8 nor its numbers have been looked at."""
    message = Message(webhook=Webhook(url="https://example.com/"), buffer=BufferOptions(key="k"), payload=Raw(payload))
    with pytest.raises(BadMessage, match=detail):
        accept(message)
    decoded = msgspec.json.decode(SEED_EXAMPLE, type=Message)
    assert (accept(decoded).payload, accept(decoded).policy, accept(decoded).limits) == (
        parse(SEED_EXAMPLE).payload,
        parse(SEED_EXAMPLE).policy,
        parse(SEED_EXAMPLE).limits,
    )


def test_admit_takes_a_payload_that_was_decoded_elsewhere() -> None:
    """The rules alone, for messages that do not come as a request body."""
    options = BufferOptions(key="k", aggregate_field="q")
    message = Message(webhook=Webhook(url="https://example.com/"), buffer=options, payload=Raw(b'{"q":"a"}'))
    admit(message, {"q": "a"})
    with pytest.raises(BadMessage, match="joined"):
        admit(message, {"q": 1})
