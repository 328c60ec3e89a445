"""Inbound rig: the handling of webhook calls with everything around it in memory.

`records` is the store's, `known` what those who send know, `entries` what was stored. Nothing here decides anything.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from actors.core.evolution_server import InstanceState
from actors.core.evolution_token import Gate, Presented
from actors.core.inbound_route import ANY_INSTANCE, InboundRoute
from actors.core.receipts import Receipt
from actors.inbound import Inbound, Noted
from actors.inbound_ports import Happened, InboundTools, Sending, WebhookCall
from actors.ports import Appended, Counter, Entry
from tests.support.doubles import Stage, Tally

INSTANCE = "ventas"
PHONE = "5215512345678@s.whatsapp.net"
LID = "103899771998284@lid"
AT_S = 1_717_689_097
URL = "https://n8n.example/webhook"
OPEN = Gate(None, open_without=True)

Before = Callable[[str], Awaitable[None]]


async def _nothing(_name: str) -> None:
    """Nothing happens before a call."""


class MemoryInbound:
    """InboundRecords in memory. `before` runs before each call, to fail it or to let others go first."""

    def __init__(self) -> None:
        self.routes: dict[str, InboundRoute] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.taken: set[tuple[str, str]] = set()
        self.active: set[str] = set()
        self.before: Before = _nothing

    async def route_of(self, instance: str) -> InboundRoute | None:
        """As the store does it."""
        await self.before("route_of")
        return self.routes.get(instance) or self.routes.get(ANY_INSTANCE)

    async def get(self, instance: str) -> InboundRoute | None:
        """As the store does it."""
        return self.routes.get(instance)

    async def put(self, instance: str, route: InboundRoute) -> None:
        """As the store does it."""
        self.routes[instance] = route

    async def delete(self, instance: str) -> bool:
        """As the store does it."""
        return self.routes.pop(instance, None) is not None

    async def list_routes(self, after: str, limit: int) -> tuple[Sequence[tuple[str, InboundRoute]], str | None]:
        """As the store does it."""
        rows = sorted((name, route) for name, route in self.routes.items() if name > after)
        return rows[:limit], rows[limit - 1][0] if len(rows) > limit else None

    async def join(self, instance: str, phone_jid: str, lid: str) -> None:
        """As the store does it."""
        await self.before("join")
        self.names |= {(instance, phone_jid): lid, (instance, lid): phone_jid}

    async def other_name(self, instance: str, jid: str) -> str | None:
        """As the store does it."""
        await self.before("other_name")
        return self.names.get((instance, jid))

    async def is_active(self, key: str) -> bool:
        """As the store does it."""
        await self.before("is_active")
        return key in self.active

    async def is_taken(self, instance: str, key_id: str) -> bool:
        """As the store does it."""
        await self.before("is_taken")
        return (instance, key_id) in self.taken

    async def take(self, instance: str, key_id: str) -> None:
        """As the store does it."""
        await self.before("take")
        self.taken.add((instance, key_id))


class Known:
    """What those who send know and are told: implements Receipts, SentIds and Health."""

    def __init__(self) -> None:
        self.ours: set[tuple[str, str]] = set()
        self.receipts: list[tuple[str, str, Receipt]] = []
        self.heard: list[str] = []
        self.connections: list[tuple[str, InstanceState, int | None]] = []
        self.before: Before = _nothing

    async def receive(self, instance: str, key_id: str, receipt: Receipt) -> None:
        """A receipt."""
        await self.before("receive")
        self.receipts.append((instance, key_id, receipt))

    async def is_ours(self, instance: str, key_id: str) -> bool:
        """Whether it was sent through the API."""
        await self.before("is_ours")
        return (instance, key_id) in self.ours

    async def note_sent(self, instance: str, key_id: str) -> None:
        """It was."""
        await self.before("note_sent")
        self.ours.add((instance, key_id))

    def event_heard(self, instance: str) -> None:
        """It speaks."""
        self.heard.append(instance)

    def connection_changed(self, instance: str, state: InstanceState, status_reason: int | None) -> None:
        """Its connection."""
        self.connections.append((instance, state, status_reason))


class InboundTallies:
    """Meters that can be read."""

    def __init__(self) -> None:
        self.inbound_events: Mapping[Happened, Counter] = {each: Tally() for each in get_args(Happened)}
        self.inbound_takeovers: Counter = Tally()


class InboundRig:
    """An `Inbound` of a test's own; what it stores opens a batch of its key until `close`,
    and is known again under that key alone."""

    def __init__(self, stage: Stage, gate: Gate = OPEN) -> None:
        self.records = MemoryInbound()
        self.known = Known()
        self.meters = InboundTallies()
        self.entries: list[Entry] = []
        self.takeovers: list[tuple[str, str]] = []
        self.before_append: Before = _nothing
        tools = InboundTools(
            supervisor=stage.supervisor,
            clock=stage.clock,
            meters=self.meters,
            new_batch_id=lambda partition: f"dlv_{partition:02x}",
        )
        sending = Sending(self.known, self.known, self.known)
        self.inbound = Inbound(self.records, self._append, sending, gate, tools)
        self.inbound.on_takeover = lambda instance, contact: self.takeovers.append((instance, contact))

    def route(self, instance: str = INSTANCE, **changes: object) -> None:
        """Put a route."""
        given = {"webhook": {"url": URL}, "buffer": {}, **changes}
        self.records.routes[instance] = msgspec.convert(given, InboundRoute)

    async def call(self, body: bytes, segment: str | None = None, presented: Presented | None = None) -> object:
        """One webhook call, whatever comes of it."""
        shown = Presented() if presented is None else presented
        return await self.inbound.receive(WebhookCall(body=body, segment=segment, presented=shown, trace=""))

    async def happened(self, body: bytes) -> Happened:
        """What becomes of an event."""
        noted = await self.call(body)
        assert isinstance(noted, Noted), noted
        return noted.happened

    def keys(self) -> list[str]:
        """The buffer keys of all that was stored, in order."""
        return [entry.terms.key.removeprefix(f"{INSTANCE}:") for entry in self.entries]

    def close(self) -> None:
        """Every batch goes out and is delivered."""
        self.records.active.clear()

    async def _append(self, entry: Entry) -> Appended:
        await self.before_append(entry.terms.key)
        duplicate = any((entry.terms.key, entry.dedupe) == (each.terms.key, each.dedupe) for each in self.entries)
        if not duplicate:
            self.entries.append(entry)
            self.records.active.add(entry.terms.key)
        return Appended(1, 2, 3, 4, duplicate, None)


def event(name: str, data: object, **more: object) -> bytes:
    """An event of the instance."""
    return json.dumps({"event": name, "instance": INSTANCE, "data": data, "apikey": "k" * 36} | more).encode()


def says(text: str = "hola", key_id: str = "3EB0A1", at_s: int | None = AT_S, **key: object) -> bytes:
    """A contact writes; `key` are the fields that tell who, the phone JID when there are none."""
    names = key or {"remoteJid": PHONE}
    data: dict[str, Any] = {
        "key": {"fromMe": False, "id": key_id, **names},
        "pushName": "Ana",
        "message": {"conversation": text},
        "messageType": "conversation",
    }
    return event("messages.upsert", data if at_s is None else data | {"messageTimestamp": at_s})
