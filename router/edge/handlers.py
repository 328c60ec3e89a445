"""Handlers: turn use cases into what aiohttp's router takes, and their replies into what it sends.

Own the way from a `web.Request` to the bytes and few headers that a use case knows, and back. Runs on every request,
so a small body is taken without an await and the trace is read only when there is one. A body that is still arriving
has a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from random import SystemRandom
from typing import Any, Protocol, cast
from urllib.parse import unquote_to_bytes

from aiohttp import hdrs, web
from msgspec import Struct, structs
from multidict import istr

from actors.core import trace
from actors.runtime.outcome import Tell
from router.edge.answer import JsonAnswer, header_lines
from router.edge.errors import BadInput, TooLarge, TooSlow
from router.edge.idempotency import HEADER as IDEMPOTENCY_KEY
from router.edge.openapi import carry, described_by
from router.edge.usecase import (
    JSON,
    BodyUseCase,
    Call,
    CallUseCase,
    Credentials,
    GuardedUseCase,
    KeyUseCase,
    Reply,
    RequestHeaders,
    ToReply,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Run = Callable[[Mapping[str, str], bytes, RequestHeaders, Callable[[], bool]], Coroutine[Any, Any, Reply]]
"""A use case without its request: of the path's parameters, the body, the headers, and whether the caller has gone."""
RunNow = Callable[[Mapping[str, str], RequestHeaders], Callable[[], Reply | None]]
"""The same without a body: gives what answers such requests without waiting, None where that is not possible."""
Soon = Callable[[bytes, Tell[Any]], ToReply[Any]]
"""A use case that waits for one thing, from its body to the question. May raise."""
RunSoon = Callable[[Mapping[str, str], RequestHeaders], Soon | None]
"""Gives what answers such requests without a task; None where that is not possible. The headers lack the request's
id."""


class Hot(Struct, frozen=True):
    """A handler that may be left out: `run` is what it would run; the others are quicker, where there is one."""

    run: Run
    now: RunNow | None
    soon: RunSoon | None


REQUEST_ID = web.RequestKey("request_id", str)
"""Where `edge.http` puts the request's id before any handler runs."""


class Connection(Protocol):
    """What a request comes by: `edge.server` makes them."""

    request_s: float

    def close_after_answer(self) -> None: ...


_TRACEPARENT = istr("traceparent")
_IDEMPOTENCY_KEY = istr(IDEMPOTENCY_KEY)
_APIKEY = istr("apikey")
_RANDOM = SystemRandom()
_RUN, _HOT = "_buzon_run", "_buzon_hot"
KEY = "key"
"""The parameter of a path that names the key."""


def body_endpoint(use_case: BodyUseCase) -> Handler:
    """The aiohttp handler of a use case that reads nothing but its body and headers."""

    async def handle(request: web.Request) -> web.Response:
        body = _arrived(request)
        if body is None:
            body = await _arriving(request)
        return response_of(await use_case(body, headers_of(request)))

    carry(use_case, handle)
    return _runs(handle, lambda _params, body, headers, _is_gone: use_case(body, headers))


def key_endpoint(use_case: KeyUseCase) -> Handler:
    """The aiohttp handler of a use case about one key, `{key}` in the path; its query is not looked at."""

    async def handle(request: web.Request) -> web.Response:
        body = _arrived(request)
        if body is None:
            body = await _arriving(request)
        key = request.match_info[KEY]
        if "%" in key:
            check_decoded(KEY, key, path_of(request))
        return response_of(await use_case(key, body, headers_of(request)))

    carry(use_case, handle)
    return _runs(handle, lambda params, body, headers, _is_gone: use_case(params[KEY], body, headers))


def endpoint(use_case: CallUseCase) -> Handler:
    """The aiohttp handler of a use case that also reads its path and query."""

    async def handle(request: web.Request) -> web.Response:
        return response_of(await use_case(await _call(request)))

    def run(
        params: Mapping[str, str], body: bytes, headers: RequestHeaders, is_gone: Callable[[], bool]
    ) -> Coroutine[Any, Any, Reply]:
        return use_case(Call(params=params, query={}, body=body, headers=headers, is_gone=is_gone))

    carry(use_case, handle)
    return _runs(handle, run)


def guarded_endpoint(use_case: GuardedUseCase) -> Handler:
    """The aiohttp handler of a use case that looks at its caller's token itself."""

    async def handle(request: web.Request) -> web.Response:
        headers = request.headers
        shown = Credentials(headers.get(_APIKEY, ""), headers.get(hdrs.AUTHORIZATION, ""))
        return response_of(await use_case(await _call(request), shown))

    carry(use_case, handle)
    return handle


def hot(handler: Handler, now: RunNow | None = None, soon: RunSoon | None = None) -> Handler:
    """Let the fast lane (`edge.lane`) answer this handler's requests where it can. It must come from one of the above.

    The lane gives no query, and of a path no more than one last segment."""
    setattr(handler, _HOT, Hot(getattr(handler, _RUN), now, soon))
    return handler


