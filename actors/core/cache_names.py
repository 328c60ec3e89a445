"""Cache names: what a key and a pattern of the cache may be, and how a key is named in an answer.

Any Unicode is a key, line ends and NUL too; only length and the router's own names are ruled out. Nothing here knows
a store. Lengths are of the name in UTF-8, which is what the store sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

KEY_BYTES_MAX = 512
PATTERN_BYTES_MAX = 512
PATTERN_STARS_MAX = 16
"""Each further star multiplies the time that a server may need for one name, while nobody else is served."""
OWN_PREFIX = "buzon:"
NEAR_PREFIX = f"{OWN_PREFIX}near:"
"""The router's own entries of the cache: kept near as any other, and nobody's to read, write, list or flush."""

_SHOWN_CHARACTERS_MAX = 64
_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_:@-]{{0,{_SHOWN_CHARACTERS_MAX - 1}}}", re.ASCII)


class CacheNames:
    """The rules of one node, whose own names begin with one of `reserved`."""

    def __init__(self, reserved: Iterable[str]) -> None:
        self._reserved = tuple({OWN_PREFIX, *filter(None, reserved)})

    def fault(self, key: str) -> str:
        """What is wrong with a key; "" for nothing."""
        if key.isascii():
            size_bytes = len(key)
        else:
            try:
                size_bytes = len(key.encode())
            except UnicodeEncodeError:
                return "is not valid UTF-8"
        if not 1 <= size_bytes <= KEY_BYTES_MAX:
            return f"has 1 to {KEY_BYTES_MAX} bytes"
        return "begins with a prefix that is the router's own" if key.startswith(self._reserved) else ""

    def first_fault(self, keys: Collection[str]) -> tuple[int, str, str] | None:
        """Place, key and fault of the first that has one."""
        for at, key in enumerate(keys):
            if fault := self.fault(key):
                return at, key, fault
        return None


def pattern_fault(pattern: str) -> str:
    """What is wrong with a pattern; "" for nothing."""
    try:
        size_bytes = len(pattern.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not 1 <= size_bytes <= PATTERN_BYTES_MAX:
        return f"has 1 to {PATTERN_BYTES_MAX} bytes"
    return "" if pattern.count("*") <= PATTERN_STARS_MAX else f"has at most {PATTERN_STARS_MAX} stars"


def step(key: str) -> str:
    """A key as a step of a path in a body: `.key`, or `["key"]` in ASCII for one that is not plain; cut when long."""
    if _PLAIN.fullmatch(key):
        return f".{key}"
    cut = key if len(key) <= _SHOWN_CHARACTERS_MAX else f"{key[:_SHOWN_CHARACTERS_MAX]}…"
    return f"[{json.dumps(cut)}]"
