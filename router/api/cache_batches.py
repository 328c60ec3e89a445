"""Cache batches: the routes of `/api/v1/cache/batch` (the HTTP contract, section 5): many keys in one request.

Every item is looked at before any is written, and a refusal names the one at fault: `$.items.KEY.ttl`, `$.keys[3]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from actors.cache import ValueTooLong
from actors.cache_ports import CacheWrite
from actors.core.cache_names import step
from router.api.cache import ALL_DELETED, ITEMS_MAX, TAG, Entries, Keys, cache_status, check_unconditional, too_long
from router.api.cache_durations import ROOT, Item, PutRequest, item
from router.edge.body import JsonBody, rejection
from router.edge.errors import BadInput
from router.edge.handlers import body_endpoint
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.usecase import Reply, RequestHeaders

ALL_STORED = "Valores guardados en cache"
EXAMPLE: Mapping[str, Any] = {
    "items": {
        "clave1": {"value": "valor1", "ttl": "30m"},
        "clave2": {"value": "valor2", "ttl": "1h"},
        "clave3": {"value": "valor3"},
    }
}


class BatchRequest(Struct, frozen=True):
    """Values by their keys."""

    items: Annotated[dict[str, PutRequest], Meta(max_length=ITEMS_MAX)]


class KeysRequest(Struct, frozen=True):
    """Some keys; one that comes again counts once."""

    keys: Keys


class BatchAnswer(Struct, frozen=True):
    """How many keys were changed."""

    message: str
    count: int


class Items(Struct, frozen=True):
    """Those keys that exist."""

    items: dict[str, Item]
    count: int


class _RawItems(Struct, frozen=True):
    """The items one by one, to find the one that is wrong."""

    items: dict[str, Raw]


_BATCH = JsonBody(BatchRequest)
_KEYS = JsonBody(KeysRequest)
_decode_raw_items = msgspec.json.Decoder(_RawItems).decode
_decode_item = msgspec.json.Decoder(PutRequest).decode
_encode = msgspec.json.Encoder().encode


class BatchRoutes:
    """The use cases of this file."""

    def __init__(self, entries: Entries, idempotency: Idempotency) -> None:
        self._entries = entries
        self._idempotency = idempotency

    @Operation(
        summary="Store many values, all or none",
        tag=TAG,
        operation_id="cache_v1_batch_put",
        request=BatchRequest,
        responses={200: BatchAnswer},
        errors=(409, 503),
        idempotent=True,
        example=EXAMPLE,
    )
    async def put(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/v1/cache/batch`."""
        check_unconditional(headers)
        try:
            items = _BATCH.decode(body, headers).items
        except BadInput as error:
            raise _named(error, body) from None
        keys = list(items)
        self._entries.check_all(keys, lambda at: f"$.items{step(keys[at])}")
        writes = [
            CacheWrite(key=key, op="set", value=bytes(request.value), ttl_ms=self._ttl_ms(key, request))
            for key, request in items.items()
        ]
        if headers.idempotency_key:
            return await self._idempotency.once("POST", body, headers, lambda scope: self._put(writes, scope))
        return await self._put(writes, None)

    @Operation(
        summary="Read many values",
        tag=TAG,
        operation_id="cache_v1_batch_get",
        request=KeysRequest,
        responses={200: Items},
        errors=(503,),
        example={"keys": ["clave1", "clave2", "clave3"]},
    )
    async def get(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/v1/cache/batch/get`."""
        entries = self._entries
        keys = self._keys(body, headers)
        try:
            found, how = await entries.cache.read_many(keys)
        except ValueTooLong as error:
            raise too_long(error) from None
        items = [
            b"%b:%b" % (_encode(key), item(entry.value, entry, left_ms))
            for (key, entry), left_ms in zip(found.items(), entries.cache.all_left_ms(found.values()), strict=True)
            if entry.value is not None
        ]
        head = f"Cache-Status: {cache_status(how, -1)}\r\n"
        return Reply(200, b'{"items":{%b},"count":%d}' % (b",".join(items), len(items)), None, head)

    @Operation(
        summary="Delete many keys, all or none",
        tag=TAG,
        operation_id="cache_v1_batch_delete",
        request=KeysRequest,
        responses={200: BatchAnswer},
        errors=(409, 503),
        example={"keys": ["clave1", "clave2"]},
    )
    async def delete(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `DELETE /api/v1/cache/batch`; keys that were not there are not counted."""
        check_unconditional(headers)
        keys = self._keys(body, headers)
        deleted = await self._entries.change_all([CacheWrite(key=key, op="delete") for key in keys])
        return Reply(200, _encode(BatchAnswer(ALL_DELETED, deleted)))

    async def _put(self, writes: list[CacheWrite], scope: str | None) -> Reply:
        if scope is not None:
            writes = [msgspec.structs.replace(write, once=scope) for write in writes]
        return Reply(200, _encode(BatchAnswer(ALL_STORED, await self._entries.change_all(writes))))

    def _ttl_ms(self, key: str, request: PutRequest) -> int:
        try:
            return self._entries.ttl_ms(request.ttl)
        except BadInput as error:
            raise _below(error, f"$.items{step(key)}") from None

    def _keys(self, body: bytes, headers: RequestHeaders) -> list[str]:
        keys = _KEYS.decode(body, headers).keys
        self._entries.check_all(keys, lambda at: f"$.keys[{at}]")
        return list(dict.fromkeys(keys))


def register(app: web.Application, routes: BatchRoutes) -> None:
    """Add the routes."""
    router = app.router
    router.add_post(f"{ROOT}/batch", body_endpoint(routes.put))
    router.add_post(f"{ROOT}/batch/get", body_endpoint(routes.get))
    router.add_delete(f"{ROOT}/batch", body_endpoint(routes.delete))


def _named(error: BadInput, body: bytes) -> BadInput:
    """The complaint with the key of the item at fault, which the decoder does not tell."""
    if error.pointer is None or not error.pointer.startswith("$.items["):
        return error
    for key, raw in _decode_raw_items(body).items.items():
        try:
            _decode_item(raw)
        except msgspec.ValidationError as wrong:
            return rejection(wrong, PutRequest, top=f"$.items{step(key)}")
    return error


def _below(error: BadInput, top: str) -> BadInput:
    """A complaint about an item as one about the body that it is in."""
    pointer = error.pointer or ""
    return BadInput(top + pointer.removeprefix("$"), error.detail.removeprefix(f"{pointer}: "))
