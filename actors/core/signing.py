"""Signing: what every delivery attempt says in its headers, and its Standard Webhooks signature.

Source: Standard Webhooks 1.0 (symmetric scheme `v1`) and the HTTP contract, section 2.
Invariants: the signature covers the very bytes that are sent; no value, whatever the key holds, can end a header line.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from functools import lru_cache
from urllib.parse import quote

from msgspec import Struct

from actors.core import trace
from actors.core.policy import Reason, Webhook

SECRET_PREFIX = "whsec_"  # noqa: S105  the marker in front of a secret
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class BadSecret(ValueError):
    """The secret is not base64 (with or without `whsec_` in front)."""


class Dispatch(Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt says about itself. `attempted_at_s` is Unix time, `traceparent` may be empty."""

    delivery_id: str
    attempted_at_s: int
    attempt: int
    key: str
    size: int
    reason: Reason
    traceparent: str = ""


@lru_cache(maxsize=1024)
def signing_key(secret: str) -> bytes:
    """Decode a secret as the reference library does: `whsec_` is optional, the rest is base64, padded or not.

    Stricter in one thing: Python's library skips characters that are not base64 and others don't, so such a secret
    would give each receiver another key. The recommended 24 to 64 bytes are not enforced. Raises BadSecret.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    bare = text.rstrip("=")
    if not _BASE64.fullmatch(text) or len(bare) % 4 == 1:
        raise BadSecret("a secret is base64, usually with whsec_ in front of it")
    return b64decode(bare + "=" * (-len(bare) % 4))


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Give the `webhook-signature` of a body; raises BadSecret."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp_s, body)
    return "v1," + b64encode(hmac.digest(signing_key(secret), signed, "sha256")).decode()


def delivery_headers(webhook: Webhook, dispatch: Dispatch, body: bytes, user_agent: str) -> dict[str, str]:
    """Build all headers of one attempt: the caller's first (checked at accept time), then ours.

    `Content-Type: application/json` and the user agent only stand in where the caller named none.
    """
    headers = dict(webhook.headers)
    theirs = {name.lower() for name in headers}
    if "content-type" not in theirs:
        headers["Content-Type"] = "application/json"
    if "user-agent" not in theirs:
        headers["User-Agent"] = user_agent
    headers["webhook-id"] = dispatch.delivery_id
    headers["webhook-timestamp"] = str(dispatch.attempted_at_s)
    if webhook.secret is not None:
        headers["webhook-signature"] = sign(webhook.secret, dispatch.delivery_id, dispatch.attempted_at_s, body)
    headers["X-Buffer-Key"] = _percent_encoded(dispatch.key)
    headers["X-Buffer-Size"] = str(dispatch.size)
    headers["X-Buffer-Reason"] = dispatch.reason
    headers["X-Attempt"] = str(dispatch.attempt)
    position = trace.parse(dispatch.traceparent)
    if position is not None:
        headers["traceparent"] = position.header
    return headers


@lru_cache(maxsize=4096)
def _percent_encoded(key: str) -> str:
    return quote(key, safe="", errors="replace")
