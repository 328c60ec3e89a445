"""Evolution contacts: whom a message of Evolution's belongs to, whichever of the contact's names it came under.

WhatsApp names one person by a phone JID and by a lid, and Evolution's versions put them into different fields: 2.3.2 to
2.3.4 the phone into `remoteJid` and the lid into `previousRemoteJid`, 2.3.5 and 2.3.6 the lid into `remoteJid` and the
phone into `remoteJidAlt`, 2.3.7 the phone into both, 2.4 the phone into `remoteJid` and the lid into `remoteJidAlt`.
Never remembers anything: the two names are told, so that whoever does can join them.
Invariants: a phone JID if any field has one, else the lid; a group is its own JID; no `:device` in any of them.
Source: the facts about Evolution, section 2.4 (identity).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from actors.core.foreign_json import at
from actors.core.phones import GROUP_DOMAIN, LID_DOMAIN, PHONE_DOMAIN, bare_jid

_DIRECT = ("remoteJid", "remoteJidAlt", "senderPn", "previousRemoteJid", "senderLid")
_IN_GROUP = ("participant", "participantAlt", "participantPn", "participantLid", "senderPn", "senderLid")


class Contact(Struct, frozen=True, kw_only=True):
    """One conversation. `phone_jid` and `lid` are the names of the person in it, in a group of who wrote there."""

    key: str
    phone_jid: str | None
    lid: str | None


def contact_of(key: object, own_jid: str | None, *, from_me: bool) -> Contact | None:
    """The conversation that a message's `key` names; None for a status, a newsletter and whatever has no JID.

    `own_jid` is the instance's. In what we wrote ourselves the sender's fields name us, not the contact.
    """
    remote = _jid(at(key, "remoteJid"))
    is_group = remote is not None and remote.endswith(GROUP_DOMAIN)
    if remote is None and at(key, "remoteJid") is not None:
        return None
    names = list(_names(key, _IN_GROUP if is_group else _DIRECT))
    if from_me and not is_group:
        names = [name for name in names if name == remote or name != own_jid]
    phone_jid = next((name for name in names if name.endswith(PHONE_DOMAIN)), None)
    lid = next((name for name in names if name.endswith(LID_DOMAIN)), None)
    conversation = remote if is_group else phone_jid or lid
    return None if conversation is None else Contact(key=conversation, phone_jid=phone_jid, lid=lid)


def own_jid_of(sender: object) -> str | None:
    """The instance's own JID, from an event's `sender`."""
    return _jid(sender)


def _names(key: object, fields: tuple[str, ...]) -> Iterator[str]:
    for field in fields:
        name = _jid(at(key, field))
        if name is not None:
            yield name


def _jid(value: object) -> str | None:
    return bare_jid(value) if isinstance(value, str) else None
