"""Aggregation: the field of a payload that a batch is put together by, and how its values become one.

Owns what a dotted path means and the four ways to aggregate. Values are aggregated as JSON text, so escapes and the
spelling of numbers stay the caller's. Never knows a batch or a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from operator import getitem
from typing import Any

import msgspec

from actors.core.json_span import index_of
from actors.core.policy import Aggregate

FieldPath = tuple[str, ...]
"""The steps of `json.items.0.text`: a key of an object, in a list an index. A key with a dot cannot be named."""


_getitem: Callable[[Any, str], object] = getitem


class FieldMissing(LookupError):
    """The path leads nowhere in this payload."""


class NotJoinable(ValueError):
    """Only strings can be joined."""


@lru_cache(maxsize=1024)
def parse_path(text: str) -> FieldPath:
    """Read a dotted path. Every text is one: `a..b` names the key "" between two others."""
    return tuple(text.split("."))


def extract(payload: object, path: FieldPath) -> object:
    """The value at the path of a decoded payload; raises FieldMissing."""
    try:
        return reduce(_getitem, path, payload)  # objects all the way, as a rule
    except (KeyError, TypeError):
        return _extracted(payload, path)


def _extracted(payload: object, path: FieldPath) -> object:
    value = payload
    for step in path:
        if isinstance(value, dict):
            if step not in value:
                raise FieldMissing
            value = value[step]
        elif isinstance(value, list):
            index = index_of(step)
            if index is None or index >= len(value):
                raise FieldMissing
            value = value[index]
        else:
            raise FieldMissing
    return value


def aggregate(values: Sequence[bytes], how: Aggregate, separator: str) -> bytes:
    """Make one JSON text of at least one, in their order; raises NotJoinable if one to be joined is no string."""
    match how:
        case "join":
            if not all(map(joinable, values)):
                raise NotJoinable
            return b'"%b"' % msgspec.json.encode(separator)[1:-1].join([value[1:-1] for value in values])
        case "list":
            return b"[%b]" % b",".join(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]


def joinable(value: bytes) -> bool:
    """Whether a JSON text is a string."""
    return value.startswith(b'"')
