"""Audit: what was promised, what was done, and whether they agree. Sees everything, changes nothing.

Believes neither actors nor store: it keeps its own account of what clients were told, of which scripts ran for whom,
and of every request to a webhook. What goes wrong is a line in `violations`, with the invariant's number.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct, field

from actors.core.ids import partition_of
from actors.core.membership import ACTS_S, DEAD_AFTER_S
from actors.node_ports import NodeRecord
from actors.ports import Appended, Claimed, ClosedBatch, Entry, Fenced, Next, Poisoned
from tests.simulation.faults import Faults
from tests.simulation.loop import Process, SimLoop
from tests.simulation.server import Server
from tests.simulation.sim_node import SimNode
from tests.simulation.state import Batch, Moment, Partition
from tests.simulation.trace import Trace
from tests.simulation.webhooks import Post

EARLY_MS = 5
LATE_S = 0.4
"""A sweep's period, and what lies around it."""
BROUGHT_BACK_S = 10.0
"""How old a message may be that a node brings back to a store that has lost it."""
JUDGED_S = 0.05
"""How much sooner than the detector's time a takeover may seem to be: the way of a beat."""


class _Message(Struct):
    message_id: str


class _Body(Struct):
    key: str
    messages: list[_Message]


_decode = msgspec.json.Decoder(_Body).decode


class Sent(Struct, kw_only=True):
    """A message as its client knows it. `acked_by` is the process that said it has it; `heard`: to the client."""

    key: str
    number: int
    heard: bool = False
    acked_at: float | None = None
    acked_by: Process | None = None


class Account(Struct, kw_only=True):
    """What was seen of one delivery: its requests, its body, who claimed it last and under which epoch."""

    posts: list[Post] = field(default_factory=list)
    body: bytes | None = None
    epoch: int = 0


