"""Routes: the three ways to listen: `/ws`, `/events` and `/connection/websocket` (the HTTP contract, section 6).

Own what is checked before a connection becomes a listener's: whether there is room, and what its query asks for.
Mistakes up to there are problems like on every other route.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Sequence
from typing import Annotated

from aiohttp import HttpVersion11, hdrs, web
from msgspec import Meta, Struct

from actors.core.channel_names import name_fault
from router.edge.detached import Detached, detach, head_of, subprotocols, upgrade_head
from router.edge.errors import BadInput, Problem
from router.edge.handlers import check_query
from router.edge.openapi import Operation, Text
from router.edge.origins import may_open
from router.realtime.centrifugo import CentrifugoSocket
from router.realtime.codes import WRONG_PROTOCOL
from router.realtime.event_ids import CHANNELS_MAX, BadEventId, positions
from router.realtime.hall import Realtime
from router.realtime.plain import PlainSocket
from router.realtime.sse import EventStream

TAG = "channels"
EVENT_STREAM = "text/event-stream"
PROTOBUF = "centrifuge-protobuf"
UNSENT_BYTES = 128 * 1024
UNACKNOWLEDGED_MS = 60_000
"""What a listener of events, who never answers, has not acknowledged for so long has not reached it: it is gone."""

Channels = Annotated[str, Meta(description="The channels, separated by commas.")]
LastEventId = Annotated[str, Meta(description="As the header Last-Event-ID, for who cannot send that.")]


class ListenQuery(Struct, frozen=True, kw_only=True):
    """The query of `/ws`."""

    channels: Channels = ""
    channel: Annotated[str, Meta(description="A channel whose name may hold commas; may be repeated.")] = ""


class EventsQuery(ListenQuery, frozen=True, kw_only=True):
    """The query of `/events`."""

    last_event_id: LastEventId = ""


class RealtimeRoutes:
    """The handlers of this file."""

    def __init__(self, hall: Realtime, origins: Collection[str]) -> None:
        self._hall = hall
        self._origins = origins

    @Operation(
        summary="Listen by WebSocket",
        description="Frames are JSON: `subscribe`, `unsubscribe` and `ping` as `action`; `message`, `subscribed`, "
        "`unsubscribed`, `pong` and `error` as `type`.",
        tag=TAG,
        operation_id="listen",
        query=ListenQuery,
        responses={101: None},
        errors=(400, 403, 426, 429, 503),
    )
    async def plain(self, request: web.Request) -> Detached:
        """Answer `GET /ws`."""
        client = self._check(request)
        head = upgrade_head(request)
        names = self._names(request)
        _bound_unsent(request.transport)
        return detach(request, PlainSocket(self._hall, client, names), 101, head)

    @Operation(
        summary="Listen by server-sent events",
        description="The messages of `/ws`. The id of each event is where this listener stands in all its channels.",
        tag=TAG,
        operation_id="events",
        query=EventsQuery,
        responses={200: Text(EVENT_STREAM)},
        errors=(400, 403, 426, 429, 503),
    )
    async def events(self, request: web.Request) -> Detached:
        """Answer `GET /events`."""
        client = self._check(request)
        if request.version < HttpVersion11:
            raise Problem(426, "events need HTTP/1.1", headers={"Upgrade": "HTTP/1.1", "Connection": "Upgrade"})
        names = self._names(request)
        if not names:
            raise BadInput("channels", "names no channel")
        if len(names) > CHANNELS_MAX:
            raise BadInput("channels", f"names more than {CHANNELS_MAX} channels: their event ids would fit no header")
        last_id = request.headers.get(hdrs.LAST_EVENT_ID, "") or request.query.get("last_event_id", "")
        try:
            wanted = positions(last_id, names) if last_id else dict.fromkeys(names)
        except BadEventId as error:
            raise BadInput("last_event_id", f"is {error}") from None
        head = head_of(
            request,
            "200 OK",
            f"Content-Type: {EVENT_STREAM}; charset=utf-8",
            "Cache-Control: no-store",
            "X-Accel-Buffering: no",
            "Transfer-Encoding: chunked",
            "Connection: close",
            *_shared_with(request.headers.get(hdrs.ORIGIN, "")),
        )
        _bound_unsent(request.transport)
        _bound_silence(request.transport)
        return detach(request, EventStream(self._hall, client, wanted), 200, head)

    @Operation(
        summary="Listen with a Centrifugo client",
        description="The Centrifugo client protocol over JSON: the official centrifuge libraries connect here.",
        tag=TAG,
        operation_id="centrifugo",
        responses={101: None},
        errors=(400, 403, 426, 429, 503),
    )
    async def centrifugo(self, request: web.Request) -> Detached:
        """Answer `GET /connection/websocket`."""
        client = self._check(request)
        protobuf = PROTOBUF in subprotocols(request)
        head = upgrade_head(request, PROTOBUF if protobuf else "")
        connection = CentrifugoSocket(self._hall, client)
        _bound_unsent(request.transport)
        detached = detach(request, connection, 101, head)
        if protobuf and not connection.closed:
            connection.end(WRONG_PROTOCOL)
        return detached

    def _check(self, request: web.Request) -> str:
        """The client's address, if there is room for it and its page may come in. Raises 403, 429, 503."""
        headers = request.headers
        if not may_open(headers.get(hdrs.ORIGIN, ""), headers.get(hdrs.HOST, ""), self._origins):
            raise Problem(403, "pages of this origin may not listen: ALLOWED_ORIGINS does not list it")
        client = request.remote or ""
        self._hall.check_room(client)
        return client

    def _names(self, request: web.Request) -> Sequence[str]:
        check_query(request)
        query = request.query
        listed = (name for part in query.getall("channels", ()) for name in part.split(",") if name)
        names = list(dict.fromkeys((*listed, *query.getall("channel", ()))))
        for name in names:
            if fault := name_fault(name):
                raise BadInput("channels", fault)
        channels_max = self._hall.limits.channels_max
        if len(names) > channels_max:
            raise BadInput("channels", f"names more than {channels_max} channels")
        return names


def register(app: web.Application, hall: Realtime, origins: Collection[str] = ()) -> None:
    """Add the routes. `origins` are those whose pages may listen beside the server's own."""
    routes = RealtimeRoutes(hall, origins)
    for path, handler in (
        ("/ws", routes.plain),
        ("/events", routes.events),
        ("/connection/websocket", routes.centrifugo),
    ):
        app.router.add_get(path, handler, allow_head=False)


def _shared_with(origin: str) -> list[str]:
    """The lines that let a page of another origin, which may listen, read the events (Fetch, CORS protocol)."""
    if not origin or not origin.isascii() or not origin.isprintable():
        return ["Vary: Origin"]
    return [f"Access-Control-Allow-Origin: {origin}", "Vary: Origin"]


def _bound_unsent(transport: asyncio.Transport | None) -> None:
    """Have the kernel take little that it cannot send yet: else a reader that stalls has megabytes there before anybody
    notices [4 MiB, measured]."""
    opened = None if transport is None else transport.get_extra_info("socket")
    if opened is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _bound_silence(transport: asyncio.Transport | None) -> None:
    """Have the kernel give a connection up whose other side is gone without a word."""
    opened = None if transport is None else transport.get_extra_info("socket")
    if opened is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
