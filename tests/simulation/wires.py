"""Wires: a node's two connections to the store, with all that can happen to them on the way.

Follows `actors/adapters/valkey/lane.py` and the greeting in `store.py`: order within a connection, the reply deadline,
callers that are refused at once while it is down, the replay of the tail to a changed server before anybody else may
write on this node. Requests and answers travel as the world's; what a node sees of them is handed to its process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from actors.adapters.valkey.lane import CONNECT_DEADLINE_S, RECONNECT_S_MAX, RECONNECT_S_MIN
from actors.adapters.valkey.replay import REPLAY_MESSAGES, TOGETHER_S
from actors.adapters.valkey.shard import ALL
from actors.adapters.valkey.wire import REPLY_DEADLINE_S
from actors.ports import Entry, StoreAway
from tests.simulation.loop import Process, SimLoop
from tests.simulation.server import Server
from tests.support.until import passing

QUICK_S = (0.0001, 0.0008)


class Path:
    """The network between one node and the store. Blocked until some time: what is sent arrives then, or never."""

    def __init__(self, loop: SimLoop, server: Server, random: Random) -> None:
        self.loop = loop
        self.server = server
        self.random = random
        self.delay_s = QUICK_S
        self.out_blocked_until = 0.0
        self.in_blocked_until = 0.0
        self.gone = False
        """The node is no more: nothing leaves it."""
        self.wires: list[Wire] = []

    def delay(self) -> float:
        """How long something takes now, one way."""
        return self.random.uniform(*self.delay_s)

    def reset(self) -> None:
        """Break every connection; what is on its way to the store may still arrive."""
        for wire in self.wires:
            wire.broken("the connection was reset", lost=self.random.random() < 0.5)
        self.wires = []


class Wire:
    """One connection: requests arrive in order, answers come back in order, each within the deadline or never."""

    def __init__(self, path: Path, process: Process) -> None:
        self._path = path
        self._loop = path.loop
        self._process = process
        self._arrives_at = self._answered_at = 0.0
        self._going: deque[tuple[str, tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._coming: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._lost = False
        """What has not arrived never will."""
        self._deaf = False
        """No answer comes back any more."""
        self.ended: asyncio.Future[str] = self._loop.create_future()
        path.wires.append(self)

    def send(self, name: str, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a request; the future gives its answer. Raises StoreAway on a connection that has ended."""
        if self.ended.done():
            raise StoreAway(self.ended.result())
        reply: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + REPLY_DEADLINE_S
        self._waiting.append((deadline, reply))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(deadline, self._check_deadline)
        self._going.append((name, arguments, reply))
        self._travel()
        return reply

    def broken(self, why: str, lost: bool) -> None:
        """The connection broke outside the node, which is told."""
        self.cut(lost)
        self._process.deliver(self._loop, partial(self.end, why))

    def cut(self, lost: bool) -> None:
        """The node is gone: what is on its way may arrive, nothing comes back."""
        self._lost = self._lost or lost
        self._deaf = True

    def end(self, why: str) -> None:
        """Of no more use: everyone who waits is told that the outcome is unknown."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        self._deaf = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        for _, caller in self._waiting:
            if not caller.done():
                caller.set_exception(StoreAway(f"the outcome is unknown: {why}"))
                caller.exception()
        self._waiting.clear()

    def _travel(self) -> None:
        path = self._path
        at = max(self._loop.now, path.out_blocked_until) + path.delay()
        self._arrives_at = max(self._arrives_at, at)
        self._loop.after(self._arrives_at - self._loop.now, self._arrive)

    def _arrive(self) -> None:
        """The request that left first is there, or has still to wait."""
        if self._lost or self._path.gone:
            return
        if self._path.out_blocked_until > self._loop.now:
            self._travel()
        elif not self._path.server.up:
            self.broken("connection refused", lost=True)
        else:
            self._path.server.arrive(partial(self._perform, *self._going.popleft()))

    def _perform(self, name: str, arguments: tuple[Any, ...], reply: asyncio.Future[Any]) -> None:
        server = self._path.server
        value = server.run_number if name == "greet" else server.run(name, self._process.name, arguments)
        self._coming.append((reply, value))
        self._return()

    def _return(self) -> None:
        path = self._path
        at = max(self._loop.now, path.in_blocked_until) + path.delay()
        self._answered_at = max(self._answered_at, at)
        self._loop.after(self._answered_at - self._loop.now, self._returned)

    def _returned(self) -> None:
        """The answer that left first is there, or has still to wait."""
        if self._deaf:
            return
        if self._path.in_blocked_until > self._loop.now:
            self._return()
        else:
            self._process.deliver(self._loop, partial(self._answer, *self._coming.popleft()))

    def _answer(self, reply: asyncio.Future[Any], value: Any) -> None:
        if self.ended.done():
            return
        _, caller = self._waiting.popleft()
        if caller is not reply:
            raise AssertionError("the simulated connection lost its order")
        if not caller.done():
            if isinstance(value, Exception):
                caller.set_exception(value)
            else:
                caller.set_result(value)

    def _check_deadline(self) -> None:
        self._watchdog = None
        if not self._waiting:
            return
        oldest = self._waiting[0][0]
        if oldest <= self._loop.time():
            self._lost = self._lost or self._path.random.random() < 0.5
            self.end(f"no reply within {REPLY_DEADLINE_S} s")
        else:
            self._watchdog = self._loop.call_at(oldest, self._check_deadline)


class SimLane:
    """Keeps one connection. `greet` runs on each new one before anybody else may use it."""

    def __init__(
        self, path: Path, process: Process, greet: Callable[[Wire], Awaitable[None]], on_up: Callable[[], None]
    ) -> None:
        self._path = path
        self._process = process
        self._greet = greet
        self._on_up = on_up
        self._wire: Wire | None = None
        self.why_down = "the store is not reachable"
        self.up = asyncio.Event()

    def begin(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        """A request that is on its way when this returns. Raises StoreAway at once while the connection is down."""
        if self._wire is None or self._wire.ended.done():
            raise StoreAway(self.why_down)
        return self._wire.send(name, arguments)

    async def run(self) -> None:
        """Keep a connection for ever. A service."""
        pause_s = RECONNECT_S_MIN
        while True:
            wire = Wire(self._path, self._process)
            try:
                await self._greet(wire)
            except StoreAway as error:
                wire.end(str(error))
                self.why_down = str(error)
                pause_s = min(pause_s * 2, RECONNECT_S_MAX)
                await passing(pause_s * (0.5 + self._path.random.random() / 2))
                continue
            pause_s = RECONNECT_S_MIN
            await self._serve(wire)

    async def _serve(self, wire: Wire) -> None:
        wire.ended.add_done_callback(self._went_down)
        if wire.ended.done():
            return
        self._wire = wire
        self.up.set()
        self._on_up()
        try:
            await asyncio.shield(wire.ended)
        finally:
            wire.end("the lane was stopped")
            self._went_down(wire.ended)

    def _went_down(self, ended: asyncio.Future[str]) -> None:
        self._wire = None
        self.up.clear()
        self.why_down = ended.result()


class Lanes:
    """Both connections of a node, and what it does when another run of the server answers than before."""

    def __init__(self, path: Path, process: Process, window_ms: int) -> None:
        self._process = process
        self._window_ms = window_ms
        self._run_number: int | None = None
        self._changed = False
        self.path = path
        self.hot = SimLane(path, process, self._greet, self._opened)
        self.cold = SimLane(path, process, self._greet_cold, lambda: None)
        self.unreplayed: Callable[[], Sequence[Entry]] = lambda: ()
        self.on_replayed: Callable[[int, int], None] = lambda _count, _added: None
        self.others: Callable[[], bool] = lambda: False
        self.on_changed: Callable[[], None] = lambda: None

    @property
    def connected(self) -> bool:
        """Whether both are open."""
        return self.hot.up.is_set() and self.cold.up.is_set()

    def away(self) -> frozenset[int]:
        """The partitions that cannot be reached now."""
        return frozenset() if self.connected else ALL

    def append(self, entries: Sequence[Entry]) -> asyncio.Future[Any]:
        """The script that needs the dedupe window."""
        return self.hot.begin("append", self._window_ms, tuple(entries))

    async def _hello(self, wire: Wire) -> int:
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S + REPLY_DEADLINE_S):
                number: int = await wire.send("greet", ())
                return number
        except TimeoutError:
            raise StoreAway("no greeting") from None

    async def _greet(self, wire: Wire) -> None:
        number = await self._hello(wire)
        if self._run_number not in (None, number):
            await self._replay(wire, tuple(self.unreplayed()))
            self._changed = True
        self._run_number = number

    async def _replay(self, wire: Wire, entries: Sequence[Entry]) -> None:
        lost: list[Entry] = []
        known: list[Entry] = []
        for at in range(0, len(entries), REPLAY_MESSAGES):
            chunk = entries[at : at + REPLAY_MESSAGES]
            added = await wire.send("restore", (self._window_ms, chunk))
            for entry, is_new in zip(chunk, added, strict=True):
                (lost if is_new else known).append(entry)
        if self.others():
            await passing(TOGETHER_S)
        maybe_full = lost + known
        for at in range(0, len(maybe_full), REPLAY_MESSAGES):
            await wire.send("reclose", (tuple(maybe_full[at : at + REPLAY_MESSAGES]),))
        self.on_replayed(len(entries), len(lost))

    async def _greet_cold(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(REPLY_DEADLINE_S):
                await self.hot.up.wait()
        except TimeoutError:
            raise StoreAway(self.hot.why_down) from None
        if await self._hello(wire) != self._run_number:
            raise StoreAway("the store has changed")

    def _opened(self) -> None:
        if self._changed:
            self._changed = False
            self.on_changed()
