"""Inbound: Evolution's webhook and the routes that say what happens with what it brings (the HTTP contract, section 4).

From bytes to a call for `actors.inbound` and from what happened to bytes. Invariants: Evolution gets a 4xx only for
what is no event or shows no token, as it never tries again after one; no answer holds a token or a secret.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from actors.core.addresses import Guard
from actors.core.evolution_events import Malformed
from actors.core.evolution_send import check_instance
from actors.core.evolution_token import Presented
from actors.core.inbound_route import InboundRoute, RouteView, check, view
from actors.core.json_limits import BadField
from actors.inbound import Inbound, NotAdmitted
from actors.inbound_ports import Happened, InboundRecords, WebhookCall
from router.edge.body import JsonBody
from router.edge.errors import BadInput, NotFound, NotJson, Problem
from router.edge.handlers import check_decoded, endpoint, guarded_endpoint, unlisted
from router.edge.openapi import Operation
from router.edge.paging import Cursor, Page
from router.edge.query import Query
from router.edge.usecase import Call, Credentials, Reply

TAG = "inbound"
ABOUT = "What WhatsApp contacts write: Evolution API's webhooks on their way into buffers."
WEBHOOK = "/evolution/webhook"
ROOT = "/api/v1/inbound"
INSTANCE_PATH = {"instance": "The instance's name, percent-encoded; `*` for all that have no route of their own."}
EVENT_PATH = {"event": "The event's name as Evolution writes it with `byEvents`: `messages-upsert`."}
EVENT_EXAMPLE = {
    "event": "messages.upsert",
    "instance": "ventas",
    "data": {
        "key": {"remoteJid": "5215512345678@s.whatsapp.net", "fromMe": False, "id": "3EB0A1B2C3D4E5F60718"},
        "pushName": "Ana",
        "message": {"conversation": "hola"},
        "messageType": "conversation",
        "messageTimestamp": 1717689097,
    },
}
ROUTE_EXAMPLE = {
    "webhook": {"url": "https://n8n.example.com/webhook/chat", "timeout": 60},
    "buffer": {"wait_time": 8, "mode": "debounce", "max_wait": 30, "max_size": 20, "format": "n8n"},
    "token": "the-token-that-evolution-sends",
    "reply": True,
}


class EvolutionEvent(Struct, frozen=True, kw_only=True):
    """What Evolution API 1 and 2 send; more fields are there, and other events, too."""

    event: str
    instance: str
    data: Any = None


class EventTaken(Struct, frozen=True, omit_defaults=True):
    """What became of the call. `message_id` names a message that is stored now."""

    status: Literal["success"]
    result: Happened
    message_id: str | None = None


class RoutePage(Struct, frozen=True):
    """A page of routes, by name."""

    routes: list[RouteView]
    cursor: str | None


class Deleted(Struct, frozen=True):
    """The route of that name is gone."""

    instance: str
    deleted: Literal[True]


class Place(Struct, frozen=True, array_like=True):
    """Where a list goes on: after this name."""

    name: str


_ROUTE = JsonBody(InboundRoute)
_PAGE = Query(Page)
_CURSOR = Cursor(Place)
_encode = msgspec.json.Encoder().encode


class InboundRoutes:
    """The use cases of this file."""

    def __init__(self, inbound: Inbound, records: InboundRecords, guard: Guard) -> None:
        self._inbound = inbound
        self._records = records
        self._guard = guard

    @Operation(
        summary="Take a webhook call of Evolution API",
        description="Its token goes into `apikey`, `Authorization: Bearer` or `?token=`; Evolution's `jwt_key` works, "
        "too. Events that mean nothing here are taken and ignored.",
        tag=TAG,
        operation_id="evolution_webhook",
        request=EvolutionEvent,
        responses={200: EventTaken},
        errors=(401, 503),
        example=EVENT_EXAMPLE,
    )
    async def webhook(self, call: Call, credentials: Credentials) -> Reply:
        """Answer `POST /evolution/webhook`, once what it brings is stored."""
        return await self._receive(call, credentials)

    @Operation(
        summary="Take a webhook call of Evolution API that names its event in the URL",
        description="The same for `byEvents`; the name in the body goes before that in the URL.",
        tag=TAG,
        operation_id="evolution_webhook_by_event",
        path=EVENT_PATH,
        request=EvolutionEvent,
        responses={200: EventTaken},
        errors=(401, 503),
        example=EVENT_EXAMPLE,
    )
    async def webhook_by_event(self, call: Call, credentials: Credentials) -> Reply:
        """Answer `POST /evolution/webhook/{event}`."""
        return await self._receive(call, credentials)

    @Operation(summary="List the inbound routes", tag=TAG, query=Page, responses={200: RoutePage}, errors=(503,))
    async def list_inbound(self, call: Call) -> Reply:
        """Answer `GET /api/v1/inbound`."""
        page = _PAGE.decode(call.query)
        place = _CURSOR.decode(page.cursor) or Place("")
        rows, following = await self._records.list_routes(place.name, page.limit)
        cursor = None if following is None else _CURSOR.encode(Place(following))
        return Reply(200, _encode(RoutePage([view(name, route) for name, route in rows], cursor)))

    @Operation(
        summary="Say what happens with an instance's messages",
        description="Holds on every node from the next event on. Secrets are never shown again.",
        tag=TAG,
        path=INSTANCE_PATH,
        request=InboundRoute,
        responses={200: RouteView},
        errors=(503,),
        example=ROUTE_EXAMPLE,
    )
    async def put_inbound(self, call: Call) -> Reply:
        """Answer `PUT /api/v1/inbound/{instance}`."""
        instance = _instance(call)
        route = _ROUTE.decode(call.body, call.headers)
        check(route, self._guard)
        await self._records.put(instance, route)
        return Reply(200, _encode(view(instance, route)))

    @Operation(
        summary="Look at one inbound route",
        tag=TAG,
        path=INSTANCE_PATH,
        responses={200: RouteView},
        errors=(400, 404, 503),
    )
    async def get_inbound(self, call: Call) -> Reply:
        """Answer `GET /api/v1/inbound/{instance}`: the route of exactly that name."""
        instance = _instance(call)
        route = await self._records.get(instance)
        if route is None:
            raise _unknown()
        return Reply(200, _encode(view(instance, route)))

    @Operation(
        summary="Drop one inbound route",
        tag=TAG,
        path=INSTANCE_PATH,
        responses={200: Deleted},
        errors=(400, 404, 503),
    )
    async def delete_inbound(self, call: Call) -> Reply:
        """Answer `DELETE /api/v1/inbound/{instance}`. What waits in buffers still goes out."""
        instance = _instance(call)
        if not await self._records.delete(instance):
            raise _unknown()
        return Reply(200, _encode(Deleted(instance, deleted=True)))

    async def _receive(self, call: Call, credentials: Credentials) -> Reply:
        if call.headers.content_encoding.lower() not in ("", "identity"):
            raise NotJson("the body must not be compressed")
        shown = Presented(credentials.apikey, credentials.authorization, call.query.get("token", ""))
        segment = call.params.get("event")
        received = WebhookCall(body=call.body, segment=segment, presented=shown, trace=call.headers.trace)
        match await self._inbound.receive(received):
            case NotAdmitted():
                raise Problem(401, "a valid token is needed", headers={"WWW-Authenticate": "Bearer"})
            case Malformed(pointer, detail):
                raise BadInput(pointer, detail)
            case noted:
                return Reply(200, _encode(EventTaken("success", noted.happened, noted.message_id)))


def register(app: web.Application, routes: InboundRoutes) -> None:
    """Add the routes; the webhook's also with a slash at the end, as people configure it."""
    router = app.router
    for path, use_case in ((WEBHOOK, routes.webhook), (f"{WEBHOOK}/{{event}}", routes.webhook_by_event)):
        handler = guarded_endpoint(use_case)
        router.add_post(path, handler)
        router.add_post(f"{path}/", unlisted(use_case, handler))
    router.add_get(ROOT, endpoint(routes.list_inbound))
    one = f"{ROOT}/{{instance}}"
    router.add_put(one, endpoint(routes.put_inbound))
    router.add_get(one, endpoint(routes.get_inbound))
    router.add_delete(one, endpoint(routes.delete_inbound))


def _instance(call: Call) -> str:
    instance = call.params["instance"]
    check_decoded("instance", instance, call.headers.path)
    try:
        check_instance(instance)
    except BadField as error:
        raise BadInput("instance", error.detail) from None
    return instance


def _unknown() -> NotFound:
    return NotFound("there is no route of this name")
