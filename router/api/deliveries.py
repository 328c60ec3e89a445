"""Deliveries: the routes that show what became of closed batches and let people try again or give up
(the HTTP contract, section 2).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from actors.core.ids import is_delivery_id, partition_of
from actors.core.policy import KEY_CHARACTERS_MAX, Reason
from actors.core.rendering import rfc3339
from actors.deliveries import Deliveries
from actors.forwarding import Forwarding
from actors.ports import (
    Attempt,
    DeliveryFilter,
    DeliveryRecord,
    ListCursor,
    Next,
    NothingOpen,
    Status,
    WrongState,
)
from router.edge.body import JsonBody
from router.edge.errors import Conflict, NotFound
from router.edge.handlers import endpoint
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.paging import Cursor, Page
from router.edge.query import Query
from router.edge.usecase import Call, Reply

TAG = "deliveries"
ID_PATH = {"id": "The delivery's id, `dlv_…`."}
Instant = Annotated[datetime, Meta(tz=True)]
_FOREVER_MS = 2**53
_INTERRUPTED = "interrupted: the node stopped before an outcome was recorded"


class DeliveryView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery. Times are RFC 3339; `attempts` in order, one still under way is not among them."""

    id: str
    key: str
    kind: Literal["webhook"]
    url: str
    status: Status
    size: int
    reason: Reason
    created_at: str
    attempts: list[Attempt]
    next_attempt_at: str | None = None


class DeliveryPage(Struct, frozen=True):
    """A page of deliveries: undelivered ones first, then dead, then delivered and discarded ones."""

    deliveries: list[DeliveryView]
    cursor: str | None


class DeliveryQuery(Page, frozen=True, kw_only=True):
    """The query of `GET /api/v1/deliveries`."""

    status: Status | None = None
    key: Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX)] | None = None


class RetryDead(Struct, frozen=True, kw_only=True):
    """Which dead deliveries to try again: of one key or all, created between two instants (RFC 3339)."""

    status: Literal["dead"]
    key: Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX)] | None = None
    since: Instant | None = None
    until: Instant | None = None


class Requeued(Struct, frozen=True):
    """How many deliveries were queued again."""

    requeued: int


class DeliveryChanged(Struct, frozen=True):
    """The delivery's status after the change."""

    id: str
    status: Status


_QUERY = Query(DeliveryQuery)
_CURSOR = Cursor(ListCursor)
_RETRY = JsonBody(RetryDead)
_encode = msgspec.json.Encoder().encode
_decode_attempt = msgspec.json.Decoder(Attempt).decode


