"""Dialects: what differs between the versions of Evolution that the fake can be, and the bodies of its answers.

Pure. The bodies are those of Evolution 1.8.2, 2.3.7 and 2.4.0 as its sources build them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

LICENSE_DOCS = "https://docs.evolutionfoundation.com.br"


class Dialect(Struct, frozen=True, kw_only=True):
    """One version.

    `nested_text`: the text is in `textMessage`, options are in `options`, webhooks are set flat. `keeps_message_id`: a
    caller's `messageId` becomes the WhatsApp id. `finds_lids`: a send to a lid is not refused as unknown.
    `identity`: how it writes the key of an incoming message. `names_itself`: webhooks carry X-Instance-ID and so on.
    `backs_off`: failed webhooks are sent again by the rules of 2.3 instead of every 30 s.
    """

    name: str
    version: str
    nested_text: bool = False
    keeps_message_id: bool = False
    finds_lids: bool = False
    licensed: bool = False
    identity: str
    names_itself: bool = False
    backs_off: bool = True


V1 = Dialect(name="1", version="1.8.2", nested_text=True, identity="plain", backs_off=False)
V2_3 = Dialect(name="2.3", version="2.3.7", identity="2.3.7")
V2_4 = Dialect(
    name="2.4",
    version="2.4.0",
    keeps_message_id=True,
    finds_lids=True,
    licensed=True,
    identity="2.4",
    names_itself=True,
)
DIALECTS = {dialect.name: dialect for dialect in (V1, V2_3, V2_4)}


class Sent(Struct, frozen=True, kw_only=True):
    """A message that the socket accepted. `at_s` is Unix time."""

    id: str
    jid: str
    text: str
    instance_id: str
    at_s: int


def welcome(dialect: Dialect, origin: str) -> Json:
    """What `GET /` answers: the way to learn the version."""
    return {
        "status": 200,
        "message": "Welcome to the Evolution API, it is working!",
        "version": dialect.version,
        "clientName": "evolution_exchange",
        "manager": f"{origin}/manager",
        "documentation": "https://doc.evolution-api.com",
    }


def error_body(status: int, message: object, error: str = "") -> Json:
    """The one shape of every error. `error` is the status's phrase unless something else was thrown."""
    return {"status": status, "error": error or HTTPStatus(status).phrase, "response": {"message": message}}


def license_body(origin: str, instance_id: str) -> Json:
    """What 2.4 answers to everything until an operator has activated it. It has no `response`."""
    return {
        "error": "service not activated",
        "code": "LICENSE_REQUIRED",
        "register_url": f"{origin}/license/register",
        "instance_id": instance_id,
        "docs_url": LICENSE_DOCS,
        "message": "Service not activated. Register this installation to use it.",
    }


def sent_body(dialect: Dialect, sent: Sent) -> Json:
    """What a send answers (201) and SEND_MESSAGE tells. 1.8.2 gives the raw message, its time as a text."""
    key = {"remoteJid": sent.jid, "fromMe": True, "id": sent.id}
    if dialect.nested_text:
        content: Json = {"extendedTextMessage": {"text": sent.text}}
        return {"key": key, "message": content, "messageTimestamp": str(sent.at_s), "status": "PENDING"}
    return {
        "key": key,
        "pushName": "Você",
        "status": "PENDING",
        "message": {"conversation": sent.text},
        "contextInfo": None,
        "messageType": "conversation",
        "messageTimestamp": sent.at_s,
        "instanceId": sent.instance_id,
        "source": "web",
    }
