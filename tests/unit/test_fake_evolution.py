"""The fake Evolution's pure parts: numbers, validation texts, message kinds, identities, events, webhook calls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fake_evolution.behaviours import FAULTS, Script, Slow
from router.fake_evolution.contents import KINDS, WITHOUT_TEXT, content
from router.fake_evolution.dialects import DIALECTS, V1, V2_3, V2_4, Dialect, Sent, license_body, sent_body, welcome
from router.fake_evolution.events import (
    Envelope,
    Incoming,
    Sighting,
    connection_data,
    local_time,
    presence_data,
    update_data,
    upsert_data,
    url_part,
    wire_name,
)
from router.fake_evolution.identity import group_fields, sender_fields
from router.fake_evolution.instances import EVENTS, Instance, State, WebhookConfig, webhook_from
from router.fake_evolution.numbers import jid_of, lid_of
from router.fake_evolution.validation import send_text, send_text_problems, webhook_problems
from router.fake_evolution.webhook_calls import GlobalWebhook, calls, retry_rule, token

PHONE, LID = "5511988887777@s.whatsapp.net", "123456789012345@lid"
NOW_S = 1_717_689_097
SENT = Sent(id="3EB0ABC", jid=PHONE, text="hola", instance_id="7c9e", at_s=NOW_S)


@pytest.mark.parametrize(
    ("number", "jid"),
    [
        ("+55 (11) 98888-7777", "5511988887777@s.whatsapp.net"),
        ("5531988887777", "553188887777@s.whatsapp.net"),
        ("5531968887777", "5531968887777@s.whatsapp.net"),
        ("5530988887777", "5530988887777@s.whatsapp.net"),
        ("553188887777", "553188887777@s.whatsapp.net"),
        ("5215512345678", "525512345678@s.whatsapp.net"),
        ("5491123456789", "541123456789@s.whatsapp.net"),
        ("541123456789", "541123456789@s.whatsapp.net"),
        ("14155550123", "14155550123@s.whatsapp.net"),
        ("5531988887777:12@s.whatsapp.net", "5531988887777@s.whatsapp.net"),
        ("5531988887777:12", "553188887777@s.whatsapp.net"),
        ("120363012345678901", "120363012345678901@g.us"),
        ("5511988887777-1612345678", "5511988887777-1612345678@g.us"),
        ("12036301234567890", "12036301234567890@s.whatsapp.net"),
        ("120363012345678901@g.us", "120363012345678901@g.us"),
        ("123456789012345@lid", "123456789012345@lid"),
        ("status@broadcast", "status@broadcast"),
    ],
)
def test_numbers_become_jids_by_the_rules_of_create_jid(number: str, jid: str) -> None:
    """Brazil's 9, Mexico's and Argentina's third digit, devices, groups; what is a JID stays one."""
    assert jid_of(number) == jid


def test_a_lid_is_stable_and_tells_no_number() -> None:
    """15 digits, always the same for one contact."""
    lid = lid_of(PHONE)

    assert lid == lid_of(PHONE) != lid_of("5511988887778@s.whatsapp.net")
    assert lid.endswith("@lid")
    assert len(lid.partition("@")[0]) == 15
    assert "98888" not in lid


NUMBER = {"number": "5511988887777"}
TEXT_2, TEXT_1 = {**NUMBER, "text": "hola"}, {**NUMBER, "textMessage": {"text": "hola"}}


