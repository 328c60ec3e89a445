"""Inbound ports: what the handling of Evolution's webhooks needs from the store and from those who send.

Names of contacts are an instance's own: what one instance says of a contact holds for no other. Nothing here does
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from actors.core.evolution_server import InstanceState
from actors.core.evolution_token import Presented
from actors.core.inbound_route import InboundRoute
from actors.core.receipts import Receipt
from actors.ports import Clock, Counter
from actors.runtime.supervisor import Supervisor

Happened = Literal[
    "stored",
    "duplicate",
    "no route",
    "own",
    "echo",
    "sent",
    "receipt",
    "connection",
    "overlooked",
    "not handled",
    "not a chat",
    "no id",
    "no text",
    "no news",
    "malformed",
    "refused",
]
"""What became of a webhook call. `own` is a message that a person may have written on the phone; `overlooked`: whether
one did could not be found out."""


class WebhookCall(Struct, frozen=True, kw_only=True):
    """One call of Evolution's. `segment` is what its URL has behind `/evolution/webhook/`; `trace` is a traceparent, ""
    without one."""

    body: bytes
    segment: str | None
    presented: Presented
    trace: str


class InboundRecords(Protocol):
    """What is kept of routes, contacts and messages. Every method may raise StoreAway."""

    async def route_of(self, instance: str) -> InboundRoute | None:
        """The instance's route, else that of all others; read anew each time, so that a change holds everywhere."""
        ...

    async def get(self, instance: str) -> InboundRoute | None:
        """The route of exactly that name."""
        ...

    async def put(self, instance: str, route: InboundRoute) -> None: ...
    async def delete(self, instance: str) -> bool:
        """Whether there was one."""
        ...

    async def list_routes(self, after: str, limit: int) -> tuple[Sequence[tuple[str, InboundRoute]], str | None]:
        """Routes by name, those after one of them, and the name after which there are more."""
        ...

    async def join(self, instance: str, phone_jid: str, lid: str) -> None:
        """Remember, for a month, that both are one contact."""
        ...

    async def other_name(self, instance: str, jid: str) -> str | None:
        """The lid of a phone JID, the phone JID of a lid, as far as is remembered."""
        ...

    async def is_active(self, key: str) -> bool:
        """Whether a buffer key has an open batch, or deliveries that are not over."""
        ...

    async def is_taken(self, instance: str, key_id: str) -> bool:
        """Whether a message was taken within the last day."""
        ...

    async def take(self, instance: str, key_id: str) -> None:
        """Remember that it was."""
        ...


class Receipts(Protocol):
    """Who knows what was sent."""

    async def receive(self, instance: str, key_id: str, receipt: Receipt) -> None:
        """How far a message has come; it may be none of ours. Raises StoreAway."""
        ...


class SentIds(Protocol):
    """Which messages were sent through the API."""

    async def is_ours(self, instance: str, key_id: str) -> bool:
        """Whether this one was. Raises StoreAway."""
        ...

    async def note_sent(self, instance: str, key_id: str) -> None:
        """It was, by whomever. Raises StoreAway."""
        ...


class Health(Protocol):
    """How the instances are. Instances are named by callers: whoever keeps something of each bounds how many."""

    def event_heard(self, instance: str) -> None: ...
    def connection_changed(self, instance: str, state: InstanceState, status_reason: int | None) -> None: ...


class InboundMeters(Protocol):
    """What is counted."""

    inbound_events: Mapping[Happened, Counter]
    inbound_takeovers: Counter


class Sending(Struct, frozen=True):
    """What those who send must hear of."""

    receipts: Receipts
    sent_ids: SentIds
    health: Health


class InboundTools(Struct, frozen=True, kw_only=True):
    """What inbound works with. `new_batch_id` makes the id of a batch that closes, from its partition."""

    supervisor: Supervisor
    clock: Clock
    meters: InboundMeters
    new_batch_id: Callable[[int], str]
