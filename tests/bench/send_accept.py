"""Taking `POST /messages`, by CPU-second of the node, beside a handler that decodes the body and answers a constant.

Within a turn the stand-in for Evolution keeps its answers: but for the few sends under way, what was accepted waits.
Afterwards it lets go, and the next turn begins when all of it has arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench import report
from tests.bench.figures import Figure, Turn, with_trouble
from tests.bench.load import LoadSpec
from tests.bench.rig import Rig
from tests.bench.running import Node, Sink
from tests.bench.sends import CONTACTS, settings, unlike
from tests.bench.task_requests import TaskSpec
from tests.bench.throughput import Baseline, Scenario, quiet, turn_of

DRAIN_S = 60.0
BASE, ACCEPT = "do-nothing POST /messages", "accept of POST /messages"
TITLES = {
    BASE: "aiohttp handler of POST /messages that decodes and answers a constant",
    ACCEPT: "sends: POST /messages, accept only",
}
SHARES: Sequence[report.Share] = ((ACCEPT, BASE, 1.5),)
TASKS = TaskSpec(contacts=CONTACTS)


class Accept:
    """The node, sends that wait."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._node: Node
        self._evolution: Sink
        self._sent = 0

    async def open(self) -> None:
        """Start a node and its Evolution."""
        self._evolution = await self._rig.sink("evolution_fast")
        self._node = await self._rig.node(settings(self._evolution))
        await self.turn(0.5)

    async def turn(self, seconds: float) -> Turn:
        """Closed loop for that long; then all that was accepted has to arrive."""
        node, evolution = self._node, self._evolution
        await evolution.hold()
        spec = LoadSpec(port=node.process.port, message=TASKS, first=self._sent, seconds=seconds, pids=node.pids)
        result = await self._rig.load(spec)
        self._sent += result.sent
        await evolution.release()
        arrived = await evolution.arrived(self._sent, DRAIN_S)
        await quiet(node.process.pid)
        turn = turn_of(result)
        return turn if arrived else with_trouble(turn, f"not all delivered within {DRAIN_S:g} s")

    async def check(self) -> list[str]:
        """Every task arrived, and none twice."""
        return await unlike(self._evolution, self._sent)


def scenarios(rig: Rig) -> dict[str, Scenario]:
    """In the order of their turns."""
    return {BASE: Baseline(rig, TASKS), ACCEPT: Accept(rig)}


def figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """Both speeds, then the share."""
    return report.speed_figures(turns, TITLES, SHARES)
