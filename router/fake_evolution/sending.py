"""Sending: one sendText from its body to its answer, in Evolution's order of checks.

What is wrong with a request is found first; then a scripted fault strikes; then the state of the instance and the
contact count. `delay` is slept before the message goes out, and holds up nothing but its own answer.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from router.fake_evolution.behaviours import NOT_LOADED, Hang, Refuse, Reset, Slow
from router.fake_evolution.dialects import Json, error_body, sent_body
from router.fake_evolution.fake import Fake
from router.fake_evolution.instances import Instance
from router.fake_evolution.numbers import is_group, is_lid, jid_of
from router.fake_evolution.validation import SendText, send_text, send_text_problems


class Reply(Struct, frozen=True, kw_only=True):
    """An answer. `body` is any JSON."""

    status: int
    body: object


Answer = Reply | Hang | Reset


def refusal(status: int, message: object) -> Reply:
    """An error in Evolution's shape."""
    return Reply(status=status, body=error_body(status, message))


async def answer_send_text(fake: Fake, name: str, body: Json) -> Answer:
    """What a sendText of this body, for the instance of that name, gets."""
    problems = send_text_problems(fake.dialect, body)
    if problems:
        return refusal(400, [problems])
    instance = fake.instances.get(name)
    if instance is None or instance.state is None:
        return refusal(500, NOT_LOADED)
    wish = send_text(fake.dialect, body)
    if not wish.text.strip():
        return refusal(400, ["Text is required"])
    return await _answer(fake, instance, wish)


async def _answer(fake: Fake, instance: Instance, wish: SendText) -> Answer:
    jid = jid_of(wish.number)
    behaviour = fake.script.next(instance.name, jid)
    if isinstance(behaviour, Slow):
        await asyncio.sleep(0 if behaviour.sends else behaviour.delay_s)
    elif behaviour is not None and not behaviour.sends:
        return _ending(behaviour)
    refused = _refused(fake, instance, jid, wish.number)
    if refused is None and wish.delay_s > 0:
        instance.subscribed.add(jid)
        await asyncio.sleep(wish.delay_s)
        refused = _refused(fake, instance, jid, wish.number)  # the socket may have gone meanwhile
    if refused is not None:
        return refused
    tells = not isinstance(behaviour, Refuse)
    sent = fake.accept(instance, jid, wish.text, message_id=wish.message_id, tells=tells)
    if behaviour is None or isinstance(behaviour, Slow):
        await asyncio.sleep(behaviour.delay_s if behaviour is not None and behaviour.sends else 0)
        return Reply(status=201, body=sent_body(fake.dialect, sent))
    return _ending(behaviour)


def _refused(fake: Fake, instance: Instance, jid: str, number: str) -> Reply | None:
    if instance.state != "open":
        return refusal(400, ["Error: Connection Closed"])
    known = fake.whatsapp.exists(jid) and (fake.dialect.finds_lids or not is_lid(jid))
    if known:
        return None
    if is_group(jid):
        return refusal(400, ["[object Object]"])
    return refusal(400, [{"jid": jid, "exists": False, "number": number}])


def _ending(behaviour: Refuse | Hang | Reset) -> Answer:
    return refusal(behaviour.status, behaviour.message) if isinstance(behaviour, Refuse) else behaviour
