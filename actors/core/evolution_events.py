"""Evolution events: what a webhook call of Evolution API's tells us.

Owns the reading of an event, of versions 1 and 2, with or without its name in the URL. Never remembers: whether a
message was here before, or whether what we wrote was sent by us, is decided by who keeps the ids.
Invariants: any bytes give a value, none raises; what is not understood is Ignored, so that Evolution, which never
tries again after a 4xx, is only refused what is no event at all; no value holds the event's `apikey`.
Source: the facts about Evolution, section 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

from msgspec import Struct

from actors.core.evolution_contact import Contact, contact_of, own_jid_of
from actors.core.evolution_payload import TooManySecrets, event_payload, without_secrets
from actors.core.evolution_send import check_instance
from actors.core.evolution_server import InstanceState, state_of
from actors.core.evolution_text import says_something, text_of
from actors.core.foreign_json import Unreadable, at, decode, text_at
from actors.core.json_limits import BadField
from actors.core.receipts import Receipt, receipt_of

EVENT_CHARACTERS_MAX = 64
KEY_ID_CHARACTERS_MAX = 128
TIMESTAMP_S_MAX = 99_999_999_999
"""The year 5138. What is larger counts milliseconds."""

Unused = Literal["not handled", "not a chat", "no id", "no text", "no news"]


class IncomingText(Struct, frozen=True, kw_only=True):
    """A contact wrote. `payload` is the event to hand on, `timestamp_s` WhatsApp's time of it (Unix), if it has one."""

    instance: str
    contact: Contact
    key_id: str
    timestamp_s: int | None
    text: str
    push_name: str | None
    payload: bytes


class OwnMessage(Struct, frozen=True, kw_only=True):
    """The instance's own account wrote: the echo of a send, or a person on the phone. The id tells which."""

    instance: str
    contact: Contact
    key_id: str
    timestamp_s: int | None


class SentByApi(Struct, frozen=True):
    """Something was sent through the API, by us or by another of its clients: no person on the phone did."""

    instance: str
    key_id: str


class DeliveryUpdate(Struct, frozen=True):
    """How far a message has come."""

    instance: str
    key_id: str
    receipt: Receipt


class ConnectionChanged(Struct, frozen=True):
    """The instance's connection to WhatsApp. `status_reason` is what closed it: 401 logged out, 403 banned, …"""

    instance: str
    state: InstanceState
    status_reason: int | None


class Ignored(Struct, frozen=True):
    """An event that changes nothing here, but says that the instance speaks."""

    instance: str
    event: str
    why: Unused


class Malformed(Struct, frozen=True):
    """No event: `pointer` names the place in the body, `detail` says what is wrong there."""

    pointer: str
    detail: str


Event = IncomingText | OwnMessage | SentByApi | DeliveryUpdate | ConnectionChanged | Ignored | Malformed

Envelope = dict[str, object]

_TO_DOTS = str.maketrans("_-", "..")


class Opened(Struct, frozen=True):
    """A webhook call of which nothing is known but whose it is: what its caller may say is not looked at yet."""

    instance: str
    name: str
    envelope: Envelope


def opened(body: bytes, segment: str | None = None) -> Opened | Malformed:
    """Open one webhook call. `segment` is what the URL has behind `/evolution/webhook/`; the body's name goes first."""
    try:
        envelope = decode(body)
    except Unreadable as error:
        return Malformed(error.pointer, error.detail)
    if not isinstance(envelope, dict):
        return Malformed("$", "must be an object")
    instance = text_at(envelope, "instance")
    if instance is None:
        return Malformed("$.instance", "names no instance")
    try:
        check_instance(instance)
    except BadField as error:
        return Malformed("$.instance", error.detail)
    name = event_name(text_at(envelope, "event") or segment or "")
    return Opened(instance, name, envelope) if name else Malformed("$.event", "names no event")


