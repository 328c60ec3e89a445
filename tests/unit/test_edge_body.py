"""Bodies: what is refused, with which status and field, and that nothing of the caller's comes back."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from actors.core.json_limits import BadField
from actors.core.policy import Message
from router.edge.body import JsonBody, is_json
from router.edge.errors import BadInput, NotJson, Problem, problem_of
from router.edge.usecase import RequestHeaders

MESSAGE = JsonBody(Message)
HEAD = b'"webhook":{"url":"http://h/"},"buffer":{"key":"k"}'


class Inner(Struct, forbid_unknown_fields=True):
    """A nested body."""

    mode: Literal["a", "b"] | None = None


class Outer(Struct):
    """A body with lists and dictionaries."""

    inners: list[Inner] = []
    named: dict[str, Inner] = {}
    level: Literal[1, 2] = 1
    raw: Raw = Raw(b"null")


OUTER = JsonBody(Outer)


def headers(content_type: str = "application/json", content_encoding: str = "") -> RequestHeaders:
    """The headers of a request."""
    return RequestHeaders(path="/", request_id="r", content_type=content_type, content_encoding=content_encoding)


def refusal(body: bytes, decoder: JsonBody[Message] | JsonBody[Outer] = MESSAGE) -> Problem:
    """How a body is refused."""
    with pytest.raises((Problem, BadField)) as raised:
        decoder.decode(body, headers())
    failure = raised.value
    assert isinstance(failure, Problem | BadField)
    return problem_of(failure)


def test_a_good_body_is_decoded() -> None:
    """The payload stays the caller's own bytes."""
    message = MESSAGE.decode(b"{" + HEAD + b',"payload":{"a" : [1, "\\u00f1"]},"other":1}', headers())
    assert (message.buffer.max_size, bytes(message.payload)) == (5, b'{"a" : [1, "\\u00f1"]}')


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","max_size":0},"payload":{}}', "$.buffer.max_size: "),
        (b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","max_size":"5"},"payload":{}}', "$.buffer.max_size: "),
        (b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","max_size":5.5},"payload":{}}', "$.buffer.max_size: "),
        (
            b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","wait_time":1e400},"payload":{}}',
            "$.buffer.wait_time: ",
        ),
        (b'{"webhook":{"url":"http://h/"},"buffer":{"key":""},"payload":{}}', "$.buffer.key: "),
        (b'{"webhook":{},"buffer":{"key":"k"},"payload":{}}', "$.webhook.url: is required"),
        (b'{"buffer":{"key":"k"},"payload":{}}', "$.webhook: is required"),
        (b"{" + HEAD + b"}", "$.payload: is required"),
        (
            b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","maxsize":5},"payload":{}}',
            "$.buffer.maxsize: is not a known field",
        ),
        (
            b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","<b>":5},"payload":{}}',
            "$.buffer: has an unknown field",
        ),
        (
            b'{"webhook":{"url":"http://h/"},"buffer":{"key":"k","mode":"evil"},"payload":{}}',
            "$.buffer.mode: must be one of debounce, window",
        ),
        (b"{" + HEAD + b',"payload":{},"message_id":"\\u0007"}', "$.message_id: has characters that are not allowed"),
        (b'{"webhook":{"url":"h","headers":{"a":1}},"buffer":{"key":"k"},"payload":{}}', "$.webhook.headers[...]: "),
        (b"[]", "$: expected `object`"),
        (b'"x"', "$: expected `object`"),
        (b"", "$: a JSON body is required"),
        (b"{", "$: the body is not valid JSON"),
        (b"not json at all", "$: the body is not valid JSON (byte 4)"),
        (b"{" + HEAD + b',"payload":{"a":NaN}}', "$: the body is not valid JSON (byte"),
        (b"{" + HEAD + b',"payload":{"a":Infinity}}', "$: the body is not valid JSON (byte"),
        (b"{" + HEAD + b',"payload":{"a":-Infinity}}', "$: the body is not valid JSON (byte"),
        (b"{" + HEAD + b',"payload":{"a":"\\ud83d"}}', "$: the body is not valid JSON"),
        (b"{" + HEAD + b',"payload":{"a":"\\udc00x"}}', "$: the body is not valid JSON"),
        (b"{" + HEAD + b',"payload":{"a":"\\ud83d\\u0041"}}', "$: the body is not valid JSON"),
        (b"{" + HEAD + b',"payload":{"\\ud83d":1}}', "$: the body is not valid JSON"),
        (b"{" + HEAD + b',"payload":{"a":"\xff"}}', "$: the body is not UTF-8 (byte"),
        (b"{" + HEAD + b',"payload":{"\xc3":1}}', "$: the body is not UTF-8 (byte"),
        (b"{" + HEAD + b',"payload":{"a":"\xed\xa0\x80"}}', "$: the body is not UTF-8 (byte"),
        (b"\xef\xbb\xbf{}", "$: the body is not valid JSON (byte 0)"),
        (b'{"webhook":"\xff"}', "$: the body is not UTF-8 (byte 12)"),
        (b"{" + HEAD + b',"payload":{}} {}', "$: the body is not valid JSON (byte"),
        (b"{" + HEAD + b',"payload":{"a":9223372036854775808}}', "$.payload.a: "),
        (b"{" + HEAD + b',"payload":' + b"[" * 40 + b"]" * 40 + b"}", "$: nested more than 32 deep"),
        (b"[" * 1_000_000, "$: nested more than 32 deep"),
        (b'{"a":' * 200_000, "$: nested more than 32 deep"),
    ],
)
def test_bad_bodies_are_refused_by_field(body: bytes, detail: str) -> None:
    """400, and the answer says where."""
    problem = refusal(body)
    assert problem.status == 400
    assert problem.detail.startswith(detail)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"inners":[{},{"mode":"c"}]}', "$.inners[1].mode: must be one of a, b"),
        (b'{"named":{"secret":{"mode":"c"}}}', "$.named[...].mode: must be one of a, b"),
        (b'{"level":3}', "$.level: must be one of 1, 2"),
        (b'{"inners":[{"typo":1}]}', "$.inners[0].typo: is not a known field"),
    ],
)
def test_allowed_values_are_named(body: bytes, detail: str) -> None:
    """A wrong choice answers with the choices, wherever in the body it is."""
    assert refusal(body, OUTER).detail == detail


