"""Frames: the bytes that go to a WebSocket, whole and unmasked (RFC 6455, 5.2). Pure."""

from __future__ import annotations

import msgspec

from router.realtime.codes import Close

PING = b"\x89\x00"
_SHORT_MAX, _MEDIUM_MAX = 125, 0xFFFF
_MEDIUM, _LONG = 126, 127
_NO_CODE = (1005, 1006, 1015)
"""Codes that are never sent."""

quoted = msgspec.json.Encoder().encode
"""A value, mostly a text, as JSON."""

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def text(payload: bytes) -> bytes:
    """A message."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return b"\x81%c%b" % (size, payload)
    if size <= _MEDIUM_MAX:
        return b"\x81%c%b%b" % (_MEDIUM, size.to_bytes(2, "big"), payload)
    return b"\x81%c%b%b" % (_LONG, size.to_bytes(8, "big"), payload)


def close(why: Close) -> bytes:
    """The last frame."""
    if why.code in _NO_CODE:
        return b"\x88\x00"
    payload = why.code.to_bytes(2, "big") + why.reason.encode()[: _SHORT_MAX - 2]
    return b"\x88%c%b" % (len(payload), payload)


def pong(payload: bytes) -> bytes:
    """The answer to a ping, with what that carried."""
    return b"\x8a%c%b" % (len(payload), payload)


def one_line(json: bytes) -> bytes:
    """JSON text without line ends: between its tokens they mean nothing, and inside of strings there are none."""
    if b"\n" in json or b"\r" in json:
        return json.translate(_LINE_ENDS)
    return json
