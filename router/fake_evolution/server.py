"""Server: Evolution's routes, its guards in their order, and its one shape of errors.

The order is: body decoded, license (2.4), route, instance exists (404 even without a key), key (401), then the route.
After the guards the query string is copied over the path: `?instanceName=other` sends as another instance.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import NamedTuple

from aiohttp import web

from router.fake_evolution.behaviours import Hang
from router.fake_evolution.dialects import Json, error_body, license_body, welcome
from router.fake_evolution.fake import Fake, Note
from router.fake_evolution.instances import (
    Instance,
    connection_body,
    webhook_body,
    webhook_from,
    webhook_set_body,
)
from router.fake_evolution.numbers import is_lid, jid_of, lid_of
from router.fake_evolution.sending import Answer, Reply, answer_send_text, refusal
from router.fake_evolution.validation import webhook_problems

BODY_BYTES_MAX = 136 * 1024 * 1024
CLOSE_WITH_RST = struct.pack("ii", 1, 0)
UNGATED = ("/license", "/fake")
MISSING_EVENTS = "Cannot read properties of undefined (reading 'length')"
QR_CODE = {"pairingCode": None, "code": "2@fake", "base64": "data:image/png;base64,", "count": 1}


class Ask(NamedTuple):
    """A request past the guards. `name` is what the query string made of the instance's name."""

    fake: Fake
    instance: Instance
    name: str
    body: Json


Route = Callable[[Ask], Awaitable[Answer]]


def routes(fake: Fake) -> list[web.RouteDef]:
    """Evolution's routes, and last the one that answers 404 for all others."""
    guarded: list[tuple[str, str, Route]] = [
        ("POST", "/message/sendText/{instance}", _send_text),
        ("GET", "/instance/connectionState/{instance}", _connection_state),
        ("GET", "/instance/connect/{instance}", _connect),
        ("POST", "/instance/restart/{instance}", _restart),
        ("POST", "/webhook/set/{instance}", _webhook_set),
        ("GET", "/webhook/find/{instance}", _webhook_find),
        ("POST", "/chat/whatsappNumbers/{instance}", _whatsapp_numbers),
        ("POST", "/chat/sendPresence/{instance}", _send_presence),
    ]
    made = [web.route(method, path, _handler(fake, _guarded(fake, route))) for method, path, route in guarded]
    open_routes: list[tuple[str, str, Handle]] = [
        ("GET", "/", _welcome(fake)),
        ("POST", "/instance/create", _create(fake)),
        ("GET", "/instance/fetchInstances", _fetch_instances(fake)),
        ("*", "/{path:.*}", _nowhere),
    ]
    return made + [web.route(method, path, _handler(fake, handle)) for method, path, handle in open_routes]


Handle = Callable[[web.Request, Json], Awaitable[Answer]]


def _handler(fake: Fake, handle: Handle) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(request: web.Request) -> web.StreamResponse:
        answer = await _answer(fake, request, handle)
        shown: Json = {"method": request.method, "path": request.path}
        if isinstance(answer, Reply):
            fake.tell(Note(what="request", fields=shown | {"status": answer.status} | _reason(request, answer)))
            return web.json_response(answer.body, status=answer.status)
        fake.tell(Note(what="request", fields=shown | {"status": None}))
        if isinstance(answer, Hang):
            await asyncio.get_running_loop().create_future()
        _cut(request)
        return web.Response()  # goes nowhere

    return respond


def _reason(request: web.Request, answer: Reply) -> Json:
    """Why it failed, to be shown. Not when there was a query string, which a 404 repeats: a key may be in it."""
    body = answer.body
    if answer.status < web.HTTPBadRequest.status_code or request.query_string or not isinstance(body, dict):
        return {}
    return {"message": body["response"]["message"] if "response" in body else body.get("code")}


async def _answer(fake: Fake, request: web.Request, handle: Handle) -> Answer:
    raw = await request.read()
    body: object = {}
    if raw and request.content_type == "application/json":
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return Reply(status=400, body=error_body(400, "Unexpected token in JSON", "Internal Server Error"))
    gated = fake.dialect.licensed and not fake.activated
    if gated and request.path != "/" and not request.path.startswith(UNGATED):
        return Reply(status=503, body=license_body(fake.origin, fake.installation))
    return await handle(request, body if isinstance(body, dict) else {})


