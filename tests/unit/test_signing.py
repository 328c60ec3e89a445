"""Signatures and headers of a delivery attempt, with the reference library as the oracle."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Reference

from actors.core.policy import Webhook
from actors.core.signing import BadSecret, Dispatch, delivery_headers, sign, signing_key

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"
HOOK = Webhook(url="https://example.com/hook", secret=SECRET)
SECOND = Dispatch(
    delivery_id="dlv_1", attempted_at_s=1700000000, attempt=2, key="a", size=3, reason="size", traceparent=PARENT
)


def test_the_official_vector() -> None:
    """The example of the specification's own test suite."""
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(key=st.binary(min_size=1, max_size=80), body=st.text(max_size=200), at=st.integers(0, 4_000_000_000))
def test_agrees_with_the_reference_library(key: bytes, body: str, at: int) -> None:
    """With and without the prefix, padded or not."""
    padded = base64.b64encode(key).decode()
    for secret in (padded, padded.rstrip("="), f"whsec_{padded}", f"whsec_{padded.rstrip('=')}"):
        expected = Reference(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body)
        assert sign(secret, "msg_1", at, body.encode()) == expected


def test_a_receiver_with_the_reference_library_accepts_it() -> None:
    """What is sent verifies as it is, and no other body does."""
    body = '{"x":"é"}'.encode()
    now = Dispatch(delivery_id="dlv_1", attempted_at_s=int(time.time()), attempt=1, key="a", size=1, reason="manual")
    headers = delivery_headers(HOOK, now, body, "buzon/1")
    assert Reference(SECRET).verify(body, headers) == {"x": "é"}
    with pytest.raises(Exception, match="No matching signature"):
        Reference(SECRET).verify(body + b" ", headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "=", "whsec_==", "s3cr-t", "spaces here", "é", "abcde", "YWJj\n", "whsec_YWJj===", "Y=Jj"]
)
def test_refuses_secrets_that_receivers_would_read_differently(secret: str) -> None:
    """Empty or not base64: some libraries would skip characters, others fail."""
    with pytest.raises(BadSecret):
        signing_key(secret)


def test_all_headers_of_an_attempt() -> None:
    """The caller's come first and as they were, then ours."""
    hook = Webhook(url="https://example.com/hook", headers={"Authorization": "Bearer x", "X-Mine": "1"}, secret=SECRET)
    headers = delivery_headers(hook, SECOND, b"{}", "buzon/1.2.3")
    assert list(headers.items()) == [
        ("Authorization", "Bearer x"),
        ("X-Mine", "1"),
        ("Content-Type", "application/json"),
        ("User-Agent", "buzon/1.2.3"),
        ("webhook-id", "dlv_1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", sign(SECRET, "dlv_1", 1700000000, b"{}")),
        ("X-Buffer-Key", "a"),
        ("X-Buffer-Size", "3"),
        ("X-Buffer-Reason", "size"),
        ("X-Attempt", "2"),
        ("traceparent", PARENT),
    ]


def test_unsigned_and_untraced() -> None:
    """No secret, no signature; no trace, no traceparent; the other headers are there."""
    bare = Dispatch(delivery_id="dlv_1", attempted_at_s=1, attempt=1, key="a", size=1, reason="timeout")
    headers = delivery_headers(Webhook(url="https://example.com"), bare, b"{}", "buzon/1")
    assert "webhook-signature" not in headers
    assert "traceparent" not in headers
    assert headers["webhook-id"] == "dlv_1"


def test_the_callers_content_type_and_user_agent_stand() -> None:
    """In any case of letters, and once."""
    theirs = {"content-TYPE": "application/cloudevents+json", "USER-agent": "me"}
    headers = delivery_headers(Webhook(url="https://example.com", headers=theirs), SECOND, b"{}", "buzon/1")
    assert {name: value for name, value in headers.items() if name.lower() in ("content-type", "user-agent")} == theirs


def test_retries_sign_their_own_time() -> None:
    """The id stays, the timestamp and with it the signature are the attempt's."""
    later = Dispatch(delivery_id="dlv_1", attempted_at_s=1700000005, attempt=3, key="a", size=3, reason="size")
    first, second = (delivery_headers(HOOK, dispatch, b"{}", "b") for dispatch in (SECOND, later))
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


@given(key=st.text(min_size=1, max_size=256), trace=st.text(max_size=60) | st.just(PARENT + "\r\nX: y"))
def test_no_key_can_inject_a_header(key: str, trace: str) -> None:
    """Every name and value is one line of printable ASCII, and the key comes back when it is percent-decoded."""
    attempt = Dispatch(
        delivery_id="dlv_1", attempted_at_s=1, attempt=1, key=key, size=1, reason="bytes", traceparent=trace
    )
    headers = delivery_headers(HOOK, attempt, b"{}", "buzon/1")
    assert all(text.isascii() and text.isprintable() for pair in headers.items() for text in pair)
    assert unquote(headers["X-Buffer-Key"]) == key
    assert " " not in headers["X-Buffer-Key"]


def test_a_lone_surrogate_in_a_key_does_not_stop_the_delivery() -> None:
    """Not valid in JSON, but a key that came some other way must not poison its delivery."""
    attempt = Dispatch(delivery_id="dlv_1", attempted_at_s=1, attempt=1, key="a\ud800b", size=1, reason="bytes")
    assert delivery_headers(HOOK, attempt, b"{}", "buzon/1")["X-Buffer-Key"] == "a%3Fb"
