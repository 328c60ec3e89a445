"""The scenarios that are compared by CPU-second, turn by turn: baseline, accept, pipeline, bare client, deliveries.

Each opens its own processes, warms up, and then measures one turn whenever it is asked to. A scenario counts its own
work to the last message: what was answered must be found again, or the turn has a trouble to report.
"""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from tests.bench.bare_client import BareResult, BareSpec
from tests.bench.figures import Turn
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.messages import MessageSpec
from tests.bench.readings import TICKS_PER_S, cpu_s
from tests.bench.request_kinds import RequestSpec
from tests.bench.rig import Rig, as_json
from tests.bench.running import Cluster, Node, Sink
from tests.support.until import passing

KEYS = 1000
PIPELINE_KEYS = 200
PIPELINE_SIZE = 5
PIPELINE_BLOCK = PIPELINE_KEYS * PIPELINE_SIZE
DRAIN_S = 30.0
QUIET_S = 0.05
QUIET_TURNS_MAX = 40
NOWHERE = "http://127.0.0.1:9/hook"
ACCEPTED = MessageSpec(sink=NOWHERE, tag="a", keys=KEYS, max_size=1000)
BUFFERED = MessageSpec(sink=NOWHERE, tag="b", keys=KEYS, max_size=1000)


class Scenario(Protocol):
    """What the turns are taken of."""

    async def open(self) -> None:
        """Start the processes and warm up."""

    async def turn(self, seconds: float) -> Turn:
        """Measure for about that long."""

    async def check(self) -> list[str]:
        """Look for what was promised, after the last turn; returns what is wrong."""


def turn_of(result: LoadResult) -> Turn:
    """A turn whose window is the load generator's."""
    return Turn(
        operations=result.answered,
        seconds=result.seconds,
        server_cpu_s=result.cpu["server"],
        store_cpu_s=result.cpu.get("store", 0.0),
        generator_busy=result.generator_busy,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        answer_bytes=result.answer_bytes,
        checked=result.checked,
        hits=result.hits,
        troubles=troubles_of(result),
    )


def troubles_of(result: LoadResult) -> tuple[str, ...]:
    """What the load generator complains of."""
    return (f"{result.errors} errors, such as {result.error_samples}",) if result.errors else ()


async def quiet(pid: int) -> float:
    """Wait until a process has nothing left to do (a tick of CPU per 50 ms at most) and return its CPU time."""
    before = cpu_s(pid)
    for _ in range(QUIET_TURNS_MAX):
        await passing(QUIET_S)
        now = cpu_s(pid)
        if now - before <= 1 / TICKS_PER_S:
            return now
        before = now
    return before


class Baseline:
    """The handler that only decodes."""

    def __init__(self, rig: Rig, message: RequestSpec = BUFFERED) -> None:
        self._rig = rig
        self._spec = LoadSpec(port=0, message=message)

    async def open(self) -> None:
        """Start it."""
        child, port = await self._rig.serving("baseline", server=True)
        self._spec = LoadSpec(port=port, message=self._spec.message, pids={"server": child.pid})
        await self.turn(0.5)

    async def turn(self, seconds: float) -> Turn:
        """Closed loop for that long."""
        spec = LoadSpec(port=self._spec.port, message=self._spec.message, pids=self._spec.pids, seconds=seconds)
        return turn_of(await self._rig.load(spec))

    async def check(self) -> list[str]:
        """It promises nothing."""
        return []


class Accept:
    """The node takes requests that wait for nothing but the store: messages for batches that don't fill."""

    def __init__(self, rig: Rig, message: RequestSpec = ACCEPTED) -> None:
        self._rig = rig
        self._message = message
        self._node: Node
        self._sent = 0
        self._answered = 0

    async def open(self) -> None:
        """Start a node."""
        self._node = await self._rig.node()
        await self.turn(0.5)

    async def turn(self, seconds: float) -> Turn:
        """Closed loop for that long."""
        result = await self._rig.load(
            LoadSpec(
                port=self._node.process.port,
                message=self._message,
                first=self._sent,
                seconds=seconds,
                pids=self._node.pids,
            )
        )
        self._sent += result.sent
        self._answered += result.ok
        return turn_of(result)

    async def check(self) -> list[str]:
        """Every message that was answered lies in an open buffer."""
        stored = await self._node.open_messages()
        return [] if stored == self._answered else [f"{self._answered} accepted, {stored} in open buffers"]