@pytest.mark.parametrize(
    ("dialect", "body", "problems"),
    [
        (V2_3, TEXT_2, []),
        (V2_3, {**TEXT_2, "unknown": 1, "delay": 1200, "linkPreview": False, "mentioned": ["55119"]}, []),
        (V2_3, {**TEXT_2, "quoted": {"key": {"id": "3EB0"}}}, []),
        (V2_3, TEXT_1, ['instance requires property "text"']),
        (V2_3, {}, ['instance requires property "number"', 'instance requires property "text"']),
        (V2_3, {"number": 5511988887777, "text": "hola"}, ["Invalid format"]),
        (V2_3, {**NUMBER, "text": 5}, ["text is not of a type(s) string"]),
        (V2_3, {**TEXT_2, "delay": "1200"}, ["Enter a value in milliseconds"]),
        (V2_3, {**TEXT_2, "delay": 0.5}, ["Enter a value in milliseconds"]),
        (V2_3, {**TEXT_2, "linkPreview": "no"}, ["linkPreview is not of a type(s) boolean"]),
        (V2_3, {**TEXT_2, "quoted": {"key": {}}}, ['quoted.key requires property "id"']),
        (V2_3, {**TEXT_2, "mentioned": []}, ["mentioned does not meet minimum length of 1"]),
        (V2_3, {**TEXT_2, "mentioned": ["1", "1"]}, ["mentioned contains duplicate item"]),
        (V2_3, {**TEXT_2, "mentioned": ["ana"]}, ['"mentioned" must be an array of numeric strings']),
        (V2_3, {**TEXT_2, "mentioned": "1"}, ["mentioned is not of a type(s) array"]),
        (V2_4, {**TEXT_2, "messageId": "3EB0ABC"}, []),
        (V1, TEXT_1, []),
        (V1, {**TEXT_1, "options": {"delay": 1200, "presence": "composing", "mentions": {"mentioned": ["1"]}}}, []),
        (V1, TEXT_2, ['instance requires property "textMessage"']),
        (V1, {**NUMBER, "textMessage": {}}, ['textMessage requires property "text"']),
        (V1, {**NUMBER, "textMessage": "hola"}, ["textMessage is not of a type(s) object"]),
        (V1, {**NUMBER, "textMessage": {"text": ""}}, ["textMessage.text does not meet minimum length of 1"]),
        (V1, {**TEXT_1, "options": {"delay": True}}, ["Enter a value in milliseconds"]),
        (V1, {**TEXT_1, "number": 5}, ["Invalid format"]),
    ],
)
def test_each_dialect_says_what_is_wrong_in_its_words(
    dialect: Dialect, body: dict[str, Any], problems: list[str]
) -> None:
    """`requires property "text"` or `"textMessage"` tells a client which dialect it talks to."""
    assert send_text_problems(dialect, body) == problems


NAMES = ("number", "text", "textMessage", "options", "delay", "quoted", "key", "id", "mentioned", "mentions")
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=12,
)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@given(body=st.dictionaries(st.sampled_from(NAMES), ANY_JSON))
def test_any_body_is_refused_or_understood(dialect: Dialect, body: dict[str, Any]) -> None:
    """Nothing that JSON can say breaks the fake."""
    if not send_text_problems(dialect, body):
        wish = send_text(dialect, body)
        assert isinstance(jid_of(wish.number), str)


def test_half_an_emoji_goes_out_escaped() -> None:
    """As JavaScript writes it: the body stays JSON in UTF-8."""
    instance = Instance("demo", "1")
    half = envelope(instance, data={"text": "\ud83d ñ"})

    (call,) = calls(V2_3, half, GlobalWebhook(url="http://x"), NOW_S)

    assert b'"\\ud83d \xc3\xb1"' in call.body
    assert json.loads(call.body)["data"] == {"text": "\ud83d ñ"}


def test_only_2_4_reads_a_message_id_and_each_finds_its_delay() -> None:
    """Milliseconds, at the top or in `options`."""
    body = {**TEXT_2, "delay": 1200, "messageId": "3EB0ABC"}
    old = send_text(V1, {**TEXT_1, "options": {"delay": 1200}, "messageId": "3EB0ABC"})

    assert [send_text(dialect, body).message_id for dialect in (V2_3, V2_4)] == ["", "3EB0ABC"]
    assert (old.message_id, old.text, old.delay_s) == ("", "hola", 1.2)
    assert send_text(V2_3, body).delay_s == 1.2


def test_a_webhook_is_set_nested_in_2_and_flat_in_1() -> None:
    """`webhook` is required by 2.x whatever its documentation shows; a missing list of events breaks it there."""
    nested = {"enabled": True, "url": "https://example.com", "events": []}

    assert webhook_problems(V2_3, nested) == ['instance requires property "webhook"']
    assert webhook_problems(V2_3, {"webhook": {"enabled": True}}) == ['webhook requires property "url"']
    assert webhook_problems(V1, {"enabled": True}) == ['instance requires property "url"']
    assert webhook_from(V2_3, {"webhook": nested}).events == EVENTS
    assert webhook_from(V2_3, {"webhook": {"enabled": False, "url": "https://example.com"}}).events == ()
    assert webhook_from(V1, {"url": "https://example.com", "webhook_by_events": True}).by_events
    with pytest.raises(KeyError):
        webhook_from(V2_3, {"webhook": {"enabled": True, "url": "https://example.com"}})


