"""Announcer: what happens to batches, deliveries and nodes, told on the router's own channels.

Others call it when something has happened; it says so in the words of the API, if anybody listens. Never holds anybody
up, never tells a body, a header or the query of a URL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from actors.core.outcome import Answered, Failed
from actors.core.rendering import rfc3339
from actors.events import Events
from actors.ports import Claimed, ClosedBatch, DeliveryRecord, Entry, Overloaded, Settle, StoreAway
from actors.runtime.supervisor import Supervisor


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
            self._events.tell("$buffers", "opened", {"key": entry.key})

    def batch_closed(self, batch: ClosedBatch) -> None:
        """A batch is frozen. Its key the node may not know: it is in the store."""
        if self._events.wanted("$buffers"):
            with suppress(Overloaded):
                self._supervisor.spawn("announce a batch", self._closed(batch))

    def settled(self, claimed: Claimed, settle: Settle, outcome: Answered | Failed) -> None:
        """An attempt has ended."""
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
        self._events.tell("$deliveries", "discarded", {"delivery_id": delivery_id})

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
