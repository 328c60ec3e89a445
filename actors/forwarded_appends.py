"""Forwarded appends: messages on their way to the owners of their partitions, gathered per owner.

One short try each; what comes of it the caller decides on. After a try that failed the owner is left alone for a
moment, so that one that hangs costs few callers a wait.
Invariants: an entry is asked of one owner once; it is answered in APPEND_S from when it leaves; the lines are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from actors.attempt import Tools
from actors.committer import Committer
from actors.node_ports import NotOwner, PeerAppend, PeerAway, Peers
from actors.ports import Appended, Entry, Histogram, StoreAway
from actors.runtime.outcome import Tell

APPEND_S = 0.05
"""A store answers in 2 ms: an owner that needs longer is in trouble, and any node can store the message."""
PAUSE_S = 0.1
LINES_MAX = 64
ENTRY_OVERHEAD_BYTES = 256

Outcome = Appended | NotOwner | StoreAway | PeerAway


class _Unseen:
    """A histogram for what is counted elsewhere."""

    def observe(self, amount: float) -> None:
        """Nothing."""


class _Commits:
    """The committer's own meters are about the store."""

    def __init__(self) -> None:
        self.commit_operations: Histogram = _Unseen()
        self.commit_seconds: Histogram = _Unseen()


class ForwardedAppends:
    """A line to each owner. `heard(partition, epoch, node)` is told when one says that it is none."""

    def __init__(self, peers: Peers, heard: Callable[[int, int, str], None], tools: Tools) -> None:
        self._peers = peers
        self._heard = heard
        self._tools = tools
        self._clock = tools.clock
        self._forwards = tools.meters.forwards
        self._lines: dict[str, Committer[Entry, Outcome]] = {}
        self._not_before: dict[str, float] = {}
        self.on_stored: Callable[[Sequence[Entry], Sequence[int]], None] = lambda _entries, _received_us: None
        """Told of messages that their owners stored; set once by the composition root."""

    def submit(self, owner: str, entry: Entry, tell: Tell[Appended | NotOwner]) -> None:
        """Have its owner store a message; `tell` is called later, once: Overloaded when it surely did not, PeerAway and
        StoreAway when nobody can know. Raises Overloaded."""
        self._line(owner).submit(entry, len(entry.payload) + ENTRY_OVERHEAD_BYTES, tell)

    async def drained(self) -> None:
        """Wait until everything has an answer."""
        for line in list(self._lines.values()):
            await line.drained()

    def _line(self, owner: str) -> Committer[Entry, Outcome]:
        line = self._lines.get(owner)
        if line is None:
            if len(self._lines) >= LINES_MAX:
                self._forget_idle()
            tools = self._tools
            line = self._lines[owner] = Committer(
                "forward", partial(self._commit, owner), tools.supervisor, tools.clock, _Commits()
            )
        return line

    def _forget_idle(self) -> None:
        for owner in [owner for owner, line in self._lines.items() if line.depth == 0]:
            del self._lines[owner]
            self._not_before.pop(owner, None)

    async def _commit(self, owner: str, entries: Sequence[Entry]) -> Sequence[Outcome]:
        if self._clock.monotonic() < self._not_before.get(owner, float("-inf")):
            return [PeerAway(f"{owner} did not answer a moment ago")] * len(entries)
        try:
            answer = await self._peers.ask(owner, PeerAppend(entries), APPEND_S)
        except PeerAway as error:
            return self._away(owner, error, len(entries))
        if not isinstance(answer, Sequence) or len(answer) != len(entries):
            return self._away(owner, PeerAway(f"{owner} answered something else"), len(entries))
        self._account(entries, answer)
        return answer

    def _away(self, owner: str, error: PeerAway, count: int) -> Sequence[Outcome]:
        self._not_before[owner] = self._clock.monotonic() + PAUSE_S
        self._forwards["away"].inc(count)
        return [error] * count

    def _account(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        stored, received_us = [], []
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, Appended):
                stored.append(entry)
                received_us.append(outcome.received_us)
        if len(stored) < len(entries):
            for entry, outcome in zip(entries, outcomes, strict=True):
                if isinstance(outcome, NotOwner):
                    self._forwards["not_owner"].inc()
                    self._heard(entry.partition, outcome.epoch, outcome.node)
        self._forwards["done"].inc(len(stored))
        self.on_stored(stored, received_us)
