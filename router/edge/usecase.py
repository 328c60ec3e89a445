"""Use cases: what a route does, as a function from bytes and a few headers to bytes.

Nothing here knows a `web.Request`, so the same use case serves aiohttp's handler and any other front that can
give it a body and the headers below. Errors are raised (`edge.errors`) and rendered by whoever called.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from actors.runtime.outcome import Promised, Tell

JSON = "application/json"

T = TypeVar("T")


class RequestHeaders(Struct, frozen=True, kw_only=True, gc=False):
    """The headers a use case may look at; "" where the caller sent none. `path` is the raw path without query.

    `trace` is the `traceparent` to continue with ("" when the caller brought none that is valid). `if_match` and
    `if_none_match` are the preconditions (RFC 9110) as they were sent.
    """

    path: str
    request_id: str
    content_type: str = ""
    content_encoding: str = ""
    idempotency_key: str = ""
    trace: str = ""
    if_match: str = ""
    if_none_match: str = ""


class Credentials(Struct, frozen=True):
    """What a caller shows, for the routes that have a token of their own; "" where it shows nothing. Never logged."""

    apikey: str
    authorization: str


class Reply(Struct, frozen=True, gc=False):
    """An answer: JSON unless `headers` names another `Content-Type`.

    `head` are more header lines as they are sent, each ended by CRLF, in ASCII: quicker than `headers`, for what is
    asked often. A 304 has no body.
    """

    status: int
    body: bytes
    headers: dict[str, str] | None = None
    head: str = ""


ToReply = Callable[[T], Reply]
"""What makes the answer of what came of a question. May raise."""
Asking = Callable[[Tell[T]], ToReply[T]]
"""A use case that has checked everything and waits for one thing: asks for it, to be told later what came of it, and
gives what makes the answer. May raise. Whoever needs no task for the waiting saves it."""


async def asked(ask: Asking[T]) -> Reply:
    """Ask, wait, and answer."""
    promised = Promised[T]()
    answer = ask(promised.arrived)
    return answer(await promised)


def _never() -> bool:
    return False


class Call(Struct, frozen=True, kw_only=True):
    """What a use case that also reads its path or query gets. `params` and `query` are percent-decoded.

    `query` holds the first value of a name that came more than once. `is_gone`: whether nobody waits for the answer.
    """

    params: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    headers: RequestHeaders
    is_gone: Callable[[], bool] = _never


class BodyUseCase(Protocol):
    """The shape of the hot routes."""

    def __call__(self, body: bytes, headers: RequestHeaders, /) -> Coroutine[Any, Any, Reply]: ...


class KeyUseCase(Protocol):
    """The shape of the routes that are about one key, the last thing in their path; it is percent-decoded."""

    def __call__(self, key: str, body: bytes, headers: RequestHeaders, /) -> Coroutine[Any, Any, Reply]: ...


class CallUseCase(Protocol):
    """The shape of every other route."""

    def __call__(self, call: Call, /) -> Coroutine[Any, Any, Reply]: ...


class GuardedUseCase(Protocol):
    """The shape of the routes that have a token of their own."""

    def __call__(self, call: Call, credentials: Credentials, /) -> Coroutine[Any, Any, Reply]: ...