class Audit:
    """One run's."""

    def __init__(self, loop: SimLoop, server: Server, trace: Trace) -> None:
        self._loop = loop
        self._server = server
        self._trace = trace
        self.faults = Faults()
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.sent: dict[str, Sent] = {}
        self.sizes: dict[str, int] = {}
        """How many messages make a batch of each key full."""
        self.accounts: dict[str, Account] = {}
        self.taken: dict[str, list[Post]] = {}
        """The requests that a host took, by message id."""
        self.first_taken: dict[str, list[str]] = {}
        """Message ids in the order in which hosts first took them, by key."""
        self.given_up: set[str] = set()
        """Messages whose batch somebody dropped or discarded."""
        self.died: set[str] = set()
        """Messages that were dead letters once; a retry brings them out of order."""
        self._dropped: Batch | None = None
        self.bell_excuse_s = 0.0
        """How much later everything may be because rings get lost."""
        self._dead: set[str] = set()
        """Nodes whose last process has ended."""
        self._born: dict[str, float] = {}
        """When the store first heard of a node's present process."""
        self._beats: dict[str, float] = {}
        """When the store last heard a node's beat, in truth."""
        self._before: list[tuple[Partition, int, str]] = []

    def violation(self, invariant: str, what: str) -> None:
        """Something must not be."""
        self.violations.append(f"{invariant} at {self._trace.now:.6f}: {what}")
        self._trace.note("AUDIT", invariant, what)

    # What clients are told.

    def sends(self, entry: Entry, number: int) -> None:
        """A client begins to send a message."""
        self.sizes[entry.terms.key] = entry.terms.max_size
        self.sent[entry.message_id] = Sent(key=entry.terms.key, number=number)

    def answered(self, node: SimNode, entry: Entry, outcome: Appended) -> None:
        """A node says that it has a message; whether its client hears it is another matter."""
        self._trace.note(node.name, "has", (entry.message_id, outcome.duplicate, outcome.closed is not None))
        sent = self.sent[entry.message_id]
        if sent.acked_at is None:
            sent.acked_at, sent.acked_by = self._loop.now, node.process

    def acknowledged(self, name: str, entry: Entry, number: int) -> None:
        """A client heard it."""
        self.sent[entry.message_id].heard = True
        self.counts["acknowledged"] += 1

    def gone(self, process: Process) -> None:
        """A process ended."""
        self._trace.note(process.name, "dies")
        self._dead.add(process.name)

    # What the store does.

    def before(self, name: str, node: str, at: Moment, arguments: tuple[Any, ...]) -> None:
        """A script is about to run."""
        state = self._server.state
        if name == "cancel":
            self._dropped = state.partition(arguments[0]).open.get(arguments[2])
        elif name in ("acquire", "hand_over"):
            self._before = [(of := state.partition(row[0]), of.epoch, of.node) for row in arguments[-1]]

    def after(self, name: str, node: str, at: Moment, arguments: tuple[Any, ...], reply: Any) -> None:
        """A script has run."""
        match name:
            case "close" | "claim" | "settle" | "release":
                self._trace.note(node, name, tuple(type(each).__name__ for each in reply))
                for wish, outcome in zip(arguments[0], reply, strict=True):
                    self._owner_write(name, node, at, wish, outcome)
            case "append" | "restore":
                self._trace.note(node, name, len(reply))
            case "cancel":
                self._stale(name, node, arguments[0], arguments[1], reply)
                if isinstance(reply, int):
                    self._given_up(self._dropped)
            case "requeue" | "discard":
                wish = arguments[0]
                self._stale(name, node, wish.partition, wish.epoch, reply)
                if name == "discard" and isinstance(reply, Next):
                    of = self._server.state.partition(wish.partition).deliveries[wish.delivery_id]
                    self._given_up(of.batch)
            case "acquire" | "hand_over":
                self._trace.note(node, name, len(reply))
                self._owners_change(name, node, arguments)
            case "beat":
                if not isinstance(reply, Exception):
                    self._beat(arguments[0])
            case "leave":
                self._trace.note(node, name)
                self._beats.pop(node, None)

    def _owner_write(self, name: str, node: str, at: Moment, wish: Any, outcome: Any) -> None:
        self._stale(name, node, wish.partition, wish.epoch, outcome)
        if isinstance(outcome, ClosedBatch) and outcome.reason == "timeout":
            self._closed_in_time(at, wish.partition, outcome.delivery_id)
        elif isinstance(outcome, Claimed):
            self.accounts.setdefault(wish.delivery_id, Account()).epoch = wish.epoch
        elif name == "settle" and isinstance(outcome, Next):
            self.counts[wish.status] += 1
            if wish.status == "dead":
                self._died(wish.partition, wish.delivery_id)
        elif isinstance(outcome, Poisoned):
            self.counts["poisoned"] += 1
            self._died(wish.partition, wish.delivery_id)

    def _stale(self, name: str, node: str, partition: int, epoch: int, outcome: Any) -> None:
        if isinstance(outcome, Fenced):
            self.counts["fenced"] += 1
        elif epoch != self._server.state.partition(partition).epoch:
            self.violation("I3", f"{name} of {node} in partition {partition} was done under the stale epoch {epoch}")

    def _owners_change(self, name: str, node: str, arguments: tuple[Any, ...]) -> None:
        for (of, epoch, former), row in zip(self._before, arguments[-1], strict=True):
            if of.epoch == epoch:
                continue
            if epoch != row[1]:
                self.violation("I3", f"{name} of {node}: partition {of.number} changed though its epoch was another")
            if name == "acquire" and former not in ("", node) and former in self._beats:
                self.counts["taken over"] += 1
                self._takeover(of.number, former, node)

    def _takeover(self, partition: int, former: str, node: str) -> None:
        """Nobody is taken for dead who lives and could say so."""
        now = self._loop.now
        idle_s = self.faults.up_between(self._beats[former], now)
        born = self._born[former]
        forgotten = any(fault.start - JUDGED_S <= born <= fault.end for fault in self.faults.of("rollback"))
        if former in self._dead or forgotten or self.faults.hurt(former, now - DEAD_AFTER_S, now):
            return
        if self.faults.away_often(now - 2 * DEAD_AFTER_S, now):
            self.counts["taken while the store came and went"] += 1
        elif idle_s < DEAD_AFTER_S - JUDGED_S:
            self.violation("I3", f"{node} took partition {partition} from {former}, which beat {idle_s:.3f} s before")

    def _died(self, partition: int, name: str) -> None:
        batch = self._server.state.partition(partition).deliveries[name].batch
        self.died.update(message_id for message_id, _, _ in batch.messages)

    def _given_up(self, batch: Batch | None) -> None:
        if batch is not None:
            self.counts["given up"] += len(batch.messages)
            self.given_up.update(message_id for message_id, _, _ in batch.messages)

    def _beat(self, own: NodeRecord) -> None:
        self._trace.note(own.node, "beat", own.beat)
        if own.leaving:
            self._beats.pop(own.node, None)
        else:
            self._beats[own.node] = self._loop.now
        if own.beat == 1:
            self._born[own.node] = self._loop.now
            self._dead.discard(own.node)

    def _closed_in_time(self, at: Moment, partition: int, name: str) -> None:
        of = self._server.state.partition(partition).deliveries[name]
        if of.created_ms != at.ms:
            return  # closed before, and asked again
        batch = of.batch
        if self.faults.any("clock", batch.born_s - BROUGHT_BACK_S, self._loop.now):
            return
        late_s = (at.ms - batch.deadline_ms) / 1000
        if late_s * 1000 < -EARLY_MS:
            self.violation("I6", f"{name} was closed {-late_s:.3f} s before its time")
        excuse_s = self.faults.excuse(self._loop.now - late_s, self._loop.now) + self.bell_excuse_s
        if late_s > LATE_S + excuse_s:
            self.violation("I6", f"{name} was closed {late_s:.3f} s after its time (excused: {excuse_s:.3f} s)")

    # What goes out.

    def started(self, post: Post) -> None:
        """The first byte of a request to a webhook is written."""
        name, node = post.name, post.process.name
        self._trace.note(node, "posts", name)
        self.counts["posts"] += 1
        account = self.accounts.setdefault(name, Account())
        if account.body is None:
            account.body = post.request.body
        elif account.body != post.request.body:
            self.violation("I2", f"{name} has another body now")
        age_s = self._loop.now - post.process.beat_sent_at
        if age_s >= ACTS_S:
            self.violation("I3", f"{node} posts {name}, and its last good beat is {age_s:.3f} s old")
        of = self._server.state.partition(partition_of(name))
        if account.epoch != of.epoch and not self.faults.any("rollback", 0.0, self._loop.now):
            self.violation("I3", f"{node} posts {name}, claimed under {account.epoch}; {of.node} holds {of.epoch} now")
        account.posts.append(post)

    def took(self, post: Post) -> None:
        """A host took a request."""
        self._trace.note("host", "took", post.name)
        body = _decode(post.request.body)
        if len(body.messages) > self.sizes[body.key]:
            if self.faults.any("rollback", 0.0, self._loop.now) or self.faults.of("clock"):
                self.counts["overfull after a rollback"] += 1
            else:
                what = f"{post.name} has {len(body.messages)} messages, more than {self.sizes[body.key]}"
                self.violation("I6", what)
        order = self.first_taken.setdefault(body.key, [])
        for message in body.messages:
            posts = self.taken.setdefault(message.message_id, [])
            if not posts:
                order.append(message.message_id)
            posts.append(post)
            if len(posts) > 1:
                self._twice(message.message_id, posts[-2], post)

    def _twice(self, message_id: str, one: Post, other: Post) -> None:
        self.counts["duplicates"] += 1
        first, second = sorted((one, other), key=lambda post: post.started_at)
        if first.name == second.name:
            badly = first.ended_badly_at is not None
            excused = badly or self.faults.touch(first.process.name, first.started_at, second.started_at)
        else:
            excused = self.faults.any("rollback", 0.0, self._loop.now) or self.faults.any("clock", 0.0, self._loop.now)
        if not excused:
            self.violation("I4", f"{message_id} was taken twice, in {first.name} and {second.name}, for no reason")
