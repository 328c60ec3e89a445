"""Announcer: what happens to batches, deliveries and nodes, told on the router's own channels.

Others call it when something has happened; it says so in the words of the API, if anybody listens. Never holds anybody
up but the inventory's flow, which tells again what it could not; never tells a body, a header or the query of a URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from msgspec import Raw

from actors.core.evolution_server import Paused
from actors.core.ids import is_task
from actors.core.inventory import Event
from actors.core.outcome import Answered, Failed
from actors.core.receipts import Receipt
from actors.core.rendering import rfc3339
from actors.core.tasks import TaskState, policy_of
from actors.events import Events
from actors.ports import Claimed, ClosedBatch, DeliveryRecord, Entry, Overloaded, Settle, Settled, StoreAway
from actors.runtime.supervisor import Supervisor
from actors.task_ports import NewTask

_TASK_EVENTS: dict[Settled, tuple[str, TaskState]] = {
    "delivered": ("succeeded", "SUCCESS"),
    "dead": ("failed", "FAILURE"),
    "retrying": ("retrying", "RETRY"),
    "held": ("held", "RETRY"),
}


class Announcer:
    """Announces for one node. `record_of` looks a delivery up."""

    def __init__(
        self,
        events: Events,
        node: str,
        record_of: Callable[[str], Awaitable[DeliveryRecord | None]],
        supervisor: Supervisor,
    ) -> None:
        self._events = events
        self._record_of = record_of
        self._supervisor = supervisor
        events.stamp = lambda wall: {"at": rfc3339(round(wall * 1000)), "node": node}

    def batch_opened(self, entry: Entry) -> None:
        """A message has opened a batch."""
        if self._events.wanted("$buffers"):
            self._events.tell("$buffers", "opened", {"key": entry.terms.key})

    def batch_closed(self, batch: ClosedBatch) -> None:
        """A batch is frozen. Its key the node may not know: it is in the store."""
        if self._events.wanted("$buffers"):
            with suppress(Overloaded):
                self._supervisor.spawn("announce a batch", self._closed(batch))

    def settled(self, claimed: Claimed, settle: Settle, outcome: Answered | Failed) -> None:
        """An attempt has ended."""
        if is_task(settle.delivery_id):
            self._task_settled(claimed, settle, outcome)
            return
        if not self._events.wanted("$deliveries"):
            return
        fields: dict[str, object] = {
            "delivery_id": claimed.delivery_id,
            "key": claimed.key,
            "size": len(claimed.messages),
            "attempt": claimed.attempt,
            "latency_ms": round(outcome.latency_ms, 2),
        }
        if isinstance(outcome, Answered):
            fields["status_code"] = outcome.status
        else:
            fields["error"] = outcome.error
        if settle.status == "retrying":
            fields["retry_in_ms"] = settle.retry_in_ms
        self._events.tell("$deliveries", settle.status, fields)

    def discarded(self, delivery_id: str) -> None:
        """A delivery was given up on demand."""
        if is_task(delivery_id):
            self._events.tell("$tasks", "revoked", {"task_id": delivery_id, "status": "REVOKED"})
            return
        self._events.tell("$deliveries", "discarded", {"delivery_id": delivery_id})

    def task_queued(self, task: NewTask) -> None:
        """A task was taken in."""
        if self._events.wanted("$tasks"):
            policy = policy_of(task.policy)
            fields = {"task_id": task.task_id, "status": "PENDING", "instance": policy.instance, "phone": policy.phone}
            self._events.tell("$tasks", "queued", fields)

    def started(self, claimed: Claimed) -> None:
        """An attempt begins."""
        if is_task(claimed.delivery_id) and self._events.wanted("$tasks"):
            fields = {"task_id": claimed.delivery_id, "status": "STARTED", "attempt": claimed.attempt}
            self._events.tell("$tasks", "started", fields)

    def receipt(self, task_id: str, instance: str, receipt: Receipt) -> None:
        """A sent message has come further."""
        self._events.tell("$tasks", "delivery", {"task_id": task_id, "instance": instance, "delivery": receipt})

    def lane_changed(self, instance: str, paused: Paused | None) -> None:
        """Nothing is sent for an instance for now, or it goes on."""
        fields: dict[str, object] = {"instance": instance}
        if paused is not None:
            fields |= {"cause": paused.cause, "reason": paused.reason}
        self._events.tell("$tasks", "resumed" if paused is None else "paused", fields)

    def taken_over(self, instance: str, contact: str) -> None:
        """A person has answered a contact from the phone."""
        self._events.tell("$tasks", "takeover", {"instance": instance, "contact": contact})

    async def inventory_changed(self, changed: Sequence[Event]) -> None:
        """The inventory's projection has these events now. Waits until each is told, as often as it is called; each is
        one message. Raises StoreAway, Overloaded."""
        if await self._events.heard("$inventory"):
            # They are submitted in this order, and the channel has them in it.
            await asyncio.gather(*(self._inventory_event(event) for event in changed))

    async def _inventory_event(self, event: Event) -> None:
        fields = {"event_id": event.event_id, "seq": event.seq, "data": event.data, "written_at": event.at}
        await self._events.tell_once("$inventory", event.type, fields, f"inventory:{event.event_id}")

    def _task_settled(self, claimed: Claimed, settle: Settle, outcome: Answered | Failed) -> None:
        if not self._events.wanted("$tasks"):
            return
        policy = policy_of(claimed.policy)
        what, status = _TASK_EVENTS[settle.status]
        fields: dict[str, object] = {
            "task_id": claimed.delivery_id,
            "status": "PENDING" if settle.status == "held" and not claimed.failures else status,
            "instance": policy.instance,
            "phone": policy.phone,
            "attempt": claimed.attempt,
        }
        if settle.result:
            fields["result"] = Raw(settle.result)
        if settle.status in ("retrying", "held"):
            fields["retry_in_ms"] = settle.retry_in_ms
            fields["error"] = outcome.error if isinstance(outcome, Failed) else f"answered {outcome.status}"
        self._events.tell("$tasks", what, fields)

    def node_noted(self, what: str, fields: Mapping[str, object]) -> None:
        """A node has joined, taken over, left …"""
        self._events.tell("$nodes", what, {name: value for name, value in fields.items() if value})

    async def _closed(self, batch: ClosedBatch) -> None:
        key = ""
        with suppress(StoreAway):
            record = await self._record_of(batch.delivery_id)
            key = "" if record is None else record.key
        fields = {"key": key, "size": batch.size, "reason": batch.reason, "delivery_id": batch.delivery_id}
        self._events.tell("$buffers", "closed", fields)
