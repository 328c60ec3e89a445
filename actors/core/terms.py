"""Terms: what messages say of their webhook and buffer, looked at once for all that say it in the same bytes.

A bot sends the same two objects with every message of a conversation. What they mean, that they may be, and where they
lead is remembered by their bytes, so that of most messages only the payload is looked at.
Invariants: nothing is taken that `intake` would refuse; bounded, whatever callers make up.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from actors.core.intake import Accepted, Limits, check_payload
from actors.core.partition import locate
from actors.core.policy import BufferOptions, MessageId
from actors.core.recent import Recent

KNOWN_MAX = 4096
"""Terms of a generation."""
SAID_BYTES_MAX = 2048
"""How long either object may be to be remembered."""

_AROUND = len('{"webhook":,"buffer":,"payload":}')
_AROUND_ID = len(',"message_id":""')
_MEMBER_BYTES_MIN = len(',"buffer":1')
"""With fewer bytes left of a body, beside its parts, none of them can stand there twice."""

Said = tuple[bytes, bytes]


class Terms(Struct, frozen=True, gc=False):
    """What a message asks for beside its payload, checked. `policy` is its stored form, `host` its webhook's lane."""

    options: BufferOptions
    limits: Limits
    policy: bytes
    host: str
    kid: str
    partition: int


class Taken(Struct, frozen=True, gc=False):
    """A message that can be stored. `payload` is the caller's bytes."""

    terms: Terms
    payload: bytes
    message_id: str | None


class _Sketch(Struct, frozen=True, gc=False):
    """A message whose parts are left as they are."""

    webhook: Raw
    buffer: Raw
    payload: Raw
    message_id: MessageId | None = None


_decode = msgspec.json.Decoder(_Sketch).decode


def _taken_apart(body: bytes) -> tuple[Said, bytes, str | None] | None:
    """The two objects, the payload and the message id. None when one of them may stand there twice: of such a member
    this decoder gives the last alone, and a whole decode looks at both."""
    try:
        sketch = _decode(body)
    except msgspec.DecodeError:
        return None
    webhook, buffer, payload = bytes(sketch.webhook), bytes(sketch.buffer), bytes(sketch.payload)
    message_id = sketch.message_id
    rest = len(body) - len(webhook) - len(buffer) - len(payload) - _AROUND
    if message_id is not None:
        rest -= len(message_id) + _AROUND_ID
    return ((webhook, buffer), payload, message_id) if rest < _MEMBER_BYTES_MIN else None


class KnownTerms:
    """The memory."""

    def __init__(self) -> None:
        self._known: Recent[Said, Terms] = Recent(KNOWN_MAX)

    def recall(self, body: bytes) -> Taken | None:
        """The message if its terms are known; else it must be decoded whole, and may be wrong. Raises BadMessage for
        its payload. Of `body` is known what holds before a decoder sees it (`json_limits`, UTF-8)."""
        parts = _taken_apart(body)
        if parts is None:
            return None
        said, payload, message_id = parts
        terms = self._known[said]
        if terms is None:
            return None
        check_payload(terms.options, payload)
        return Taken(terms, payload, message_id)

    def learn(self, body: bytes, accepted: Accepted, host: str) -> Taken:
        """The message that was made of this body and found to be right, its terms remembered."""
        message = accepted.message
        kid, partition = locate(message.buffer.key)
        terms = Terms(message.buffer, accepted.limits, accepted.policy, host, kid, partition)
        parts = _taken_apart(body)
        if parts is not None and max(map(len, parts[0])) <= SAID_BYTES_MAX:
            self._known.remember(parts[0], terms)
        return Taken(terms, accepted.payload, message.message_id)