@given(st.text().filter(lambda text: text.isprintable()))
def test_no_value_of_the_caller_comes_back(text: str) -> None:
    """Whichever field holds it."""
    value = f"¤{text}"  # a sign that no answer of ours has
    quoted = msgspec.json.encode(value).decode()
    for template in (
        '{{"webhook":{{"url":"http://h/"}},"buffer":{{"key":"k","mode":{0}}},"payload":{{}}}}',
        '{{"webhook":{{"url":"http://h/","timeout":{0}}},"buffer":{{"key":"k"}},"payload":{{}}}}',
        '{{"webhook":{0},"buffer":{{"key":"k"}},"payload":{{}}}}',
        '{{"webhook":{{"url":"http://h/","headers":{{{0}:1}}}},"buffer":{{"key":"k"}},"payload":{{}}}}',
        "{0}",
        "{0}{0}",
    ):
        problem = refusal(template.format(quoted).encode())
        assert problem.status == 400
        assert value not in problem.detail


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(body: bytes) -> None:
    """Garbage is a 400, never anything else."""
    assert refusal(body).status == 400


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        ("", True),
        ("application/json", True),
        ("APPLICATION/JSON; charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/problem+json", True),
        ("application/cloudevents+json; charset=utf8", True),
        ("text/json", True),
        ("application/json; charset=latin-1", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain", False),
        ("multipart/form-data; boundary=x", False),
        ("image/svg+json", False),
        ("application/jsonp", False),
        (";", True),
    ],
)
def test_media_types(content_type: str, json: bool) -> None:
    """What counts as JSON in UTF-8."""
    assert is_json(content_type) is json


def test_other_media_types_are_refused_before_the_body_is_looked_at() -> None:
    """415, whatever the body."""
    with pytest.raises(NotJson) as raised:
        MESSAGE.decode(b"[" * 10, headers("text/plain"))
    assert raised.value.status == 415


def test_a_compressed_body_is_refused() -> None:
    """415; `identity` is no compression."""
    with pytest.raises(NotJson):
        MESSAGE.decode(b"", headers(content_encoding="gzip"))
    with pytest.raises(BadInput):
        MESSAGE.decode(b"", headers(content_encoding="identity"))
