"""Host: the deliveries that wait for one host, and whether the next of them may start.

Bounds how many attempts are begun for a host at once and keeps a host that does not answer from costing more than a
probe now and then. Never waits, never talks to anything; time is an argument.
Invariants: a delivery is known here at most once; one that a breaker holds back is tried after `hold_s` all the same,
so that a dead host's deliveries come to their end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from actors.core import breaker
from actors.core.outcome import Answered, Failed
from actors.ports import Ready

CONCURRENCY = 16
"""Requests out at one host at once."""
STARTED_MAX = 2 * CONCURRENCY
"""Attempts begun for a host at once: while some are out, the next are claimed and the last are settled."""
STARTED_FIRST = CONCURRENCY
"""Attempts begun at once for a host that nothing is known of: a slow one must not make its keys wait."""
STARTED_DOUBTFUL = 4
"""The same for a host that failed lately. Each answer doubles it: hosts that hang take little of the room of all."""
WAITING_MAX = 1024
"""Deliveries kept in memory for a host; the rest stay in the store until a sweep brings them again."""


class Start(Struct, frozen=True):
    """Attempt this delivery now; `probe`: its outcome decides about a host that did not answer."""

    ready: Ready
    probe: bool


class Wait(Struct, frozen=True):
    """Nothing may start before monotonic time `until`."""

    until: float


class Lane(Struct, frozen=True):
    """What else holds for a line: whether nothing may start now, how long from one start to the next (in seconds),
    whether only one may be under way, and when (monotonic) the first may start."""

    held: Callable[[], bool] = lambda: False
    pace: Callable[[], float] | None = None
    alone: bool = False
    begins_at: float = 0.0


FREE = Lane()


class Host:
    """One host's line. `hold_s`: how long a breaker may hold a delivery back."""

    __slots__ = (
        *("_breaker", "_hold_s", "_known", "_lane", "_next_at", "_probe", "_waiting"),
        *("name", "overflowed", "room", "running", "wake_at"),
    )

    def __init__(self, name: str, hold_s: float, lane: Lane = FREE) -> None:
        self.name = name
        self.running = 0
        self.overflowed: set[int] = set()
        """Partitions of which there was no room for all."""
        self._lane = lane
        self._next_at = lane.begins_at
        self.room = 1 if lane.alone else STARTED_FIRST
        """Attempts that may be begun at once."""
        self.wake_at: float | None = None
        """When a timer will look at this host again; None: no timer is set."""
        self._hold_s = hold_s
        self._breaker: breaker.Breaker = breaker.CLOSED
        self._waiting: deque[tuple[Ready, float]] = deque()
        self._known: dict[str, bool] = {}
        """What waits (True) or runs."""
        self._probe = ""
        """The delivery whose outcome the breaker waits for."""

    @property
    def quiet(self) -> bool:
        """Nothing waits or runs."""
        return not self._known

    def idle(self, now: float) -> bool:
        """Nothing waits or runs, and there is nothing to remember of the host."""
        return not self._known and self._breaker == breaker.CLOSED and now >= self._next_at

    @property
    def is_open(self) -> bool:
        """Whether the breaker holds deliveries back."""
        return not isinstance(self._breaker, breaker.Closed)

    def offer(self, ready: Ready, now: float) -> bool:
        """Put a delivery in the line. False: there is no room; true also when it is there already."""
        if ready.delivery_id in self._known:
            return True
        if len(self._waiting) >= WAITING_MAX:
            self.overflowed.add(ready.partition)
            return False
        self._known[ready.delivery_id] = True
        self._waiting.append((ready, now))
        return True

    def waits(self, delivery_id: str) -> bool:
        """Whether a delivery is in the line, and has not started."""
        return self._known.get(delivery_id, False)

    def wants_more(self) -> set[int]:
        """The partitions that there is room again for; each is told once."""
        if not self.overflowed or 2 * len(self._waiting) > WAITING_MAX:
            return set()
        partitions, self.overflowed = self.overflowed, set()
        return partitions

    def next(self, now: float) -> Start | Wait | None:
        """The next delivery to attempt, taken out of the line; or until when to wait; or nothing to do."""
        if not self._waiting or self.running >= self.room or self._lane.held():
            return None
        if now < self._next_at:
            return Wait(self._next_at)
        ready, since = self._waiting[0]
        probe = False
        verdict = breaker.may_start(self._breaker, now)
        if isinstance(verdict, breaker.Hold):
            forced_at = since + self._hold_s
            if now < forced_at:
                return Wait(min(verdict.until, forced_at))
        elif isinstance(verdict, breaker.Probe):
            self._breaker = verdict.state
            self._probe = ready.delivery_id
            probe = True
        self._waiting.popleft()
        self._known[ready.delivery_id] = False
        self.running += 1
        if self._lane.pace is not None:
            self._next_at = now + self._lane.pace()
        return Start(ready, probe)

    def report(self, outcome: Answered | Failed, now: float, *, probe: bool) -> None:
        """Learn from an attempt's outcome."""
        if probe:
            self._probe = ""
        if breaker.counts_against(outcome):
            self._breaker = breaker.on_failure(self._breaker, now, probe=probe)
            self.room = STARTED_DOUBTFUL
        else:
            self._breaker = breaker.on_success(self._breaker)
            self.room = min(2 * self.room, STARTED_MAX)
        if self._lane.alone:
            self.room = 1

    def finished(self, delivery_id: str) -> None:
        """An attempt has come to its end, however. A probe that brought no outcome leaves its place to the next."""
        self.running -= 1
        self._known.pop(delivery_id, None)
        if delivery_id == self._probe:
            self._probe = ""
            if isinstance(self._breaker, breaker.HalfOpen):
                self._breaker = breaker.Open(0.0, self._breaker.open_s)
