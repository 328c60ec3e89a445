"""What it costs that a load goes through three nodes and not through one, and what a node costs that has nothing to do.

The same closed loop of the same messages, dealt out to all nodes whatever their keys, in turns with one node. Counted
is the CPU of all nodes together; partitions have settled before. Both ways of taking a message that another node owns
are measured: a direct append, and one hop to the owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.settings import load
from tests.bench.figures import Figure, Spread, Turn, ratios, spread
from tests.bench.readings import cpu_s
from tests.bench.rig import Rig
from tests.bench.running import SETTLED_S, Cluster
from tests.bench.throughput import Pipeline
from tests.support.until import passing

NODES = 3
ASKED_RATIO = 1.35
ASKED_IDLE_PERCENT = 1.0
IDLE_S = 10.0
CALM_S = 2.0
"""After the last move: caches fill, connections open."""
FORWARDED = r'buzon_forwards_total\{[^}]*"done"[^}]*\}'
ONE = "1 node"
DIRECT, FORWARD = f"{NODES} nodes, INGEST=direct", f"{NODES} nodes, INGEST=forward"


class SharedPipeline(Pipeline):
    """The pipeline through several nodes. `ingest` is the setting INGEST; a smoke run does not wait for partitions."""

    def __init__(self, rig: Rig, nodes: int, ingest: str, *, smoke: bool) -> None:
        super().__init__(rig)
        self._nodes = nodes
        self._ingest = ingest
        self._smoke = smoke
        self._cluster: Cluster

    async def forwards(self) -> float:
        """How many messages went to their owner by a hop."""
        return await self._cluster.metric(FORWARDED)

    async def _start(self) -> Cluster:
        self._cluster = await self._rig.cluster(self._nodes, {"INGEST": self._ingest})
        if not self._smoke:
            await self._cluster.settled(SETTLED_S)
        return self._cluster


def scenarios(rig: Rig, *, smoke: bool) -> dict[str, SharedPipeline]:
    """One node, and three with either setting."""
    return {
        ONE: SharedPipeline(rig, 1, "direct", smoke=smoke),
        DIRECT: SharedPipeline(rig, NODES, "direct", smoke=smoke),
        FORWARD: SharedPipeline(rig, NODES, "forward", smoke=smoke),
    }


def figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """What each took, then what three nodes took as a multiple of one."""
    found = [_cost(name, taken) for name, taken in turns.items()]
    default = load({}).settings.ingest
    for name in (DIRECT, FORWARD):
        if name in turns:
            title, ratio = f"{name} ÷ {ONE}, CPU per message", ratios(turns[ONE], turns[name])
            found.append(_ratio(title, ratio, len(turns[name]), asked=name.endswith(f"={default}")))
    return found


async def idle(rig: Rig, seconds: float = IDLE_S, *, smoke: bool = False) -> Figure:
    """The CPU of three nodes without a single request, the busiest counts."""
    cluster = await rig.cluster(NODES)
    if not smoke:
        await cluster.settled(SETTLED_S)
        await passing(CALM_S)
    before = {name: cpu_s(pid) for name, pid in cluster.pids.items()}
    await passing(seconds)
    percent = {name: (cpu_s(pid) - before[name]) / seconds * 100 for name, pid in cluster.pids.items()}
    store = percent.pop("store")
    worst = max(percent.values())
    each = ", ".join(f"{value:.1f}" for value in percent.values())
    return Figure(
        name="CPU of an idle node",
        measured=f"{worst:.1f} % of a core",
        asked=f"≤ {ASKED_IDLE_PERCENT:.0f} %",
        met=worst <= ASKED_IDLE_PERCENT,
        detail=f"{each} % over {seconds:g} s; their store {store:.1f} %",
    )


def _cost(name: str, turns: Sequence[Turn]) -> Figure:
    node, store = (
        spread([getattr(turn, field) / max(1, turn.operations) * 1e6 for turn in turns])
        for field in ("server_cpu_s", "store_cpu_s")
    )
    p50, p99 = (spread([getattr(turn, field) for turn in turns]) for field in ("p50_ms", "p99_ms"))
    rate = spread([turn.operations / turn.seconds for turn in turns]).middle
    return Figure(
        name=f"{name}: CPU of a message",
        measured=f"{node.of(',.0f')} µs",
        detail=f"{rate:,.0f}/s; store {store.middle:.0f} µs each; accepted p50 {p50.of('.1f')}, p99 {p99.of('.1f')} ms",
    )


def _ratio(name: str, ratio: Spread, turns: int, *, asked: bool) -> Figure:
    """What is asked is asked of the setting that holds when nobody sets it."""
    detail = f"{turns} turns each"
    if not asked:
        return Figure(name=name, measured=ratio.of(".2f"), detail=detail)
    met = ratio.middle <= ASKED_RATIO
    return Figure(name=name, measured=ratio.of(".2f"), asked=f"≤ {ASKED_RATIO:.2f}", met=met, detail=detail)