def hot_of(handler: object) -> Hot | None:
    """What the fast lane may run in this handler's place."""
    found = getattr(handler, _HOT, None)
    return found if isinstance(found, Hot) else None


def _runs(handler: Handler, run: Run) -> Handler:
    setattr(handler, _RUN, run)
    return handler


def unlisted(use_case: Callable[..., object], handler: Handler) -> Handler:
    """The same route at another path, which the document leaves out."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    described = described_by(use_case)
    if described is None:
        raise TypeError("a use case without description")
    structs.replace(described, operation_id=f"{described.operation_id}_unlisted", include=False)(handle)
    return handle


def _is_gone(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()


def check_decoded(name: str, value: str, raw_path: str) -> None:
    """Refuse a parameter of a path whose percent-encoding is broken or no UTF-8: aiohttp leaves it as it is, and it
    would mean the same as another one that is encoded well."""
    if value.count("%") != raw_path.count("%25"):
        raise BadInput(name, "is not percent-encoded UTF-8")


def check_query(request: web.Request) -> None:
    """Refuse a query with bytes that are no UTF-8: they would come out as other characters."""
    raw = request.rel_url.raw_query_string
    if "%" not in raw and raw.isascii():
        return
    for part in raw.split("&"):
        try:
            unquote_to_bytes(part.encode("utf-8", "surrogateescape")).decode()
        except UnicodeDecodeError:
            raise BadInput(part.partition("=")[0], "is not percent-encoded UTF-8") from None


def headers_of(request: web.Request) -> RequestHeaders:
    """The few headers that use cases look at."""
    headers = request.headers
    traceparent = headers.get(_TRACEPARENT)
    return RequestHeaders(
        path=path_of(request),
        request_id=request[REQUEST_ID],
        content_type=headers.get(hdrs.CONTENT_TYPE, ""),
        content_encoding=headers.get(hdrs.CONTENT_ENCODING, ""),
        idempotency_key=_idempotency_key(request) if _IDEMPOTENCY_KEY in headers else "",
        trace=continued(traceparent) if traceparent is not None else "",
        if_match=_listed(request, hdrs.IF_MATCH) if hdrs.IF_MATCH in headers else "",
        if_none_match=_listed(request, hdrs.IF_NONE_MATCH) if hdrs.IF_NONE_MATCH in headers else "",
    )


def continued(traceparent: str) -> str:
    """Our own position in the caller's trace, "" when the header is no valid `traceparent`."""
    parent = trace.parse(traceparent)
    return "" if parent is None else trace.child(parent, _RANDOM.getrandbits(64)).header


def path_of(request: web.BaseRequest) -> str:
    """The raw path, without the query: that may hold a token."""
    path = request.raw_path
    return path if "?" not in path else path.partition("?")[0]


def response_of(reply: Reply) -> web.Response:
    """The reply as aiohttp sends it."""
    headers = reply.headers
    if headers is None:
        return JsonAnswer(reply.status, reply.body, reply.head)
    response = web.Response(body=reply.body, status=reply.status, headers=headers)
    response.headers.extend(header_lines(reply.head))
    if hdrs.CONTENT_TYPE not in headers and reply.body:
        response.headers[hdrs.CONTENT_TYPE] = JSON
    return response


async def _call(request: web.Request) -> Call:
    body = _arrived(request)
    if body is None:
        body = await _arriving(request)
    check_query(request)
    query = request.query
    return Call(
        params=request.match_info,
        query={name: query[name] for name in query},
        body=body,
        headers=headers_of(request),
    )


def _arrived(request: web.Request) -> bytes | None:
    """The body if it came along with its headers, as small ones do: no await and no copy. 413 when it is too large.

    The limit is the application's `client_max_size`; aiohttp's own `read` keeps it for a body that is still arriving.
    """
    stream = request.content
    if stream.is_eof():
        body = stream.read_nowait()
        if len(body) <= request.client_max_size:
            return body
        raise TooLarge(request.client_max_size)
    length = request.content_length
    if length is not None and length > request.client_max_size:
        raise TooLarge(request.client_max_size)
    return None


async def _arriving(request: web.Request) -> bytes:
    """The body as it arrives. 408 when that takes too long; the connection ends with the answer."""
    connection = cast(Connection, request.protocol)
    try:
        async with asyncio.timeout(connection.request_s):
            return await request.read()
    except TimeoutError:
        connection.close_after_answer()
        raise TooSlow(connection.request_s) from None
    except ConnectionError:  # nobody will read the answer, and a caller that left is no error of ours
        raise BadInput("$", "the body did not arrive as its headers announced it") from None


def _listed(request: web.Request, name: istr) -> str:
    """A header that is a list, all its lines as one; never "", which would mean that there is none."""
    return ", ".join(request.headers.getall(name)) or ","


def _idempotency_key(request: web.Request) -> str:
    keys = request.headers.getall(_IDEMPOTENCY_KEY)
    if len(keys) > 1 or not keys[0]:
        raise BadInput(IDEMPOTENCY_KEY, "must be one non-empty value")
    return keys[0]
