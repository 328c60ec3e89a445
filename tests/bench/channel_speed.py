"""The channels' scenarios: fan-out of the node, of prebuilt frames on bare transports, and of nginx's nchan.

All are subscribed to and published to by the same process, and what their subscribers get has the same bytes. Every
subscriber must get every message, in order, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Literal, TypeAlias

from msgspec import Struct

from tests.bench import nchan
from tests.bench.channel_frames import Kind
from tests.bench.channel_idle import IdleResult, IdleSpec
from tests.bench.channel_load import FanResult, FanSpec
from tests.bench.figures import Figure, Turn, at_most, spread
from tests.bench.readings import CoreShare
from tests.bench.rig import START_S, Rig, as_json
from tests.support.node import answers_200
from tests.support.until import until
from tests.support.valkey import free_port

SUBSCRIBERS = 500
TOGETHER = 10
PACED_TURNS = 2
"""A turn at a fixed pace lasts that many others: a stalled reader takes its time to become too slow."""
STALL_PAIRS = 12
"""The 99th percentile of one turn is made by a handful of its ticks: one pair of turns says little."""
IDLE_CONNECTIONS = 5_000
SMOKE_SUBSCRIBERS = 20
SMOKE_RATE = 200.0
SMOKE_FLOOD_RATE = 100.0
SMOKE_IDLE_CONNECTIONS = 100
IDLE_ASKED_BYTES = 20_480.0
NO_NCHAN = "nginx with nchan is not installed (make test-packages): what it does is left out"
NODE, BARE, NCHAN = "channels", "bare transports", "nchan (C, 1 process)"
ONE, MANY, PACED = "{}, one a tick", f"{{}}, {TOGETHER} a tick", "{} at the pace"
READS, STALLS = "one more that reads", "one more that stalls"
Flood: TypeAlias = Literal["", "read", "stalled"]
STALLED: Flood = "stalled"
FLOOD_RATE = 20.0


class Target(Struct, frozen=True, kw_only=True):
    """A server of channels. A subscriber is greeted with so many frames."""

    port: int
    kind: Kind
    greetings: int
    pids: dict[str, int]


class FanOut:
    """Messages to all subscribers: `share` together in a closed loop, or at a fixed `rate`, with a `flooded` one more.

    Each turn has subscribers and a channel of its own. `results` are those of the turns.
    """

    def __init__(self, rig: Rig, target: Target, spec: FanSpec) -> None:
        self.results: list[FanResult] = []
        self.of_others: list[float] = []
        self._rig = rig
        self._target = target
        self._spec = spec

    async def open(self) -> None:
        """Warm up."""
        await self.turn(0.1)
        self.results.clear()
        self.of_others.clear()

    async def turn(self, seconds: float) -> Turn:
        """Publish for about that long."""
        target, spec = self._target, self._spec
        spec = FanSpec(
            port=target.port,
            kind=target.kind,
            channel=f"bench-{token_hex(4)}",
            subscribers=spec.subscribers,
            greetings=target.greetings,
            share=spec.share,
            rate=spec.rate,
            seconds=seconds,
            flood=spec.flood,
            flood_rate=spec.flood_rate,
            pids=target.pids,
        )
        core = CoreShare(self._rig.server_core[0], target.pids["server"])
        result = await self._rig.result(self._rig.child("channel_load", as_json(spec)), FanResult, seconds)
        self.of_others.append(core.of_others())
        self.results.append(result)
        return Turn(
            operations=result.deliveries,
            seconds=result.seconds,
            server_cpu_s=result.cpu.get("server", 0.0),
            store_cpu_s=result.cpu.get("store", 0.0),
            generator_busy=result.generator_busy,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            frames_per_read=result.frames_per_read,
            troubles=tuple(result.troubles),
        )

    async def check(self) -> list[str]:
        """Who stalls is closed; all else was looked at in its turn."""
        left = self._spec.flood == STALLED and sum(not result.ended for result in self.results)
        return [f"{left} stalled readers were not closed"] if left else []


async def targets(rig: Rig) -> dict[str, Target]:
    """Start all that is there to be measured."""
    node = await rig.node()
    found = {NODE: Target(port=node.process.port, kind="node", greetings=1, pids=node.pids)}
    child, port = await rig.serving("bare_transport", server=True)
    found[BARE] = Target(port=port, kind="plain", greetings=1, pids={"server": child.pid})
    program = nchan.binary()
    if program is not None:
        port = free_port()
        child = rig.program(nchan.NAME, nchan.command(program, rig.directory, port), server=True)
        await until(lambda: answers_200(port, nchan.PROBE), START_S, what="nginx answers")
        found[NCHAN] = Target(port=port, kind="plain", greetings=0, pids={"server": child.pid})
    return found


def fan_outs(rig: Rig, found: Mapping[str, Target], *, smoke: bool) -> dict[str, FanOut]:
    """The closed loops, in the order of their turns."""
    return {
        name.format(target): FanOut(rig, found[target], spec_of(smoke=smoke, share=share))
        for name, share in ((ONE, 1), (MANY, TOGETHER))
        for target in found
    }


def paced(rig: Rig, found: Mapping[str, Target], rate: float, *, smoke: bool) -> dict[str, FanOut]:
    """Everyone at a fixed pace."""
    return {PACED.format(name): FanOut(rig, found[name], spec_of(smoke=smoke, rate=rate)) for name in found}


def crowded(rig: Rig, found: Mapping[str, Target], rate: float, *, smoke: bool) -> dict[str, FanOut]:
    """The node at that pace with one more subscriber, which reads, or does not."""
    return {
        READS: FanOut(rig, found[NODE], spec_of(smoke=smoke, rate=rate, flood="read")),
        STALLS: FanOut(rig, found[NODE], spec_of(smoke=smoke, rate=rate, flood="stalled")),
    }


def spec_of(*, smoke: bool, share: int = 1, rate: float = 0.0, flood: Flood = "") -> FanSpec:
    """A spec without a server."""
    return FanSpec(
        port=0,
        kind="plain",
        channel="",
        subscribers=SMOKE_SUBSCRIBERS if smoke else SUBSCRIBERS,
        share=share,
        rate=rate,
        flood=flood,
        flood_rate=SMOKE_FLOOD_RATE if smoke else FLOOD_RATE,
    )


def half_rate(turns: Mapping[str, Sequence[Turn]], *, smoke: bool) -> float:
    """Messages per second that cost the node half a core, by what one cost it one at a time."""
    if smoke:
        return SMOKE_RATE
    return spread([turn.per_cpu_s for turn in turns[ONE.format(NODE)]]).middle / 2 / SUBSCRIBERS


async def idle(rig: Rig, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """What a connection weighs on which nothing happens; and what is wrong."""
    node = await rig.node()
    connections = SMOKE_IDLE_CONNECTIONS if smoke else IDLE_CONNECTIONS
    spec = IdleSpec(port=node.process.port, pid=node.process.pid, connections=connections)
    result = await rig.result(rig.child("channel_idle", as_json(spec)), IdleResult, 0)
    each = (result.after - result.before) / connections
    detail = f"{connections:,} on one channel; resident {result.before >> 20} → {result.after >> 20} MiB"
    troubles = [f"{result.disturbed} idle connections were closed, or told something"] if result.disturbed else []
    return [at_most("idle WebSocket connection", each, IDLE_ASKED_BYTES, "bytes", detail)], troubles
