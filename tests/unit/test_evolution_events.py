"""What a webhook call of Evolution's tells. The events are those of the facts about Evolution, section 2.4."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_contact import Contact
from actors.core.evolution_events import (
    ConnectionChanged,
    DeliveryUpdate,
    Event,
    Ignored,
    IncomingText,
    Malformed,
    OwnMessage,
    SentByApi,
    dedupe_id,
    event_name,
    read,
)
from tests.unit.test_foreign_json import JSON

PHONE = "5215512345678@s.whatsapp.net"
LID = "103899771998284@lid"
APIKEY = "429683C4C977415CAAFCCE10F7D57E11"
KEY = {"remoteJid": LID, "remoteJidAlt": PHONE, "fromMe": False, "id": "3EB0A1", "addressingMode": "lid"}
UPSERT: dict[str, Any] = {
    "event": "messages.upsert",
    "instance": "ventas",
    "data": {
        "key": KEY,
        "pushName": "Ana",
        "status": "DELIVERY_ACK",
        "message": {"conversation": "hola", "messageContextInfo": {"deviceListMetadataVersion": 2}},
        "contextInfo": None,
        "messageType": "conversation",
        "messageTimestamp": 1717689097,
        "instanceId": "7d9f1c1e-6c1f-4a55-8a68-0f5a6c3a2b1d",
        "source": "android",
    },
    "destination": "https://buzon.example/evolution/webhook?token=t0k3n",
    "date_time": "2024-06-06T12:51:37.000Z",
    "sender": "5215500000000@s.whatsapp.net",
    "server_url": "https://evo.example",
    "apikey": APIKEY,
}
UPSERT_V1 = {
    "event": "messages.upsert",
    "instance": "ventas",
    "data": {
        "key": {"remoteJid": PHONE, "fromMe": False, "id": "3EB0A1"},
        "pushName": "Ana",
        "message": {"extendedTextMessage": {"text": "hola"}},
        "messageType": "extendedTextMessage",
        "messageTimestamp": 1717689097,
        "owner": "ventas",
        "source": "ios",
    },
    "destination": "https://buzon.example/evolution/webhook",
    "date_time": "2024-06-06T12:51:37.000Z",
    "sender": "5215500000000@s.whatsapp.net",
    "server_url": "https://evo.example",
    "apikey": APIKEY,
}


def event(name: str, data: object, **more: object) -> bytes:
    """An event of the instance `ventas`."""
    return json.dumps({"event": name, "instance": "ventas", "data": data, "apikey": APIKEY} | more).encode()


def upsert(**changes: object) -> Event:
    """The value of UPSERT with some of its data changed."""
    return read(json.dumps({**UPSERT, "data": {**UPSERT["data"], **changes}}).encode())


def strings(value: object) -> list[str]:
    """Every text in a decoded JSON value, keys too."""
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in [key, *strings(each)]]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def test_a_text_of_version_2() -> None:
    """All that is known of it; the payload is the event without its key and without the token of our own URL."""
    said = read(json.dumps(UPSERT).encode())
    assert isinstance(said, IncomingText)
    wanted = copy.deepcopy(UPSERT)
    del wanted["apikey"]
    wanted["destination"] = "https://buzon.example/evolution/webhook"
    assert json.loads(said.payload) == wanted
    assert said == IncomingText(
        instance="ventas",
        contact=Contact(key=PHONE, phone_jid=PHONE, lid=LID),
        key_id="3EB0A1",
        timestamp_s=1717689097,
        text="hola",
        push_name="Ana",
        payload=said.payload,
    )


def test_a_text_of_version_1() -> None:
    """Its text is put where version 2 has it, so that a consumer looks in one place."""
    said = read(json.dumps(UPSERT_V1).encode())
    assert isinstance(said, IncomingText)
    assert (said.contact.key, said.key_id, said.text) == (PHONE, "3EB0A1", "hola")
    assert json.loads(said.payload)["data"]["message"] == {
        "extendedTextMessage": {"text": "hola"},
        "conversation": "hola",
    }


NAMES = ["messages.upsert", "MESSAGES_UPSERT", "messages-upsert", "Messages_Upsert", " messages.upsert "]


@pytest.mark.parametrize("name", NAMES)
def test_both_styles_of_url_and_both_spellings(name: str) -> None:
    """The name in the body, in the URL, or in both; the body's counts."""
    body = {**UPSERT, "event": name}
    nameless = {key: value for key, value in body.items() if key != "event"}
    assert isinstance(read(json.dumps(body).encode()), IncomingText)
    assert isinstance(read(json.dumps(nameless).encode(), name), IncomingText)
    assert isinstance(read(json.dumps(body).encode(), "connection-update"), IncomingText)
    assert event_name(name) == "messages.upsert"


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        *(
            (1717689097, 1717689097),
            ("1717689097", 1717689097),
            (1717689097.0, 1717689097),
            (1717689097123, 1717689097),
        ),
        *(({"low": 1717689097, "high": 0, "unsigned": True}, 1717689097), ({"low": -1, "high": 0}, 4294967295)),
        *((0, None), (-5, None), (None, None), (True, None), ("", None), ("soon", None), ("٣", None), ([], None)),
        *((1e300, None), ({"low": "1", "high": 0}, None), ({}, None), ("9" * 30, None), (2**63 - 1, None)),
    ],
)
def test_the_time_of_a_message(timestamp: object, seconds: int | None) -> None:
    """Seconds, however they are written; milliseconds are known by their size; `date_time` is never looked at."""
    said = upsert(messageTimestamp=timestamp)
    assert isinstance(said, IncomingText)
    assert said.timestamp_s == seconds


