"""Control: what only a fake has. `POST /fake/…` lets people write, type, vanish, and things go wrong.

No key is asked for: whoever reaches the fake may play with it. Bodies are strict, so that a misspelt field is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from router.fake_evolution.behaviours import FAULTS, Behaviour, Slow
from router.fake_evolution.dialects import Json
from router.fake_evolution.events import Incoming, Presence
from router.fake_evolution.fake import Fake, new_id
from router.fake_evolution.instances import State
from router.fake_evolution.numbers import jid_of


class Writes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody writes to an instance; all but `from` may be left out."""

    sender: str = msgspec.field(name="from")
    text: str = ""
    instance: str | None = None
    kind: str = "text"
    identity: str = ""
    from_me: bool = False
    name: str = "Ana"
    group: str = ""
    id: str = ""


class Fails(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next `times` sends (null: all, until healed) meet the fault of that name."""

    fault: str
    instance: str | None = None
    number: str | None = None
    times: int | None = 1
    delay_s: float | None = None


class Changes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An instance connects, drops, logs out; null is "not loaded"."""

    state: State | None
    instance: str | None = None
    reason: int | None = None


class Becomes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message is delivered, read, played."""

    id: str
    status: str


class Deletes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message is deleted for everybody."""

    id: str


class Edits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message says something else from now on."""

    id: str
    text: str


class Types(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody types."""

    sender: str = msgspec.field(name="from")
    presence: Presence = "composing"
    instance: str | None = None


class Exists(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number is on WhatsApp, or is not."""

    number: str
    exists: bool


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing needs to be said."""


def writes(fake: Fake, wish: Writes) -> Json:
    """Deliver a message to the webhook, as if it came from WhatsApp; its id, for later."""
    message_id = wish.id or new_id("3A")
    instance = fake.instance(wish.instance)
    incoming = Incoming(
        id=message_id,
        sender=wish.sender,
        text=wish.text,
        kind=wish.kind,
        identity=wish.identity,
        from_me=wish.from_me,
        name=wish.name,
        group=wish.group,
    )
    fake.incoming(instance, incoming)
    return {"id": message_id, "instance": instance.name}


def fails(fake: Fake, wish: Fails) -> Json:
    """Script a fault."""
    behaviour: Behaviour | None = FAULTS.get(wish.fault)
    if behaviour is None:
        raise ValueError(f"fault: expected one of {', '.join(FAULTS)}, not {wish.fault!r}")
    if isinstance(behaviour, Slow) and wish.delay_s is not None:
        behaviour = msgspec.structs.replace(behaviour, delay_s=wish.delay_s)
    jid = None if wish.number is None else jid_of(wish.number)
    instance = None if wish.instance is None else fake.instance(wish.instance).name
    fake.script.add(behaviour, instance=instance, jid=jid, times=wish.times)
    return {"fault": wish.fault}


def changes(fake: Fake, wish: Changes) -> Json:
    """Change an instance's state."""
    instance = fake.instance(wish.instance)
    fake.set_state(instance, wish.state, wish.reason)
    return {"instance": instance.name, "state": instance.state}


def becomes(fake: Fake, wish: Becomes) -> Json:
    """Tell what became of a message, if Evolution has stored it."""
    return {"told": fake.status(wish.id, wish.status)}


def deletes(fake: Fake, wish: Deletes) -> Json:
    """Tell that a message was deleted, if Evolution has stored it."""
    return {"told": fake.delete(wish.id)}


def edits(fake: Fake, wish: Edits) -> Json:
    """Tell that a message was changed, if Evolution has stored it."""
    return {"told": fake.edit(wish.id, wish.text)}


def types(fake: Fake, wish: Types) -> Json:
    """Tell that somebody types, if the instance has subscribed to that contact."""
    return {"told": fake.presence(fake.instance(wish.instance), wish.sender, wish.presence)}


def exists(fake: Fake, wish: Exists) -> Json:
    """Let a number or a group be there, or not."""
    jid = jid_of(wish.number)
    (fake.whatsapp.absent.discard if wish.exists else fake.whatsapp.absent.add)(jid)
    return {"jid": jid, "exists": wish.exists}


def activate(fake: Fake, _wish: Nothing) -> Json:
    """Activate the license of 2.4."""
    fake.activated = True
    return {"activated": True}


def heal(fake: Fake, _wish: Nothing) -> Json:
    """Forget all scripted faults."""
    fake.script.heal()
    return {"healed": True}


Wish = TypeVar("Wish", bound=Struct)


def routes(fake: Fake) -> list[web.RouteDef]:
    """The routes under `/fake`."""
    return [
        web.post("/fake/incoming", _handler(fake, Writes, writes)),
        web.post("/fake/fail", _handler(fake, Fails, fails)),
        web.post("/fake/state", _handler(fake, Changes, changes)),
        web.post("/fake/status", _handler(fake, Becomes, becomes)),
        web.post("/fake/delete", _handler(fake, Deletes, deletes)),
        web.post("/fake/edit", _handler(fake, Edits, edits)),
        web.post("/fake/presence", _handler(fake, Types, types)),
        web.post("/fake/contact", _handler(fake, Exists, exists)),
        web.post("/fake/activate", _handler(fake, Nothing, activate)),
        web.post("/fake/heal", _handler(fake, Nothing, heal)),
        web.get("/fake/received", _received(fake)),
    ]


def _handler(
    fake: Fake, kind: type[Wish], perform: Callable[[Fake, Wish], Json]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read() or b"{}", type=kind)
            return web.json_response(perform(fake, wish), status=201)
        except ValueError as error:  # msgspec's own are ValueErrors, too
            return web.json_response({"error": str(error)}, status=400)

    return respond


def _received(fake: Fake) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(request: web.Request) -> web.Response:
        number = request.query.get("number")
        inboxes: dict[str, Any] = dict(fake.whatsapp.everything())
        if number is not None:
            inboxes = {jid_of(number): list(fake.whatsapp.received(number))}
        return web.json_response(msgspec.to_builtins(inboxes))

    return respond