class DeliveryRoutes:
    """The use cases of this file."""

    def __init__(self, deliveries: Deliveries, forwarding: Forwarding, idempotency: Idempotency) -> None:
        self._deliveries = deliveries
        self._forwarding = forwarding
        self._idempotency = idempotency

    @Operation(summary="List deliveries", tag=TAG, query=DeliveryQuery, responses={200: DeliveryPage}, errors=(503,))
    async def list_deliveries(self, call: Call) -> Reply:
        """Answer `GET /api/v1/deliveries`."""
        query = _QUERY.decode(call.query)
        wanted = DeliveryFilter(status=query.status, key=query.key)
        start = _CURSOR.decode(query.cursor) or ListCursor()
        rows, following = await self._deliveries.list_deliveries(wanted, start, query.limit)
        cursor = None if following is None else _CURSOR.encode(following)
        return Reply(200, _encode(DeliveryPage([_view(row) for row in rows], cursor)))

    @Operation(summary="Look at one delivery", tag=TAG, path=ID_PATH, responses={200: DeliveryView}, errors=(404, 503))
    async def get_delivery(self, call: Call) -> Reply:
        """Answer `GET /api/v1/deliveries/{id}`."""
        record = await self._deliveries.get(_id(call))
        if record is None:
            raise _unknown()
        return Reply(200, _encode(_view(record)))

    @Operation(
        summary="Try a dead or waiting delivery again now",
        tag=TAG,
        path=ID_PATH,
        responses={202: DeliveryChanged},
        errors=(404, 409, 503),
        idempotent=True,
    )
    async def retry_delivery(self, call: Call) -> Reply:
        """Answer `POST /api/v1/deliveries/{id}/retry`."""
        delivery_id = _id(call)

        async def retry(_scope: str | None) -> Reply:
            _check(await self._forwarding.retry(delivery_id, partition_of(delivery_id)), "tried again")
            return Reply(202, _encode(DeliveryChanged(delivery_id, "pending")))

        return await self._idempotency.once("POST", call.body, call.headers, retry)

    @Operation(
        summary="Try dead deliveries again",
        tag=TAG,
        request=RetryDead,
        responses={200: Requeued},
        errors=(503,),
        idempotent=True,
        example={"status": "dead", "since": "2026-01-31T00:00:00Z"},
    )
    async def retry_deliveries(self, call: Call) -> Reply:
        """Answer `POST /api/v1/deliveries/retry`."""
        wish = _RETRY.decode(call.body, call.headers)
        since_ms = 0 if wish.since is None else round(wish.since.timestamp() * 1000)
        until_ms = _FOREVER_MS if wish.until is None else round(wish.until.timestamp() * 1000)

        async def retry(_scope: str | None) -> Reply:
            return Reply(200, _encode(Requeued(await self._forwarding.retry_dead(wish.key, since_ms, until_ms))))

        return await self._idempotency.once("POST", call.body, call.headers, retry)

    @Operation(
        summary="Give a delivery up",
        tag=TAG,
        path=ID_PATH,
        responses={200: DeliveryChanged},
        errors=(404, 409, 503),
    )
    async def discard_delivery(self, call: Call) -> Reply:
        """Answer `DELETE /api/v1/deliveries/{id}`."""
        delivery_id = _id(call)
        _check(await self._forwarding.discard(delivery_id, partition_of(delivery_id)), "discarded")
        return Reply(200, _encode(DeliveryChanged(delivery_id, "discarded")))


def register(app: web.Application, routes: DeliveryRoutes) -> None:
    """Add the routes."""
    router = app.router
    router.add_get("/api/v1/deliveries", endpoint(routes.list_deliveries))
    router.add_post("/api/v1/deliveries/retry", endpoint(routes.retry_deliveries))
    router.add_get("/api/v1/deliveries/{id}", endpoint(routes.get_delivery))
    router.add_post("/api/v1/deliveries/{id}/retry", endpoint(routes.retry_delivery))
    router.add_delete("/api/v1/deliveries/{id}", endpoint(routes.discard_delivery))


def _id(call: Call) -> str:
    delivery_id = call.params["id"]
    if not is_delivery_id(delivery_id):
        raise _unknown()
    return delivery_id


def _unknown() -> NotFound:
    return NotFound("there is no such delivery, or its record has expired")


def _check(outcome: Next | WrongState | NothingOpen, change: str) -> None:
    match outcome:
        case WrongState(status):
            raise Conflict(f"a delivery that is {status} cannot be {change}")
        case NothingOpen():
            raise _unknown()


def _view(record: DeliveryRecord) -> DeliveryView:
    return DeliveryView(
        id=record.delivery_id,
        key=record.key,
        kind="webhook",
        url=record.url,
        status=record.status,
        size=record.size,
        reason=record.reason,
        created_at=rfc3339(record.created_ms),
        attempts=_attempts(record),
        next_attempt_at=None if record.next_attempt_ms is None else rfc3339(record.next_attempt_ms),
    )


def _attempts(record: DeliveryRecord) -> list[Attempt]:
    attempts = []
    for number, line in enumerate(record.attempts, 1):
        if isinstance(line, bytes):
            attempts.append(_decode_attempt(line))
        elif record.status != "delivering" or number < len(record.attempts):
            attempts.append(Attempt(at=rfc3339(line), latency_ms=0, error=_INTERRUPTED))
    return attempts
