"""Neighbours: how one simulated node rings at another and asks it something.

Rings go through the store and may be lost. A question takes its way, is dropped by a node that was frozen for longer
than anybody waits for the answer, and ends as PeerAway when no answer comes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from actors.node_ports import Hint, PeerAnswer, PeerAway, PeerRequest
from actors.ports import Overloaded, StoreAway
from tests.simulation.loop import Process
from tests.simulation.wires import Path

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.sim_node import SimNode

Answer = PeerAnswer | StoreAway | Overloaded | PeerAway


class SimBell:
    """One node's bell: what is rung in one turn leaves together, in the order of names."""

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self._cluster = cluster
        self._path = path
        self._rung: list[tuple[str, Hint]] = []

    def ring(self, node: str, hint: Hint) -> None:
        """Bell."""
        if not self._rung:
            asyncio.get_running_loop().call_soon(self._leave)
        self._rung.append((node, hint))

    def _leave(self) -> None:
        rung, self._rung = self._rung, []
        for node, hint in sorted(rung, key=lambda row: row[0]):
            self._cluster.ring(self._path, node, hint)


class SimPeers:
    """One node's connections to all others."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    async def ask(self, node: str, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Peers."""
        cluster, loop = self._cluster, self._cluster.loop
        reply: asyncio.Future[Answer] = loop.create_future()
        loop.after(cluster.delay(), partial(self._arrive, node, request, loop.now + within_s, reply))
        try:
            async with asyncio.timeout(within_s):
                answer = await reply
        except TimeoutError:
            raise PeerAway(f"{node} did not answer") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _arrive(self, name: str, request: PeerRequest, ends_at: float, reply: asyncio.Future[Answer]) -> None:
        cluster = self._cluster
        if cluster.are_apart(self._process.name, name) or self._process.dead:
            return
        node = cluster.nodes.get(name)
        if node is None or node.process.dead:
            self._return(name, reply, PeerAway(f"{name} is not there"))
        else:
            node.process.deliver(cluster.loop, partial(self._begin, node, request, ends_at, reply))

    def _begin(self, node: SimNode, request: PeerRequest, ends_at: float, reply: asyncio.Future[Answer]) -> None:
        within_s = ends_at - self._cluster.loop.now
        if within_s <= 0:
            return  # nobody waits any more
        try:
            node.supervisor.spawn("peer", self._serve(node, request, within_s, reply))
        except Overloaded as error:
            self._return(node.name, reply, error)

    async def _serve(self, node: SimNode, request: PeerRequest, within_s: float, reply: asyncio.Future[Answer]) -> None:
        answer: Answer
        try:
            async with asyncio.timeout(within_s):
                answer = await node.desk.serve(request, within_s)
        except (StoreAway, Overloaded) as error:
            answer = error
        except TimeoutError:
            return
        self._return(node.name, reply, answer)

    def _return(self, name: str, reply: asyncio.Future[Answer], answer: Answer) -> None:
        def resolve() -> None:
            if not reply.done():
                reply.set_result(answer)

        cluster = self._cluster
        if not cluster.are_apart(self._process.name, name):
            cluster.loop.after(cluster.delay(), lambda: self._process.deliver(cluster.loop, resolve))
