"""Membership: this node's beats, and its view of who else lives.

With each beat it reads everybody's; what the view says of partitions it has `ownership` do. Decides nothing by itself:
who is dead is `core.membership`, what to take `core.placement`.
Invariant: a node that may have been taken for dead learns who owns what before it acts again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from actors.core.membership import ACTS_S, BEAT_S, DEAD_AFTER_S, Seen, View, next_look_in, observe
from actors.node_ports import MembershipStore, NodeEvent, NodeRecord, NodeReplaced
from actors.ownership import Ownership
from actors.ports import Journal, Meters, StoreAway
from actors.runtime.clock import Clock

AWAY_S = 0.1
"""Until the next try while the store is away."""
WAKES_S = 0.9 * BEAT_S
"""Between the two looks of a node that overslept. Longer than another one takes from finding it dead to acquiring."""
LOOK_S = DEAD_AFTER_S
"""Who owns what is looked at this often even when nothing seems to have changed."""
EVENTS_KEPT_MAX = 64
"""Lines for the cluster's log that wait for the next beat; older ones go when the store stays away."""
SERIOUS = frozenset({"found dead", "took over", "lost", "fenced", "store restarted"})
"""What this node's own log calls a warning."""
FALLEN_S = 600.0
FALLEN_MAX = 64
"""How long, and how many of, the nodes that were found dead are remembered: for people who ask."""


