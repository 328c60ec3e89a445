"""Cache in durations: the API under `/api/v1/cache` (the HTTP contract, section 5; the older distributed cache's).

Its words and shapes; times to live are Go durations, `none` for ever, instants RFC 3339. What it does is in
`router.api.cache`, its batches are in `router.api.cache_batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from actors.cache import CacheStats
from actors.cache_ports import NEVER, WriteOutcome
from actors.core.rendering import rfc3339
from actors.core.ttl import as_duration
from actors.near_cache import Entry
from actors.runtime.outcome import Tell
from router.api.cache import (
    DELETED,
    FLUSHED,
    KEY_PATH,
    STATIC,
    STORED,
    TAG,
    Entries,
    ListQuery,
    NameList,
    Reading,
    TtlField,
    cache_status,
    check_unconditional,
    missing,
    said_ms,
)
from router.edge.body import JsonBody
from router.edge.handlers import KEY, Soon, endpoint, hot, key_endpoint, unlisted
from router.edge.openapi import Operation
from router.edge.usecase import Call, Reply, RequestHeaders, ToReply, asked

ROOT = "/api/v1/cache"
EXPIRY_SET = "Expiración actualizada"
# `…/expire` and `…/ttl` belong to the key before them; `%2F` makes them part of the key.
ONE_KEY = rf"{ROOT}/{{key:(?s:(?!{STATIC}/?\Z|batch/get/?\Z|.+/(?:ttl|expire)\Z).+)}}"
INSTANT_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999, which is as far as RFC 3339 goes; other programs may set what they like."""


class PutRequest(Struct, frozen=True):
    """A value; `null` is one too. Without `ttl`: `CACHE_DEFAULT_TTL`."""

    value: Raw
    ttl: TtlField | None = None


class PutAnswer(Struct, frozen=True):
    """A value was stored, or stays for another time."""

    message: str
    key: str
    ttl: str


class Item(Struct, frozen=True):
    """A value, and how long it stays: the remaining time in whole seconds, rounded up, from a minute on."""

    value: Any
    expires_at: str | None
    remaining_ttl: str


class KeyedItem(Item, frozen=True):
    """A value, its key, and how long it stays: the remaining time in whole seconds, rounded up, from a minute on."""

    key: str


class ExpireRequest(Struct, frozen=True):
    """How long a value stays from now on."""

    ttl: TtlField


class RemainingTtl(Struct, frozen=True):
    """How long a value stays."""

    key: str
    ttl: str


class Deleted(Struct, frozen=True):
    """The key is not there any more, or never was."""

    message: str
    key: str


class Emptied(Struct, frozen=True):
    """Everything was deleted."""

    message: str
    deleted_count: int


class Statistics(Struct, frozen=True):
    """How many entries there are, and what this node's cache has done since its start."""

    size: int
    info: CacheStats


_PUT = JsonBody(PutRequest)
_EXPIRE = JsonBody(ExpireRequest)
_encode = msgspec.json.Encoder().encode
_READ = Operation(
    summary="Read a value",
    tag=TAG,
    operation_id="cache_v1_get",
    path=KEY_PATH,
    responses={200: KeyedItem, 304: None},
    errors=(400, 404, 412, 413, 503),
)


