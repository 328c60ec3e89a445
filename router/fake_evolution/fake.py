"""Fake: an Evolution with its instances, the WhatsApp behind it, and the events that go out. Speaks no HTTP itself.

Keeps all it has seen until it ends. Whatever can be told about it is told to `told` as a `Note`. Keys never are.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Sequence

from msgspec import Struct

from router.fake_evolution.behaviours import Script
from router.fake_evolution.dialects import V2_3, Dialect, Json, Sent, sent_body
from router.fake_evolution.events import (
    Envelope,
    Incoming,
    Presence,
    Sighting,
    connection_data,
    delete_data,
    edit_data,
    local_time,
    presence_data,
    update_data,
    upsert_data,
)
from router.fake_evolution.instances import Instance, State
from router.fake_evolution.numbers import jid_of
from router.fake_evolution.posting import Mischief, Posted, Poster
from router.fake_evolution.webhook_calls import GlobalWebhook, calls, retry_rule
from router.fake_evolution.whatsapp import Received, WhatsApp

DEFAULT_KEY = "fake-evolution-key"
OWN_NUMBER = 5511900000000
OK_REASON, DROPPED_REASON, LOGGED_OUT_REASON = 200, 428, 401
ACKS = ("SERVER_ACK", "DELIVERY_ACK")


class Options(Struct, frozen=True, kw_only=True):
    """What a fake is like. `key`: the global apikey. `activated`: whether 2.4 has its license. `echoes`: whether an
    upsert tells what was sent by API, too. `acks`: what becomes of each sent message at once. `exposes_keys`: whether
    webhooks carry the instance's token. `retry_scale`: shortens the pauses between attempts at a webhook."""

    dialect: Dialect = V2_3
    key: str = DEFAULT_KEY
    instances: Sequence[str] = ("demo",)
    webhook: GlobalWebhook | None = None
    activated: bool = True
    echoes: bool = False
    acks: Sequence[str] = ACKS
    exposes_keys: bool = True
    utc_offset_h: float = -3
    retry_scale: float = 1
    mischief: Mischief = Mischief()


class Note(Struct, frozen=True, kw_only=True):
    """Something that happened: `what` in a word, the rest by name."""

    what: str
    fields: Json


