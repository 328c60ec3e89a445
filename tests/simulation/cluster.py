"""Cluster: everything of one run: the store, the hosts, the nodes by name, and what can be done to them.

Nodes come and go as processes; the name stays. Nothing here decides when: that is the plan's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

from msgspec import Struct

from actors.node_ports import Hint
from actors.ports import Appended, Entry, Overloaded, StoreAway
from tests.simulation.audit import Audit
from tests.simulation.loop import Process, SimLoop
from tests.simulation.neighbours import SimBell, SimPeers
from tests.simulation.server import Server
from tests.simulation.sim_node import SimNode, Surroundings
from tests.simulation.trace import Trace
from tests.simulation.webhooks import Hosts, SimEgress
from tests.simulation.wires import Lanes, Path

WINDOW_MS = 60_000
RESTART_S = 0.5
"""How soon whatever watches over processes starts one again that could not come up."""


Act = Callable[[SimNode], Awaitable[object]]


class Mutation(Struct, frozen=True, kw_only=True):
    """A planted fault: what it does to the server, and to each node."""

    server: Callable[[Server], None] = lambda _server: None
    node: Callable[[SimNode], None] = lambda _node: None


class Cluster:
    """Use from the world's own tasks only."""

    def __init__(self, random: Random, mutation: Mutation) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop = loop
        self.random = random
        self.trace = Trace(loop)
        self.server = Server(loop)
        self.audit = Audit(loop, self.server, self.trace)
        self.hosts = Hosts(loop, random, self.audit)
        self.nodes: dict[str, SimNode] = {}
        """The present process of each name; a dead one until the next is started."""
        self.all_nodes: list[SimNode] = []
        self.closed = False
        """Nothing is started any more."""
        self.forward_appends = False
        self.bell_loss = 0.0
        self.apart: dict[str, float] = {}
        """Nodes that no other node can reach, and until when."""
        self._leaving: set[str] = set()
        self._mutation = mutation
        self._tasks: list[asyncio.Task[None]] = []
        self._callers: dict[int, list[asyncio.Future[Appended | Exception]]] = {}
        self.server.watchers.append(self.audit)
        self.server.on_restart = self._cut_all
        mutation.server(self.server)

    def living(self) -> list[str]:
        """Names of nodes that are running, whatever state they are in."""
        return [name for name, node in self.nodes.items() if not node.process.dead]

    def start(self, name: str) -> None:
        """Start a process for the name, unless the run comes to its end."""
        if self.closed:
            return
        process = Process(name, self.random.uniform(0.0, 1e6))
        lanes = Lanes(Path(self.loop, self.server, self.random), process, WINDOW_MS)
        around = Surroundings(
            loop=self.loop,
            random=self.random,
            process=process,
            lanes=lanes,
            bell=SimBell(self, lanes.path),
            peers=SimPeers(self, process),
            forward_appends=self.forward_appends,
            egress=SimEgress(self.hosts, process),
        )
        incarnation = self.random.randbytes(8).hex()
        node = process.context.run(SimNode, name, incarnation, around)
        node.on_fatal = partial(self._ended, node)
        self._mutation.node(node)
        self.nodes[name] = node
        self.all_nodes.append(node)
        self.trace.note(name, "starts")
        self._tasks.append(self.loop.create_task(self._up(node), context=process.context))

    def kill(self, name: str) -> None:
        """End a process where it stands; what it had sent may have left or not."""
        self._kill(self.nodes[name])

    def _kill(self, node: SimNode) -> None:
        node.process.kill()
        self._leaving.discard(node.name)
        for wire in node.lanes.path.wires:
            wire.cut(self.random.random() < 0.5)
        self._hang_up(node)
        self.audit.gone(node.process)

    def stop(self, name: str) -> None:
        """Ask a process to stop as planned."""
        node = self.nodes[name]
        if node.accepting:
            node.accepting = False
            self._leaving.add(name)
            self._tasks.append(self.loop.create_task(self._down(node), context=node.process.context))

    def are_apart(self, one: str, other: str) -> bool:
        """Whether two nodes cannot reach each other now."""
        return max(self.apart.get(one, 0.0), self.apart.get(other, 0.0)) > self.loop.now

    def is_leaving(self, name: str) -> bool:
        """Whether a process was asked to stop and has not ended."""
        return name in self._leaving

    def request(self, name: str, entry: Entry, answered: asyncio.Future[Appended | Exception]) -> None:
        """Send a message to a node; what comes of it is the future's result, if anything comes."""
        node = self.nodes[name]
        self._callers.setdefault(id(node), []).append(answered)

        async def serve() -> None:
            outcome = await node.ingest(entry)
            if isinstance(outcome, Appended):
                self.audit.answered(node, entry, outcome)
            self.loop.after(self.delay(), partial(_resolve, answered, outcome))

        self.loop.after(self.delay(), partial(self._arrive, node, serve, answered))

    def operate(self, name: str, act: Act, answered: asyncio.Future[object]) -> None:
        """Ask a node to do something; what comes of it is the future's result, if anything comes."""
        node = self.nodes[name]

        async def serve() -> None:
            outcome: object = ConnectionRefusedError()
            if node.accepting:
                try:
                    outcome = await act(node)
                except (StoreAway, Overloaded) as error:
                    outcome = error
            self.trace.note(node.name, "did", type(outcome).__name__)
            self.loop.after(self.delay(), partial(_resolve, answered, outcome))

        self.loop.after(self.delay(), partial(self._arrive, node, serve, answered))

    def _arrive(
        self, node: SimNode, serve: Callable[[], Coroutine[None, None, None]], answered: asyncio.Future[Any]
    ) -> None:
        if node.process.dead:
            _resolve(answered, ConnectionRefusedError())
        else:
            node.process.deliver(self.loop, lambda: node.supervisor.spawn("request", serve()))

    def ring(self, path: Path, name: str, hint: Hint) -> None:
        """A bell's message, on its way through the store."""
        blocked = max(path.out_blocked_until, path.in_blocked_until) > self.loop.now
        if blocked or not self.server.up or self.server.paused or self.random.random() < self.bell_loss:
            return
        target = self.nodes.get(name)
        if target is not None:
            self.loop.after(
                2 * path.delay(), lambda: target.process.deliver(self.loop, partial(target.desk.on_hints, (hint,)))
            )

    async def bury(self) -> None:
        """Tidy up every process, the dead ones cut off from the world, so that no task is left."""
        for node in self.all_nodes:
            process = node.process
            process.dead = True
            node.lanes.path.gone = True
            process.thaw(self.loop, 0.0, timers_first=False)
            await self.loop.create_task(node.supervisor.stop(), context=process.context)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def delay(self) -> float:
        """How long something takes between machines, one way."""
        return self.random.uniform(0.0001, 0.001)

    async def _up(self, node: SimNode) -> None:
        try:
            await node.start()
        except (StoreAway, TimeoutError) as error:
            if node.process.dead:
                return
            self.trace.note(node.name, "cannot start", str(error))
            self._kill(node)
            self.loop.after(RESTART_S, partial(self._start_again, node))

    def _ended(self, node: SimNode) -> None:
        """A process found that it must end."""
        if node.process.dead:
            return
        self.trace.note(node.name, "ends itself", node.fatal[-1])
        self._kill(node)
        self.loop.after(RESTART_S, partial(self._start_again, node))

    def _start_again(self, node: SimNode) -> None:
        if self.nodes[node.name] is node:
            self.start(node.name)

    async def _down(self, node: SimNode) -> None:
        await node.stop()
        if node.process.dead:
            return
        self.audit.gone(node.process)
        node.process.kill()
        for wire in node.lanes.path.wires:
            wire.cut(lost=False)
        self._leaving.discard(node.name)
        self._hang_up(node)

    def _hang_up(self, node: SimNode) -> None:
        for answered in self._callers.pop(id(node), ()):
            self.loop.after(self.delay(), partial(_resolve, answered, ConnectionResetError()))

    def _cut_all(self) -> None:
        for node in self.all_nodes:
            node.lanes.path.reset()


def _resolve(answered: asyncio.Future[Any], outcome: object) -> None:
    if not answered.done():
        answered.set_result(outcome)
