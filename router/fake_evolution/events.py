"""Events: what Evolution's webhooks say, as data. The envelope, and `data` of each event a router cares for.

Pure: ids and times are arguments. `date_time` is local time that calls itself UTC, as the real one's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from router.fake_evolution.contents import WITHOUT_TEXT, content
from router.fake_evolution.dialects import Dialect, Json
from router.fake_evolution.identity import group_fields, sender_fields
from router.fake_evolution.instances import Instance, State
from router.fake_evolution.numbers import is_group, jid_of, lid_of

LOGGED_OUT = (401, 402, 403, 406)
"""Why a connection ends for good. After any other reason 2.x connects again and never says "close"."""
STATUSES = ("ERROR", "PENDING", "SERVER_ACK", "DELIVERY_ACK", "READ", "PLAYED", "DELETED")
UNKNOWN_STATUS = "SERVER_ACK"
"""What 2.3.7 makes of a status that it does not know; 2.3.5 and 2.3.6 made DELETED of it."""
MEDIA = ("image", "video", "document", "document_with_caption", "view_once", *WITHOUT_TEXT)
PRESENCES = ("composing", "recording", "paused", "available", "unavailable")
Presence = Literal["composing", "recording", "paused", "available", "unavailable"]


class Incoming(Struct, frozen=True, kw_only=True):
    """A message that somebody writes, or with `from_me` that the account's owner types on the phone.

    `sender` is the contact's number; `kind` one of `contents.KINDS`; `identity` one of `identity.IDENTITIES` ("": the
    dialect's own); `group` the group's id when it is written there.
    """

    id: str
    sender: str
    text: str
    kind: str = "text"
    identity: str = ""
    from_me: bool = False
    name: str = "Ana"
    group: str = ""


class Sighting(Struct, frozen=True, kw_only=True):
    """A message that Evolution has stored, and can therefore tell about."""

    id: str
    jid: str
    instance: str
    from_me: bool


def wire_name(event: str) -> str:
    """How the envelope writes an event: MESSAGES_UPSERT is `messages.upsert`."""
    return event.lower().replace("_", ".").replace("group.participants", "group-participants")


def url_part(event: str) -> str:
    """What `byEvents` appends to the URL: MESSAGES_UPSERT is `messages-upsert`."""
    return event.lower().replace("_", "-")


def local_time(at_s: float, utc_offset_h: float) -> str:
    """The server's local time, labelled Z."""
    local = datetime.fromtimestamp(at_s, UTC) + timedelta(hours=utc_offset_h)
    return local.strftime("%Y-%m-%dT%H:%M:%S.") + f"{local.microsecond // 1000:03d}Z"


def upsert_data(dialect: Dialect, instance: Instance, incoming: Incoming, at_s: int) -> Json:
    """`data` of MESSAGES_UPSERT. ValueError for a kind or an identity that there is not."""
    made = content(incoming.kind, incoming.text, keeps_extended=dialect.nested_text)
    message = dict(made.message)
    if instance.webhook is not None and instance.webhook.base64 and incoming.kind in MEDIA:
        message["base64"] = "ZmFrZQ=="
    phone = jid_of(incoming.sender)
    identity = incoming.identity or dialect.identity
    if incoming.group:
        who = group_fields(identity, jid_of(incoming.group), phone, lid_of(phone))
    elif is_group(phone):
        raise ValueError("from: expected a contact's number; name the group in `group`")
    else:
        who = sender_fields(identity, phone, lid_of(phone))
    data: Json = {
        "key": {**who, "fromMe": incoming.from_me, "id": incoming.id},
        "pushName": "Você" if incoming.from_me else incoming.name,
        "message": message,
        "messageType": made.type,
        "messageTimestamp": at_s,
        "source": "android",
    }
    if made.context is not None or not dialect.nested_text:
        data["contextInfo"] = made.context
    if dialect.nested_text:
        return data | {"owner": instance.name}
    return data | {"status": "SERVER_ACK" if incoming.from_me else "DELIVERY_ACK", "instanceId": instance.id}


def update_data(dialect: Dialect, instance: Instance, seen: Sighting, status: str, at_s: float) -> Json:
    """`data` of MESSAGES_UPDATE: the message of that id was taken by the server, delivered, read."""
    rendered = status if status in STATUSES else UNKNOWN_STATUS
    shared: Json = {"remoteJid": seen.jid, "fromMe": seen.from_me, "status": rendered}
    if dialect.nested_text:
        more = {"id": seen.id, "owner": instance.name, "datetime": int(at_s * 1000), "pollUpdates": None}
        return shared | {"participant": None} | more
    stored = f"cm{seen.id.lower()}"  # Evolution's own id of the row, a cuid
    return shared | {"keyId": seen.id, "participant": seen.jid, "instanceId": instance.id, "messageId": stored}


def delete_data(dialect: Dialect, seen: Sighting) -> Json:
    """`data` of MESSAGES_DELETE: the key, in 2.x with a status."""
    key: Json = {"remoteJid": seen.jid, "fromMe": seen.from_me, "id": seen.id}
    return key if dialect.nested_text else key | {"status": "DELETED"}


def edit_data(dialect: Dialect, seen: Sighting, text: str) -> Json:
    """`data` of MESSAGES_EDITED: which message, and what it says now."""
    key: Json = {"remoteJid": seen.jid, "fromMe": seen.from_me, "id": seen.id}
    said = content("text", text, keeps_extended=dialect.nested_text).message
    return {"key": key, "type": "MESSAGE_EDIT", "editedMessage": said}


def connection_data(dialect: Dialect, instance: Instance, state: State, reason: int) -> Json | None:
    """`data` of CONNECTION_UPDATE; None where the version says nothing."""
    if state == "close" and not dialect.nested_text and reason not in LOGGED_OUT:
        return None
    data: Json = {"instance": instance.name, "state": state, "statusReason": reason}
    if state == "open" and not dialect.nested_text:
        data |= {"wuid": instance.own_jid, "profileName": instance.name, "profilePictureUrl": None}
    return data


def presence_data(jid: str, presence: Presence) -> Json:
    """`data` of PRESENCE_UPDATE: what somebody is doing right now."""
    return {"id": jid, "presences": {jid: {"lastKnownPresence": presence}}}


class Envelope(Struct, frozen=True, kw_only=True):
    """What is the same around every event. `apikey` is the instance's live token, or None where it is not exposed."""

    event: str
    instance: Instance
    data: Json
    date_time: str
    server_url: str
    apikey: str | None

    def body(self, destination: str) -> Json:
        """The whole webhook, for one destination."""
        return {
            "event": wire_name(self.event),
            "instance": self.instance.name,
            "data": self.data,
            "destination": destination,
            "date_time": self.date_time,
            "sender": self.instance.own_jid,
            "server_url": self.server_url,
            "apikey": self.apikey,
        }