def test_a_sent_message_is_told_in_the_shape_of_the_version() -> None:
    """1.8.2 gives the raw message with its time as text, 2.x the prepared one."""
    key = {"remoteJid": PHONE, "fromMe": True, "id": "3EB0ABC"}

    assert sent_body(V1, SENT) == {
        "key": key,
        "message": {"extendedTextMessage": {"text": "hola"}},
        "messageTimestamp": "1717689097",
        "status": "PENDING",
    }
    assert (
        sent_body(V2_3, SENT)
        == sent_body(V2_4, SENT)
        == {
            "key": key,
            "pushName": "Você",
            "status": "PENDING",
            "message": {"conversation": "hola"},
            "contextInfo": None,
            "messageType": "conversation",
            "messageTimestamp": 1717689097,
            "instanceId": "7c9e",
            "source": "web",
        }
    )


def test_the_welcome_names_the_version_and_the_license_body_is_no_error_body() -> None:
    """A client learns the dialect from `GET /`, and must not look for `response` in a 503 of 2.4."""
    assert {name: welcome(each, "http://x")["version"] for name, each in DIALECTS.items()} == {
        "1": "1.8.2",
        "2.3": "2.3.7",
        "2.4": "2.4.0",
    }
    body = license_body("http://x", "i")
    assert (body["error"], body["code"]) == ("service not activated", "LICENSE_REQUIRED")
    assert body.keys() == {"error", "code", "register_url", "instance_id", "docs_url", "message"}