def _cut(request: web.Request) -> None:
    """End the connection with RST."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RST)
        transport.abort()


def _guarded(fake: Fake, route: Route) -> Handle:
    async def handle(request: web.Request, body: Json) -> Answer:
        name = request.match_info["instance"]
        instance = fake.instances.get(name)
        if instance is None:
            return refusal(404, [f'The "{name}" instance does not exist'])
        if not _authorized(fake, request, instance):
            return refusal(401, "Unauthorized")
        return await route(Ask(fake, instance, request.query.get("instanceName", name), body))

    return handle


def _authorized(fake: Fake, request: web.Request, instance: Instance | None) -> bool:
    given = request.headers.get("apikey", "").encode()
    keys = [fake.options.key] if instance is None else [fake.options.key, instance.token]
    return any(compare_digest(given, key.encode()) for key in keys)


def _welcome(fake: Fake) -> Handle:
    async def handle(_request: web.Request, _body: Json) -> Answer:
        return Reply(status=200, body=welcome(fake.dialect, fake.origin))

    return handle


async def _nowhere(request: web.Request, _body: Json) -> Answer:
    return refusal(404, [f"Cannot {request.method} {request.path_qs}"])


def _create(fake: Fake) -> Handle:
    async def handle(request: web.Request, body: Json) -> Answer:
        name = body.get("instanceName")
        if not isinstance(name, str) or not name:
            return refusal(400, [['instance requires property "instanceName"']])
        if name in fake.instances:
            return refusal(403, [f'This name "{name}" is already in use.'])
        if not request.headers.get("apikey"):
            return refusal(401, "Unauthorized")
        if not _authorized(fake, request, None):
            return refusal(403, ["Missing global api key", "The global api key must be set"])
        created = fake.create(name)
        shown = {"instanceName": name, "instanceId": created.id, "status": "open"}
        return Reply(status=201, body={"instance": shown, "hash": created.token})

    return handle


def _fetch_instances(fake: Fake) -> Handle:
    async def handle(request: web.Request, _body: Json) -> Answer:
        if not _authorized(fake, request, None):
            return refusal(401, "Unauthorized")
        wanted = request.query.get("instanceName")
        chosen = [each for name, each in fake.instances.items() if wanted in (None, name)]
        if wanted is not None and not chosen:
            return refusal(404, [f'The "{wanted}" instance does not exist'])
        return Reply(status=200, body=[_shown(fake, each) for each in chosen])

    return handle


def _shown(fake: Fake, instance: Instance) -> Json:
    if fake.dialect.nested_text:
        return {"instance": {"instanceName": instance.name, "owner": instance.own_jid, "status": instance.state}}
    return {
        "id": instance.id,
        "name": instance.name,
        "connectionStatus": instance.state or "close",
        "ownerJid": instance.own_jid,
        "token": instance.token if fake.options.exposes_keys else None,
    }


async def _send_text(ask: Ask) -> Answer:
    return await answer_send_text(ask.fake, ask.name, ask.body)


async def _connection_state(ask: Ask) -> Answer:
    return Reply(status=200, body=connection_body(ask.instance))


async def _connect(ask: Ask) -> Answer:
    if ask.instance.state == "close":
        ask.fake.set_state(ask.instance, "connecting")
        return Reply(status=200, body=dict(QR_CODE))
    return await _restart(ask) if ask.instance.state is None else await _connection_state(ask)


async def _restart(ask: Ask) -> Answer:
    logged_out = ask.instance.state == "close"
    ask.fake.set_state(ask.instance, "connecting")
    if not logged_out:
        ask.fake.set_state(ask.instance, "open")
    return Reply(status=200, body=connection_body(ask.instance))


async def _webhook_set(ask: Ask) -> Answer:
    problems = webhook_problems(ask.fake.dialect, ask.body)
    if problems:
        return refusal(400, [problems])
    try:
        config = webhook_from(ask.fake.dialect, ask.body)
    except KeyError:  # 2.x asks a list that is not there how long it is
        return refusal(500, MISSING_EVENTS)
    if not config.url.startswith(("http://", "https://")):
        return refusal(400, ['Invalid "url" property'])
    ask.instance.webhook = config
    return Reply(status=201, body=webhook_set_body(ask.fake.dialect, ask.instance))


async def _webhook_find(ask: Ask) -> Answer:
    return Reply(status=200, body=webhook_body(ask.fake.dialect, ask.instance))


async def _whatsapp_numbers(ask: Ask) -> Answer:
    numbers = ask.body.get("numbers")
    if not isinstance(numbers, list):
        return refusal(400, [['instance requires property "numbers"']])
    return Reply(status=200, body=[_looked_up(ask.fake, str(number)) for number in numbers])


def _looked_up(fake: Fake, number: str) -> Json:
    jid = jid_of(number)
    exists = fake.whatsapp.exists(jid) and (fake.dialect.finds_lids or not is_lid(jid))
    found: Json = {"jid": jid, "exists": exists, "number": number}
    return found | {"lid": lid_of(jid)} if exists and fake.dialect.finds_lids and not is_lid(jid) else found


async def _send_presence(ask: Ask) -> Answer:
    options = ask.body.get("options") if ask.fake.dialect.nested_text else None
    wish = {**ask.body, **options} if isinstance(options, dict) else ask.body
    missing = [f'instance requires property "{name}"' for name in ("number", "presence", "delay") if name not in wish]
    if missing:
        return refusal(400, [missing])
    if not isinstance(wish["delay"], int):
        return refusal(400, [["delay is not of a type(s) integer"]])
    ask.instance.subscribed.add(jid_of(str(wish["number"])))
    await asyncio.sleep(wish["delay"] / 1000)
    return Reply(status=201, body={"presence": wish["presence"]})