@pytest.mark.parametrize(
    ("message", "known"),
    [
        *(({"conversation": "ya voy"}, True), ({"imageMessage": {}}, True), ({"audioMessage": {}}, True)),
        *(({"reactionMessage": {"text": "👍"}}, False), ({"protocolMessage": {}}, False), (None, False)),
    ],
)
def test_what_our_own_account_wrote(message: object, known: bool) -> None:
    """By us or by a person on the phone: who keeps the ids of sends tells. A reaction takes nothing over."""
    mine = upsert(key={"remoteJid": PHONE, "fromMe": True, "id": "3EB0B2"}, message=message)
    assert mine == (
        OwnMessage(
            instance="ventas",
            contact=Contact(key=PHONE, phone_jid=PHONE, lid=None),
            key_id="3EB0B2",
            timestamp_s=1717689097,
        )
        if known
        else Ignored("ventas", "messages.upsert", "no text")
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"message": {"stickerMessage": {}}}, "no text"),
        ({"message": None}, "no text"),
        ({"key": {**KEY, "remoteJid": "status@broadcast"}}, "not a chat"),
        ({"key": {**KEY, "id": ""}}, "no id"),  # #2466
        *(({"key": {**KEY, "id": "x" * 129}}, "no id"), ({"key": None}, "no id"), ({"key": {"id": "1"}}, "not a chat")),
    ],
)
def test_upserts_that_are_no_text(changes: dict[str, object], why: str) -> None:
    """They change nothing, and are no error: Evolution must not be told to send them again."""
    assert upsert(**changes) == Ignored("ventas", "messages.upsert", why)  # type: ignore[arg-type]  # pytest's plain string


@pytest.mark.parametrize("data", [None, [], [UPSERT["data"]], "x", 7, {}])
def test_data_of_another_shape(data: object) -> None:
    """Is not guessed at."""
    for name in ("messages.upsert", "messages.update", "send.message", "connection.update"):
        assert isinstance(read(event(name, data)), Ignored)


@pytest.mark.parametrize(
    ("data", "update"),
    [
        (
            {"keyId": "3EB0A1", "remoteJid": PHONE, "fromMe": True, "status": "DELIVERY_ACK", "messageId": "cmfyoow42"},
            DeliveryUpdate("ventas", "3EB0A1", "delivered"),
        ),
        (
            {"remoteJid": PHONE, "fromMe": True, "id": "3EB0A1", "status": "READ", "datetime": 1, "owner": "ventas"},
            DeliveryUpdate("ventas", "3EB0A1", "read"),
        ),
        ({"key": {"id": "3EB0A1"}, "status": 2}, DeliveryUpdate("ventas", "3EB0A1", "server_ack")),
        ({"keyId": "3EB0A1", "status": "ERROR"}, DeliveryUpdate("ventas", "3EB0A1", "error")),
        ({"keyId": "3EB0A1", "status": "PENDING"}, Ignored("ventas", "messages.update", "no news")),
        ({"keyId": "3EB0A1", "status": "DELETED"}, Ignored("ventas", "messages.update", "no news")),
        ({"messageId": "cmfyoow42", "status": "READ"}, Ignored("ventas", "messages.update", "no id")),
    ],
)
def test_how_far_a_message_has_come(data: object, update: Event) -> None:
    """`messageId` is the row in Evolution's database, not the message."""
    assert read(event("messages.update", data)) == update


def test_what_was_sent_through_the_api() -> None:
    """The data is that of the answer to a send."""
    assert read(event("send.message", {"key": {"remoteJid": PHONE, "fromMe": True, "id": "3EB0A1"}})) == SentByApi(
        "ventas", "3EB0A1"
    )


@pytest.mark.parametrize(
    ("data", "change"),
    [
        ({"instance": "ventas", "state": "open", "statusReason": 200}, ConnectionChanged("ventas", "open", 200)),
        ({"state": "close", "statusReason": 401}, ConnectionChanged("ventas", "close", 401)),
        ({"state": "connecting"}, ConnectionChanged("ventas", "connecting", None)),
        ({"state": "refused", "statusReason": "x"}, ConnectionChanged("ventas", "refused", None)),
        ({"state": "?"}, Ignored("ventas", "connection.update", "no news")),
    ],
)
def test_the_connection_of_an_instance(data: object, change: Event) -> None:
    """Under both names of the event."""
    assert read(event("connection.update", data)) == change
    assert read(event("CONNECTION_UPDATE", data)) == change