def event_of(call: Opened) -> Event:
    """Read what was opened."""
    reader = _READERS.get(call.name)
    if reader is None:
        return Ignored(call.instance, call.name, "not handled")
    try:
        return reader(call.envelope, call.instance)
    except TooManySecrets as error:
        return Malformed(error.pointer, error.detail)


def read(body: bytes, segment: str | None = None) -> Event:
    """Open and read one webhook call."""
    call = opened(body, segment)
    return call if isinstance(call, Malformed) else event_of(call)


def event_name(text: str) -> str:
    """One spelling for `MESSAGES_UPSERT`, `messages-upsert` and `messages.upsert`: the last."""
    return text.strip()[:EVENT_CHARACTERS_MAX].translate(_TO_DOTS).lower()


def dedupe_id(instance: str, key_id: str) -> str:
    """The id under which an instance's message is taken once: printable ASCII, whatever its own is."""
    return "wa_" + blake2b(f"{len(instance)}:{instance}{key_id}".encode(), digest_size=16).hexdigest()


def _message(envelope: Envelope, instance: str) -> Event:
    name, event = "messages.upsert", without_secrets(envelope)
    data = event.get("data")
    key, message = at(data, "key"), at(data, "message")
    key_id = _key_id(at(key, "id"))
    if key_id is None:
        return Ignored(instance, name, "no id")
    from_me = at(key, "fromMe") is True
    contact = contact_of(key, own_jid_of(event.get("sender")), from_me=from_me)
    if contact is None:
        return Ignored(instance, name, "not a chat")
    timestamp_s = _seconds(at(data, "messageTimestamp"))
    if from_me:
        if not says_something(message):
            return Ignored(instance, name, "no text")
        return OwnMessage(instance=instance, contact=contact, key_id=key_id, timestamp_s=timestamp_s)
    text = text_of(data)
    if text is None:
        return Ignored(instance, name, "no text")
    return IncomingText(
        instance=instance,
        contact=contact,
        key_id=key_id,
        timestamp_s=timestamp_s,
        text=text,
        push_name=text_at(data, "pushName"),
        payload=event_payload(event, text),
    )


def _sent(envelope: Envelope, instance: str) -> Event:
    key_id = _key_id(at(envelope, "data", "key", "id"))
    return Ignored(instance, "send.message", "no id") if key_id is None else SentByApi(instance, key_id)


def _update(envelope: Envelope, instance: str) -> Event:
    """v2 has the message's id in `keyId`, and its own row's in `messageId`; v1 has it in `id`."""
    name, data = "messages.update", envelope.get("data")
    receipt = receipt_of(at(data, "status"))
    if receipt is None:
        return Ignored(instance, name, "no news")
    for found in (at(data, "keyId"), at(data, "id"), at(data, "key", "id")):
        key_id = _key_id(found)
        if key_id is not None:
            return DeliveryUpdate(instance, key_id, receipt)
    return Ignored(instance, name, "no id")


def _connection(envelope: Envelope, instance: str) -> Event:
    data = envelope.get("data")
    state = state_of(at(data, "state"))
    if state is None:
        return Ignored(instance, "connection.update", "no news")
    reason = at(data, "statusReason")
    return ConnectionChanged(instance, state, reason if isinstance(reason, int) else None)


def _key_id(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= KEY_ID_CHARACTERS_MAX else None


def _seconds(value: object) -> int | None:
    """A timestamp as a number, as its digits, or as the two halves of a 64-bit one, which JavaScript cannot hold."""
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        value = (high << 32) + (low & 0xFFFFFFFF)
    elif isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None  # noqa: PLR2004  int64
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    seconds = int(value) if value <= TIMESTAMP_S_MAX else int(value) // 1000
    return seconds if 0 < seconds <= TIMESTAMP_S_MAX else None


_READERS: dict[str, Callable[[Envelope, str], Event]] = {
    "messages.upsert": _message,
    "messages.update": _update,
    "send.message": _sent,
    "connection.update": _connection,
}