class Fake:
    """The state of one fake Evolution and what can be done to it. `origin` is its own URL, once that is known."""

    def __init__(
        self,
        options: Options,
        *,
        told: Callable[[Note], None] = lambda _note: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.dialect = options.dialect
        self.activated = options.activated
        self.installation = str(uuid.uuid5(uuid.NAMESPACE_DNS, "installation.fake"))
        self.origin = ""
        self.script = Script()
        self.whatsapp = WhatsApp()
        self.instances: dict[str, Instance] = {}
        self.sightings: dict[str, Sighting] = {}
        self.tell = told
        self.poster = Poster(
            retry_rule(options.dialect), self._posted, mischief=options.mischief, scale=options.retry_scale
        )
        self._clock = clock
        for name in options.instances:
            self.create(name)

    def create(self, name: str) -> Instance:
        """A new instance, connected."""
        instance = self.instances[name] = Instance(name, str(OWN_NUMBER + len(self.instances)))
        return instance

    def instance(self, name: str | None) -> Instance:
        """The instance of that name; the first one for None. ValueError when there is none."""
        found = self.instances.get(name if name is not None else next(iter(self.instances), ""))
        if found is None:
            raise ValueError(f"instance: there is no {name!r}")
        return found

    def accept(self, instance: Instance, jid: str, text: str, *, message_id: str = "", tells: bool = True) -> Sent:
        """Hand a message to WhatsApp; `tells`: and let Evolution know and tell of it."""
        sent = Sent(
            id=message_id or new_id("3EB0"), jid=jid, text=text, instance_id=instance.id, at_s=int(self._clock())
        )
        arrived = self.whatsapp.deliver(jid, Received(id=sent.id, instance=instance.name, text=text))
        self.tell(Note(what="sent", fields={"to": jid, "text": text, "id": sent.id, "again": not arrived}))
        if tells:
            self._tell_of(instance, sent, acks=self.options.acks if arrived else ())
        return sent

    def incoming(self, instance: Instance, incoming: Incoming) -> None:
        """Somebody writes. ValueError for a kind or an identity that there is not."""
        data = upsert_data(self.dialect, instance, incoming, int(self._clock()))
        self.whatsapp.lid(jid_of(incoming.sender))
        self._see(instance, incoming.id, data["key"]["remoteJid"], from_me=incoming.from_me)
        shown = {"from": incoming.sender, "text": incoming.text, "id": incoming.id, "kind": incoming.kind}
        self.tell(Note(what="incoming", fields=shown))
        self.emit(instance, "MESSAGES_UPSERT", data)

    def status(self, message_id: str, status: str) -> bool:
        """Tell what became of a message; false when Evolution never stored it, and then nothing is told."""
        seen = self.sightings.get(message_id)
        if seen is None:
            return False
        instance = self.instances[seen.instance]
        self.emit(instance, "MESSAGES_UPDATE", update_data(self.dialect, instance, seen, status, self._clock()))
        return True

    def delete(self, message_id: str) -> bool:
        """Tell that a message was deleted; false when Evolution never stored it."""
        seen = self.sightings.get(message_id)
        if seen is not None:
            self.emit(self.instances[seen.instance], "MESSAGES_DELETE", delete_data(self.dialect, seen))
        return seen is not None

    def edit(self, message_id: str, text: str) -> bool:
        """Tell that a message was changed; false when Evolution never stored it."""
        seen = self.sightings.get(message_id)
        if seen is not None:
            self.emit(self.instances[seen.instance], "MESSAGES_EDITED", edit_data(self.dialect, seen, text))
        return seen is not None

    def presence(self, instance: Instance, number: str, presence: Presence) -> bool:
        """Somebody types; false, and nothing is told, unless the instance has subscribed to that contact."""
        jid = jid_of(number)
        if jid not in instance.subscribed:
            return False
        self.emit(instance, "PRESENCE_UPDATE", presence_data(jid, presence))
        return True

    def set_state(self, instance: Instance, state: State | None, reason: int | None = None) -> None:
        """Connect, drop (`close` for a `reason` that 2.x recovers from: it says "connecting"), log out, unload."""
        defaults = {"open": OK_REASON, "connecting": OK_REASON, "close": LOGGED_OUT_REASON}
        instance.state = state
        self.tell(Note(what="state", fields={"instance": instance.name, "state": state}))
        if state is None:
            return
        data = connection_data(self.dialect, instance, state, reason or defaults[state])
        if data is None:
            instance.state = "connecting"
            data = connection_data(self.dialect, instance, "connecting", OK_REASON)
        if data is not None:
            self.emit(instance, "CONNECTION_UPDATE", data)

    def emit(self, instance: Instance, event: str, data: Json) -> None:
        """Let an event go to whoever has asked for it. Nobody waits for that, and it may be lost."""
        now_s = self._clock()
        envelope = Envelope(
            event=event,
            instance=instance,
            data=data,
            date_time=local_time(now_s, self.options.utc_offset_h),
            server_url=self.origin,
            apikey=instance.token if self.options.exposes_keys else None,
        )
        for call in calls(self.dialect, envelope, self.options.webhook, int(now_s)):
            if not self.poster.offer(call):
                self.tell(Note(what="lost", fields={"event": event}))

    def _tell_of(self, instance: Instance, sent: Sent, acks: Sequence[str]) -> None:
        self._see(instance, sent.id, sent.jid, from_me=True)
        body = sent_body(self.dialect, sent)
        self.emit(instance, "SEND_MESSAGE", body)
        if self.options.echoes:
            self.emit(instance, "MESSAGES_UPSERT", body)
        for status in acks:
            self.status(sent.id, status)

    def _see(self, instance: Instance, message_id: str, jid: str, *, from_me: bool) -> None:
        seen = Sighting(id=message_id, jid=jid, instance=instance.name, from_me=from_me)
        self.sightings[message_id] = seen

    def _posted(self, posted: Posted) -> None:
        call = posted.call
        where = call.url.partition("?")[0].rpartition("@")[
            2
        ]  # a token may be behind the one, a password before the other
        fields = {"event": call.event, "to": where, "attempt": posted.attempt, "status": posted.status}
        self.tell(Note(what="webhook", fields=fields))


def new_id(prefix: str) -> str:
    """An id as WhatsApp's clients make them: `3EB0` and 18 digits for the API's library, `3A` for an iPhone."""
    return prefix + secrets.token_hex(9).upper()
