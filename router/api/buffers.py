"""Buffers: the routes that take messages and look after open batches (the HTTP contract, section 2).

From bytes to a command for the buffer actors and from their answer to bytes. Decides nothing about batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from actors.buffers import Buffers
from actors.core import intake
from actors.core.addresses import Guard
from actors.core.ids import IdSource, derived_delivery_id
from actors.core.partition import dedupe_id, locate
from actors.core.policy import KEY_CHARACTERS_MAX, Message
from actors.core.rendering import rfc3339
from actors.core.terms import KnownTerms, Taken
from actors.core.webhook_target import BadTarget, check_headers, check_secret, lane
from actors.forwarding import Forwarding
from actors.ownership import Ownership
from actors.ports import Appended, Entry, ListCursor, NothingOpen, OpenBatch
from actors.runtime.outcome import Tell
from router.edge.body import JsonBody, announces_json, check_type
from router.edge.errors import BadInput, NotFound
from router.edge.handlers import Soon, body_endpoint, endpoint, hot
from router.edge.idempotency import Idempotency, derived_id
from router.edge.openapi import Operation
from router.edge.paging import Cursor, Page
from router.edge.query import Query
from router.edge.usecase import Call, Reply, RequestHeaders, ToReply, asked

TAG = "buffers"
KEY_PATH = {"key": "The buffer's key, percent-encoded."}


class BufferInfo(Struct, frozen=True, gc=False):
    """The batch after this message; `time_remaining` in seconds."""

    current_size: int
    max_size: int
    time_remaining: float


class Accepted(Struct, frozen=True, gc=False):
    """The message is stored. `duplicate`: it had been before. `flushed`: it filled the batch, which is on its way."""

    status: str
    message_id: str
    buffer_info: BufferInfo
    duplicate: bool
    flushed: bool


class BufferRow(Struct, frozen=True, kw_only=True):
    """One open batch; `owner` is the NODE_ID of the node that closes and delivers it, empty when nobody does now."""

    key: str
    size: int
    bytes: int
    time_remaining: float
    owner: str


class BufferPage(Struct, frozen=True):
    """A page of open batches."""

    buffers: list[BufferRow]
    cursor: str | None


class BufferedMessage(Struct, frozen=True):
    """A message that waits."""

    message_id: str
    received_at: str
    payload: Raw


class BufferPeek(Struct, frozen=True, kw_only=True):
    """One open batch with its messages, in order of acceptance."""

    key: str
    size: int
    bytes: int
    time_remaining: float
    owner: str
    messages: list[BufferedMessage]


class Flushed(Struct, frozen=True):
    """The batch was closed and goes out as this delivery."""

    delivery_id: str
    size: int


class Dropped(Struct, frozen=True):
    """How many messages were dropped."""

    dropped: Annotated[int, Meta(ge=1)]


EXAMPLE = {
    "webhook": {
        "url": "https://api.example.com/webhook",
        "method": "POST",
        "headers": {"Authorization": "Bearer token123"},
    },
    "buffer": {
        "key": "user123@domain.net",
        "wait_time": 20,
        "aggregate_field": "json.input.data.query",
        "max_size": 5,
    },
    "payload": {"json": {"input": {"data": {"query": "mensaje de ejemplo"}}}},
}

_MESSAGE = JsonBody(Message)
_PAGE = Query(Page)
_CURSOR = Cursor(ListCursor)
_encode = msgspec.json.Encoder().encode


class BufferRoutes:
    """The use cases of this file."""

    def __init__(
        self,
        buffers: Buffers,
        forwarding: Forwarding,
        ownership: Ownership,
        idempotency: Idempotency,
        ids: IdSource,
        guard: Guard,
    ) -> None:
        self._buffers = buffers
        self._forwarding = forwarding
        self._ownership = ownership
        self._idempotency = idempotency
        self._ids = ids
        self._terms = KnownTerms()
        self._host_of = lru_cache(maxsize=4096)(lambda url: lane(url, guard))

    @Operation(
        summary="Take a message into the open batch of its key",
        tag=TAG,
        request=Message,
        responses={200: Accepted},
        errors=(503,),
        idempotent=True,
        example=EXAMPLE,
    )
    async def accept(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/v1/message`, once the message is stored."""
        taken = self._taken(body, headers)
        return await self._idempotency.once(
            "POST", body, headers, lambda scope: asked(partial(self._store, taken, headers.trace, scope))
        )

    def accept_soon(self, _params: Mapping[str, str], headers: RequestHeaders) -> Soon | None:
        """The same, unless there is an idempotency key."""
        if headers.idempotency_key or not announces_json(headers):
            return None
        trace = headers.trace

        def accept(body: bytes, tell: Tell[Appended]) -> ToReply[Appended]:
            return self._store(self._terms.recall(body) or self._learned(body, headers), trace, None, tell)

        return accept

    @Operation(summary="List open batches", tag=TAG, query=Page, responses={200: BufferPage}, errors=(503,))
    async def list_buffers(self, call: Call) -> Reply:
        """Answer `GET /api/v1/buffers`."""
        page = _PAGE.decode(call.query)
        rows, following = await self._buffers.list_open(_CURSOR.decode(page.cursor) or ListCursor(), page.limit)
        cursor = None if following is None else _CURSOR.encode(following)
        return Reply(200, _encode(BufferPage([self._row(batch) for batch in rows], cursor)))

    @Operation(summary="Look at one open batch", tag=TAG, path=KEY_PATH, responses={200: BufferPeek}, errors=(404, 503))
    async def peek_buffer(self, call: Call) -> Reply:
        """Answer `GET /api/v1/buffers/{key}`."""
        batch = await self._buffers.peek(_key(call))
        if batch is None:
            raise NotFound("there is no open batch of this key")
        row = self._row(batch)
        peek = BufferPeek(
            key=row.key,
            size=row.size,
            bytes=row.bytes,
            time_remaining=row.time_remaining,
            owner=row.owner,
            messages=[
                BufferedMessage(message_id, rfc3339(received_ms), Raw(payload))
                for message_id, received_ms, payload in batch.messages
            ],
        )
        return Reply(200, _encode(peek))

    @Operation(
        summary="Close one open batch now",
        tag=TAG,
        path=KEY_PATH,
        responses={200: Flushed},
        errors=(404, 503),
        idempotent=True,
    )
    async def flush_buffer(self, call: Call) -> Reply:
        """Answer `POST /api/v1/buffers/{key}/flush`."""
        key = _key(call)
        return await self._idempotency.once("POST", call.body, call.headers, lambda scope: self._flush(key, scope))

    @Operation(summary="Drop one open batch", tag=TAG, path=KEY_PATH, responses={200: Dropped}, errors=(404, 503))
    async def drop_buffer(self, call: Call) -> Reply:
        """Answer `DELETE /api/v1/buffers/{key}`."""
        match await self._forwarding.drop(_key(call)):
            case NothingOpen():
                raise NotFound("there is no open batch of this key")
            case dropped:
                return Reply(200, _encode(Dropped(dropped)))

    def _taken(self, body: bytes, headers: RequestHeaders) -> Taken:
        check_type(headers)
        return self._terms.recall(body) or self._learned(body, headers)

    def _learned(self, body: bytes, headers: RequestHeaders) -> Taken:
        accepted = intake.accept(_MESSAGE.decode(body, headers))
        return self._terms.learn(body, accepted, self._target(accepted.message))

    def _store(self, taken: Taken, trace: str, scope: str | None, tell: Tell[Appended]) -> ToReply[Appended]:
        terms, message_id = taken.terms, taken.message_id
        dedupe: bytes | str
        if message_id is not None:
            dedupe = dedupe_id(terms.kid, message_id)
        else:
            # Ours are unique by themselves, or made of the idempotency key.
            dedupe = message_id = self._ids.message_id() if scope is None else derived_id("msg", scope)
        entry = Entry(
            terms=terms,
            message_id=message_id,
            dedupe=dedupe,
            payload=taken.payload,
            trace=trace,
            batch_id=self._ids.delivery_id(terms.partition),
        )
        self._forwarding.submit(entry, tell)
        return partial(_stored, message_id, terms.max_size)

    async def _flush(self, key: str, scope: str | None) -> Reply:
        batch_id = None
        if scope is not None:
            batch_id = derived_delivery_id(locate(key)[1], scope)
        match await self._forwarding.flush(key, batch_id):
            case NothingOpen():
                raise NotFound("there is no open batch of this key")
            case closed:
                return Reply(200, _encode(Flushed(closed.delivery_id, closed.size)))

    def _target(self, message: Message) -> str:
        webhook = message.webhook
        try:
            if webhook.headers:
                check_headers(webhook.headers)
            if webhook.secret is not None:
                check_secret(webhook.secret)
            return self._host_of(webhook.url)
        except BadTarget as error:
            raise BadInput(error.pointer, error.detail) from None

    def _row(self, batch: OpenBatch) -> BufferRow:
        return BufferRow(
            key=batch.key,
            size=batch.size,
            bytes=batch.size_bytes,
            time_remaining=batch.remaining_ms / 1000,
            owner=self._ownership.owner_of(batch.partition),
        )


