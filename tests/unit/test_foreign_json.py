"""JSON of other programs: read within our limits, with half an emoji mended, or refused."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.foreign_json import Unreadable, at, decode, text_at

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"Ana \ud83d"', "Ana \ufffd"),  # what JavaScript writes for a name cut in the middle of an emoji
        (rb'"\ude00 x \ud83d\ude00"', "\ufffd x \U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'["\\ud83d", "\uD83D"]', ["\\ud83d", "\ufffd"]),
        (rb'"\\\ud83d\n"', "\\\ufffd\n"),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    ],
)
def test_what_strict_decoders_refuse_is_read(text: bytes, value: object) -> None:
    """Half a pair of surrogates becomes U+FFFD, a whole one and an escaped backslash stay what they are."""
    assert decode(text) == value


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        *(
            (b"", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b'"\xff"', "not valid JSON"),
            (b"1e999", "not valid JSON"),
        ),
        *((b"[NaN]", "not valid JSON"), (rb'"\ud83d" x', "not valid JSON"), (b"<html>", "not valid JSON")),
        (b"[" * 33 + b"]" * 33, "nested more than 32 deep"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b"[9223372036854775808]", "an integer is outside the range of int64"),
    ],
)
def test_the_rest_is_refused(text: bytes, detail: str) -> None:
    """With one error, whatever was wrong."""
    with pytest.raises(Unreadable, match=detail):
        decode(text)


@given(JSON)
def test_whatever_is_json_is_read_as_it_is(value: object) -> None:
    """Escaped or not."""
    assert decode(msgspec.json.encode(value)) == value
    assert decode(json.dumps(value).encode()) == value


@given(st.text(st.characters(), max_size=20))
def test_text_with_halves_is_always_read(text: str) -> None:
    """JavaScript's strings are any sequence of 16-bit units; all of them arrive, halves as U+FFFD."""
    wanted = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert decode(json.dumps(text).encode()) == wanted


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """No other error gets out."""
    try:
        decode(text)
    except Unreadable:
        return


def test_looking_where_nothing_is() -> None:
    """Nothing is found, nothing raised."""
    value = {"a": {"b": " ", "c": "x", "d": 1}, "e": [1]}
    assert at(value, "a", "d") == 1
    assert (at(value, "a", "d", "f"), at(value, "e", "0"), at(None, "a"), at(value, "z")) == (None,) * 4
    assert text_at(value, "a", "c") == "x"
    assert (text_at(value, "a", "b"), text_at(value, "a", "d"), text_at(value, "a")) == (None,) * 3
