"""Server: the simulated store itself. Runs scripts one at a time, by its own clock, and may lose the end of its log.

A restart with a lost tail is what it is in earnest: the log is played again from its start up to a script's end before
the loss. Whoever watches is shown each script that ran, never one that is played again.
Invariant: what a script did is there at the next one; what was lost was at most the last two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.loop import SimLoop
from tests.simulation.scripts import READS, WRITES, Script
from tests.simulation.state import Moment, State
from tests.support.virtual_time import STARTS_AT_S, WALL_AT_START_S

LOST_S_MAX = 2.0


class Watcher(Protocol):
    """Sees every script: before it runs, and what it answered."""

    def before(self, name: str, node: str, at: Moment, arguments: tuple[Any, ...]) -> None: ...
    def after(self, name: str, node: str, at: Moment, arguments: tuple[Any, ...], reply: Any) -> None: ...


class Server:
    """One store. `scripts` may be changed, to plant a fault."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._log: list[tuple[Moment, str, tuple[Any, ...]]] = []
        self._waiting: list[Callable[[], None]] = []
        self.scripts: dict[str, Script] = {**WRITES, **READS}
        self.state = State()
        self.up = True
        self.paused = False
        self.run_number = 1
        self.clock_error_s = 0.0
        self.clock_error_s_max = 0.0
        self.watchers: list[Watcher] = []
        self.on_restart: Callable[[], None] = lambda: None
        """Told when every connection has ended."""

    def moment(self) -> Moment:
        """Now, by this server's clock and in truth."""
        us = round((WALL_AT_START_S + self._loop.now - STARTS_AT_S + self.clock_error_s) * 1_000_000)
        return Moment(us // 1000, us, self._loop.now)

    def jump(self, seconds: float) -> None:
        """The clock is set."""
        self.clock_error_s += seconds
        self.clock_error_s_max = max(self.clock_error_s_max, self.clock_error_s)

    def arrive(self, perform: Callable[[], None]) -> None:
        """A request came in: it runs now, or when this server goes on."""
        if self.paused:
            self._waiting.append(perform)
        elif self.up:
            perform()

    def run(self, name: str, node: str, arguments: tuple[Any, ...]) -> Any:
        """Run a script for a node."""
        at = self.moment()
        for watcher in self.watchers:
            watcher.before(name, node, at, arguments)
        reply = self.scripts[name](self.state, at, *arguments)
        if name in WRITES:
            self._log.append((at, name, arguments))
        for watcher in self.watchers:
            watcher.after(name, node, at, arguments, reply)
        return reply

    def pause(self) -> None:
        """Stand still: requests wait."""
        self.paused = True

    def resume(self) -> None:
        """Go on with what has come meanwhile."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for perform in waiting:
            perform()

    def stop(self, lost_s: float) -> int:
        """Die, losing the last so many seconds of the log. Gives how many scripts are lost."""
        self.up = self.paused = False
        self._waiting = []
        ends_at = self._loop.now - min(lost_s, LOST_S_MAX)
        kept = [row for row in self._log if row[0].true_s <= ends_at] if lost_s else self._log
        lost = len(self._log) - len(kept)
        if lost:
            self._log = kept
            self.state = State()
            for at, name, arguments in kept:
                self.scripts[name](self.state, at, *arguments)
        self.on_restart()
        return lost

    def start(self) -> None:
        """Come back, as another run."""
        self.run_number += 1
        self.up = True
