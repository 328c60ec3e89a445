"""Inbound: what to do with one webhook call of Evolution's.

Owns the way from a call to a stored message, a receipt, a sign of health or nothing. Never answers before what it was
told is stored, and never raises for what an event says. Invariants: a call that shows no token changes nothing; a
message is marked as taken after it was stored, never before, so that one which could not be stored is taken when
Evolution sends it again; nothing here holds an event's `apikey`.
Source: the HTTP contract, section 4; the facts about Evolution, section 2.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from ipaddress import ip_network
from typing import assert_never

from msgspec import Struct

from actors.conversations import Conversation, Conversations
from actors.core import evolution_events, message_order
from actors.core.addresses import Guard
from actors.core.evolution_events import (
    ConnectionChanged,
    DeliveryUpdate,
    Ignored,
    IncomingText,
    Malformed,
    OwnMessage,
    SentByApi,
)
from actors.core.evolution_payload import n8n_payload
from actors.core.evolution_token import Gate, admitted
from actors.core.inbound_route import InboundRoute, policy_of
from actors.core.terms import terms_of
from actors.core.webhook_target import lane
from actors.inbound_ports import Happened, InboundRecords, InboundTools, Sending, WebhookCall
from actors.ports import Appended, Entry, Overloaded, StoreAway

ECHO_S = 5.0
"""So long after it was heard of a message of the instance's own is asked about again: the answer to a send, which has
its id, may come after the event."""
WAITS_MAX = 256
"""Messages of people on the phone that are waited for; one more is not counted."""

Known = IncomingText | OwnMessage | SentByApi | DeliveryUpdate | ConnectionChanged | Ignored

_ANYWHERE = Guard(allowed_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")), loopback_allowed=True)
"""A route was judged when it was put, and its host is when it is dialled; a message in between is not refused."""
_host_of = lru_cache(maxsize=4096)(lambda url: lane(url, _ANYWHERE))


class Noted(Struct, frozen=True):
    """The call is done with. `message_id` is that of a message that is stored now."""

    happened: Happened
    message_id: str | None = None


class NotAdmitted(Struct, frozen=True):
    """The call showed no token that is good for its instance; nothing was done."""


class Inbound:
    """Takes webhook calls. `append` stores a message (`Forwarding.append`)."""

    def __init__(
        self,
        records: InboundRecords,
        append: Callable[[Entry], Awaitable[Appended]],
        sending: Sending,
        gate: Gate,
        tools: InboundTools,
    ) -> None:
        self._records = records
        self._append = append
        self._sending = sending
        self._gate = gate
        self._tools = tools
        self._meters = tools.meters
        self._conversations = Conversations(records)
        self._waiting = 0
        self.on_takeover: Callable[[str, str], None] = lambda _instance, _contact: None
        """Told of the instance and the contact when a person wrote on the phone; set once by the composition root."""

    async def receive(self, call: WebhookCall) -> Noted | NotAdmitted | Malformed:
        """Take one call. Raises StoreAway, Overloaded, TimeoutError: then Evolution should send it again."""
        opened = evolution_events.opened(call.body, call.segment)
        route = None if isinstance(opened, Malformed) else await self._records.route_of(opened.instance)
        token = None if route is None else route.token
        if not admitted(self._gate, token, call.presented, self._tools.clock.wall()):
            self._count("refused")
            return NotAdmitted()
        # Only now is it looked at: nobody who may not come in makes work.
        event = opened if isinstance(opened, Malformed) else evolution_events.event_of(opened)
        if isinstance(event, Malformed):
            self._count("malformed")
            return event
        self._sending.health.event_heard(event.instance)
        noted = await self._act(event, route, call.trace)
        self._count(noted.happened)
        return noted

    async def _act(self, event: Known, route: InboundRoute | None, trace: str) -> Noted:
        match event:
            case IncomingText():
                return await self._take(event, route, trace)
            case OwnMessage():
                return await self._own(event, route)
            case SentByApi():
                await self._sending.sent_ids.note_sent(event.instance, event.key_id)
                return Noted("sent")
            case DeliveryUpdate():
                await self._sending.receipts.receive(event.instance, event.key_id, event.receipt)
                return Noted("receipt")
            case ConnectionChanged():
                self._sending.health.connection_changed(event.instance, event.state, event.status_reason)
                return Noted("connection")
            case Ignored():
                return Noted(event.why)
            case _:
                assert_never(event)

    async def _take(self, event: IncomingText, route: InboundRoute | None, trace: str) -> Noted:
        """Put a contact's message into the buffer of its conversation, once."""
        if route is None:
            return Noted("no route")
        async with self._conversations.turn(event.instance, event.contact):
            if await self._records.is_taken(event.instance, event.key_id):
                return Noted("duplicate")
            conversation = await self._conversations.of(event.instance, event.contact)
            entry = self._entry(event, route, conversation, trace)
            appended = await self._append(entry)
            await self._records.take(event.instance, event.key_id)
        return Noted("duplicate") if appended.duplicate else Noted("stored", entry.message_id)

    def _entry(self, event: IncomingText, route: InboundRoute, conversation: Conversation, trace: str) -> Entry:
        policy, limits = policy_of(route, conversation.key, event.instance, conversation.contact)
        terms = terms_of(conversation.key, policy, limits, _host_of(route.webhook.url))
        sent_s = int(self._tools.clock.wall()) if event.timestamp_s is None else event.timestamp_s
        is_n8n = route.buffer.format == "n8n"
        return Entry(
            terms=terms,
            message_id=message_order.message_id(event.instance, event.key_id, sent_s),
            dedupe=message_order.dedupe(event.instance, event.key_id),
            payload=n8n_payload(event.payload, conversation.contact) if is_n8n else event.payload,
            trace=trace,
            batch_id=self._tools.new_batch_id(terms.partition),
        )

    async def _own(self, event: OwnMessage, route: InboundRoute | None) -> Noted:
        """Find out whether a person wrote on the phone; what nobody wants to know is not looked into."""
        if route is None or route.takeover == "ignore":
            return Noted("own")
        async with self._conversations.turn(event.instance, event.contact):
            if await self._records.is_taken(event.instance, event.key_id):
                return Noted("duplicate")
            if await self._sending.sent_ids.is_ours(event.instance, event.key_id):
                return Noted("echo")
            if not self._look_again(event):
                return Noted("overlooked")
            await self._records.take(event.instance, event.key_id)
        return Noted("own")

    def _look_again(self, event: OwnMessage) -> bool:
        """Ask again when our own send must have been answered; false when too many are waited for."""
        if self._waiting >= WAITS_MAX:
            return False
        self._waiting += 1
        try:
            task = self._tools.supervisor.spawn("takeover", self._count_takeover(event))
        except Overloaded:
            self._waiting -= 1
            return False
        task.add_done_callback(self._looked)
        return True

    def _looked(self, _task: asyncio.Task[None]) -> None:
        self._waiting -= 1

    async def _count_takeover(self, event: OwnMessage) -> None:
        await asyncio.sleep(ECHO_S)
        try:
            if await self._sending.sent_ids.is_ours(event.instance, event.key_id):
                return
        except StoreAway:
            self._count("overlooked")
            return
        self._meters.inbound_takeovers.inc()
        self.on_takeover(event.instance, event.contact.key)

    def _count(self, happened: Happened) -> None:
        self._meters.inbound_events[happened].inc()