class DurationRoutes:
    """The use cases of this file."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._reading = Reading(entries, render)

    @_READ
    async def read(self, key: str, _body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `GET /api/v1/cache/{key}`."""
        return await self._reading.show(key, headers)

    def read_now(self, params: Mapping[str, str], headers: RequestHeaders) -> Callable[[], Reply | None]:
        """What does the same without waiting, if that is possible."""
        return self._reading.now(params[KEY], headers)

    @msgspec.structs.replace(
        _READ, summary="Say whether there is something under a key", operation_id="cache_v1_head",
        responses={200: None, 304: None},
    )  # fmt: skip
    async def probe(self, key: str, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `HEAD /api/v1/cache/{key}`: as GET, whose body is left out on its way."""
        return await self.read(key, body, headers)

    @Operation(
        summary="Store a value",
        tag=TAG,
        operation_id="cache_v1_put",
        path=KEY_PATH,
        request=PutRequest,
        responses={200: PutAnswer},
        errors=(409, 412, 503),
        example={"value": "mi_valor", "ttl": "1h"},
    )
    async def put(self, key: str, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `PUT /api/v1/cache/{key}`."""
        return await asked(partial(self._put, key, headers, body))

    def put_soon(self, params: Mapping[str, str], headers: RequestHeaders) -> Soon:
        """The same."""
        return partial(self._put, params[KEY], headers)

    @Operation(
        summary="Delete a key",
        tag=TAG,
        operation_id="cache_v1_delete",
        path=KEY_PATH,
        responses={200: Deleted},
        errors=(400, 409, 412, 503),
    )
    async def delete(self, key: str, _body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `DELETE /api/v1/cache/{key}`."""
        await self._entries.change("delete", key, headers)
        return Reply(200, _encode(Deleted(DELETED, key)))

    @Operation(
        summary="Say how long a value stays from now on",
        tag=TAG,
        operation_id="cache_v1_expire",
        path=KEY_PATH,
        request=ExpireRequest,
        responses={200: PutAnswer},
        errors=(404, 409, 412, 503),
        example={"ttl": "30m"},
    )
    async def expire(self, key: str, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `PUT /api/v1/cache/{key}/expire`."""
        ttl_ms = self._entries.ttl_ms(_EXPIRE.decode(body, headers).ttl)
        if not await self._entries.change("expire", key, headers, ttl_ms=ttl_ms):
            raise missing(key)
        return Reply(200, _encode(PutAnswer(EXPIRY_SET, key, as_duration(ttl_ms))))

    @Operation(
        summary="Say how long a value stays",
        tag=TAG,
        operation_id="cache_v1_ttl",
        path=KEY_PATH,
        responses={200: RemainingTtl},
        errors=(400, 404, 413, 503),
    )
    async def ttl(self, key: str, _body: bytes, _headers: RequestHeaders) -> Reply:
        """Answer `GET /api/v1/cache/{key}/ttl`."""
        entry, how = await self._entries.find(key)
        if entry.value is None:
            raise missing(key, how)
        left_ms = self._entries.cache.left_ms(entry)
        head = f"Cache-Status: {cache_status(how, left_ms)}\r\n"
        return Reply(200, _encode(RemainingTtl(key, as_duration(left_ms))), None, head)

    @Operation(
        summary="List keys",
        tag=TAG,
        operation_id="cache_v1_keys",
        query=ListQuery,
        responses={200: NameList},
        errors=(503,),
    )
    async def keys(self, call: Call) -> Reply:
        """Answer `GET /api/v1/cache/keys`."""
        return Reply(200, _encode(await self._entries.list_names(call.query)))

    @Operation(
        summary="Show the cache's numbers",
        tag=TAG,
        operation_id="cache_v1_stats",
        responses={200: Statistics},
        errors=(503,),
    )
    async def stats(self, _call: Call) -> Reply:
        """Answer `GET /api/v1/cache/stats`."""
        size = await self._entries.walks.count()
        return Reply(200, _encode(Statistics(size, self._entries.cache.stats())))

    @Operation(
        summary="Delete every key of the cache",
        tag=TAG,
        operation_id="cache_v1_clear",
        responses={200: Emptied},
        errors=(400, 503),
    )
    async def clear(self, call: Call) -> Reply:
        """Answer `DELETE /api/v1/cache/`."""
        check_unconditional(call.headers)
        return Reply(200, _encode(Emptied(FLUSHED, await self._entries.walks.flush())))

    def _put(self, key: str, headers: RequestHeaders, body: bytes, tell: Tell[WriteOutcome]) -> ToReply[WriteOutcome]:
        request = _PUT.decode(body, headers)
        ttl_ms = self._entries.ttl_ms(request.ttl)
        write = self._entries.write_of("set", key, headers, bytes(request.value), ttl_ms)
        return self._entries.store(write, Reply(200, _encode(PutAnswer(STORED, key, as_duration(ttl_ms)))), tell)


def register(app: web.Application, routes: DurationRoutes) -> None:
    """Add the routes; the root also without its slash. After those of the batches."""
    router = app.router
    clear = endpoint(routes.clear)
    router.add_delete(f"{ROOT}/", clear)
    router.add_delete(ROOT, unlisted(routes.clear, clear))
    router.add_get(f"{ROOT}/keys", endpoint(routes.keys))
    router.add_get(f"{ROOT}/stats", endpoint(routes.stats))
    # A key may hold line ends too, which a plain dot would not match.
    router.add_put(f"{ROOT}/{{key:(?s:.+)}}/expire", key_endpoint(routes.expire))
    router.add_get(f"{ROOT}/{{key:(?s:.+)}}/ttl", key_endpoint(routes.ttl))
    router.add_get(ONE_KEY, hot(key_endpoint(routes.read), routes.read_now), allow_head=False)
    router.add_head(ONE_KEY, key_endpoint(routes.probe))
    router.add_put(ONE_KEY, hot(key_endpoint(routes.put), soon=routes.put_soon))
    router.add_delete(ONE_KEY, key_endpoint(routes.delete))


def render(key: str, value: bytes, entry: Entry, left_ms: int) -> bytes:
    """The answer to a read."""
    return b'{"key":%b,%b' % (_encode(key), _members(value, entry, left_ms))


def item(value: bytes, entry: Entry, left_ms: int) -> bytes:
    """A value as JSON, with how long it stays."""
    return b"{" + _members(value, entry, left_ms)


def _members(value: bytes, entry: Entry, left_ms: int) -> bytes:
    return b'"value":%b,"expires_at":%b,"remaining_ttl":"%b"}' % (
        value,
        entry.expires_at or _expires_at(entry),
        as_duration(said_ms(left_ms)).encode(),
    )


def _expires_at(entry: Entry) -> bytes:
    instant = "null" if entry.expires_ms == NEVER else f'"{rfc3339(min(entry.expires_ms, INSTANT_MS_MAX))}"'
    entry.expires_at = instant.encode()
    return entry.expires_at
