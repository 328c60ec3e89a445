"""Evolution token: whether a webhook call of Evolution's may come in.

Owns the four ways to show a token and which token is asked for. Never says why a call is refused: who guesses learns
nothing. Invariants: comparisons take the same time for every guess; only HS256 is ever verified, whatever a JWT says
of itself; a token that nobody configured is equal to nothing.
Source: the HTTP contract, section 8; the facts about Evolution, section 2.4 (`jwt_key`: HS256 with `iat`, `exp` ten
minutes ahead, `app` "evolution", `action` "webhook").
"""

from __future__ import annotations

from hmac import compare_digest

from msgspec import Struct

JWT_BYTES_MAX = 2048
"""Evolution's own have about 200."""
JWT_LIFETIME_S = 600
LEEWAY_S = 60
"""How far two clocks may be apart (RFC 8725 names no number; a minute is what most verifiers take)."""

_HEADER_NAMES = frozenset(("alg", "typ"))
_SCHEME = "bearer "


class Presented(Struct, frozen=True):
    """What a call shows, "" where it shows nothing: the headers `apikey` and `Authorization`, and `?token=`."""

    apikey: str = ""
    authorization: str = ""
    query: str = ""


class Gate(Struct, frozen=True):
    """`everywhere` is good for all instances, beside a route's own; `open_without`: where there is neither, everybody
    may come in."""

    everywhere: str | None
    open_without: bool


def admitted(gate: Gate, route_token: str | None, presented: Presented, now_s: float) -> bool:
    """Whether a call may come in, for an instance whose route has this token."""
    tokens = [token for token in (route_token, gate.everywhere) if token]
    shown = [_shows(token, presented, now_s) for token in tokens]  # each is looked at, whichever is right
    return any(shown) if tokens else gate.open_without


def _shows(token: str, presented: Presented, now_s: float) -> bool:
    bearer = ""
    if presented.authorization[: len(_SCHEME)].lower() == _SCHEME:
        bearer = presented.authorization[len(_SCHEME) :].strip()
    wanted = token.encode()
    plain = [compare_digest(_bytes(each), wanted) for each in (presented.apikey, bearer, presented.query)]
    return any(plain) or _signed_with(wanted, bearer, now_s)


def _bytes(text: str) -> bytes:
    """Headers and queries may hold halves of characters."""
    return text.encode("utf-8", "surrogatepass")


def _signed_with(key: bytes, text: str, now_s: float) -> bool:
    """Whether the text is a JWT as Evolution makes it under this key, and is of now."""
    if text.count(".") != 2 or len(text) > JWT_BYTES_MAX:  # noqa: PLR2004  header.claims.signature
        return False
    from joserfc import jwt  # noqa: PLC0415  a tenth of a node's start, and few ever show a JWT
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import OctKey  # noqa: PLC0415

    try:
        # Not import_key: that refuses nothing more here, and warns of every short key.
        token = jwt.decode(text, OctKey(key, key), algorithms=["HS256"])
    except (JoseError, ValueError, RecursionError):
        return False
    claims = token.claims
    ours = claims.get("app") == "evolution" and claims.get("action") == "webhook"
    return token.header.keys() <= _HEADER_NAMES and ours and _is_of_now(claims.get("iat"), claims.get("exp"), now_s)


def _is_of_now(issued_s: object, expires_s: object, now_s: float) -> bool:
    if type(issued_s) is not int or type(expires_s) is not int:  # no float, and no bool either
        return False
    latest_s = now_s + LEEWAY_S
    return issued_s <= latest_s and now_s - LEEWAY_S < expires_s <= latest_s + JWT_LIFETIME_S