class Pipeline:
    """The node, batches of five, to a sink."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._node: Node | Cluster
        self._sink: Sink
        self._sent = 0
        self._per_s = 2.0 * PIPELINE_BLOCK

    async def open(self) -> None:
        """Start a node and a sink."""
        self._sink = await self._rig.sink()
        self._node = await self._start()
        await self.turn(0.5)

    async def _start(self) -> Node | Cluster:
        return await self._rig.node()

    async def turn(self, seconds: float) -> Turn:
        """As many whole batches as the node managed in that time last turn; ends when all are settled."""
        count = max(1, round(self._per_s * seconds / PIPELINE_BLOCK)) * PIPELINE_BLOCK
        message = MessageSpec(sink=self._sink.url, tag="p", keys=PIPELINE_KEYS, max_size=PIPELINE_SIZE)
        spec = LoadSpec(
            port=self._node.ports[0],
            more_ports=self._node.ports[1:],
            message=message,
            first=self._sent,
            count=count,
            pids=self._node.pids,
        )
        began = monotonic()
        result = await self._rig.load(spec)
        self._sent += count
        complete = await self._sink.arrived(self._sent, DRAIN_S)
        seconds = monotonic() - began
        servers = {name: pid for name, pid in self._node.pids.items() if name != "store"}
        server_cpu_s = sum([await quiet(pid) - result.cpu_before[name] for name, pid in servers.items()])
        self._per_s = count / seconds
        return Turn(
            operations=count if complete else 0,
            seconds=seconds,
            server_cpu_s=server_cpu_s,
            store_cpu_s=cpu_s(self._node.pids["store"]) - result.cpu_before["store"],
            generator_busy=result.generator_busy,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            troubles=troubles_of(result) + (() if complete else (f"not all delivered within {DRAIN_S:g} s",)),
        )

    async def check(self) -> list[str]:
        """Every message arrived, and none twice."""
        arrived = await self._sink.messages()
        return [] if arrived == self._sent else [f"{self._sent} accepted, {arrived} delivered"]


class Deliveries:
    """The node, posting what waits. Learns the body and the concurrency that the bare client is given."""

    def __init__(self, rig: Rig) -> None:
        self.concurrency = 0
        self._rig = rig
        self._node: Node
        self.sink: Sink
        self._sent = 0
        self._per_s = 1000.0

    async def open(self) -> None:
        """Start a node and a sink."""
        self.sink = await self._rig.sink()
        self._node = await self._rig.node()
        await self.turn(0.2)

    async def turn(self, seconds: float) -> Turn:
        """Let as many deliveries wait as it managed in that time last turn, then let go and count."""
        count = max(100, round(self._per_s * seconds))
        message = MessageSpec(sink=self.sink.url, tag="d", keys=count, max_size=1, webhook_timeout_s=120)
        await self.sink.hold()
        result = await self._rig.load(
            LoadSpec(port=self._node.process.port, message=message, first=self._sent, count=count)
        )
        self._sent += count
        before = {name: await quiet(pid) for name, pid in self._node.pids.items()}
        held = self.concurrency = await self.sink.held()
        began = monotonic()
        await self.sink.release()
        complete = await self.sink.arrived(self._sent, DRAIN_S)
        elapsed = monotonic() - began
        after = {name: await quiet(pid) for name, pid in self._node.pids.items()}
        self._per_s = count / elapsed
        return Turn(
            operations=count - held if complete else 0,
            seconds=elapsed,
            server_cpu_s=after["server"] - before["server"],
            store_cpu_s=after["store"] - before["store"],
            troubles=troubles_of(result) + (() if complete else (f"not all delivered within {DRAIN_S:g} s",)),
        )

    async def check(self) -> list[str]:
        """Every message arrived, and none twice."""
        arrived = await self.sink.messages()
        return [] if arrived == self._sent else [f"{self._sent} accepted, {arrived} delivered"]


class BareClient:
    """aiohttp's client posting what `deliveries` posted, to the same sink."""

    def __init__(self, rig: Rig, deliveries: Deliveries) -> None:
        self._rig = rig
        self._deliveries = deliveries
        self._sink: Sink
        self._per_s = 2000.0

    async def open(self) -> None:
        """Give it a sink of its own, so that the other's count stays exact."""
        self._sink = await self._rig.sink()
        await self.turn(0.2)

    async def turn(self, seconds: float) -> Turn:
        """Post for about that long."""
        sample = await self._deliveries.sink.latest()
        lines = sample.head.decode("latin-1").split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines)
        own = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        spec = BareSpec(
            url=self._sink.url,
            headers=own,
            body=sample.body,
            concurrency=max(1, self._deliveries.concurrency),
            count=max(100, round(self._per_s * seconds)),
        )
        child = self._rig.child("bare_client", as_json(spec), server=True)
        result = await self._rig.result(child, BareResult, seconds)
        self._per_s = spec.count / result.seconds
        troubles = (f"{result.errors} errors of the bare client",) if result.errors else ()
        return Turn(operations=result.ok, seconds=result.seconds, server_cpu_s=result.cpu_s, troubles=troubles)

    async def check(self) -> list[str]:
        """It promises nothing."""
        return []
