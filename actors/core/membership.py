"""Membership: who lives, judged from the signs of life that were read. Pure: times are arguments.

A node is dead when its sign stood still for `DEAD_AFTER_S` on the reader's own clock, over reads that all succeeded
without a pause of more than half of that: a store that hangs makes nobody look dead. The rule is that of the DynamoDB
lock client [AWS, "Building Distributed Locks with the DynamoDB Lock Client", 2017]; no clock but the reader's counts.
Invariant: a node is never declared dead sooner than `DEAD_AFTER_S` after a sign of it was last seen to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

DEAD_AFTER_S = 2.0
"""T: how long a sign of life must stand still."""
BEAT_S = DEAD_AFTER_S / 6
"""Between two beats. The more often, the sooner a death is noticed after T is over."""
ACTS_S = 0.75 * DEAD_AFTER_S
"""How long after its last good beat a node may start something: it has stopped before anyone calls it dead."""
GAP_S = DEAD_AFTER_S / 2
"""A pause between reads that is longer makes all observations begin anew."""
TIMER_S = 0.002
"""A timer may come a millisecond early; a look that is too early would cost a whole beat."""
STABLE_S = 2 * DEAD_AFTER_S
"""How long nobody must have come or gone before partitions are moved without need."""


class Record(Protocol):
    """What must be known of a node's record: `incarnation` and `beat` together are the sign of life."""

    @property
    def node(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def beat(self) -> int: ...
    @property
    def leaving(self) -> bool: ...


R = TypeVar("R", bound=Record)


class Seen(Struct, Generic[R], frozen=True):
    """A node's latest record, and since when its sign of life stands still."""

    record: R
    since: float


class View(Struct, Generic[R], frozen=True):
    """What is known of all nodes. `leaving` still beat, and own what they have not given back, but get nothing more.
    `read_at`: when the last read was answered; `changed_at`: when `alive` changed."""

    seen: Mapping[str, Seen[R]] = MappingProxyType({})
    alive: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    read_at: float = float("-inf")
    changed_at: float = float("-inf")

    @property
    def dead(self) -> Sequence[R]:
        """Records of nodes whose signs stand still, also of those that said before that they leave."""
        return [of.record for node, of in self.seen.items() if node not in self.alive | self.leaving]


def observe(view: View[R], records: Sequence[R], sent: float, received: float) -> View[R]:
    """The view after a read that was sent and answered at these times.

    A sign that changed may have done so just before the answer, one that stands still may have been looked at when the
    read was sent: both are taken the slow way. An answer that comes late to a reader that was frozen tells of long ago.
    """
    uninterrupted = sent - view.read_at <= GAP_S and received - sent <= GAP_S
    seen = {record.node: _seen(view.seen.get(record.node), record, received, uninterrupted) for record in records}
    beating = {node: of.record for node, of in seen.items() if sent - of.since < DEAD_AFTER_S}
    leaving = frozenset(node for node, record in beating.items() if record.leaving)
    alive = frozenset(beating) - leaving
    return View(seen, alive, leaving, received, view.changed_at if alive == view.alive else received)


def next_look_in(view: View[R], now: float) -> float:
    """Seconds until the next read is due: a beat's, or sooner when somebody's time is over before that."""
    beating = view.alive | view.leaving
    ends = [of.since + DEAD_AFTER_S + TIMER_S - now for node, of in view.seen.items() if node in beating]
    soon = [max(end, 0.0) for end in ends if end < BEAT_S]
    return min(soon, default=BEAT_S)


def _seen(before: Seen[R] | None, record: R, received: float, uninterrupted: bool) -> Seen[R]:
    if before is None or not uninterrupted:
        return Seen(record, received)
    same = (before.record.incarnation, before.record.beat) == (record.incarnation, record.beat)
    return Seen(record, before.since if same else received)
