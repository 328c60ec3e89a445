"""Terms: what messages say of their webhook and buffer, looked at once for all that say it in the same bytes.

A bot's messages begin with the same bytes, up to the payload: the same webhook, the same options. What they mean, that
they may be, and where they lead is remembered by these bytes, so that of most messages only the rest is looked at.
Invariants: nothing is taken that `intake` would refuse; bounded, whatever callers make up.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from actors.core.intake import Accepted, Limits, PayloadCheck, payload_checker
from actors.core.json_limits import is_plain_rest
from actors.core.partition import locate
from actors.core.policy import MESSAGE_ID_CHARACTERS_MAX, Terms
from actors.core.recent import Recent

KNOWN_MAX = 4096
"""Terms of a generation."""
SAID_BYTES_MAX = 2048
"""How long a beginning may be to be remembered."""

_PAYLOAD = b'"payload"'
_OPENED = b"{" + _PAYLOAD
_PROBE = b":0}"
_AROUND = len(":}")
_AROUND_ID = len(',"message_id":""')
_MEMBER_BYTES_MIN = len(',"buffer":1')
"""With fewer bytes left of a rest, beside what it holds, no member of a message can stand there once more."""


class _Known(Struct, frozen=True, gc=False):
    """What was found out about a beginning; `check` is what a payload has to pass."""

    check: PayloadCheck
    terms: Terms


def terms_of(key: str, policy: bytes, limits: Limits, host: str) -> Terms:
    """What the messages of a key have in common."""
    kid, partition = locate(key)
    return Terms(
        partition=partition,
        kid=kid,
        key=key,
        wait_ms=limits.wait_ms,
        max_wait_ms=limits.max_wait_ms,
        max_size=limits.max_size,
        max_bytes=limits.max_bytes,
        policy=policy,
        host=host,
    )


class Taken(Struct, frozen=True, gc=False):
    """A message that can be stored. `payload` is the caller's bytes."""

    terms: Terms
    payload: bytes
    message_id: str | None


class _Rest(Struct, frozen=True, gc=False):
    """What follows the beginning of a message."""

    payload: Raw
    message_id: str | None = None


class _Beginning(Struct, frozen=True, gc=False):
    """A message with no id."""

    payload: Raw
    message_id: None = None


_decode_rest = msgspec.json.Decoder(_Rest).decode
_decode_beginning = msgspec.json.Decoder(_Beginning).decode


def _parted(body: bytes) -> tuple[bytes, bytes]:
    """A message's beginning, up to what seems to be the name of its payload, and the rest. Where there is no such name
    the beginning is too short for any."""
    at = body.find(_PAYLOAD) + len(_PAYLOAD)
    return body[:at], body[at:]


def _leads_to_payload(beginning: bytes) -> bool:
    """Whether a message that begins in this way has its payload next, and no id so far. The payload of the message that
    was taken is an object, so what is not one was not there before."""
    try:
        return bytes(_decode_beginning(beginning + _PROBE).payload) == _PROBE[1:-1]
    except msgspec.DecodeError:
        return False


def _read(rest: bytes) -> tuple[bytes, str | None] | None:
    """The payload and the id that a rest holds. None when it is nothing plain, or a member may stand there twice: of
    such a one this decoder gives the last alone, and a whole decode looks at both."""
    if not is_plain_rest(rest):
        return None
    try:
        read = _decode_rest(_OPENED + rest)
    except msgspec.DecodeError:
        return None
    payload, message_id = bytes(read.payload), read.message_id
    left = len(rest) - len(payload) - _AROUND
    if message_id is not None:
        left -= len(message_id) + _AROUND_ID
        # Quicker than the pattern of the type.
        if (
            not 0 < len(message_id) <= MESSAGE_ID_CHARACTERS_MAX
            or not message_id.isascii()
            or not message_id.isprintable()
        ):
            return None
    return (payload, message_id) if left < _MEMBER_BYTES_MIN else None


class KnownTerms:
    """The memory."""

    def __init__(self) -> None:
        self._known: Recent[bytes, _Known] = Recent(KNOWN_MAX)

    def recall(self, body: bytes) -> Taken | None:
        """The message if its terms are known; else it must be looked at whole, and may be wrong. Raises BadMessage for
        its payload."""
        beginning, rest = _parted(body)
        known = self._known[beginning]
        if known is None or (read := _read(rest)) is None:
            return None
        payload, message_id = read
        known.check(payload)
        return Taken(known.terms, payload, message_id)

    def learn(self, body: bytes, accepted: Accepted, host: str) -> Taken:
        """The message that was made of this body and found to be right, its terms remembered, unless they may stand in
        what follows its beginning."""
        message = accepted.message
        terms = terms_of(message.buffer.key, accepted.policy, accepted.limits, host)
        beginning, rest = _parted(body)
        if len(beginning) <= SAID_BYTES_MAX and _read(rest) is not None and _leads_to_payload(beginning):
            self._known.remember(beginning, _Known(payload_checker(message.buffer), terms))
        return Taken(terms, accepted.payload, message.message_id)
