"""The text of every kind of message, and whom a message belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_contact import Contact, contact_of, own_jid_of
from actors.core.evolution_text import says_something, text_of
from tests.unit.test_foreign_json import JSON

PHONE = "5215512345678@s.whatsapp.net"
LID = "103899771998284@lid"
GROUP = "120363042911934455@g.us"
OWN = "5215500000000@s.whatsapp.net"
AD = {"externalAdReply": {"title": "Oferta", "body": "Pide ya"}}

CAPTION = {"caption": "hola", "mimetype": "image/jpeg"}
KINDS: list[dict[str, object]] = [
    {"conversation": "hola"},
    {"extendedTextMessage": {"text": "hola", "contextInfo": AD}},
    {"contactMessage": {"displayName": "hola", "vcard": "BEGIN:VCARD"}},
    {"imageMessage": CAPTION},
    {"videoMessage": CAPTION},
    {"documentMessage": CAPTION},
    {"documentWithCaptionMessage": {"message": {"documentMessage": CAPTION}}},
    {"listResponseMessage": {"title": "hola", "singleSelectReply": {"selectedRowId": "row"}}},
    {"listResponseMessage": {"singleSelectReply": {"selectedRowId": "hola"}}},
    {"templateButtonReplyMessage": {"selectedId": "hola", "selectedDisplayText": "x"}},
    {"buttonsResponseMessage": {"selectedButtonId": "hola", "selectedDisplayText": "x"}},
    {"viewOnceMessageV2": {"message": {"imageMessage": CAPTION}}},
    {"viewOnceMessageV2": {"message": {"videoMessage": CAPTION}}},
    {"ephemeralMessage": {"message": {"extendedTextMessage": {"text": "hola"}}}},
    {"ephemeralMessage": {"message": {"viewOnceMessage": {"message": {"imageMessage": CAPTION}}}}},
    {"audioMessage": {"seconds": 3}, "speechToText": "hola"},
    {"conversation": "", "extendedTextMessage": {"text": "hola"}},
    {"conversation": " ", "imageMessage": CAPTION, "mediaUrl": "https://x"},
]


@pytest.mark.parametrize("message", KINDS, ids="-".join)
def test_the_text_of_a_kind(message: dict[str, object]) -> None:
    """Whatever else is in it."""
    assert text_of({"message": message | {"messageContextInfo": {}}}) == "hola"
    assert text_of({"message": message, "contextInfo": AD}) == "hola"


@pytest.mark.parametrize(
    ("latitude", "longitude", "text"),
    [
        *((-23.5505, -46.6333, "-23.5505,-46.6333"), (0, 0, "0,0"), (19.4, None, None), ("19.4", 1.0, None)),
        (True, 1.0, None),
    ],
)
def test_a_place_is_its_degrees(latitude: object, longitude: object, text: str | None) -> None:
    """Both, or it says nothing."""
    place = {"degreesLatitude": latitude, "degreesLongitude": longitude, "name": "Zócalo"}
    assert text_of({"message": {"locationMessage": place}}) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"message": {"imageMessage": {}}, "contextInfo": AD}, "Pide ya"),
        ({"message": {}, "contextInfo": {"externalAdReply": {"title": "Oferta", "body": ""}}}, "Oferta"),
        ({"contextInfo": AD}, "Pide ya"),
        ({"message": {"extendedTextMessage": {"text": "", "contextInfo": AD}}}, "Pide ya"),
    ],
)
def test_an_advertisement_speaks_when_nobody_else_does(data: object, text: str) -> None:
    """Its body, else its title."""
    assert text_of(data) == text


@pytest.mark.parametrize(
    "message",
    [
        *({"imageMessage": {"url": "https://x"}}, {"stickerMessage": {}}, {"audioMessage": {"seconds": 3}}),
        *(
            {"reactionMessage": {"text": "👍"}},
            {"protocolMessage": {"type": 0}},
            {"conversation": 7},
            {},
            None,
            [],
            "hola",
        ),
    ],
)
def test_what_says_nothing(message: object) -> None:
    """Media without a caption has no text that could be gathered."""
    assert text_of({"message": message}) is None


@pytest.mark.parametrize(
    ("message", "says"),
    [
        *(({"conversation": "x"}, True), ({"imageMessage": {}, "messageContextInfo": {}}, True), ({}, False)),
        *(({"reactionMessage": {}}, False), ({"protocolMessage": {}, "messageContextInfo": {}}, False), (None, False)),
    ],
)
def test_what_people_see_as_a_message(message: object, says: bool) -> None:
    """A reaction or a deletion is none."""
    assert says_something(message) is says


VERSIONS: list[tuple[str, dict[str, object], str | None]] = [
    ("1.8.2", {"remoteJid": PHONE}, None),
    ("2.2.3", {"remoteJid": "5215512345678:12@s.whatsapp.net"}, None),
    ("2.3.2", {"remoteJid": PHONE, "previousRemoteJid": LID, "senderPn": PHONE}, LID),
    ("2.3.5", {"remoteJid": LID, "remoteJidAlt": PHONE, "addressingMode": "lid"}, LID),
    ("2.3.6", {"remoteJid": "103899771998284:7@lid", "senderPn": "5215512345678:1@s.whatsapp.net"}, LID),
    ("2.3.7", {"remoteJid": PHONE, "remoteJidAlt": PHONE, "addressingMode": "lid"}, None),
    ("2.4.0-rc2", {"remoteJid": PHONE, "remoteJidAlt": LID, "addressingMode": "pn"}, LID),
]


@pytest.mark.parametrize(("version", "key", "lid"), VERSIONS)
def test_every_version_names_the_same_contact(version: str, key: dict[str, object], lid: str | None) -> None:
    """By the phone JID, wherever it stands; the lid is told when it is known."""
    assert contact_of(key, OWN, from_me=False) == Contact(key=PHONE, phone_jid=PHONE, lid=lid), version


@pytest.mark.parametrize(
    ("key", "contact"),
    [
        ({"remoteJid": LID, "remoteJidAlt": PHONE}, Contact(key=PHONE, phone_jid=PHONE, lid=LID)),
        ({"remoteJid": PHONE, "previousRemoteJid": LID}, Contact(key=PHONE, phone_jid=PHONE, lid=LID)),
        ({"remoteJid": PHONE, "remoteJidAlt": LID}, Contact(key=PHONE, phone_jid=PHONE, lid=LID)),
        ({"remoteJid": PHONE}, Contact(key=PHONE, phone_jid=PHONE, lid=None)),
        ({"remoteJid": LID}, Contact(key=LID, phone_jid=None, lid=LID)),  # #2326
        ({"remoteJid": LID, "senderPn": "?"}, Contact(key=LID, phone_jid=None, lid=LID)),
        (
            {"remoteJid": GROUP, "participant": LID, "participantAlt": PHONE},
            Contact(key=GROUP, phone_jid=PHONE, lid=LID),
        ),
        ({"remoteJid": GROUP, "participant": PHONE}, Contact(key=GROUP, phone_jid=PHONE, lid=None)),
        ({"remoteJid": GROUP, "remoteJidAlt": PHONE}, Contact(key=GROUP, phone_jid=None, lid=None)),
        *(({"remoteJid": "status@broadcast", "participant": PHONE}, None), ({"remoteJid": "1@newsletter"}, None)),
        *(({"remoteJid": 7, "remoteJidAlt": PHONE}, None), ({}, None), (None, None), ({"participant": PHONE}, None)),
    ],
)
def test_whom_a_message_belongs_to(key: object, contact: Contact | None) -> None:
    """A person by the phone before the lid, a group by itself; a status update to nobody."""
    assert contact_of(key, OWN, from_me=False) == contact


def test_what_we_wrote_belongs_to_whom_we_wrote_to() -> None:
    """In it the sender's phone is our own."""
    key = {"remoteJid": LID, "senderPn": "5215500000000:3@s.whatsapp.net"}
    assert contact_of(key, OWN, from_me=True) == Contact(key=LID, phone_jid=None, lid=LID)
    to_ourselves = contact_of({"remoteJid": OWN}, OWN, from_me=True)
    assert to_ourselves is not None
    assert to_ourselves.key == OWN
    assert (own_jid_of("5215500000000:3@s.whatsapp.net"), own_jid_of(None), own_jid_of("x")) == (OWN, None, None)


@given(
    data=JSON
    | st.fixed_dictionaries({"message": st.dictionaries(st.sampled_from(sorted({k for m in KINDS for k in m})), JSON)})
)
def test_any_data_has_a_text_or_none(data: object) -> None:
    """Nothing raises; there is something in what is found."""
    text = text_of(data)
    assert text is None or text.strip()


JIDS = st.sampled_from([PHONE, LID, GROUP, OWN, "5215512345678:9@s.whatsapp.net", "status@broadcast", ""])
FIELDS = st.sampled_from(
    ["remoteJid", "remoteJidAlt", "senderPn", "previousRemoteJid", "participant", "participantAlt"]
)


@given(key=st.dictionaries(FIELDS, JIDS | JSON), own=st.none() | JIDS, from_me=st.booleans())
def test_any_key_has_a_contact_or_none(key: dict[str, object], own: str | None, from_me: bool) -> None:
    """Never a device in it; a group's only if the group is named; the phone before the lid."""
    contact = contact_of(key, own, from_me=from_me)
    if contact is not None:
        assert ":" not in f"{contact.key}{contact.phone_jid}{contact.lid}"
        assert contact.key == (GROUP if key.get("remoteJid") == GROUP else contact.phone_jid or contact.lid)
