"""JSON spans: finds one value inside JSON text by its path, without decoding the rest, to read or to replace it.

For text that has been accepted: valid JSON no deeper than `DEPTH_MAX` (ValueError for other text, if it is noticed).
Of equal keys in one object the last counts, as in every decoder. A step is a key in an object, an index in an array.
Invariants: `value_at` and `locate` mean the same value; `replace` leaves every byte outside that value as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw

from actors.core.json_limits import DEPTH_MAX, STRING

T = TypeVar("T")
Span = tuple[int, int]
Found = tuple[Span | None, int]
"""The span, when there is one, and where the value ends that was searched."""


def _nested(levels: int) -> bytes:
    """A pattern for an object or array with that many levels, itself included. It never backtracks."""
    plain = rb'[^"\[\]{}]*+'
    pattern = rb"[\[{]" + plain + rb"(?:" + STRING + plain + rb")*+[\]}]"
    for _ in range(levels - 1):
        pattern = rb"[\[{]" + plain + rb"(?:(?:" + STRING + rb"|" + pattern + rb")" + plain + rb")*+[\]}]"
    return pattern


_SCALAR = STRING + rb'|[^\s,\[\]{}"]++'
_CONTAINER = _nested(DEPTH_MAX)
_RUN = 64

_VALUE = re.compile(_SCALAR + rb"|" + _CONTAINER, re.DOTALL)
# Group 1 is the key, group 2 marks where the value begins. A scalar is taken at once, a container may be entered.
_MEMBER = re.compile(rb"[\s,]*+(" + STRING + rb")\s*+:\s*+()(?:" + _SCALAR + rb")?+", re.DOTALL)
_ELEMENT = re.compile(rb"[\s,]*+()(?:" + _SCALAR + rb"|" + _CONTAINER + rb")", re.DOTALL)
_RUN_OF_ELEMENTS = re.compile(rb"(?:[\s,]*+(?:" + _SCALAR + rb"|" + _CONTAINER + rb")){%d}+" % _RUN, re.DOTALL)
_REST_OF_ARRAY = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb"|" + _CONTAINER + rb")*+\]", re.DOTALL)
_REST_OF_OBJECT = re.compile(rb"\s*+\}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

_decode_key = msgspec.json.Decoder(str).decode
_decode_container: Callable[[bytes | Raw], dict[str, Raw] | list[Raw]]
_decode_container = msgspec.json.Decoder(dict[str, Raw] | list[Raw]).decode


def index_of(step: str) -> int | None:
    """The array index that a step is, or None: `0`, `12`, but neither `-1` nor `01`."""
    return int(step) if _INDEX.fullmatch(step) else None


def element_at(elements: Sequence[T], step: str) -> T | None:
    """The element that a step names, or None."""
    index = index_of(step)
    return None if index is None or index >= len(elements) else elements[index]


def value_at(text: bytes, path: Sequence[str]) -> bytes | None:
    """The value's own bytes, or None when the path (at least one step) leads nowhere."""
    value: bytes | Raw = text
    for step in path:
        try:
            container = _decode_container(value)
        except msgspec.ValidationError:
            return None
        inner = container.get(step) if isinstance(container, dict) else element_at(container, step)
        if inner is None:
            return None
        value = inner
    return bytes(value)


def locate(text: bytes, path: Sequence[str]) -> Span | None:
    """Where the value begins and ends, or None when the path leads nowhere. One pass over the text."""
    return _descend(text, len(text) - len(text.lstrip()), path)[0]


def replace(text: bytes, path: Sequence[str], value: bytes, old: bytes | None = None) -> bytes | None:
    """The text with that value replaced, or None when the path leads nowhere. `old` is what is there, if that is
    known."""
    if old is None:
        old = value_at(text, path)
    if old is None:
        return None
    start = text.find(old)
    if text.find(old, start + 1) >= 0:  # it stands elsewhere too: the place has to be found step by step
        span = locate(text, path)
        if span is None:
            return None
        start = span[0]
    return text[:start] + value + text[start + len(old) :]


def _descend(text: bytes, start: int, path: Sequence[str]) -> Found:
    """Look below the value that begins at `start`. Recurses as deep as the text is nested, never deeper."""
    if path and text.startswith(b"{", start):
        return _descend_object(text, start + 1, path)
    if path and text.startswith(b"[", start):
        return _descend_array(text, start + 1, path)
    end = _end(_VALUE, text, start)
    return (None if path else (start, end)), end


def _descend_object(text: bytes, at: int, path: Sequence[str]) -> Found:
    found = None
    plain = b'"%b"' % path[0].encode()
    while (member := _MEMBER.match(text, at)) is not None:
        key, start, at = member[1], member.start(2), member.end()
        if _decode_key(key) == path[0] if b"\\" in key else key == plain:
            found, at = _descend(text, start, path[1:])  # and go on: a later one of the same name would count
        elif at == start:
            at = _end(_VALUE, text, start)
    return found, _end(_REST_OF_OBJECT, text, at)


def _descend_array(text: bytes, at: int, path: Sequence[str]) -> Found:
    before = index_of(path[0])
    if before is None:
        return None, _end(_REST_OF_ARRAY, text, at)
    for skip, elements in ((_RUN_OF_ELEMENTS, before // _RUN), (_ELEMENT, before % _RUN)):
        for _ in range(elements):
            skipped = skip.match(text, at)
            if skipped is None:
                return None, _end(_REST_OF_ARRAY, text, at)
            at = skipped.end()
    element = _ELEMENT.match(text, at)
    if element is None:
        return None, _end(_REST_OF_ARRAY, text, at)
    found, at = _descend(text, element.start(1), path[1:])
    return found, _end(_REST_OF_ARRAY, text, at)


def _end(pattern: re.Pattern[bytes], text: bytes, start: int) -> int:
    match = pattern.match(text, start)
    if match is None:
        raise ValueError("not JSON, or nested too deep")
    return match.end()
