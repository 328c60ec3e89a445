"""Evolution texts: what somebody said in a message, whatever kind of message it is.

Owns the order in which the kinds are looked through and the wrappers around them. Never invents a text: media without a
caption has none. Source: the facts about Evolution, section 2.4 (its utils/getConversationMessage.ts); the wrappers are
those that Baileys' normalizeMessageContent takes off.
"""

from __future__ import annotations

from actors.core.foreign_json import at, text_at

_KINDS = (
    ("conversation",),
    ("extendedTextMessage", "text"),  # v1 and forks; v2 rewrites it into conversation
    ("contactMessage", "displayName"),
    ("locationMessage",),
    ("imageMessage", "caption"),
    ("videoMessage", "caption"),
    ("documentMessage", "caption"),
    ("listResponseMessage", "title"),
    ("listResponseMessage", "singleSelectReply", "selectedRowId"),
    ("templateButtonReplyMessage", "selectedId"),
    ("buttonsResponseMessage", "selectedButtonId"),
    ("speechToText",),
)
_WRAPPERS = (
    *("documentWithCaptionMessage", "viewOnceMessage", "viewOnceMessageV2", "viewOnceMessageV2Extension"),
    "ephemeralMessage",  # everything in a chat with disappearing messages
)
_ADVERTISED = (("externalAdReply", "body"), ("externalAdReply", "title"))
_NOT_SAID = frozenset(
    {
        *("protocolMessage", "reactionMessage", "encReactionMessage", "pollUpdateMessage", "keepInChatMessage"),
        *("senderKeyDistributionMessage", "messageContextInfo", "pinInChatMessage"),
    }
)
"""Parts that change or accompany a message and say nothing themselves."""


def text_of(data: object) -> str | None:
    """The text of a message event's `data`; None when there is none.

    The advertisement that a click-to-WhatsApp contact came from counts only when nothing else was said.
    """
    message = at(data, "message")
    said = _said(message)
    if said is not None:
        return said
    for context in (at(data, "contextInfo"), at(message, "extendedTextMessage", "contextInfo")):
        for path in _ADVERTISED:
            advertised = text_at(context, *path)
            if advertised is not None:
                return advertised
    return None


def says_something(message: object) -> bool:
    """Whether a message is one that people see as such: no reaction, no deletion, no setting."""
    return isinstance(message, dict) and not message.keys() <= _NOT_SAID


def _said(message: object) -> str | None:
    """Recurses as deep as a message is wrapped, which the JSON limits bound."""
    for kind in _KINDS:
        text = _location(at(message, *kind)) if kind == ("locationMessage",) else text_at(message, *kind)
        if text is not None:
            return text
    for wrapper in _WRAPPERS:
        inner = at(message, wrapper, "message")
        text = None if inner is None else _said(inner)
        if text is not None:
            return text
    return None


def _location(location: object) -> str | None:
    """`latitude,longitude` in degrees."""
    degrees = (at(location, "degreesLatitude"), at(location, "degreesLongitude"))
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in degrees):
        return None
    return f"{degrees[0]},{degrees[1]}"