def register(app: web.Application, routes: BufferRoutes) -> None:
    """Add the routes. A key that ends in `/flush` can be flushed as `…/flush/flush`, and looked at as it is."""
    router = app.router
    router.add_post("/api/v1/message", hot(body_endpoint(routes.accept), soon=routes.accept_soon))
    router.add_get("/api/v1/buffers", endpoint(routes.list_buffers))
    # A key may hold line ends too, which a plain dot would not match.
    router.add_post("/api/v1/buffers/{key:(?s:.+)}/flush", endpoint(routes.flush_buffer))
    router.add_get("/api/v1/buffers/{key:(?s:.+)}", endpoint(routes.peek_buffer))
    router.add_delete("/api/v1/buffers/{key:(?s:.+)}", endpoint(routes.drop_buffer))


def _stored(message_id: str, max_size: int, appended: Appended) -> Reply:
    flushed = appended.closed is not None
    info = BufferInfo(appended.size, max_size, appended.remaining_ms / 1000)
    return Reply(200, _encode(Accepted("success", message_id, info, appended.duplicate, flushed)))


def _key(call: Call) -> str:
    key = call.params["key"]
    if len(key) > KEY_CHARACTERS_MAX:
        raise BadInput("key", f"has at most {KEY_CHARACTERS_MAX} characters")
    return key