class Membership:
    """The heart of a node. `identity` is what the node says of itself, `describe` adds the numbers of now."""

    def __init__(
        self,
        identity: NodeRecord,
        store: MembershipStore,
        ownership: Ownership,
        clock: Clock,
        meters: Meters,
        journal: Journal,
    ) -> None:
        self._identity = identity
        self._store = store
        self._ownership = ownership
        self._clock = clock
        self._meters = meters
        self._journal = journal
        self._view: View[NodeRecord] = View()
        self._fallen: dict[str, Seen[NodeRecord]] = {}
        self._beats = 0
        self._sent = 0
        self._left = False
        self._woken_at = float("-inf")
        self._looked_at = float("-inf")
        self._events: deque[NodeEvent] = deque(maxlen=EVENTS_KEPT_MAX)
        self.leaving = False
        self.describe: Callable[[NodeRecord], NodeRecord] = lambda record: record
        """Fills in what a record says for people; set once by the composition root."""
        self.on_noted: Callable[[str, Mapping[str, object]], None] = lambda _what, _fields: None
        """Told what is noted of nodes; set once by the composition root."""
        self.on_replaced: Callable[[str], None] = lambda _reason: None
        """Told when another process uses this node's name; set once by the composition root."""

    def alive(self) -> frozenset[str]:
        """The nodes that live, this one among them."""
        return self._view.alive

    def others(self) -> Sequence[str]:
        """The incarnations of all nodes that live but this one."""
        view = self._view
        return [
            of.record.incarnation
            for node, of in view.seen.items()
            if node in view.alive and node != self._identity.node
        ]

    def stable_s(self) -> float:
        """For how long nobody has come or gone, in seconds of this node's boot time."""
        return self._clock.boottime() - self._view.changed_at

    def records(self) -> Sequence[tuple[NodeRecord, float]]:
        """Every node's latest record, and for how many seconds its sign of life stands still. Those found dead lately
        are among them."""
        now = self._clock.boottime()
        fallen = {node: of for node, of in self._fallen.items() if now - of.since < FALLEN_S}
        return [(of.record, max(now - of.since, 0.0)) for of in (fallen | dict(self._view.seen)).values()]

    def address_of(self, node: str) -> str:
        """Where the node's internal listener is, "" when it lives no more or has none."""
        of = self._view.seen.get(node)
        return of.record.address if of is not None and node in self._view.alive else ""

    def note(self, what: str, other: str = "", count: int = 0, detail: str = "") -> None:
        """Log what happened, and leave a line for the cluster's log with the next beat; lines that tell the same are
        one."""
        fields: dict[str, object] = {"other": other, "count": count, "detail": detail}
        self.on_noted(what, fields)
        tell = self._journal.warning if what in SERIOUS else self._journal.info
        tell(what, **{name: value for name, value in fields.items() if value})
        last = self._events[-1] if self._events else None
        if last is not None and (last.what, last.other, last.detail) == (what, other, detail):
            count += self._events.pop().count
        self._events.append(NodeEvent(node=self._identity.node, what=what, other=other, count=count, detail=detail))

    async def run_once(self) -> None:
        """Beat, read, and take what is this node's. Raises StoreAway, NodeReplaced."""
        sent = self._clock.boottime()
        overslept = self._ownership.overslept(sent)
        if not self._beats and not self._events:
            self.note("joined", detail=self._identity.version)
        for what, other, count in self._ownership.losses():
            self.note(what, other, count)
        before = self._view
        records = await self._beat(before.dead)
        self._view = view = observe(before, records, sent, self._clock.boottime())
        self._meters.nodes_alive.set(len(view.alive))
        for node in self._fallen.keys() & view.alive:
            del self._fallen[node]
        for died in {record.node for record in view.dead} - {record.node for record in before.dead}:
            self._remember(view.seen[died])
            self.note("found dead", other=died)
        doubtful = overslept and self._is_doubtful(sent)
        changed = view.alive != before.alive or self._ownership.look_wanted.is_set()
        stale = sent - self._looked_at > LOOK_S or not self._ownership.settled(view.alive | view.leaving)
        if (overslept or changed or stale) and not self.leaving:
            await self._look(sent)
        # A node that leaves does not look: once it has overslept it is through. And a first sign that was sent twice
        # may stand in the store since the earlier try.
        if not (doubtful or (overslept and self.leaving)) and (self._beats > 1 or self._sent == 1):
            self._ownership.beaten(sent)

    def _is_doubtful(self, sent: float) -> bool:
        """Whether others may have found this node dead, and be about to take what it still holds: before it acts again
        it looks a second time, a beat later."""
        if len(self._view.seen) < 2 or not self._ownership.held():  # noqa: PLR2004  itself, and somebody
            return False
        if sent - self._woken_at > ACTS_S:
            self._woken_at = sent
        return sent - self._woken_at < WAKES_S

    async def run(self) -> None:
        """Beat until this node has left. A service."""
        while not self._left:
            try:
                await self.run_once()
            except StoreAway:
                await asyncio.sleep(AWAY_S)  # a wish to look does not cut this short: it would be granted for ever
                continue
            except NodeReplaced as error:
                self.on_replaced(str(error))
                return
            await self._pause(next_look_in(self._view, self._clock.boottime()))

    async def leave_soon(self) -> None:
        """Say that this node is about to go: others may take what it gives back. Raises StoreAway."""
        self.leaving = True
        await self.run_once()

    async def leave(self) -> None:
        """Take the node's record away. Raises StoreAway."""
        self.leaving = self._left = True
        self.note("left")
        await self._store.leave(self._identity, tuple(self._events))

    async def _beat(self, buried: Sequence[NodeRecord]) -> Sequence[NodeRecord]:
        events = tuple(self._events)
        self._events.clear()
        # A number is used once: one whose answer was lost may stand in the store already, and to send it again would
        # be no sign of life. Only the first, which takes the name over, is sent until it is known to be there.
        self._sent += 1
        number = self._sent if self._beats else 1
        own = msgspec.structs.replace(self.describe(self._identity), beat=number, leaving=self.leaving)
        try:
            records = await self._store.beat(own, buried, events)
        except StoreAway:
            self._events = deque([*events, *self._events], EVENTS_KEPT_MAX)
            raise
        self._beats += 1
        return records

    async def _look(self, now: float) -> None:
        taken = await self._ownership.look(self._view.alive, self._view.leaving)
        self._looked_at = now
        for former, count in taken.by_former.items():
            self.note("took over" if former not in ("", self._identity.node) else "took", other=former, count=count)
            if former not in ("", self._identity.node):
                self._meters.takeovers.inc(count)

    def _remember(self, fallen: Seen[NodeRecord]) -> None:
        self._fallen.pop(fallen.record.node, None)
        self._fallen[fallen.record.node] = fallen
        if len(self._fallen) > FALLEN_MAX:
            del self._fallen[next(iter(self._fallen))]

    async def _pause(self, pause_s: float) -> None:
        """Wait, but not when somebody wants to know at once who owns what; a node that leaves looks no more."""
        if self.leaving:
            await asyncio.sleep(pause_s)
            return
        try:
            async with asyncio.timeout(pause_s):
                await self._ownership.look_wanted.wait()
        except TimeoutError:
            return
