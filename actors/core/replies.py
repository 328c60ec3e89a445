"""Replies: the text that a webhook's answer wants sent back to the contact.

Owns where in an answer it is looked for. Never decides whether a route replies at all, nor to whom.
Invariant: whatever the answer is, there is a text within WhatsApp's limit or none; nothing is raised.
"""

from __future__ import annotations

from actors.core.aggregation import FieldMissing, extract, parse_path
from actors.core.foreign_json import Unreadable, decode

DEFAULT_PATHS = ("output", "answer", "text")
"""What n8n's agent node, most answering services and plain handlers call it."""
REPLY_BYTES_MAX = 1024 * 1024
"""How much of an answer is worth reading for a reply."""
REPLY_CHARACTERS_MAX = 65_536
"""The longest `message` of a send (the HTTP contract, section 4); a longer reply is cut there."""


def reply_text(content_type: str | None, body: bytes, path: str | None) -> str | None:
    """The text to send back, or None.

    `path` is dotted (`data.0.answer`); None tries `output`, `answer` and `text`. n8n answers with a list of one item:
    the path is then looked for in that item, too. Only a text with something in it counts.
    """
    if not body or len(body) > REPLY_BYTES_MAX or not _may_be_json(content_type):
        return None
    try:
        answer = decode(body)
    except Unreadable:
        return None
    items = [answer, *answer] if isinstance(answer, list) and len(answer) == 1 else [answer]
    for item in items:
        for each in DEFAULT_PATHS if path is None else (path,):
            text = _text(item, each)
            if text is not None:
                return text[:REPLY_CHARACTERS_MAX]
    return None


def _may_be_json(content_type: str | None) -> bool:
    """JSON by its type, or nothing said about it: plain text is what small handlers say of their JSON."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind in ("", "application/json", "text/json", "text/plain") or kind.endswith("+json")


def _text(answer: object, path: str) -> str | None:
    try:
        found = extract(answer, parse_path(path))
    except FieldMissing:
        return None
    return found if isinstance(found, str) and found.strip() else None
