"""JSON limits: refuses a body that is nested too deep or holds an integer that not every reader can hold.

Looks at the bytes before any decoder does: a decoder recurses into nesting, and lets integers beyond int64 pass.
Never decides whether the body is JSON at all: of a malformed one it may say nothing, the decoder will.
Invariants: linear in the body's size; afterwards no decoder recurses deeper than `DEPTH_MAX`, well-formed or not.
Of equal keys in one object the last one counts, as in the decoder, but the limits hold for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec
from msgspec import Raw

DEPTH_MAX = 32
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
"""A JSON string, as a pattern that never backtracks; for `re.DOTALL`."""

_INT64_DIGITS = 19
_MAGNITUDE_MAX = b"9223372036854775807"
_MAGNITUDE_MIN = b"9223372036854775808"
_PATH_CHARACTERS_MAX = 200
_WALKED_BYTES_MAX = 16 * 1024
"""Up to here the field of an integer is looked for; beyond, the walk would hold up everybody else."""

_SKETCH = bytes.maketrans(b"123456789{", b"000000000[")
"""Makes one character of all digits, and one of what opens something."""
_LONG = b"0" * _INT64_DIGITS
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'"[]{}')
# Each branch takes what comes before the next number as well: one step where two would take twice as long.
_TO_NEXT_LONG_INTEGER = re.compile(
    rb"""(?: -?+[0-9]{1,18}+ [^"0-9.eE-]++            # an integer that fits by its length
           | """
    + STRING
    + rb"""  [^"0-9-]*+
           | -?+[0-9]++[.eE][0-9.eE+-]*+
           | [^"0-9-]++
         )*+ (-?+)([0-9]{19,}+)""",
    re.DOTALL | re.VERBOSE,
)
_INTEGER = re.compile(rb"(-?)([0-9]+)")
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode


class BadField(ValueError):
    """What the caller sent cannot be taken. `pointer` names the field (`$.payload.a[3]`), `detail` says why."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


class JsonLimit(BadField):
    """A body is nested too deep or holds an integer outside int64."""


def check_limits(body: bytes) -> None:
    """Raise JsonLimit for nesting deeper than `DEPTH_MAX` or an integer outside int64, anywhere in the body."""
    sketch = body.translate(_SKETCH)
    if sketch.count(b"[") > DEPTH_MAX and _too_deep(body):
        raise JsonLimit("$", f"nested more than {DEPTH_MAX} deep")
    if sketch.find(_LONG) >= 0 and _holds_unfit_integer(body):
        raise JsonLimit(_path_of_unfit_integer(body), "an integer is outside the range of int64")


def is_plain_rest(rest: bytes) -> bool:
    """Whether what follows the beginning of an object, within it, keeps these limits and is UTF-8, at a glance: what is
    not plain may be right all the same."""
    sketch = rest.translate(_SKETCH)
    if sketch.count(b"[") >= DEPTH_MAX or sketch.find(_LONG) >= 0:
        return False
    return rest.isascii() or _is_utf8(rest)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _too_deep(body: bytes) -> bool:
    brackets = _brackets_outside_strings(body)
    if brackets.count(b"[") - brackets.count(b"]") > DEPTH_MAX:
        return True
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    return max(accumulate(steps), default=0) > DEPTH_MAX


def _brackets_outside_strings(body: bytes) -> bytes:
    r"""Only the brackets that are structure, all as square ones.

    Escapes go first, pairs of backslashes before `\"`. Then two neighbouring quotes can go wherever they are: whether
    any other byte is inside a string (has an odd number of quotes before it) does not change.
    """
    quotes_and_brackets = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_AS_SQUARE, _NOT_STRUCTURE)
    return b"".join(quotes_and_brackets.replace(b'""', b"").split(b'"')[::2])


def _holds_unfit_integer(body: bytes) -> bool:
    found = _TO_NEXT_LONG_INTEGER.match(body)
    while found is not None:
        if not _fits(found[1], found[2]):
            return True
        found = _TO_NEXT_LONG_INTEGER.match(body, found.end())
    return False


def _fits(sign: bytes, digits: bytes) -> bool:
    return len(digits) < _INT64_DIGITS or (
        len(digits) == _INT64_DIGITS and digits <= (_MAGNITUDE_MIN if sign else _MAGNITUDE_MAX)
    )


def _path_of_unfit_integer(body: bytes) -> str:
    if len(body) > _WALKED_BYTES_MAX:
        return "$"
    try:
        return next(_paths_of_unfit_integers("$", body.strip()), "$")[:_PATH_CHARACTERS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "$"


def _paths_of_unfit_integers(path: str, value: bytes) -> Iterator[str]:
    """Recurses as deep as the body, which has been found to be at most `DEPTH_MAX`."""
    if value.startswith(b"{"):
        for key, member in _decode_object(value).items():
            yield from _paths_of_unfit_integers(f"{path}.{key}", bytes(member))
    elif value.startswith(b"["):
        for index, element in enumerate(_decode_array(value)):
            yield from _paths_of_unfit_integers(f"{path}[{index}]", bytes(element))
    elif (integer := _INTEGER.fullmatch(value)) is not None and not _fits(integer[1], integer[2]):
        yield path
