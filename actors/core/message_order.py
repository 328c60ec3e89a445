"""Message order: WhatsApp's own order of the messages of a conversation, carried in their ids.

Evolution sends its webhooks without waiting for one another, so they overtake each other; only the time at which
WhatsApp got a message (in whole seconds) tells what was said first. It is part of the id under which the message is
stored, so nothing else has to be kept. Never decides what is a duplicate: the same event may come without its time.
Invariant: putting in order what is in order changes nothing.
Source: the facts about Evolution, section 2.4 (emission is not awaited; `date_time` is no time to order by).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from actors.core.evolution_events import TIMESTAMP_S_MAX, dedupe_id

_PREFIX = "wa_"
_DIGITS = len(str(TIMESTAMP_S_MAX))
_TIMED = re.compile(rf"{_PREFIX}([0-9]{{{_DIGITS}}})_")


def message_id(instance: str, key_id: str, sent_s: int) -> str:
    """The id of a message that was sent at that time (Unix seconds): `wa_01717689097_…`."""
    return f"{_PREFIX}{sent_s:0{_DIGITS}d}_{dedupe_id(instance, key_id).removeprefix(_PREFIX)}"


def dedupe(instance: str, key_id: str) -> bytes:
    """What a message is the same message by: not its time, which a repetition may lack, nor the contact's name."""
    return bytes.fromhex(dedupe_id(instance, key_id).removeprefix(_PREFIX))


def in_order(messages: Sequence[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    """The messages (id, received ms, payload) by the time they were sent, those of one second as they arrived.

    One whose id does not tell was sent when it was received: a person's own `POST /api/v1/message` under the same key.
    """
    return sorted(messages, key=_sent_s)


def _sent_s(message: tuple[str, int, bytes]) -> int:
    timed = _TIMED.match(message[0])
    return message[1] // 1000 if timed is None else int(timed[1])
