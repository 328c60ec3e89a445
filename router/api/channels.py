"""Channels: publish, who listens to what, and what was said (the HTTP contract, section 6; the older Redis service's).

From JSON to the channel actor, and from its answers to bytes. Messages are spliced into answers as they were published.
Listening is in `router.realtime`. Invariant: whatever is refused was published to nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from actors.channel_ports import Position, Publication, Sent
from actors.channels import Channels
from actors.core.cache_names import PATTERN_BYTES_MAX, pattern_fault
from actors.core.channel_names import NAME_BYTES_MAX, is_event_channel, name_fault
from actors.runtime.outcome import Tell
from router.edge.body import JsonBody
from router.edge.errors import BadInput, Problem
from router.edge.handlers import Soon, body_endpoint, check_decoded, endpoint, hot
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.paging import LIMIT_DEFAULT, Cursor, Limit, Token
from router.edge.query import Query
from router.edge.usecase import Call, Reply, RequestHeaders, ToReply, asked
from router.realtime.frames import one_line

TAG = "channels"
ABOUT = "Messages to everybody who listens now, with a history for those who come back."
ROOT = "/api/queue"
PUBLISHED = "Mensaje publicado"
FIELDS_REQUIRED = 'Se requieren los campos "channel" y "message"'
EXAMPLE = {"channel": "inventarios_updates", "message": {"event": "update", "producto_id": 123}}
CHANNEL_PATH = {"channel": "The channel, percent-encoded."}
NAMES_MAX = 10_000
"""Channels of a list without `limit`: the older clients get all they got."""
LOOK_MAX = 500
"""Channels that are counted in one go."""
OFFSET_MAX = 2**53

Name = Annotated[str, Meta(description=f"1 to {NAME_BYTES_MAX} bytes in UTF-8.")]


class PublishRequest(Struct, frozen=True):
    """A message, any JSON, and its channel; without one: `QUEUE_CHANNEL`."""

    message: Raw
    channel: Name | None = None


class PublishedMessage(Struct, frozen=True):
    """The message stands at `offset` of `epoch`; so many listened."""

    message: str
    channel: str
    subscribers: int
    id: str
    offset: int
    epoch: str


class ListQuery(Struct, frozen=True, kw_only=True):
    """The query of the list of channels. Without `limit`: up to 10,000."""

    pattern: Annotated[str, Meta(description=f"A Redis glob of at most {PATTERN_BYTES_MAX} bytes.")] = "*"
    limit: Limit | None = None
    cursor: Token | None = None


class ChannelCount(Struct, frozen=True):
    """A channel and how many listen to it: people on all nodes, and other Redis clients."""

    channel: str
    subscribers: int


class ChannelList(Struct, frozen=True, kw_only=True):
    """The channels that match and that somebody listens to; `cursor` goes on there, null at the end."""

    pattern: str
    count: int
    channels: list[ChannelCount]
    cursor: str | None


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """What comes after an offset, oldest first."""

    limit: Limit = LIMIT_DEFAULT
    since: Annotated[int, Meta(ge=0, le=OFFSET_MAX, description="Only what comes after this offset.")] = 0


class Message(Struct, frozen=True):
    """A message that was published."""

    id: str
    offset: int
    data: Any


class History(Struct, frozen=True, kw_only=True):
    """Where a channel stands (`offset` is that of its newest message), and messages that it still has. `epoch` is empty
    for a channel that was never used."""

    channel: str
    epoch: str
    offset: int
    messages: list[Message]


class Place(Struct, frozen=True, array_like=True):
    """Where a list goes on: after this name."""

    name: str


_PUBLISH = JsonBody(PublishRequest)
_LIST = Query(ListQuery)
_HISTORY = Query(HistoryQuery)
_CURSOR = Cursor(Place)
_encode = msgspec.json.Encoder().encode


class ChannelRoutes:
    """The use cases of this file."""

    def __init__(self, channels: Channels, idempotency: Idempotency, default_channel: str) -> None:
        self._channels = channels
        self._idempotency = idempotency
        self._default_channel = default_channel

    @Operation(
        summary="Publish a message",
        tag=TAG,
        operation_id="publish",
        request=PublishRequest,
        responses={200: PublishedMessage},
        errors=(403, 503),
        idempotent=True,
        example=EXAMPLE,
    )
    async def publish(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /api/queue/publish`."""
        channel, message = self._read(body, headers)
        return await self._idempotency.once(
            "POST", body, headers, lambda scope: asked(partial(self._publish, channel, message, scope))
        )

    def publish_soon(self, _params: Mapping[str, str], headers: RequestHeaders) -> Soon | None:
        """The same, unless there is an idempotency key."""
        if headers.idempotency_key:
            return None

        def publish(body: bytes, tell: Tell[Sent]) -> ToReply[Sent]:
            channel, message = self._read(body, headers)
            return self._publish(channel, message, None, tell)

        return publish

    @Operation(
        summary="List the channels that somebody listens to",
        tag=TAG,
        operation_id="list_channels",
        query=ListQuery,
        responses={200: ChannelList},
        errors=(503,),
    )
    async def list_channels(self, call: Call) -> Reply:
        """Answer `GET /api/queue/channels`."""
        query = _LIST.decode(call.query)
        if fault := pattern_fault(query.pattern):
            raise BadInput("pattern", fault)
        place = _CURSOR.decode(query.cursor)
        names = await self._channels.active(query.pattern)
        at = 0 if place is None else bisect_right(names, place.name)
        wanted = NAMES_MAX if query.limit is None else query.limit
        found: list[ChannelCount] = []
        while at < len(names) and len(found) < wanted:
            looked = names[at : at + min(LOOK_MAX, wanted - len(found))]
            at += len(looked)
            counts = await self._channels.subscribers(looked)
            found += [ChannelCount(name, count) for name, count in zip(looked, counts, strict=True) if count]
        answer = ChannelList(
            pattern=query.pattern,
            count=len(found),
            channels=found,
            cursor=_CURSOR.encode(Place(names[at - 1])) if at < len(names) else None,
        )
        return Reply(200, _encode(answer))

    @Operation(
        summary="Say how many listen to a channel",
        tag=TAG,
        operation_id="channel_subscribers",
        path=CHANNEL_PATH,
        responses={200: ChannelCount},
        errors=(400, 503),
    )
    async def subscribers(self, call: Call) -> Reply:
        """Answer `GET /api/queue/subscribers/{channel}`."""
        channel = _channel_of(call)
        (count,) = await self._channels.subscribers([channel])
        return Reply(200, _encode(ChannelCount(channel, count)))

    @Operation(
        summary="Read what was published on a channel",
        tag=TAG,
        operation_id="channel_history",
        path=CHANNEL_PATH,
        query=HistoryQuery,
        responses={200: History},
        errors=(503,),
    )
    async def history(self, call: Call) -> Reply:
        """Answer `GET /api/queue/history/{channel}`."""
        channel = _channel_of(call)
        query = _HISTORY.decode(call.query)
        found = await self._channels.history(channel, Position("", query.since), query.limit)
        messages = b",".join(map(_rendered, found.publications))
        body = b'{"channel":%b,"epoch":%b,"offset":%d,"messages":[%b]}' % (
            _encode(channel),
            _encode(found.top.epoch),
            found.top.offset,
            messages,
        )
        return Reply(200, body)

    def _read(self, body: bytes, headers: RequestHeaders) -> tuple[str, Raw]:
        """The channel and the message."""
        try:
            request = _PUBLISH.decode(body, headers)
        except BadInput as error:
            raise _named(error) from None
        channel = self._default_channel if request.channel is None else request.channel
        check_channel(channel, "$.channel")
        if is_event_channel(channel):
            raise Problem(403, "only the router itself publishes there", pointer="$.channel")
        return channel, request.message

    def _publish(self, channel: str, message: Raw, once: str | None, tell: Tell[Sent]) -> ToReply[Sent]:
        # Line ends between the tokens of a JSON text mean nothing, and would end the line of an event.
        self._channels.submit(channel, one_line(bytes(message)), once, tell)
        return partial(_published, channel)


