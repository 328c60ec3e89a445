"""The text that a webhook's answer wants sent back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.replies import REPLY_BYTES_MAX, REPLY_CHARACTERS_MAX, reply_text
from tests.unit.test_foreign_json import JSON


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"output": "hola"}, "hola"),
        ({"answer": "hola"}, "hola"),
        ({"text": "hola"}, "hola"),
        ({"text": "3", "answer": "2", "output": "1"}, "1"),
        ({"output": " ", "answer": None, "text": "x"}, "x"),
        ({"output": {"text": "inner"}, "text": "outer"}, "outer"),
        ([{"output": "hola"}], "hola"),  # n8n, "respond with all items"
        ([{"output": "a"}, {"output": "b"}], None),
        ([[{"output": "a"}]], None),
        *(({}, None), ([], None), ("hola", None), (["hola"], None), (None, None), (7, None)),
        *(({"output": 7}, None), ({"output": ["hola"]}, None), ({"output": ""}, None), ({"message": "Workflow"}, None)),
    ],
)
def test_where_a_reply_is_found_by_itself(answer: object, text: str | None) -> None:
    """`output`, `answer`, `text`, in this order, in the answer or in its only item."""
    assert reply_text("application/json", json.dumps(answer).encode(), None) == text


@pytest.mark.parametrize(
    ("path", "answer", "text"),
    [
        ("data.0.answer", {"data": [{"answer": "hola"}], "output": "no"}, "hola"),
        ("reply", [{"reply": "hola"}], "hola"),
        ("0.reply", [{"reply": "hola"}], "hola"),
        ("0.reply", [{"reply": "hola"}, 1], "hola"),
        ("reply", {"output": "no"}, None),
        ("output.text", {"output": {"text": "hola"}}, "hola"),
        ("output.text", {"output": "no"}, None),
    ],
)
def test_where_a_reply_is_found_by_a_path(path: str, answer: object, text: str | None) -> None:
    """Only there."""
    assert reply_text("application/json", json.dumps(answer).encode(), path) == text


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        *((None, True), ("", True), ("application/json; charset=utf-8", True), ("Application/JSON", True)),
        *(("application/vnd.api+json", True), ("text/json", True), ("text/plain; charset=utf-8", True)),
        *(("text/html", False), ("application/xml", False), ("application/octet-stream", False), ("json", False)),
    ],
)
def test_what_is_read_as_json(content_type: str | None, is_read: bool) -> None:
    """What says it is, and what says nothing; never a page."""
    assert reply_text(content_type, b'{"output":"hola"}', None) == ("hola" if is_read else None)


@pytest.mark.parametrize("body", [b"", b"hola", b"{", b'{"output":"\xff"}', b"[" * 5000, b'{"output":1e999}'])
def test_no_json_is_no_reply(body: bytes) -> None:
    """Nothing is guessed from it."""
    assert reply_text(None, body, None) is None


def test_a_reply_is_as_long_as_a_message_may_be() -> None:
    """A longer one is cut, an answer larger than is read has none."""
    assert reply_text(None, b'{"output":"%b"}' % (b"x" * 70_000), None) == "x" * REPLY_CHARACTERS_MAX
    assert reply_text(None, b'{"output":"x","pad":"%b"}' % (b"x" * REPLY_BYTES_MAX), None) is None


def test_half_an_emoji_does_not_cost_the_reply() -> None:
    """An answer that was streamed and cut may end in one."""
    assert reply_text(None, rb'{"output":"hola \ud83d"}', None) == "hola \ufffd"


@given(
    answer=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
    path=st.none() | st.text(max_size=12) | st.sampled_from(["", ".", "0", "0.0", "a.b"]),
)
def test_any_answer_has_a_text_or_none(answer: bytes, path: str | None) -> None:
    """Whatever it is and wherever is looked."""
    text = reply_text(None, answer, path)
    assert text is None or text.strip()
