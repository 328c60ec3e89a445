"""Frames: what is said after the handshake, in pieces that nobody can add to, change, reorder or play again.

A frame is its length (4 bytes), a keyed hash of its body and of its number in this direction (16 bytes), the body.
Pure. Invariants: no body is given out before its hash has been checked; after one bad frame nothing more is; no more
than one frame's bound and one read are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from hmac import compare_digest

FRAME_BYTES_MAX = 4 * 1024 * 1024
MESSAGES_BYTES_MAX = FRAME_BYTES_MAX - 64
"""Of what is said in a frame; beside it stands only how much that is and when it was sent."""
UNWRITTEN_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""What may wait in this process for a peer that does not read."""
LENGTH_BYTES = 4
MAC_BYTES = 16
HEAD_BYTES = LENGTH_BYTES + MAC_BYTES
_SALT_BYTES = blake2b.SALT_SIZE


class BadFrame(Exception):
    """What was received is no frame of the other side's: the connection is of no more use."""


def _mac(body: bytes, key: bytes, number: int) -> bytes:
    return blake2b(body, digest_size=MAC_BYTES, key=key, salt=number.to_bytes(_SALT_BYTES, "big")).digest()


class Sealer:
    """Makes the frames of one direction."""

    __slots__ = ("_key", "_number")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def seal(self, body: bytes) -> bytes:
        """The next frame."""
        mac = _mac(body, self._key, self._number)
        self._number += 1
        return len(body).to_bytes(LENGTH_BYTES, "big") + mac + body


class Opener:
    """Gives the bodies of the frames of one direction."""

    __slots__ = ("_have", "_key", "_need", "_number", "_pieces")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = HEAD_BYTES

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole now. Raises BadFrame, after those before the bad one."""
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        received = data if len(self._pieces) == 1 else b"".join(self._pieces)
        at = 0
        while True:
            end = self._end_of_frame(received, at)
            if end > len(received):
                break
            yield self._opened(received, at, end)
            at = end
        self._need = end - at
        self._have = len(received) - at
        self._pieces = [received[at:]] if self._have else []

    def _end_of_frame(self, received: bytes, at: int) -> int:
        """Where the frame that begins at `at` ends, as far as that can be known."""
        if len(received) - at < LENGTH_BYTES:
            return at + HEAD_BYTES
        size = int.from_bytes(received[at : at + LENGTH_BYTES], "big")
        if size > FRAME_BYTES_MAX:
            raise BadFrame("a frame is too large")
        return at + HEAD_BYTES + size

    def _opened(self, received: bytes, at: int, end: int) -> bytes:
        body = received[at + HEAD_BYTES : end]
        if not compare_digest(received[at + LENGTH_BYTES : at + HEAD_BYTES], _mac(body, self._key, self._number)):
            raise BadFrame("a frame is not the other side's")
        self._number += 1
        return body


def in_frames(messages: list[bytes], bytes_max: int = MESSAGES_BYTES_MAX) -> Iterator[list[bytes]]:
    """What was written one by one, as many together as fit into a frame; one that does not goes alone."""
    begin = size = 0
    for at, message in enumerate(messages):
        size += len(message)
        if size > bytes_max and at > begin:
            yield messages[begin:at]
            begin, size = at, len(message)
    if begin < len(messages):
        yield messages[begin:] if begin else messages
