"""Evolution sends: the request for one text, in the two dialects that Evolution API has had.

Owns the path, the body, the id we choose for the message and how long an answer may take. Never decides which dialect
a server speaks. Invariant: one task always sends one message id, so that WhatsApp takes a second try for the first.
Source: the facts about Evolution, section 2.2.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from actors.core.json_limits import BadField

Dialect = Literal["v1", "v2"]
MESSAGE_ID_PREFIX = "3EB0"
MESSAGE_ID_BYTES = 9
INSTANCE_CHARACTERS_MAX = 128

_encode = msgspec.json.Encoder().encode


class TextSend(Struct, frozen=True, kw_only=True):
    """One text. `delay_ms` is how long Evolution shows "typing" before it sends; `message_id` where it is honoured."""

    number: str
    text: str
    delay_ms: int = 0
    message_id: str | None = None


def check_instance(instance: str) -> None:
    """Raise BadField for a name that would not stay one segment of a path, or that no instance has.

    `.` and `..` are resolved away by every HTTP client, and would make another route of it.
    """
    if not instance.strip() or len(instance) > INSTANCE_CHARACTERS_MAX:
        raise BadField("$.instance_name", f"has 1 to {INSTANCE_CHARACTERS_MAX} characters")
    if instance in (".", "..") or not instance.isprintable() or "/" in instance:
        raise BadField("$.instance_name", "is no name of an instance")


def send_path(instance: str) -> str:
    """Where a text of this instance is posted to, percent-encoded. Evolution lets a query string override the path
    after its guards have run, so nothing of a caller's may become one."""
    return f"/message/sendText/{quote(instance, safe='')}"


def send_body(send: TextSend, dialect: Dialect) -> bytes:
    """The JSON to post. v1 nests the text and its options and takes no message id."""
    if dialect == "v1":
        nested: dict[str, object] = {"number": send.number, "textMessage": {"text": send.text}}
        if send.delay_ms:
            nested["options"] = {"delay": send.delay_ms, "presence": "composing"}
        return _encode(nested)
    flat: dict[str, object] = {"number": send.number, "text": send.text}
    if send.delay_ms:
        flat["delay"] = send.delay_ms
    if send.message_id is not None:
        flat["messageId"] = send.message_id
    return _encode(flat)


def message_id_for(task_id: str, created_ms: int) -> str:
    """The WhatsApp message id of a task, in the form Baileys gives its own: `3EB0` and 18 hexadecimal digits.

    An id that a caller chose may come again for another text once its task is forgotten: that is another message.
    """
    seed = f"{task_id}@{created_ms}".encode()
    return MESSAGE_ID_PREFIX + blake2b(seed, digest_size=MESSAGE_ID_BYTES).hexdigest().upper()


def answer_timeout_s(delay_ms: int, timeout_s: float) -> float:
    """How long to wait for the answer: what is configured, beside the delay, which blocks the answer.

    A wait that is too short makes a doubtful send of one that was only slow.
    """
    return delay_ms / 1000 + timeout_s
