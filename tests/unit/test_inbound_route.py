"""What a route may be, what it makes of a batch, and what of it is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.core.addresses import Guard
from actors.core.inbound_route import HIDDEN, InboundRoute, check, policy_of, view
from actors.core.intake import Limits
from actors.core.json_limits import BadField
from actors.core.policy import BufferOptions, Conversation, Policy

GUARD = Guard(allowed_networks=(), loopback_allowed=False)
URL = "https://n8n.example/webhook/chat"
PHONE = "5215512345678@s.whatsapp.net"
KEY = f"ventas:{PHONE}"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FULL: dict[str, Any] = {
    "webhook": {"url": URL, "headers": {"Authorization": "Bearer s3cr3t"}, "secret": SECRET, "timeout": 60},
    "buffer": {"wait_time": 8, "mode": "debounce", "max_wait": 30, "format": "n8n", "max_size": 20},
    "token": "t0k3n",
    "reply": True,
    "reply_path": "data.0.answer",
    "takeover": "count",
}


def route(**changes: object) -> InboundRoute:
    """The simplest route, with some of it changed."""
    return msgspec.convert({"webhook": {"url": URL}, "buffer": {}, **changes}, InboundRoute)


def stored(of: InboundRoute) -> tuple[Policy, Limits]:
    """What a batch of this route is stored with."""
    policy, limits = policy_of(of, KEY, "ventas", PHONE)
    return msgspec.json.decode(policy, type=Policy), limits


def test_the_simplest_route_gathers_texts() -> None:
    """The aggregate works without being told where the text is."""
    check(route(), GUARD)
    policy, limits = stored(route())
    assert policy.buffer == BufferOptions(
        key=KEY, wait_time=20.0, aggregate_field="data.message.conversation", max_size=5, format="merged"
    )
    assert policy.conversation == Conversation("ventas", PHONE)
    assert limits == Limits(20_000, 0, 5, 1024 * 1024)


def test_everything_a_route_can_say() -> None:
    """n8n takes its text from another field; the rest is as for any message."""
    of = msgspec.convert(FULL, InboundRoute)
    check(of, GUARD)
    policy, limits = stored(of)
    assert (policy.webhook.timeout, policy.webhook.headers) == (60, {"Authorization": "Bearer s3cr3t"})
    assert (policy.buffer.aggregate_field, policy.buffer.format) == ("chatInput", "merged")
    assert policy.conversation == Conversation("ventas", PHONE, "data.0.answer")
    assert limits == Limits(8_000, 30_000, 20, 1024 * 1024)


@pytest.mark.parametrize(
    ("changes", "reply"),
    [({}, None), ({"reply": True}, ""), ({"reply": True, "reply_path": "a.b"}, "a.b"), ({"reply_path": "a.b"}, None)],
)
def test_where_a_reply_is(changes: dict[str, object], reply: str | None) -> None:
    """Only a route that says so replies."""
    check(route(**changes), GUARD)
    conversation = stored(route(**changes))[0].conversation
    assert conversation is not None
    assert conversation.reply == reply


def test_an_envelope_has_the_aggregate_too() -> None:
    """Beside the messages."""
    options = stored(route(buffer={"format": "envelope"}))[0].buffer
    assert (options.format, options.aggregate_field) == ("envelope", "data.message.conversation")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"webhook": {"url": URL, "uri": URL}}, "$.webhook"),
        ({"webhook": {}}, "$.webhook"),
        ({"buffer": {"key": "k"}}, "$.buffer"),
        ({"buffer": {"wait_tiem": 3}}, "$.buffer"),
        ({"buffer": {"wait_time": 0}}, "$.buffer.wait_time"),
        ({"buffer": {"max_size": 1001}}, "$.buffer.max_size"),
        ({"buffer": {"format": "xml"}}, "$.buffer.format"),
        ({"token": ""}, "$.token"),
        ({"token": "two words"}, "$.token"),
        ({"token": "line\n"}, "$.token"),
        ({"token": "x" * 257}, "$.token"),
        ({"reply": "yes"}, "$.reply"),
        ({"reply_path": ""}, "$.reply_path"),
        ({"takeover": "stop"}, "$.takeover"),
    ],
)
def test_what_types_refuse(changes: dict[str, object], pointer: str) -> None:
    """A misspelt field in webhook or buffer, a value out of range."""
    with pytest.raises(msgspec.ValidationError) as caught:
        route(**changes)
    assert f"`{pointer}" in str(caught.value) or "unknown field" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"webhook": {"url": "http://10.0.0.1/"}}, "$.webhook.url"),
        ({"webhook": {"url": "ftp://x.example/"}}, "$.webhook.url"),
        ({"webhook": {"url": URL, "headers": {"Host": "x"}}}, "$.webhook.headers.Host"),
        ({"webhook": {"url": URL, "secret": "whsec_?"}}, "$.webhook.secret"),
        ({"webhook": {"url": URL, "secret": HIDDEN}}, "$.webhook.secret"),
        (
            {"webhook": {"url": URL, "headers": {"X-Key": "a", "Authorization": HIDDEN}}},
            "$.webhook.headers.Authorization",
        ),
        ({"token": HIDDEN}, "$.token"),
        ({"buffer": {"aggregate_field": "data.pushName"}}, "$.buffer.aggregate_field"),
        ({"buffer": {"aggregate_field": "chatInput"}}, "$.buffer.aggregate_field"),
        ({"buffer": {"aggregate_field": ""}}, "$.buffer.aggregate_field"),
        ({"buffer": {"mode": "debounce", "wait_time": 9, "max_wait": 3}}, "$.buffer.max_wait"),
        ({"reply_path": "a..b"}, "$.reply_path"),
        ({"reply_path": ".a"}, "$.reply_path"),
        ({"reply_path": "a."}, "$.reply_path"),
    ],
)
def test_what_is_wrong_with_a_route(changes: dict[str, object], pointer: str) -> None:
    """Named by its field, without a secret in the sentence."""
    with pytest.raises(BadField) as caught:
        check(route(**changes), GUARD)
    assert caught.value.pointer == pointer
    assert ("shown instead" in caught.value.detail) == (HIDDEN in str(changes))


@pytest.mark.parametrize(
    "buffer",
    [{"aggregate_field": "data.message.conversation"}, {"aggregate_field": "chatInput", "format": "n8n"}],
)
def test_the_field_may_be_named_as_it_is(buffer: dict[str, object]) -> None:
    """Whoever copies it from elsewhere is not refused."""
    check(route(buffer=buffer), GUARD)


def test_a_view_shows_no_secret_and_cannot_be_sent_back() -> None:
    """Stars where one is; what has none is as it was put."""
    of = msgspec.convert(FULL, InboundRoute)
    shown = msgspec.to_builtins(view("ventas", of))
    assert shown == {
        **FULL,
        "instance": "ventas",
        "token": HIDDEN,
        "webhook": {"url": URL, "headers": {"Authorization": HIDDEN}, "secret": HIDDEN, "timeout": 60},
    }
    with pytest.raises(BadField):
        check(msgspec.convert(shown, InboundRoute), GUARD)
    plain = msgspec.to_builtins(view("*", route()))
    assert plain == {"instance": "*", "webhook": {"url": URL}, "buffer": {}}
    assert msgspec.convert(plain, InboundRoute) == route()
