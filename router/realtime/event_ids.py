"""Event ids: where a listener stands in each of its channels, as one opaque text that comes back as `Last-Event-ID`.

Channels are known by a digest of their names: 128 of them fit a header. Pure.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.channel_ports import Position

CHANNELS_MAX = 128
"""Of more, the id would be longer than a header may be (aiohttp takes 8190 bytes)."""
ID_CHARACTERS_MAX = 8000
_DIGEST_BYTES = 8

_Place = tuple[
    Annotated[bytes, Meta(min_length=_DIGEST_BYTES, max_length=_DIGEST_BYTES)],
    Annotated[str, Meta(max_length=64)],
    Annotated[int, Meta(ge=0, le=2**53)],
]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Place]).decode


class BadEventId(ValueError):
    """This is no id that an event had."""


def event_id(places: Iterable[tuple[str, Position]]) -> bytes:
    """The id of an event after which these are the places of a listener."""
    vector = [(_digest(name), position.epoch, position.offset) for name, position in places]
    return urlsafe_b64encode(_encode(vector)).rstrip(b"=")


def positions(text: str, names: Sequence[str]) -> dict[str, Position | None]:
    """Where somebody who had that event stands in these channels; None where it says nothing. Raises BadEventId."""
    if len(text) > ID_CHARACTERS_MAX:
        raise BadEventId("too long")
    try:
        raw = binascii.a2b_base64(text.translate(_STANDARD).encode("ascii") + b"=" * (-len(text) % 4), strict_mode=True)
        found = {digest: Position(epoch, offset) for digest, epoch, offset in _decode(raw) if epoch}
    except (binascii.Error, UnicodeEncodeError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise BadEventId("not an id of an event") from error
    return {name: found.get(_digest(name)) for name in names}


_STANDARD = str.maketrans("-_", "+/")


@lru_cache(maxsize=16_384)
def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
