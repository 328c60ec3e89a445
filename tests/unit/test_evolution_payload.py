"""What is handed on of an event: no secret, and the text in a place where a buffer can aggregate it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_events import IncomingText, read
from actors.core.evolution_payload import (
    EVENT_TEXT_FIELD,
    N8N_TEXT_FIELD,
    SECRETS_MAX,
    TooManySecrets,
    n8n_payload,
    without_secrets,
)
from actors.core.policy import BufferOptions, Policy, Webhook
from actors.core.rendering import render
from tests.unit.test_evolution_events import PHONE, UPSERT
from tests.unit.test_foreign_json import JSON


def incoming(text: str, key_id: str) -> IncomingText:
    """A message of the contact."""
    data = {**UPSERT["data"], "message": {"conversation": text}, "key": {**UPSERT["data"]["key"], "id": key_id}}
    said = read(json.dumps({**UPSERT, "data": data}).encode())
    assert isinstance(said, IncomingText)
    return said


def merged(field: str, *payloads: bytes) -> bytes:
    """What a webhook gets for a batch of these."""
    policy = Policy(webhook=Webhook(url="http://x"), buffer=BufferOptions(key="k", aggregate_field=field))
    return render(policy, key="k", reason="timeout", messages=[("m", 0, payload) for payload in payloads])


def test_the_newest_event_holds_the_aggregate() -> None:
    """In `data.message.conversation`, as one message of version 2 would."""
    body: dict[str, Any] = json.loads(
        merged(EVENT_TEXT_FIELD, incoming("hola", "1").payload, incoming("¿precio?", "2").payload)
    )
    assert body["data"]["message"]["conversation"] == "hola\n¿precio?"
    assert body["data"]["key"]["id"] == "2"
    assert "apikey" not in body


N8N = {
    "chatInput": "hola\n¿precio?",
    "sessionId": f"ventas:{PHONE}",
    "remoteJid": PHONE,
    "pushName": "Ana",
    "keyId": "2",
    "instanceName": "ventas",
}


def test_what_n8n_gets() -> None:
    """Made of each message before they are gathered, or of the merged event: the same."""
    first, second = incoming("hola", "1"), incoming("¿precio?", "2")
    each = [n8n_payload(said.payload, said.contact.key) for said in (first, second)]
    assert json.loads(merged(N8N_TEXT_FIELD, *each)) == N8N
    assert json.loads(n8n_payload(merged(EVENT_TEXT_FIELD, first.payload, second.payload), PHONE)) == N8N


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_n8n_gets_every_field_of_anything(event: bytes) -> None:
    """Nothing raises."""
    assert json.loads(n8n_payload(event, PHONE)).keys() == N8N.keys()


@pytest.mark.parametrize(
    ("destination", "left"),
    [
        ("https://x/evolution/webhook?token=t0k3n", "https://x/evolution/webhook"),
        ("https://user:pa55@x:8000/a/messages-upsert#f", "https://x:8000/a/messages-upsert"),
        *(("http://[", None), (7, None), (None, None), ("", "")),
    ],
)
def test_our_own_token_is_not_handed_on(destination: object, left: object) -> None:
    """`destination` is the URL that Evolution was given for us, with what guards it."""
    assert without_secrets({"destination": destination}) == {"destination": left}


@pytest.mark.parametrize("name", ["apikey", "apiKey", "API_KEY", "api-key", "Api Key", "Authorization", "jwt_key"])
def test_credentials_by_any_name(name: str) -> None:
    """At any depth, whatever their value."""
    for value in ("x", "restaurante", 7, None, {"a": 1}):
        assert without_secrets({name: value, "data": [{name: value, "b": 1}]}) == {"data": [{"b": 1}]}


def test_a_key_that_is_a_word_leaves_the_words_alone() -> None:
    """People choose short keys; a contact who writes the word gave nothing away."""
    event: dict[str, object] = {"apikey": "restaurante", "data": "buenas, restaurante?"}
    assert without_secrets(event) == {"data": "buenas, restaurante?"}


def test_a_key_that_is_the_instances_name() -> None:
    """#2010. The name stays: without it nothing finds its route."""
    name = "mi-instancia-de-ventas"
    assert without_secrets({"apikey": name, "instance": name}) == {"instance": name}


def test_a_key_between_pieces_of_itself() -> None:
    """What is taken out leaves no other behind."""
    key = "ab***cd-0123456789"
    left = without_secrets({"apikey": key, "data": f"ab{key}cd-0123456789"})
    assert key not in str(left)


def test_an_event_that_is_made_to_cost_time() -> None:
    """Cleaning takes time in proportion to the size: an event with more keys than any has is none."""
    many: dict[str, object] = {
        "instance": "demo",
        "d": [{"apikey": f"{number:016x}"} for number in range(SECRETS_MAX + 1)],
    }
    with pytest.raises(TooManySecrets):
        without_secrets(many)
    few: dict[str, object] = {**many, "d": [{"apikey": f"{number:016x}"} for number in range(SECRETS_MAX)]}
    assert without_secrets(few) == {"instance": "demo", "d": [{}] * SECRETS_MAX}


def test_a_key_that_is_made_to_come_again() -> None:
    """What is left and right of it would be it once more: nothing of such a text stays."""
    key = "AAAAAAAA***BBBBBBBB"
    assert without_secrets({"apikey": key, "x": "AAAAAAAA" * 99 + key + "BBBBBBBB" * 99}) == {"x": "***"}
