"""Foreign JSON: reads what other programs wrote, of which no shape can be relied on.

Owns the decoding of it within our limits and the look at a value that may not be there. Never decides what a value
means. Invariants: nothing but Unreadable is raised; what was read can be walked recursively and encoded again.
JavaScript cuts strings in the middle of a pair of surrogates and then writes half an emoji as `\\ud83d`, which strict
decoders refuse: such a half is read as U+FFFD, so that a name cut short does not cost the message.
"""

from __future__ import annotations

import re

import msgspec

from actors.core.json_limits import BadField, check_limits

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""RFC 8259 §8.1: a reader may ignore it."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# Every escape is one step, so that a backslash which is itself escaped never begins one.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_decode = msgspec.json.Decoder().decode


class Unreadable(BadField):
    """No JSON, or beyond the limits of `json_limits`."""


def decode(text: bytes) -> object:
    """The value. Raises Unreadable."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    try:
        check_limits(text)
        try:
            return _decode(text)
        except msgspec.DecodeError:
            if not _HALF.search(text):
                raise
            return _decode(_ESCAPE.sub(lambda found: rb"\ufffd" if found["half"] else found[0], text))
    except BadField as error:
        raise Unreadable(error.pointer, error.detail) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("$", "not valid JSON") from None


def at(value: object, *keys: str) -> object:
    """What lies below these keys, each of an object; None when it is not there."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: object, *keys: str) -> str | None:
    """The text below these keys; None when there is none, or only white space."""
    found = at(value, *keys)
    return found if isinstance(found, str) and found.strip() else None
