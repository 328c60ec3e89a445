"""Identity: how a version writes who sent a message, once WhatsApp gives contacts a hidden identity (a lid).

Pure. The rule for a reader: the phone JID if any of remoteJid, remoteJidAlt, senderPn is one, else the lid.
"""

from __future__ import annotations

from collections.abc import Callable

from router.fake_evolution.dialects import Json
from router.fake_evolution.numbers import USER

DEVICE = ":12"

Keys = Callable[[str, str], Json]

IDENTITIES: dict[str, Keys] = {
    "plain": lambda phone, _lid: {"remoteJid": phone},
    "device": lambda phone, _lid: {"remoteJid": phone.replace(USER, DEVICE + USER)},
    "sender_pn": lambda phone, lid: {"remoteJid": lid, "senderPn": phone},
    "2.3.2": lambda phone, lid: {"remoteJid": phone, "senderPn": phone, "previousRemoteJid": lid},
    "2.3.5": lambda phone, lid: {"remoteJid": lid, "remoteJidAlt": phone, "addressingMode": "lid"},
    "2.3.7": lambda phone, _lid: {"remoteJid": phone, "remoteJidAlt": phone, "addressingMode": "lid"},
    "2.4": lambda phone, lid: {"remoteJid": phone, "remoteJidAlt": lid, "addressingMode": "pn"},
    "lid_only": lambda _phone, lid: {"remoteJid": lid, "addressingMode": "lid"},
}
"""By version, or by what is special: the fields of `key` that tell who it is, from the phone JID and the lid."""


def sender_fields(identity: str, phone: str, lid: str) -> Json:
    """The fields that tell the chat. ValueError for an identity that there is not."""
    make = IDENTITIES.get(identity)
    if make is None:
        raise ValueError(f"identity: expected one of {', '.join(IDENTITIES)}, not {identity!r}")
    return make(phone, lid)


def group_fields(identity: str, group: str, phone: str, lid: str) -> Json:
    """The same in a group: the chat is the group, the person is the participant."""
    named = sender_fields(identity, phone, lid)
    renamed = {"remoteJid": "participant", "remoteJidAlt": "participantAlt", "senderPn": "participantPn"}
    person = {renamed[name]: value for name, value in named.items() if name in renamed}
    return {"remoteJid": group, **person}
