"""Webhook calls: which requests an event becomes, with which headers, and when a failed one is made again.

Pure. Nothing signs a body and nothing numbers an event or an attempt: the real one does not either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from msgspec import Struct

from router.fake_evolution.dialects import Dialect, Json
from router.fake_evolution.events import Envelope, url_part

JWT_LIFETIME_S = 600
USER_AGENT = "axios/1.7.9"
USER_AGENT_2_4 = "EvolutionAPI-Webhook/2.3.7"  # 2.4.0 says so of itself


class GlobalWebhook(Struct, frozen=True, kw_only=True):
    """WEBHOOK_GLOBAL_URL: gets every event of every instance, without headers of its own."""

    url: str
    by_events: bool = False


class Call(Struct, frozen=True, kw_only=True):
    """One webhook on its way."""

    event: str
    instance: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class RetryRule(Struct, frozen=True, kw_only=True):
    """How often and when a webhook is tried; `never` are the answers that end it at once."""

    attempts: int = 10
    first_s: float
    factor: float
    cap_s: float
    spread: float
    never: frozenset[int] = frozenset()

    def pause_s(self, attempt: int, chance: float) -> float:
        """How long to wait after failure number `attempt`; `chance` is in 0 … 1."""
        calm = min(self.first_s * self.factor ** (attempt - 1), self.cap_s)
        return calm * (1 + self.spread * (2 * chance - 1))


FIXED = RetryRule(first_s=30, factor=1, cap_s=30, spread=0)
BACKING_OFF = RetryRule(first_s=5, factor=2, cap_s=300, spread=0.2, never=frozenset((400, 401, 403, 404, 422)))


def retry_rule(dialect: Dialect) -> RetryRule:
    """The version's rule: up to 2.2.3 ten times every 30 s whatever the answer, from 2.3.0 backing off."""
    return BACKING_OFF if dialect.backs_off else FIXED


def calls(dialect: Dialect, envelope: Envelope, everywhere: GlobalWebhook | None, now_s: int) -> list[Call]:
    """The requests that an event becomes: to the instance's webhook if it wants the event, and to the global one."""
    made = []
    own = envelope.instance.webhook
    if own is not None and own.enabled and envelope.event in own.events:
        made.append(_call(dialect, envelope, (own.url, own.by_events), _authorized(own.headers, now_s)))
    if everywhere is not None:
        made.append(_call(dialect, envelope, (everywhere.url, everywhere.by_events), {}))
    return made


def token(secret: str, now_s: int) -> str:
    """The JWT (HS256) that `jwt_key` puts into Authorization."""
    claims = {"iat": now_s, "exp": now_s + JWT_LIFETIME_S, "app": "evolution", "action": "webhook"}
    signed = ".".join(_segment(each) for each in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_base64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def _call(dialect: Dialect, envelope: Envelope, target: tuple[str, bool], headers: Mapping[str, str]) -> Call:
    url, by_events = target
    named = {"User-Agent": USER_AGENT}
    if dialect.names_itself:
        named = {
            "User-Agent": USER_AGENT_2_4,
            "X-Instance-ID": envelope.instance.id,
            "X-Instance-Name": envelope.instance.name,
            "X-Event-Type": envelope.event,
            "X-Timestamp": envelope.date_time,
        }
    return Call(
        event=envelope.event,
        instance=envelope.instance.name,
        url=f"{url}/{url_part(envelope.event)}" if by_events else url,
        headers={"Content-Type": "application/json", **named, **headers},
        body=json.dumps(envelope.body(url), ensure_ascii=False).encode(errors="backslashreplace"),  # half an emoji
    )


def _authorized(headers: Mapping[str, str], now_s: int) -> dict[str, str]:
    sent = {name: value for name, value in headers.items() if name != "jwt_key"}
    if "jwt_key" in headers:
        sent["Authorization"] = f"Bearer {token(headers['jwt_key'], now_s)}"
    return sent


def _segment(claims: Json) -> str:
    return _base64(json.dumps(claims, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
