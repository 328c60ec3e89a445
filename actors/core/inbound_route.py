"""Inbound route: what happens with the messages that an instance of Evolution's receives.

Owns the shape of a route, what is wrong with one, what of it may be shown, and how it becomes the policy of a batch.
Invariants: what passes `check` can be stored with any event that has a text; no view holds a secret, and a view sent
back as it was shown is refused, so that nobody stores the stars.
Source: the HTTP contract, section 4 (`/api/v1/inbound`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from actors.core.addresses import Guard
from actors.core.evolution_payload import EVENT_TEXT_FIELD, N8N_TEXT_FIELD
from actors.core.intake import Limits, check_waits, limits_of
from actors.core.json_limits import BadField
from actors.core.policy import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    Aggregate,
    BufferOptions,
    Conversation,
    Mode,
    Policy,
    Seconds,
    Webhook,
)
from actors.core.webhook_target import BadTarget, check_webhook

HIDDEN = "***"
ANY_INSTANCE = "*"
"""The name of the route of every instance that has none of its own."""
VISIBLE_ASCII = r"^[\x21-\x7e]+(?![\s\S])"
"""A token goes into headers, where a space would end it."""

InboundFormat = Literal["merged", "envelope", "n8n"]
Takeover = Literal["ignore", "count"]

_encode = msgspec.json.Encoder().encode


class BadRoute(BadField):
    """The route cannot be used in a way that its types don't show."""


class InboundBuffer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the texts of one contact are gathered: as for `POST /api/v1/message`, but the key is the conversation's and
    the aggregated field is where the format has the text."""

    wait_time: Seconds = 20.0
    aggregate_field: str | None = None
    max_size: Annotated[int, Meta(ge=1, le=BATCH_MESSAGES_MAX)] = 5
    mode: Mode = "window"
    max_wait: Seconds | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=BATCH_BYTES_MAX)] | None = None
    separator: Annotated[str, Meta(max_length=64)] = "\n"
    aggregate: Aggregate = "join"
    format: InboundFormat = "merged"

    @property
    def text_field(self) -> str:
        """Where the payload has its text."""
        return N8N_TEXT_FIELD if self.format == "n8n" else EVENT_TEXT_FIELD


class InboundRoute(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the texts of an instance go. `token` guards its webhook. With `reply` the webhook's answer goes back to the
    contact: its text at `reply_path`, or at `output`, `answer` or `text`. With `takeover` "count" it is counted when
    a person writes on the phone instead."""

    webhook: Webhook
    buffer: InboundBuffer
    token: Annotated[str, Meta(min_length=1, max_length=256, pattern=VISIBLE_ASCII)] | None = None
    reply: bool = False
    reply_path: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    takeover: Takeover = "ignore"


class RouteView(InboundRoute, frozen=True, kw_only=True, omit_defaults=True):
    """A route as people may see it: `***` stands for a secret that there is."""

    instance: str


def check(route: InboundRoute, guard: Guard) -> None:
    """Check what the types cannot say. Raises BadField: BadRoute, or what a message's options raise."""
    if route.token == HIDDEN:
        raise BadRoute("$.token", _STARS)
    if route.webhook.secret == HIDDEN:
        raise BadRoute("$.webhook.secret", _STARS)
    for name, value in route.webhook.headers.items():
        if value == HIDDEN:
            raise BadRoute(f"$.webhook.headers.{name[:64]}", _STARS)
    try:
        check_webhook(route.webhook, guard)
    except BadTarget as error:
        raise BadRoute(error.pointer, error.detail) from None
    wanted = route.buffer.text_field
    if route.buffer.aggregate_field not in (None, wanted):
        raise BadRoute("$.buffer.aggregate_field", f"is always {wanted} in this format; leave it out")
    check_waits(options_of(route, ""))
    if route.reply_path is not None and not all(route.reply_path.split(".")):
        raise BadRoute("$.reply_path", "has an empty step; write names with one dot between two")


def view(instance: str, route: InboundRoute) -> RouteView:
    """The route as people may see it: whether there is a secret, and never which."""
    webhook = route.webhook
    shown = msgspec.structs.replace(
        webhook,
        headers=dict.fromkeys(webhook.headers, HIDDEN),
        secret=None if webhook.secret is None else HIDDEN,
    )
    token = None if route.token is None else HIDDEN
    fields = {**msgspec.structs.asdict(route), "webhook": shown, "token": token}
    return RouteView(instance=instance, **fields)


def options_of(route: InboundRoute, key: str) -> BufferOptions:
    """The options of a conversation's buffer."""
    of = route.buffer
    return BufferOptions(
        key=key,
        wait_time=of.wait_time,
        aggregate_field=of.text_field,
        max_size=of.max_size,
        mode=of.mode,
        max_wait=of.max_wait,
        max_bytes=of.max_bytes,
        separator=of.separator,
        aggregate=of.aggregate,
        format="envelope" if of.format == "envelope" else "merged",
    )


def policy_of(route: InboundRoute, key: str, instance: str, contact: str) -> tuple[bytes, Limits]:
    """The stored form of the policy of a conversation's batch, and when that is full or due."""
    options = options_of(route, key)
    reply = (route.reply_path or "") if route.reply else None
    conversation = Conversation(instance, contact, reply)
    return _encode(Policy(webhook=route.webhook, buffer=options, conversation=conversation)), limits_of(options)


_STARS = "is what is shown instead of a secret; send the secret itself, or leave it out"
