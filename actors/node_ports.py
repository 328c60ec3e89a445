"""Node ports: what one node needs to know of the others, and how it reaches them. Protocols and the values that cross.

Adapters implement them, the composition root joins them. Nothing here does anything. Like `actors/ports.py`, times that
end in `_ms` are Unix milliseconds of the store's clock when they name an instant, durations otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from actors.ports import (
    Appended,
    ClosedBatch,
    DueBatch,
    Entry,
    Fenced,
    Next,
    NothingOpen,
    Ready,
    StoreAway,
    WrongState,
)


class NodeRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself with each beat. `incarnation` is made afresh by each process, `beat` counts up;
    together they are the sign of life. `address` is `host:port` of its internal listener, "" when it has none.
    `group` is shared by the workers of one parent. The rest is for people."""

    node: str
    incarnation: str
    beat: int
    address: str = ""
    group: str = ""
    version: str = ""
    machine: str = ""
    pid: int = 0
    url: str = ""
    started_ms: int = 0
    partitions: int = 0
    open_batches: int = 0
    undelivered: int = 0
    oldest_waiting_ms: int = 0
    leaving: bool = False


class NodeEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the cluster's log: what `node` did or noticed. `what` is a fixed phrase such as "joined", "left",
    "found dead", "took over", "handed over", "fenced", "store restarted"; `other` the node it is about, `count`
    how many partitions or messages. `id` and `at_ms` are given by the store."""

    node: str
    what: str
    other: str = ""
    count: int = 0
    detail: str = ""
    id: str = ""
    at_ms: int = 0


class NodeReplaced(Exception):
    """Another process beats under this node's name: this one must end. The text says so, in one line."""


class MembershipStore(Protocol):
    """Signs of life and the cluster's log. Every method may raise StoreAway."""

    async def beat(
        self, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
    ) -> Sequence[NodeRecord]:
        """Write the own record, take the records of the dead away if they still stand as seen, append to the log;
        gives the records of all nodes. Raises NodeReplaced."""
        ...

    async def leave(self, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
        """Take the own record away."""
        ...

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """The newest events before the id `before` ("": the newest of all), newest first; and where to go on."""
        ...


class Look(Struct, frozen=True):
    """Look at who owns what, soon: something has changed."""


Hint = Ready | DueBatch | Look


class Bell(Protocol):
    """Rings at other nodes. What is rung is a hint: it may be lost, and the sweep finds all of it later."""

    def ring(self, node: str, hint: Hint) -> None:
        """Tell a node something. Never waits, never raises."""
        ...


class PeerAppend(Struct, frozen=True, tag="append"):
    """Take these messages into their open batches, as the owner of their partitions."""

    entries: Sequence[Entry]


class PeerFlush(Struct, frozen=True, tag="flush"):
    """Close the key's open batch now, as the delivery `batch_id`."""

    key: str
    batch_id: str


class PeerDrop(Struct, frozen=True, tag="drop"):
    """Drop the key's open batch."""

    key: str


class PeerRetry(Struct, frozen=True, tag="retry"):
    """Try a dead or waiting delivery again now."""

    delivery_id: str


class PeerDiscard(Struct, frozen=True, tag="discard"):
    """Give a delivery up."""

    delivery_id: str


PeerRequest = PeerAppend | PeerFlush | PeerDrop | PeerRetry | PeerDiscard


class NotOwner(Struct, frozen=True):
    """The node that was asked does not own the partition; this is what it knows."""

    epoch: int
    node: str


PeerAnswer = (
    Sequence[Appended | NotOwner | StoreAway] | int | ClosedBatch | Next | NothingOpen | WrongState | Fenced | NotOwner
)
"""`append` is answered by one of three for each entry, in order; everything else by one value."""


class PeerAway(Exception):
    """The other node could not be reached or did not answer in time; whether it acted is unknown."""


class Peers(Protocol):
    """One hop to another node, over a kept-alive authenticated connection. A request is never passed on twice."""

    async def ask(self, node: str, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Ask the owner. Raises PeerAway; StoreAway and Overloaded when the other node said so."""
        ...


class PeerDesk(Protocol):
    """The other end: answers what peers ask of this node."""

    async def serve(self, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Do it if this node owns the partition, else NotOwner. May raise StoreAway, Overloaded."""
        ...
