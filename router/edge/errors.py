"""Problems: every answer that is not a success, as exceptions, and their one rendering (RFC 9457).

Owns the status, the machine-readable `type` and the exact members of an error body. Knows no web framework and
never lets an exception's own text out: what a client reads is written here or by whoever raised the `Problem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

import msgspec
from msgspec import Struct

from actors.core.json_limits import BadField
from actors.inventory_ports import DatabaseAway
from actors.ports import Overloaded, StoreAway
from router.edge.usecase import Reply

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 1
"""How long a client is asked to wait when nothing better is known; the store is usually back within it."""

_SLUGS = {
    400: "bad-input",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    409: "conflict",
    412: "precondition-failed",
    413: "too-large",
    415: "not-json",
    426: "upgrade-required",
    429: "too-many-requests",
    500: "internal",
    503: "try-later",
}
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


class Problem(Exception):
    """An answer with an error status. `pointer` names the field at fault (`$.buffer.max_size`, `limit`).

    `headers` go out with the answer, `extra` members into its body beside the standard ones.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        pointer: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail if pointer is None else f"{pointer}: {detail}"
        self.pointer = pointer
        self.headers = headers
        self.extra = extra


class BadInput(Problem):
    """The caller's request is wrong at `pointer`; nothing was changed."""

    def __init__(self, pointer: str, detail: str, *, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(400, detail, pointer=pointer, extra=extra)


class NotFound(Problem):
    """There is no such thing."""

    def __init__(self, detail: str, *, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(404, detail, extra=extra)


class Conflict(Problem):
    """The request is right but does not fit the state it meets."""

    def __init__(self, detail: str, *, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(409, detail, extra=extra)


class TooLarge(Problem):
    """The body is over the limit."""

    def __init__(self, body_bytes_max: int) -> None:
        super().__init__(413, f"the body is larger than {body_bytes_max} bytes")


class TooSlow(Problem):
    """The body did not arrive in time."""

    def __init__(self, body_s_max: float) -> None:
        super().__init__(408, f"the body took longer than {body_s_max:g} s", headers={"Connection": "close"})


class NotJson(Problem):
    """The body is not declared as plain JSON in UTF-8."""

    def __init__(self, detail: str = "the body must be application/json in UTF-8") -> None:
        super().__init__(415, detail)


class TryLater(Problem):
    """The router cannot do it now; the same request with the same idempotency key may be sent again."""

    def __init__(self, detail: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(503, detail, headers={"Retry-After": str(retry_after_s)})


class ProblemBody(Struct, kw_only=True, omit_defaults=True):
    """The members that every error body has; `error` repeats `detail` for older clients."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: str
    request_id: str
    pointer: str | None = None


KnownFailure = Problem | BadField | StoreAway | DatabaseAway | Overloaded | TimeoutError
KNOWN_FAILURES = (Problem, BadField, StoreAway, DatabaseAway, Overloaded, TimeoutError)
"""The same for an `except`: the failures that are part of normal life."""


def problem_of(failure: KnownFailure) -> Problem:
    """Say what a known failure means to the client."""
    match failure:
        case Problem():
            return failure
        case BadField():
            return BadInput(failure.pointer, failure.detail)
        case StoreAway():
            return TryLater(
                "the store is away or cannot write; send it again with the same idempotency key or message id"
            )
        case DatabaseAway():
            return TryLater("the inventory's database is away; send it again with the same idempotency key")
        case Overloaded():
            return TryLater("the router is at its limit; send it again")
        case _:
            return TryLater("it was not done in time; send it again with the same idempotency key or message id")


def render(problem: Problem, *, path: str, request_id: str) -> Reply:
    """The problem as an answer to the request with this raw path and id."""
    body = ProblemBody(
        type=f"urn:buzon:problem:{_SLUGS[problem.status]}" if problem.status in _SLUGS else "about:blank",
        title=_title(problem.status),
        status=problem.status,
        detail=problem.detail,
        # Bytes that are no UTF-8 arrive as lone surrogates, which no JSON encoder takes.
        instance=quote(path.encode("utf-8", "surrogateescape"), safe=_PATH_SAFE),
        error=problem.detail,
        request_id=request_id,
        pointer=problem.pointer,
    )
    members = msgspec.to_builtins(body)
    if problem.extra:
        members.update({name: value for name, value in problem.extra.items() if name not in members})
    headers = {"Content-Type": PROBLEM_JSON, **(problem.headers or {})}
    return Reply(problem.status, msgspec.json.encode(members), headers)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
