"""Cache in seconds: the API under `/api/cache` (the HTTP contract, section 5; the older Redis service's).

Its words and shapes; times to live are numbers of seconds, -1 for ever. What it does is in `router.api.cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from actors.cache import ValueTooLong
from actors.cache_ports import WriteOutcome
from actors.core.ttl import as_seconds, as_whole_seconds
from actors.near_cache import Entry
from actors.runtime.outcome import Tell
from router.api.cache import (
    ALL_DELETED,
    DELETED,
    FLUSHED,
    KEY_PATH,
    STATIC,
    STORED,
    TAG,
    Entries,
    Key,
    ListQuery,
    NameList,
    Reading,
    TtlField,
    cache_status,
    check_pattern,
    check_unconditional,
    missing,
)
from router.edge.body import JsonBody
from router.edge.errors import BadInput, Problem
from router.edge.handlers import KEY, Soon, body_endpoint, check_decoded, endpoint, hot, key_endpoint, unlisted
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.usecase import Call, Reply, RequestHeaders, ToReply, asked

ROOT = "/api/cache"
FIELDS_REQUIRED = 'Se requieren los campos "key" y "value"'
CONFIRMATION_REQUIRED = "Se requiere confirmación explícita"
# Of the routes with a segment more, whatever follows that segment belongs to them.
ONE_KEY = rf"{ROOT}/{{key:(?s:(?!{STATIC}/?\Z|exists/|pattern/).+)}}"
EXAMPLE = {"key": "inventarios:producto:123", "value": [{"id": 1, "cantidad": 50}], "ttl": 3600}


class StoreRequest(Struct, frozen=True):
    """A value and the key to keep it under; `null` is a value too. Without `ttl`: `CACHE_DEFAULT_TTL`."""

    key: Key
    value: Raw
    ttl: TtlField | None = None


class StoredValue(Struct, frozen=True):
    """A value was stored."""

    message: str
    key: str
    ttl: int | float


class CachedValue(Struct, frozen=True):
    """A value, and the seconds it has left, rounded up."""

    key: str
    value: Any
    ttl: int


class DeletedKey(Struct, frozen=True):
    """A key was deleted."""

    message: str
    key: str


class DeletedKeys(Struct, frozen=True):
    """The keys that match were deleted."""

    message: str
    pattern: str
    deleted_count: int


class Existence(Struct, frozen=True):
    """Whether there is something under a key."""

    key: str
    exists: bool


class FlushRequest(Struct, frozen=True):
    """`confirm` must be true."""

    confirm: bool = False


class FlushedCache(Struct, frozen=True):
    """Everything was deleted."""

    message: str
    deleted_count: int


_STORE = JsonBody(StoreRequest)
_FLUSH = JsonBody(FlushRequest)
_encode = msgspec.json.Encoder().encode


class SecondsRoutes:
    """The use cases of this file."""

    def __init__(self, entries: Entries, idempotency: Idempotency) -> None:
        self._entries = entries
        self._reading = Reading(entries, render)
        self._idempotency = idempotency

    @Operation(
        summary="Read a value",
        tag=TAG,
        operation_id="cache_get",
        path=KEY_PATH,
        responses={200: CachedValue, 304: None},
        errors=(400, 404, 412, 413, 503),
    )
    async def read(self, key: str, _body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `GET /api/cache/{key}`."""
        return await self._reading.show(key, headers)

    def read_now(self, params: Mapping[str, str], headers: RequestHeaders) -> Callable[[], Reply | None]:
        """What does the same without waiting, if that is possible."""
        return self._reading.now(params[KEY], headers)

    @Operation(
        summary="Store a value",
        tag=TAG,
        operation_id="cache_store",
        request=StoreRequest,
        responses={201: StoredValue},
        errors=(409, 412, 503),
        idempotent=True,
        example=EXAMPLE,
    )
    async def store(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/cache/`."""
        request, ttl_ms = self._read(body, headers)
        return await self._idempotency.once(
            "POST", body, headers, lambda scope: asked(partial(self._store, request, ttl_ms, headers, scope))
        )

    def store_soon(self, _params: Mapping[str, str], headers: RequestHeaders) -> Soon | None:
        """The same, unless there is an idempotency key."""
        if headers.idempotency_key:
            return None

        def store(body: bytes, tell: Tell[WriteOutcome]) -> ToReply[WriteOutcome]:
            request, ttl_ms = self._read(body, headers)
            return self._store(request, ttl_ms, headers, None, tell)

        return store

    @Operation(
        summary="Delete a key",
        tag=TAG,
        operation_id="cache_delete",
        path=KEY_PATH,
        responses={200: DeletedKey},
        errors=(400, 404, 409, 412, 503),
    )
    async def delete(self, key: str, _body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `DELETE /api/cache/{key}`."""
        if not await self._entries.change("delete", key, headers):
            raise missing(key)
        return Reply(200, _encode(DeletedKey(DELETED, key)))

    @Operation(
        summary="Delete every key that matches",
        tag=TAG,
        operation_id="cache_delete_pattern",
        path={"pattern": "A Redis glob, percent-encoded."},
        responses={200: DeletedKeys},
        errors=(400, 503),
    )
    async def delete_pattern(self, call: Call) -> Reply:
        """Answer `DELETE /api/cache/pattern/{pattern}`. Deletes slice by slice: what it has done stays done."""
        pattern = call.params["pattern"]
        check_decoded("pattern", pattern, call.headers.path)
        check_pattern(pattern)
        check_unconditional(call.headers)
        deleted = await self._entries.walks.delete_matching(pattern)
        return Reply(200, _encode(DeletedKeys(ALL_DELETED, pattern, deleted)))

    @Operation(
        summary="Say whether there is something under a key",
        tag=TAG,
        operation_id="cache_exists",
        path=KEY_PATH,
        responses={200: Existence},
        errors=(400, 503),
    )
    async def exists(self, key: str, _body: bytes, _headers: RequestHeaders) -> Reply:
        """Answer `GET /api/cache/exists/{key}`."""
        self._entries.check(key)
        try:
            entry, how = await self._entries.cache.read(key)
        except ValueTooLong:
            return Reply(200, _encode(Existence(key, exists=True)))
        head = f"Cache-Status: {cache_status(how, self._entries.cache.left_ms(entry))}\r\n"
        return Reply(200, _encode(Existence(key, entry.value is not None)), None, head)

    @Operation(
        summary="List keys",
        tag=TAG,
        operation_id="cache_keys",
        query=ListQuery,
        responses={200: NameList},
        errors=(503,),
    )
    async def keys(self, call: Call) -> Reply:
        """Answer `GET /api/cache/keys`."""
        return Reply(200, _encode(await self._entries.list_names(call.query)))

    @Operation(
        summary="Delete every key",
        tag=TAG,
        operation_id="cache_flush",
        request=FlushRequest,
        responses={200: FlushedCache},
        errors=(503,),
        example={"confirm": True},
    )
    async def flush(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/cache/flush`."""
        check_unconditional(headers)
        if not body:
            raise _unconfirmed()
        try:
            request = _FLUSH.decode(body, headers)
        except BadInput as error:
            raise _unconfirmed() if error.pointer == "$.confirm" else error from None
        if not request.confirm:
            raise _unconfirmed()
        return Reply(200, _encode(FlushedCache(FLUSHED, await self._entries.walks.flush())))

    def _read(self, body: bytes, headers: RequestHeaders) -> tuple[StoreRequest, int]:
        """What to store, and for how long (ms)."""
        try:
            request = _STORE.decode(body, headers)
        except BadInput as error:
            raise _named(error) from None
        ttl_ms = self._entries.ttl_ms(request.ttl)
        self._entries.check(request.key, "$.key")
        return request, ttl_ms

    def _store(
        self, request: StoreRequest, ttl_ms: int, headers: RequestHeaders, scope: str | None, tell: Tell[WriteOutcome]
    ) -> ToReply[WriteOutcome]:
        write = self._entries.write_of("set", request.key, headers, bytes(request.value), ttl_ms, scope or "")
        reply = Reply(201, _encode(StoredValue(STORED, request.key, as_seconds(ttl_ms))))
        return self._entries.store(write, reply, tell)


def register(app: web.Application, routes: SecondsRoutes) -> None:
    """Add the routes; the root also without its slash."""
    router = app.router
    store = hot(body_endpoint(routes.store), soon=routes.store_soon)
    router.add_post(f"{ROOT}/", store)
    router.add_post(ROOT, unlisted(routes.store, store))
    router.add_get(f"{ROOT}/keys", endpoint(routes.keys))
    router.add_post(f"{ROOT}/flush", body_endpoint(routes.flush))
    # A key may hold line ends too, which a plain dot would not match.
    router.add_get(f"{ROOT}/exists/{{key:(?s:.+)}}", key_endpoint(routes.exists))
    router.add_delete(f"{ROOT}/pattern/{{pattern:(?s:.+)}}", endpoint(routes.delete_pattern))
    router.add_get(ONE_KEY, hot(key_endpoint(routes.read), routes.read_now))
    router.add_delete(ONE_KEY, key_endpoint(routes.delete))


def render(key: str, value: bytes, _entry: Entry, left_ms: int) -> bytes:
    """The answer to a read."""
    return b'{"key":%b,"value":%b,"ttl":%d}' % (_encode(key), value, as_whole_seconds(left_ms))


def _named(error: BadInput) -> Problem:
    """A field that is not there has a sentence of its own, which older clients look for."""
    if error.pointer in ("$.key", "$.value") and error.detail.endswith(": is required"):
        return Problem(400, FIELDS_REQUIRED, extra={"pointer": error.pointer, "message": FIELDS_REQUIRED})
    return error


def _unconfirmed() -> Problem:
    extra = {"pointer": "$.confirm", "message": CONFIRMATION_REQUIRED}
    return Problem(400, CONFIRMATION_REQUIRED, extra=extra)
