"""Instances: one WhatsApp account each, its state, and where its events go.

Holds what a restart of the real one would keep. Speaks no HTTP; the shapes are those of `webhook/set` and `find`.
"""

from __future__ import annotations

import uuid
from typing import Literal

import msgspec
from msgspec import Struct

from router.fake_evolution.dialects import Dialect, Json

State = Literal["open", "connecting", "close"]

EVENTS = (
    *("APPLICATION_STARTUP", "QRCODE_UPDATED", "MESSAGES_SET", "MESSAGES_UPSERT", "MESSAGES_EDITED"),
    *("MESSAGES_UPDATE", "MESSAGES_DELETE", "SEND_MESSAGE", "SEND_MESSAGE_UPDATE", "CONTACTS_SET"),
    *("CONTACTS_UPSERT", "CONTACTS_UPDATE", "PRESENCE_UPDATE", "CHATS_SET", "CHATS_UPSERT", "CHATS_UPDATE"),
    *("CHATS_DELETE", "GROUPS_UPSERT", "GROUP_UPDATE", "GROUP_PARTICIPANTS_UPDATE", "CONNECTION_UPDATE"),
    *("LABELS_EDIT", "LABELS_ASSOCIATION", "CALL", "TYPEBOT_START", "TYPEBOT_CHANGE_STATUS", "REMOVE_INSTANCE"),
    *("LOGOUT_INSTANCE", "INSTANCE_CREATE", "INSTANCE_DELETE", "STATUS_INSTANCE"),
)


class WebhookConfig(Struct, frozen=True, kw_only=True):
    """Where an instance's events go, which ones, and with which headers (`jwt_key` among them)."""

    url: str
    enabled: bool = True
    by_events: bool = False
    base64: bool = False
    events: tuple[str, ...] = EVENTS
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class Instance:
    """One account. `state` is None while it is in the database and not loaded."""

    def __init__(self, name: str, own_number: str) -> None:
        self.name = name
        self.id = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.instance.fake"))
        self.token = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.token.fake").hex.upper()
        self.own_jid = f"{own_number}@s.whatsapp.net"
        self.state: State | None = "open"
        self.webhook: WebhookConfig | None = None
        self.subscribed: set[str] = set()  # whose presence WhatsApp tells it


def webhook_from(dialect: Dialect, body: Json) -> WebhookConfig:
    """What a valid `webhook/set` asks for. KeyError: 2.x breaks when `events` is missing."""
    if dialect.nested_text:
        enabled, events = body.get("enabled", True), body.get("events", [])
        names = ("webhook_by_events", "webhook_base64")
    else:
        body = body["webhook"]
        enabled = body["enabled"]
        events = body["events"] if enabled else []
        names = ("byEvents", "base64")
    chosen = tuple(events) or EVENTS if enabled else ()
    by_events, base64 = (bool(body.get(name, False)) for name in names)
    given = body.get("headers")
    headers = given if isinstance(given, dict) and not dialect.nested_text else {}
    return WebhookConfig(
        url=body["url"],
        enabled=enabled,
        by_events=by_events,
        base64=base64,
        events=chosen,
        headers={name: str(value) for name, value in headers.items()},
    )


def webhook_body(dialect: Dialect, instance: Instance) -> Json | None:
    """How `webhook/find` shows it; None where none was ever set."""
    config = instance.webhook
    if config is None:
        return None
    shared: Json = {"enabled": config.enabled, "url": config.url, "events": list(config.events)}
    if dialect.nested_text:
        return shared | {"webhook_by_events": config.by_events, "webhook_base64": config.base64}
    return shared | {
        "headers": config.headers,
        "webhookByEvents": config.by_events,
        "webhookBase64": config.base64,
        "instanceId": instance.id,
    }


def webhook_set_body(dialect: Dialect, instance: Instance) -> Json | None:
    """What `webhook/set` answers."""
    shown = webhook_body(dialect, instance)
    return {"webhook": {"instanceName": instance.name, "webhook": shown}} if dialect.nested_text else shown


def connection_body(instance: Instance) -> Json:
    """What `instance/connectionState` answers; without `state` while it is not loaded."""
    shown: Json = {"instanceName": instance.name}
    return {"instance": shown if instance.state is None else shown | {"state": instance.state}}
