"""Aggregation: what a dotted path means, and how several values become one."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.aggregation import (
    FieldMissing,
    NotJoinable,
    aggregate,
    extract,
    joinable,
    parse_path,
)
from actors.core.json_span import value_at
from actors.core.policy import Aggregate
from tests.support.json_text import SCALARS, STRINGS, VALUES

HOWS: tuple[Aggregate, ...] = get_args(Aggregate)
PAYLOAD = {
    "json": {"input": {"data": {"query": "hola"}}},
    "items": [{"text": "a"}, {"text": None}],
    "0": {"1": "key"},
    "": {"": "empty"},
    "a.b": "unreachable",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("json.input.data.query", "hola"),
        ("json.input.data", {"query": "hola"}),
        ("items.0.text", "a"),
        ("items.1.text", None),
        ("0.1", "key"),
        (".", "empty"),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: object) -> None:
    """Keys of objects, indexes of lists, keys that look like indexes, empty keys, and null is a value."""
    assert extract(PAYLOAD, parse_path(path)) == value


@pytest.mark.parametrize(
    "path",
    [
        "jsonx",
        "json.input.data.query.x",
        "items.2",
        "items.-1",
        "items.00",
        "items.text",
        "a.b",
        "json.",
        "..",
        "items.1.text.0",
    ],
)
def test_a_path_to_nowhere_is_missing(path: str) -> None:
    """Also below a scalar, past the end of a list, and where the path counts a list in an odd way."""
    with pytest.raises(FieldMissing):
        extract(PAYLOAD, parse_path(path))


@settings(deadline=None)
@given(VALUES, st.text(".01ab", max_size=6))
def test_decoded_and_stored_payloads_agree(text: str, path: str) -> None:
    """A field that is found when a message is accepted is found in its stored bytes, and the other way round."""
    found = value_at(text.encode(), parse_path(path))
    try:
        value = extract(msgspec.json.decode(text), parse_path(path))
    except FieldMissing:
        assert found is None
    else:
        assert found is not None
        assert msgspec.json.decode(found) == value


@given(st.text())
def test_every_text_is_a_path(text: str) -> None:
    """Reading a path cannot fail, and nothing of it is lost."""
    assert ".".join(parse_path(text)) == text


@settings(deadline=None)
@given(st.lists(STRINGS, min_size=1, max_size=5), st.text(max_size=3))
def test_join_is_what_joining_the_strings_gives(texts: list[str], separator: str) -> None:
    """However they were written, with any separator; and what was written stays as it was written."""
    joined = aggregate([text.encode() for text in texts], "join", separator)
    assert msgspec.json.decode(joined) == separator.join(msgspec.json.decode(text) for text in texts)
    assert all(text.encode()[1:-1] in joined for text in texts)


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_list_first_and_last_take_any_value(texts: list[str]) -> None:
    """Numbers, objects, null: as they were written, in their order."""
    values = [text.encode() for text in texts]
    listed = aggregate(values, "list", "\n")
    assert msgspec.json.decode(listed) == [msgspec.json.decode(text) for text in texts]
    assert listed == b"[" + b",".join(values) + b"]"
    assert aggregate(values, "first", "\n") == values[0]
    assert aggregate(values, "last", "\n") == values[-1]


@settings(deadline=None)
@given(st.lists(SCALARS, min_size=1, max_size=4))
def test_only_strings_can_be_joined(texts: list[str]) -> None:
    """One value that is no string spoils a join, and `joinable` says which."""
    values = [text.encode() for text in texts]
    strings = [isinstance(msgspec.json.decode(text), str) for text in texts]
    assert [joinable(value) for value in values] == strings
    if all(strings):
        assert msgspec.json.decode(aggregate(values, "join", "")) == "".join(map(msgspec.json.decode, texts))
    else:
        with pytest.raises(NotJoinable):
            aggregate(values, "join", "")


@pytest.mark.parametrize("how", HOWS)
def test_one_value_is_aggregated_too(how: Aggregate) -> None:
    """A batch of one gives the value itself, or a list of it."""
    assert aggregate([b'"a\\u00e9"'], how, "--") == (b'["a\\u00e9"]' if how == "list" else b'"a\\u00e9"')