def register(app: web.Application, routes: ChannelRoutes) -> None:
    """Add the routes."""
    router = app.router
    router.add_post(f"{ROOT}/publish", hot(body_endpoint(routes.publish), soon=routes.publish_soon))
    router.add_get(f"{ROOT}/channels", endpoint(routes.list_channels))
    # A name may hold anything, line ends too.
    router.add_get(f"{ROOT}/subscribers/{{channel:(?s:.+)}}", endpoint(routes.subscribers))
    router.add_get(f"{ROOT}/history/{{channel:(?s:.+)}}", endpoint(routes.history))


def check_channel(name: str, pointer: str) -> None:
    """Raise `BadInput` for what can't be a channel."""
    if fault := name_fault(name):
        raise BadInput(pointer, fault)


def _channel_of(call: Call) -> str:
    channel = call.params["channel"]
    check_decoded("channel", channel, call.headers.path)
    check_channel(channel, "channel")
    return channel


def _rendered(publication: Publication) -> bytes:
    return b'{"id":%b,"offset":%d,"data":%b}' % (_encode(publication.id), publication.offset, publication.data)


def _named(error: BadInput) -> Problem:
    """A field that is not there has a sentence of its own, which older clients look for."""
    if error.pointer == "$.message" and error.detail.endswith(": is required"):
        return Problem(400, FIELDS_REQUIRED, extra={"pointer": error.pointer, "message": FIELDS_REQUIRED})
    return error


def _published(channel: str, sent: Sent) -> Reply:
    answer = PublishedMessage(PUBLISHED, channel, sent.subscribers, sent.id, sent.position.offset, sent.position.epoch)
    return Reply(200, _encode(answer))
