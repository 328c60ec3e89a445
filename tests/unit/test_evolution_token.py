"""Who may call the webhook: every way to show a token, and everything that only looks like one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_token import JWT_BYTES_MAX, LEEWAY_S, Gate, Presented, admitted
from router.fake_evolution.webhook_calls import token as evolutions_jwt

NOW_S = 1_717_689_097
TOKEN = "t0k3n-of-the-route-that-nobody-knows"
SHUT = Gate(None, open_without=False)
CLAIMS: dict[str, Any] = {"iat": NOW_S, "exp": NOW_S + 600, "app": "evolution", "action": "webhook"}
HEADER = {"alg": "HS256", "typ": "JWT"}


def segment(value: object) -> str:
    """One part of a JWT."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def made(claims: object = None, header: object = None, key: str = TOKEN) -> str:
    """A JWT with a signature that fits."""
    signed = f"{segment(header or HEADER)}.{segment(CLAIMS if claims is None else claims)}"
    return f"{signed}.{segment(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"


def bearer(text: str) -> Presented:
    """A call with a bearer token."""
    return Presented(authorization=f"Bearer {text}")


def shows(presented: Presented, token: str = TOKEN, now_s: float = NOW_S) -> bool:
    """Whether a call with this comes in where the token is wanted."""
    return admitted(SHUT, token, presented, now_s)


@pytest.mark.parametrize(
    "presented",
    [
        Presented(apikey=TOKEN),
        Presented(query=TOKEN),
        bearer(TOKEN),
        Presented(authorization=f"bearer  {TOKEN}"),
        bearer(made()),
        bearer(evolutions_jwt(TOKEN, NOW_S)),
        Presented(apikey="wrong", authorization="Basic x", query=TOKEN),
    ],
)
def test_each_way_in(presented: Presented) -> None:
    """One that fits is enough."""
    assert shows(presented)


@pytest.mark.parametrize(
    "presented",
    [
        Presented(),
        Presented(apikey=TOKEN[:-1]),
        Presented(apikey=TOKEN + "x"),
        Presented(apikey=TOKEN.upper()),
        Presented(authorization=TOKEN),
        Presented(authorization=f"Basic {TOKEN}"),
        Presented(authorization="Bearer "),
        Presented(query=made()),
        Presented(apikey=made()),
        Presented(apikey="\udce9", query="\ud800"),
    ],
)
def test_everything_else_stays_outside(presented: Presented) -> None:
    """Nearly right is wrong, and a JWT is a bearer token."""
    assert not shows(presented)


@pytest.mark.parametrize(
    "jwt",
    [
        made(key="another"),
        made(header={"alg": "none", "typ": "JWT"}),
        f"{segment({'alg': 'none'})}.{segment(CLAIMS)}.",
        made(header={"alg": "HS512", "typ": "JWT"}),
        made(header={"alg": "hs256"}),
        made(header={"typ": "JWT"}),
        made(header={**HEADER, "crit": ["exp"], "exp": 1}),
        made(header={**HEADER, "jku": "https://evil.example"}),
        made(header={**HEADER, "kid": "../../dev/null"}),
        *(made({name: value for name, value in CLAIMS.items() if name != missing}) for missing in CLAIMS),
        made({**CLAIMS, "app": "other"}),
        made({**CLAIMS, "action": "login"}),
        made({**CLAIMS, "exp": NOW_S - LEEWAY_S}),
        made({**CLAIMS, "exp": NOW_S + 600 + LEEWAY_S + 1}),
        made({**CLAIMS, "exp": 1e308}),
        made({**CLAIMS, "exp": str(NOW_S + 600)}),
        made({**CLAIMS, "exp": float(NOW_S + 600)}),
        made({**CLAIMS, "iat": NOW_S + LEEWAY_S + 1}),
        made({**CLAIMS, "iat": True}),
        made([CLAIMS]),
        made(b"no json"),
        made(b"\xff"),
        made(b"[" * 1000),
        made({**CLAIMS, "more": "x" * JWT_BYTES_MAX}),
        made()[:-2],
        made().rpartition(".")[0] + ".",
        made() + ".x",
        "..",
        "a.b.c",
        "é.é.é",
    ],
)
def test_a_jwt_that_is_not_evolutions(jwt: str) -> None:
    """Another key, another algorithm, another time, another purpose: all the same answer."""
    assert not shows(bearer(jwt))


@pytest.mark.parametrize(
    ("later_s", "in_time"), [(-LEEWAY_S, True), (-LEEWAY_S - 1, False), (600 + LEEWAY_S, False), (659, True)]
)
def test_clocks_may_be_a_minute_apart(later_s: int, *, in_time: bool) -> None:
    """And no more."""
    assert shows(bearer(evolutions_jwt(TOKEN, NOW_S)), now_s=NOW_S + later_s) is in_time


def test_a_short_key_is_somebodys_choice() -> None:
    """Evolution takes any, and so does this."""
    assert shows(bearer(evolutions_jwt("s", NOW_S)), "s")


@pytest.mark.parametrize(
    ("gate", "route_token", "shown", "comes_in"),
    [
        (Gate(None, open_without=True), None, "", True),
        (Gate(None, open_without=True), None, "anything", True),
        (Gate(None, open_without=False), None, "", False),
        (Gate(None, open_without=False), None, "anything", False),
        (Gate("", open_without=False), "", "", False),
        (Gate("global", open_without=True), None, "", False),
        (Gate("global", open_without=True), None, "global", True),
        (Gate("global", open_without=False), "route", "route", True),
        (Gate("global", open_without=True), "route", "global", True),
        (Gate("global", open_without=True), "route", "other", False),
        (Gate(None, open_without=True), "route", "", False),
    ],
)
def test_which_token_is_asked_for(gate: Gate, route_token: str | None, shown: str, *, comes_in: bool) -> None:
    """The route's own, else that of all; with neither it depends on whether the node is guarded at all."""
    assert admitted(gate, route_token, Presented(apikey=shown), NOW_S) is comes_in


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_anything_may_be_shown(apikey: str, authorization: str, query: str) -> None:
    """Nothing is raised, and only the token itself comes in."""
    assert shows(Presented(apikey, f"Bearer {authorization}", query)) is (
        TOKEN in (apikey, authorization.strip(), query)
    )
