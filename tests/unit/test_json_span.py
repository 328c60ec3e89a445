"""JSON spans: one value found inside JSON text, exactly, however the text is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.core.json_limits import DEPTH_MAX
from actors.core.json_span import index_of, locate, replace, value_at
from tests.support.json_text import KEYS, OBJECTS, VALUES, WHITESPACE

MIB = 1 << 20
STEPS = st.lists(st.one_of(KEYS, st.sampled_from(["2", "01", "-1", "zz"])), min_size=1, max_size=4)


def follow(value: object, path: list[str]) -> tuple[object] | None:
    """The value at the path of a decoded text in a tuple, by the plainest means; None when there is none."""
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step in [str(index) for index in range(len(value))]:
            value = value[int(step)]
        else:
            return None
    return (value,)


@st.composite
def paths_into(draw: st.DrawFn, text: str) -> list[str]:
    """A path that leads somewhere in the text; empty when there is nowhere to go."""
    value: object = msgspec.json.decode(text)
    path: list[str] = []
    while isinstance(value, dict | list) and value and (not path or draw(st.booleans())):
        if isinstance(value, dict):
            path.append(draw(st.sampled_from(sorted(value))))
            value = value[path[-1]]
        else:
            path.append(str(draw(st.integers(0, len(value) - 1))))
            value = value[int(path[-1])]
    return path


@settings(deadline=None, max_examples=150)
@given(st.data(), VALUES, WHITESPACE, WHITESPACE)
def test_a_value_is_found_where_the_decoder_finds_it(data: st.DataObject, text: str, before: str, after: str) -> None:
    """Both ways to look give the bytes that decode to what a decoder has at this path, the last of equal keys too."""
    body = (before + text + after).encode()
    path = data.draw(paths_into(text))
    assume(path)
    span = locate(body, path)
    assert span is not None
    assert value_at(body, path) == body[slice(*span)]
    assert (msgspec.json.decode(body[slice(*span)]),) == follow(msgspec.json.decode(body), path)


@settings(deadline=None, max_examples=150)
@given(VALUES, STEPS)
def test_a_path_to_nowhere_finds_nothing(text: str, path: list[str]) -> None:
    """Both ways to look agree on what is not there."""
    body = text.encode()
    there = follow(msgspec.json.decode(body), path) is not None
    assert (locate(body, path) is not None) == there
    assert (value_at(body, path) is not None) == there
    assert (replace(body, path, b"0") is not None) == there


@settings(deadline=None)
@given(st.data(), OBJECTS, VALUES)
def test_replacing_touches_nothing_else(data: st.DataObject, text: str, new: str) -> None:
    """Every byte before and after the value stays, and the decoder then finds the new value there."""
    body = text.encode()
    path = data.draw(paths_into(text))
    assume(path)
    span = locate(body, path)
    replaced = replace(body, path, new.encode())
    assert span is not None
    assert replaced is not None
    assert replaced == body[: span[0]] + new.encode() + body[span[1] :]
    assert value_at(replaced, path) == new.encode()
    assert follow(msgspec.json.decode(replaced), path) == (msgspec.json.decode(new),)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ('{"a":1,"a":2}', ["a"], "2"),
        ('{"a":{"b":1},"a":{"c":2}}', ["a", "b"], None),
        ('{"a":{"b":1},"a":{"b":2},"a":3}', ["a"], "3"),
        ('{"\\u0061":1,"b":2}', ["a"], "1"),
        ('{"a\\u0062":1}', ["a\\u0062"], None),  # the key is ab, not what is written
        ('{"a\\\\u0062":1}', ["a\\u0062"], "1"),
        ('{"q\\"":[1,{"x":" , \\"]}"}]}', ['q"', "1", "x"], '" , \\"]}"'),
        ('{"😀":1,"\\ud83d\\ude00":2}', ["😀"], "2"),
        ('{"0":[5]}', ["0", "0"], "5"),
        ("[1,2]", ["2"], None),
        ("[1,2]", ["-1"], None),
        ("[1,2]", ["01"], None),
        ("[1,2]", ["\u0660"], None),
        ('"text"', ["0"], None),
        ("[null]", ["0"], "null"),
        ("{}", [""], None),
    ],
)
def test_examples(text: str, path: list[str], value: str | None) -> None:
    """What is easily got wrong: equal keys, escaped keys, numbers as keys, structure inside strings."""
    body = text.encode()
    span = locate(body, path)
    assert value_at(body, path) == (None if value is None else value.encode())
    assert (None if span is None else body[slice(*span)]) == (None if value is None else value.encode())


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 129, 200])
def test_every_element_of_an_array_is_found(length: int) -> None:
    """Elements are skipped in runs; none is lost at a run's edge, and none is made up after the end."""
    body = f"[{' , '.join(str(1000 + index) for index in range(length))}]".encode()
    for index in range(length):
        span = locate(body, [str(index)])
        assert span is not None
        assert body[slice(*span)] == b"%d" % (1000 + index)
    assert locate(body, [str(length)]) is None
    assert locate(body, ["999999999"]) is None