@pytest.mark.parametrize("name", ["QRCODE_UPDATED", "presence.update", "group-participants.update", "x" * 999])
def test_other_events_are_ignored(name: str) -> None:
    """Those of today and those to come."""
    ignored = read(event(name, {"key": KEY}))
    assert ignored == Ignored("ventas", event_name(name), "not handled")
    assert len(event_name(name)) <= 64


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        *((b"", "$"), (b"{", "$"), (b"[]", "$"), (b'"x"', "$"), (b"[" * 999, "$"), (b'{"a":1e999}', "$")),
        *((b"{}", "$.instance"), (b'{"event":"x","instance":7}', "$.instance"), (b'{"instance":" "}', "$.instance")),
        *((b'{"instance":"%b"}' % (b"x" * 129), "$.instance"), (b'{"instance":"x"}', "$.event")),
        *((b'{"instance":"x","event":null}', "$.event"), (b'{"instance":"x","data":99999999999999999999}', "$.data")),
    ],
)
def test_what_is_no_event(body: bytes, pointer: str) -> None:
    """The place in the body is told."""
    malformed = read(body)
    assert isinstance(malformed, Malformed)
    assert malformed.pointer == pointer


def test_a_name_that_was_cut_does_not_cost_the_message() -> None:
    """JavaScript cuts an emoji in two and writes half of it."""
    said = read(json.dumps(UPSERT).replace('"Ana"', r'"Ana \ud83d"').encode())
    assert isinstance(said, IncomingText)
    assert said.push_name == "Ana \ufffd"


@pytest.mark.parametrize("instance", ["ventas", "ñ", "a:b"])
def test_a_message_is_known_by_its_instance_and_id(instance: str) -> None:
    """The same through another node and another event; another instance's is another."""
    assert dedupe_id(instance, "3EB0A1") == dedupe_id(instance, "3EB0A1")
    assert (
        len({dedupe_id(instance, "1"), dedupe_id(instance, "2"), dedupe_id(instance + "1", ""), dedupe_id("", "1")})
        == 4
    )
    assert dedupe_id("ab", "c") != dedupe_id("a", "bc")


EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "event": JSON | st.sampled_from(["messages.upsert", "MESSAGES_UPDATE", "send.message", "connection.update"]),
        "instance": JSON | st.just("ventas"),
        "sender": JSON | st.just(PHONE),
        "destination": JSON | st.sampled_from(["http://[", "https://u:p@x/y?z#w"]),
        "apikey": JSON,
        "data": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "key": JSON | st.just(KEY) | st.just({**KEY, "fromMe": True}),
                "message": JSON | st.just({"conversation": "hola"}),
                "messageTimestamp": JSON,
                "status": JSON | st.just("READ"),
                "keyId": JSON,
                "state": JSON | st.just("open"),
            },
        ),
    },
)


@given(value=JSON | EVENTS, segment=st.none() | st.text(max_size=20))
def test_any_json_is_an_event_or_none(value: object, segment: str | None) -> None:
    """Nothing raises, and what is handed on can be read and has its text."""
    found = read(json.dumps(value).encode(), segment)
    if isinstance(found, IncomingText):
        assert json.loads(found.payload)["data"]["message"]["conversation"] == found.text


@given(st.binary(max_size=80), st.none() | st.text(max_size=20))
def test_any_bytes_are_an_event_or_none(body: bytes, segment: str | None) -> None:
    """Nothing raises."""
    read(body, segment)


SECRETS = st.text(st.characters(codec="utf-8"), min_size=16, max_size=60).filter(lambda text: text != "ventas")


@given(secret=SECRETS, place=st.integers(0, 7), repeat=st.integers(1, 3))
def test_a_secret_never_survives(secret: str, place: int, repeat: int) -> None:
    """Wherever else Evolution, a proxy or a joker put it: in other fields, names and texts, twice, nested."""
    body: dict[str, Any] = {**copy.deepcopy(UPSERT), "apikey": secret}
    text = f"a{secret * repeat}b"
    places: list[dict[str, Any]] = [
        {},
        {"server_url": text},
        {"data": {**body["data"], "message": {"conversation": text}}},
        {"data": {**body["data"], "pushName": text}},
        {"data": {**body["data"], text: [text]}},
        {"API_KEY": secret, "headers": {"apiKey": secret, "Authorization": text}},
        {text: {text: text}},
        {"data": {**body["data"], "contextInfo": {"apikey": {"nested": secret}}}},
    ]
    found = read(json.dumps(body | places[place]).encode())
    assert isinstance(found, IncomingText)
    assert not [each for each in strings(json.loads(found.payload)) if secret in each]
    assert secret not in f"{found.text}{found.push_name}"
    assert "apikey" not in {each.lower().replace("_", "") for each in strings(json.loads(found.payload))}
