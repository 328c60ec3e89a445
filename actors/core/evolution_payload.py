"""Evolution payloads: what is handed on of a message event, without what must stay here.

Owns the removal of secrets and the two shapes a consumer can ask for: Evolution's own event with the text where v2 has
it, and what n8n's chat nodes take. Never chooses between them.
Invariants: no `apikey`, however it is spelt and wherever it lies, leaves here; both shapes have their text in one field
that a buffer can aggregate. Events are encoded anew, not cut: of two equal keys a cut could leave one.
Source: the facts about Evolution, section 2.4 (the envelope and its live credential).
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import msgspec

from actors.core.foreign_json import Unreadable, decode, text_at
from actors.core.json_limits import BadField

EVENT_TEXT_FIELD = "data.message.conversation"
N8N_TEXT_FIELD = "chatInput"
"""Where each shape has its text: the `aggregate_field` of a buffer that gathers it."""
SECRET_CHARACTERS_MIN = 16
"""From here on a key is looked for in every other text, too. Evolution makes keys of 36. A shorter one is a word that
somebody chose, which a contact may write as well; only the fields that hold it go."""

SECRETS_MAX = 16
"""An event has one key, and what it tells of has another at the most."""
_HIDDEN = "***"
_SECRET_NAMES = ("apikey", "authorization", "jwtkey")
_SEPARATORS = str.maketrans("", "", "-_ ")
_encode = msgspec.json.Encoder().encode


class TooManySecrets(BadField):
    """An event that was made to cost time."""


def without_secrets(event: dict[str, object]) -> dict[str, object]:
    """The event without its credentials: fields called `apikey` and the like, their values wherever else they stand,
    and the query of our own URL in `destination`, which may be the token that guards it.

    A key that equals the instance's name is left there: it hides nothing, and without a name nothing finds its route.
    Takes time in proportion to the event's size: raises TooManySecrets for one with more than an event has.
    """
    held: set[str] = set()
    _collect(event, held)
    held.discard(str(event.get("instance")))
    if len(held) > SECRETS_MAX:
        raise TooManySecrets("$", f"holds more than {SECRETS_MAX} keys, and no event has so many")
    secrets = sorted((each for each in held if len(each) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)
    clean = {_hide(key, secrets): _clean(value, secrets) for key, value in event.items() if not _is_secret(key)}
    if "destination" in clean:
        clean["destination"] = _without_query(clean["destination"])
    return clean


def event_payload(event: dict[str, object], text: str) -> bytes:
    """The event as it is handed on, with its text in `data.message.conversation` whatever kind of message it is."""
    data = event.get("data")
    fields: dict[str, object] = data if isinstance(data, dict) else {}
    message = fields.get("message")
    said: dict[str, object] = message if isinstance(message, dict) else {}
    return _encode({**event, "data": {**fields, "message": {**said, "conversation": text}}})


def n8n_payload(event: bytes, contact: str) -> bytes:
    """What n8n's chat trigger and agent take, from an event as `event_payload` made it, or merged from several.

    `sessionId` is the conversation's: one contact talks to two instances about two things.
    """
    try:
        value = decode(event)
    except Unreadable:
        value = None
    instance = text_at(value, "instance") or ""
    shape = {
        N8N_TEXT_FIELD: text_at(value, *EVENT_TEXT_FIELD.split(".")) or "",
        "sessionId": f"{instance}:{contact}",
        "remoteJid": contact,
        "pushName": text_at(value, "data", "pushName"),
        "keyId": text_at(value, "data", "key", "id"),
        "instanceName": instance,
    }
    return _encode(shape)


def _is_secret(name: str) -> bool:
    return name.translate(_SEPARATORS).lower() in _SECRET_NAMES


def _collect(value: object, held: set[str]) -> None:
    """Every text under a secret's name. Recurses as deep as the event is nested, which the JSON limits bound."""
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str) and _is_secret(key):
                held.add(each)
            _collect(each, held)
    elif isinstance(value, list):
        for each in value:
            _collect(each, held)


def _clean(value: object, secrets: list[str]) -> object:
    if isinstance(value, dict):
        return {_hide(key, secrets): _clean(each, secrets) for key, each in value.items() if not _is_secret(key)}
    if isinstance(value, list):
        return [_clean(each, secrets) for each in value]
    return _hide(value, secrets) if isinstance(value, str) else value


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, _HIDDEN)
            if secret in text:  # what was left and right of one is another: nobody writes that by chance
                return _HIDDEN
    return text


def _without_query(destination: object) -> object:
    """The URL without user name, query and fragment; nothing of what is no URL."""
    if not isinstance(destination, str):
        return None
    try:
        parts = urlsplit(destination)
    except ValueError:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
