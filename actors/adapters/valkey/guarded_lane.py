"""Guarded lane: a lane with a breaker, for callers with something better to do than to wait for a server that hangs.

Only scripts are guarded. A connection that ended before the answer came is a failure, every answer proves the server
alive, also one that refuses.
Invariant: while the breaker is not closed at most one script is under way as a probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.lane import Begun, Greeting, Lane
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.wire import REPLY_DEADLINE_S
from actors.core import breaker
from actors.ports import StoreAway

LIMITS = breaker.Limits(failures_to_open=3, open_s_min=0.25, open_s_max=1.0, probe_lost_s=REPLY_DEADLINE_S + 0.5)


class GuardedLane(Lane):
    """A lane whose scripts are refused at once while its server is known to hang."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        greet: Greeting,
        on_up: Callable[[], None],
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(connect, greet, self._came_up, jitter)
        self._told_up = on_up
        self._breaker: breaker.Breaker = breaker.CLOSED

    def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Begun:
        """Run a script. Raises StoreAway at once also while the breaker is open."""
        if not self.up.is_set():
            raise StoreAway(self.why_down)
        now = asyncio.get_running_loop().time()
        verdict = breaker.may_start(self._breaker, now, LIMITS)
        if isinstance(verdict, breaker.Hold):
            raise StoreAway("the store does not answer")
        probe = isinstance(verdict, breaker.Probe)
        begun = _Guarded(self, script, keys, arguments, partial(self._report, probe))
        if isinstance(verdict, breaker.Probe):
            self._breaker = verdict.state
        return begun

    def _came_up(self) -> None:
        """The server has answered a greeting: it is worth a probe at once."""
        self._probe_next()
        self._told_up()

    def _probe_next(self) -> None:
        if not isinstance(self._breaker, breaker.Closed):
            self._breaker = breaker.Open(0.0, self._breaker.open_s)

    def _report(self, probe: bool, outcome: Any) -> None:
        if isinstance(outcome, StoreAway) and not self.is_open:
            now = asyncio.get_running_loop().time()
            self._breaker = breaker.on_failure(self._breaker, now, probe=probe, limits=LIMITS)
        else:
            self._breaker = breaker.on_success(self._breaker)


class _Guarded(Begun):
    """A script whose outcome the breaker is told of before anybody else, whoever still waits for it."""

    __slots__ = ("_report",)

    def __init__(
        self,
        lane: Lane,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        report: Callable[[Any], None],
    ) -> None:
        self._report = report
        super().__init__(lane, script, keys, arguments)

    def arrived(self, outcome: Any) -> None:
        self._report(outcome)
        super().arrived(outcome)