def said(data: Any) -> list[Any]:
    """Every text in the places where Evolution's own `getConversationMessage` looks."""
    message = data["message"]
    once = message.get("viewOnceMessageV2", {}).get("message", {})
    captioned = message.get("documentWithCaptionMessage", {}).get("message", {})
    places = [
        message.get("conversation"),
        message.get("extendedTextMessage", {}).get("text"),
        message.get("contactMessage", {}).get("displayName"),
        message.get("locationMessage", {}).get("degreesLatitude"),
        *(message.get(f"{kind}Message", {}).get("caption") for kind in ("image", "video", "document")),
        captioned.get("documentMessage", {}).get("caption"),
        message.get("listResponseMessage", {}).get("title"),
        message.get("listResponseMessage", {}).get("singleSelectReply", {}).get("selectedRowId"),
        message.get("templateButtonReplyMessage", {}).get("selectedId"),
        message.get("buttonsResponseMessage", {}).get("selectedButtonId"),
        once.get("imageMessage", {}).get("caption"),
        message.get("reactionMessage", {}).get("text"),
    ]
    return [place for place in places if place is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_text_where_evolution_looks(kind: str) -> None:
    """Or none at all, for audio and stickers; `messageType` names what is in the message."""
    data = upsert_data(V2_3, Instance("demo", "1"), Incoming(id="3A", sender=PHONE, text="hola", kind=kind), NOW_S)

    found = said(data)
    assert data["messageType"] in data["message"]
    if kind in WITHOUT_TEXT:
        assert found == []
    elif kind == "location":
        assert found == [-23.5505]
    else:
        assert "hola" in found
    assert (data["contextInfo"] is not None) == (kind == "ad")


def test_a_text_is_a_conversation_in_2_and_extended_in_1() -> None:
    """Forks of 2 keep the extended shape: kind `extended_text`."""
    assert content("text", "hola", keeps_extended=False).message == {"conversation": "hola"}
    assert content("text", "hola", keeps_extended=True).message == {"extendedTextMessage": {"text": "hola"}}
    assert content("extended_text", "hola", keeps_extended=False).type == "extendedTextMessage"
    with pytest.raises(ValueError, match="kind: expected one of text"):
        content("smell", "", keeps_extended=False)


@pytest.mark.parametrize(
    ("identity", "fields"),
    [
        ("plain", {"remoteJid": PHONE}),
        ("device", {"remoteJid": "5511988887777:12@s.whatsapp.net"}),
        ("sender_pn", {"remoteJid": LID, "senderPn": PHONE}),
        ("2.3.2", {"remoteJid": PHONE, "senderPn": PHONE, "previousRemoteJid": LID}),
        ("2.3.5", {"remoteJid": LID, "remoteJidAlt": PHONE, "addressingMode": "lid"}),
        ("2.3.7", {"remoteJid": PHONE, "remoteJidAlt": PHONE, "addressingMode": "lid"}),
        ("2.4", {"remoteJid": PHONE, "remoteJidAlt": LID, "addressingMode": "pn"}),
        ("lid_only", {"remoteJid": LID, "addressingMode": "lid"}),
    ],
)
def test_each_version_writes_identities_its_own_way(identity: str, fields: dict[str, str]) -> None:
    """The matrix of versions."""
    assert sender_fields(identity, PHONE, LID) == fields


def test_in_a_group_the_person_is_the_participant() -> None:
    """The chat is the group."""
    assert group_fields("2.3.5", "1@g.us", PHONE, LID) == {
        "remoteJid": "1@g.us",
        "participant": LID,
        "participantAlt": PHONE,
    }
    with pytest.raises(ValueError, match="identity: expected one of plain"):
        sender_fields("9.9", PHONE, LID)


def test_an_upsert_has_an_owner_in_1_and_an_instance_in_2() -> None:
    """And no status in 1."""
    instance = Instance("demo", "5511900000000")
    incoming = Incoming(id="3A01", sender="5511988887777", text="hola")
    shared = {"pushName": "Ana", "messageTimestamp": NOW_S, "source": "android"}

    assert upsert_data(V1, instance, incoming, NOW_S) == shared | {
        "key": {"remoteJid": PHONE, "fromMe": False, "id": "3A01"},
        "message": {"extendedTextMessage": {"text": "hola"}},
        "messageType": "extendedTextMessage",
        "owner": "demo",
    }
    assert upsert_data(V2_4, instance, incoming, NOW_S) == shared | {
        "key": {
            "remoteJid": PHONE,
            "remoteJidAlt": lid_of(PHONE),
            "addressingMode": "pn",
            "fromMe": False,
            "id": "3A01",
        },
        "status": "DELIVERY_ACK",
        "message": {"conversation": "hola"},
        "contextInfo": None,
        "messageType": "conversation",
        "instanceId": instance.id,
    }


def test_media_bring_their_bytes_when_the_webhook_wants_them() -> None:
    """`message.base64`, beside the media itself."""
    instance = Instance("demo", "1")
    instance.webhook = WebhookConfig(url="http://x", base64=True)

    image, text = (
        upsert_data(V2_3, instance, Incoming(id="1", sender=PHONE, text="x", kind=kind), NOW_S)["message"]
        for kind in ("image", "text")
    )

    assert "base64" in image
    assert "base64" not in text


def test_updates_name_the_message_differently_in_1_and_2() -> None:
    """`id` with `owner` and `datetime`, or `keyId`; 2.3.7 makes SERVER_ACK of what it does not know."""
    instance, seen = Instance("demo", "1"), Sighting(id="3EB0", jid=PHONE, instance="demo", from_me=True)

    old, new = (update_data(dialect, instance, seen, "READ", NOW_S) for dialect in (V1, V2_3))

    assert old == {
        "remoteJid": PHONE,
        "fromMe": True,
        "id": "3EB0",
        "participant": None,
        "status": "READ",
        "datetime": NOW_S * 1000,
        "owner": "demo",
        "pollUpdates": None,
    }
    assert new == {
        "keyId": "3EB0",
        "remoteJid": PHONE,
        "fromMe": True,
        "participant": PHONE,
        "status": "READ",
        "instanceId": instance.id,
        "messageId": "cm3eb0",
    }
    assert update_data(V2_3, instance, seen, "STRANGE", NOW_S)["status"] == "SERVER_ACK"


@pytest.mark.parametrize(
    ("dialect", "state", "reason", "told"),
    [
        (V2_3, "close", 401, True),
        (V2_3, "close", 428, False),
        (V2_3, "connecting", 200, True),
        (V2_3, "open", 200, True),
        (V1, "close", 428, True),
    ],
)
def test_2_says_close_only_for_a_logout(dialect: Dialect, state: State, reason: int, told: bool) -> None:
    """401, 402, 403 and 406 are for good; after anything else it connects again."""
    data = connection_data(dialect, Instance("demo", "1"), state, reason)

    assert (data is not None) == told
    if data is not None:
        assert (data["instance"], data["state"], data["statusReason"]) == ("demo", state, reason)
        assert ("wuid" in data) == (state == "open")


def test_presence_is_kept_under_the_jid() -> None:
    """What Baileys tells, unchanged."""
    assert presence_data(PHONE, "composing") == {
        "id": PHONE,
        "presences": {PHONE: {"lastKnownPresence": "composing"}},
    }


def test_events_are_named_in_three_ways() -> None:
    """In a configuration, on the wire, and in a URL."""
    assert wire_name("MESSAGES_UPSERT") == "messages.upsert"
    assert wire_name("SEND_MESSAGE") == "send.message"
    assert wire_name("GROUP_PARTICIPANTS_UPDATE") == "group-participants.update"
    assert url_part("MESSAGES_UPSERT") == "messages-upsert"


def envelope(instance: Instance, event: str = "MESSAGES_UPSERT", data: dict[str, Any] | None = None) -> Envelope:
    """An event on its way out."""
    return Envelope(
        event=event,
        instance=instance,
        data=data or {"n": 1},
        date_time=local_time(NOW_S, -3),
        server_url="http://127.0.0.1:8080",
        apikey=instance.token,
    )


def test_the_envelope_carries_a_live_key_and_a_lying_clock() -> None:
    """`date_time` is local time labelled Z; `apikey` is what nobody may store."""
    instance = Instance("demo", "5511900000000")

    assert envelope(instance).body("http://x") == {
        "event": "messages.upsert",
        "instance": "demo",
        "data": {"n": 1},
        "destination": "http://x",
        "date_time": "2024-06-06T12:51:37.000Z",  # 15:51:37 in UTC
        "sender": "5511900000000@s.whatsapp.net",
        "server_url": "http://127.0.0.1:8080",
        "apikey": instance.token,
    }


def test_a_webhook_has_the_headers_of_its_configuration_and_a_token() -> None:
    """HS256 over `iat`, `exp` ten minutes later, `app` and `action`; the key itself is not sent."""
    instance = Instance("demo", "1")
    instance.webhook = WebhookConfig(url="http://x/in", headers={"x-mine": "1", "jwt_key": "secret"}, by_events=True)

    (call,) = calls(V2_3, envelope(instance), None, NOW_S)

    header, claims, signature = call.headers["Authorization"].removeprefix("Bearer ").split(".")
    expected = hmac.digest(b"secret", f"{header}.{claims}".encode(), hashlib.sha256)
    assert call.url == "http://x/in/messages-upsert"
    assert base64.urlsafe_b64decode(signature + "=") == expected
    assert json.loads(base64.urlsafe_b64decode(claims + "==")) == {
        "iat": NOW_S,
        "exp": NOW_S + 600,
        "app": "evolution",
        "action": "webhook",
    }
    assert call.headers["x-mine"] == "1"
    assert "jwt_key" not in call.headers
    assert token("secret", NOW_S) == f"{header}.{claims}.{signature}"


def test_only_2_4_names_itself_in_headers_and_the_global_webhook_has_none_of_its_own() -> None:
    """X-Instance-ID, X-Instance-Name, X-Event-Type, X-Timestamp."""
    instance = Instance("demo", "1")
    instance.webhook = WebhookConfig(url="http://x", headers={"x-mine": "1"}, events=("SEND_MESSAGE",))
    everywhere = GlobalWebhook(url="http://all", by_events=True)

    own, shared = calls(V2_4, envelope(instance, "SEND_MESSAGE"), everywhere, NOW_S)
    (unwanted,) = calls(V2_3, envelope(instance), everywhere, NOW_S)

    assert (own.url, shared.url, unwanted.url) == ("http://x", "http://all/send-message", "http://all/messages-upsert")
    assert own.headers["X-Instance-Name"] == "demo"
    assert own.headers["X-Event-Type"] == "SEND_MESSAGE"
    assert own.headers["X-Instance-ID"] == instance.id
    assert "X-Timestamp" in own.headers
    assert own.headers["User-Agent"] == "EvolutionAPI-Webhook/2.3.7"
    assert "x-mine" not in shared.headers
    assert "X-Instance-Name" not in unwanted.headers


def test_retries_of_2_3_back_off_and_those_before_come_every_30_s() -> None:
    """5 s doubling to 300 s, a fifth more or less, never after a refusal; before 2.3 after anything."""
    new, old = retry_rule(V2_3), retry_rule(V1)

    assert [new.pause_s(attempt, 0.5) for attempt in (1, 2, 6, 7, 9)] == [5, 10, 160, 300, 300]
    assert (new.pause_s(1, 0), new.pause_s(1, 1)) == (4, 6)
    assert [old.pause_s(attempt, 1) for attempt in (1, 9)] == [30, 30]
    assert (new.attempts, old.attempts) == (10, 10)
    assert (sorted(new.never), sorted(old.never)) == ([400, 401, 403, 404, 422], [])


def test_a_script_is_used_up_by_the_sends_that_fit_it() -> None:
    """Per contact, per instance, or whoever comes; a number of times or until healed."""
    script = Script()
    script.add(FAULTS["timed-out"], jid="a")
    script.add(FAULTS["hang"], instance="one", times=2)
    script.add(Slow(delay_s=1), times=None)

    met = [script.next(*send) for send in (("two", "b"), ("one", "a"), ("one", "a"), ("one", "b"), ("one", "b"))]

    assert met == [Slow(delay_s=1), FAULTS["timed-out"], FAULTS["hang"], FAULTS["hang"], Slow(delay_s=1)]
    script.heal()
    assert script.next("one", "a") is None