def test_as_deep_as_a_body_may_be() -> None:
    """A value at the deepest level is found, and containers of that depth are skipped."""
    depth = DEPTH_MAX - 1
    nest = '{"a":' * depth + "[7]" + "}" * depth
    assert value_at(nest.encode(), ["a"] * depth) == b"[7]"
    assert locate(nest.encode(), ["a"] * depth + ["0"]) == (5 * depth + 1, 5 * depth + 2)
    flat = '{"x":' + nest[5:-1] + ',"b":"here"}'
    assert replace(flat.encode(), ["b"], b"1") == flat.replace('"here"', "1").encode()


@pytest.mark.parametrize(
    "text", ['{"a":', '{"a":[1', '{"b":["', '{"b":[}', '{"b":1', "", '{"b":' + "[" * 40 + "]" * 40]
)
def test_what_is_no_json_is_an_error_or_nothing(text: str) -> None:
    """A damaged text ends the search at once, never in a wrong span."""
    with suppress(ValueError):
        assert locate(text.encode(), ["a"]) is None


def test_an_index_is_written_one_way() -> None:
    """Only plain decimal numbers are indexes."""
    assert [index_of(step) for step in ("0", "7", "10")] == [0, 7, 10]
    assert {index_of(step) for step in ("00", "+1", "-1", "1.0", "", "x", "9999999999", "1\n")} == {None}


HEAVY: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "equal keys": (lambda: b"{" + b'"":1,' * (MIB // 5) + b'"a":1}', ["a"]),
    "escaped keys": (lambda: b"{" + b'"\\u0061":1,' * (MIB // 11) + b'"a":1}', ["a"]),
    "elements": (lambda: b"[" + b"1," * (MIB // 2) + b"1]", [str(MIB // 2)]),
    "nested beside": (lambda: b'{"b":' + b"[" * 30 + b"[]," * (MIB // 3) + b"[]" + b"]" * 30 + b',"a":1}', ["a"]),
    "escapes": (lambda: b'{"b":"' + b'\\"' * (MIB // 2) + b'","a":1}', ["a"]),
    "deep path": (lambda: b'{"a":' * 30 + b"[" + b"1," * (MIB // 2) + b"1]" + b"}" * 30, ["a"] * 30 + ["0"]),
    "unterminated": (lambda: b'{"b":[' + b'"x",' * (MIB // 4), ["a"]),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_megabyte_does_not_hold_up_the_loop(name: str) -> None:
    """One pass, no backtracking: each takes 2 … 110 ms alone; anything worse would be a hundred times that."""
    make, path = HEAVY[name]
    body = make()
    started = time.process_time()
    if name == "unterminated":
        with pytest.raises(ValueError, match="not JSON"):
            locate(body, path)
    else:
        assert locate(body, path) is not None
    assert time.process_time() - started < 1.0
