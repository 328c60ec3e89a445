"""What an open buffer weighs, and whether many of them ever make the loop stall."""

from __future__ import annotations

import re
import signal

from tests.bench.figures import Figure, at_most
from tests.bench.load import LoadSpec
from tests.bench.messages import MessageSpec
from tests.bench.prober import ProbeResult, ProbeSpec
from tests.bench.readings import resident_bytes
from tests.bench.rig import Rig, as_json
from tests.bench.running import Node
from tests.bench.throughput import NOWHERE, troubles_of
from tests.support.until import passing

BUFFERS = 100_000
WARM_BUFFERS = 2_000
TAIL_S = 6.0
"""The node keeps what it acknowledged for 4 s, to say it again to a restarted store; after that it is dropped."""

BYTES_ASKED = 1200.0
STALL_ASKED_MS = 50.0


async def measure(rig: Rig, buffers: int = BUFFERS, tail_s: float = TAIL_S) -> tuple[list[Figure], list[str]]:
    """Open that many buffers in a warm node, wait until the replay tail has gone, and weigh."""
    node = await rig.node()
    troubles = await fill(rig, node, "w", min(WARM_BUFFERS, buffers))
    await passing(tail_s)
    before = resident_bytes(node.process.pid)
    prober = rig.child("prober", as_json(ProbeSpec(port=node.process.port, pid=node.process.pid)))
    troubles += await fill(rig, node, "m", buffers)
    await passing(tail_s)
    after = resident_bytes(node.process.pid)
    prober.send_signal(signal.SIGTERM)
    probes = await rig.result(prober, ProbeResult, 0)
    if probes.errors or not probes.probes:
        troubles.append(f"{probes.errors} of {probes.probes} probes failed")
    stored, expected = await node.open_messages(), buffers + min(WARM_BUFFERS, buffers)
    if stored != expected:
        troubles.append(f"{expected} accepted, {stored} in open buffers")
    lag = worst_lag(await node.metrics())
    each = (after - before) / buffers
    return [
        at_most("memory of an open buffer", each, BYTES_ASKED, "bytes", f"{buffers:,}, {after >> 20} MiB in all"),
        at_most("largest loop stall meanwhile", probes.max_ms, STALL_ASKED_MS, "ms", detail(probes, lag, node)),
    ], troubles


async def fill(rig: Rig, node: Node, tag: str, buffers: int) -> list[str]:
    """Open buffers with one message each; returns what went wrong."""
    message = MessageSpec(sink=NOWHERE, tag=tag, keys=buffers, max_size=1000)
    return list(troubles_of(await rig.load(LoadSpec(port=node.process.port, message=message, count=buffers))))


def detail(probes: ProbeResult, lag: str, node: Node) -> str:
    """The rest of what the prober and the node saw."""
    return (
        f"/livez every 5 ms: p50 {probes.p50_ms:.1f}, p99 {probes.p99_ms:.1f}, with waits for a core "
        f"{probes.max_raw_ms:.0f} ms at most; {probes.stalls} over 50 ms; loop lag by the node: {lag}; "
        f"{node.core.of_others():.0%} of its core went to others"
    )


def worst_lag(metrics: str) -> str:
    """The bucket of the node's loop-lag histogram that holds its largest observation, as `≤ 25 ms`."""
    buckets = re.findall(r'^\w*loop_lag_seconds_bucket\{.*?le="([^"]+)".*?\} ([\d.e+]+)', metrics, re.MULTILINE)
    if not buckets:
        return "not exposed"
    total = float(buckets[-1][1])
    edge = next(edge for edge, count in buckets if float(count) >= total)
    if edge == "+Inf":
        return f"> {float(buckets[-2][0]) * 1e3:g} ms" if len(buckets) > 1 else "unknown"
    return f"≤ {float(edge) * 1e3:g} ms"
