"""Paging: the `limit` and `cursor` that every list takes, and the cursor's opaque form.

A cursor is the last position as base64url of msgpack. It is no secret and carries no authority: whoever makes one up
reads what they could have read anyway, or gets a 400.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from router.edge.errors import BadInput

T = TypeVar("T")

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
CURSOR_CHARACTERS_MAX = 2048

Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many entries one page holds at most.")]
Token = Annotated[str, Meta(max_length=CURSOR_CHARACTERS_MAX, description="The `cursor` of the page before.")]


class Page(Struct, frozen=True, kw_only=True):
    """The query of a list. Lists with filters inherit from it and add theirs."""

    limit: Limit = LIMIT_DEFAULT
    cursor: Token | None = None


class Cursor(Generic[T]):
    """Turns positions of one type into opaque text and back."""

    def __init__(self, position: type[T]) -> None:
        self._decoder = msgspec.msgpack.Decoder(position)

    def encode(self, position: T) -> str:
        """The text a client sends back for the page after `position`."""
        return urlsafe_b64encode(msgspec.msgpack.encode(position)).rstrip(b"=").decode()

    def decode(self, text: str | None) -> T | None:
        """The position, `None` for the first page. Raises `BadInput` naming `cursor` for anything not made here."""
        if not text:
            return None
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            return self._decoder.decode(b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, UnicodeError, msgspec.DecodeError, RecursionError):
            raise BadInput("cursor", "is not one that this API gave out") from None
