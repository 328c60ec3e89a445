"""Runs the benchmark: `python -m tests.bench --help`. Exits 1 when anything went wrong, whatever the figures say."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from tests.bench import (
    cache_costs,
    cache_speed,
    channel_figures,
    channel_speed,
    inventory_lag,
    inventory_rebuild,
    inventory_speed,
    lateness,
    memory,
    publish,
    report,
    scaling,
    send_accept,
    send_figures,
    sends,
)
from tests.bench.figures import Figure, Turn
from tests.bench.inventory_history import make_tables
from tests.bench.rig import Rig
from tests.bench.throughput import Accept, BareClient, Baseline, Deliveries, Pipeline, Scenario

COMPARED = ("accept", "pipeline", "deliveries")
NAMES = (
    *COMPARED,
    "memory",
    "lateness",
    "scaling",
    "idle",
    "cache",
    "channels",
    "publish",
    "sends",
    "inventory",
    "baseline",
)
TURNS = 5
TURN_S = 2.5
SMOKE_TURN_S = 0.3
SMOKE_CACHE_TURN_S = 0.1
SMOKE_BUFFERS = 500
SMOKE_LATENESS_S = 1.5


async def throughput(names: Sequence[str], seconds: float, turns: int) -> tuple[list[Figure], list[str]]:
    """Take turns between the scenarios asked for and what each is compared with."""
    async with Rig() as rig:
        scenarios: dict[str, Scenario] = {}
        if {"accept", "pipeline", "baseline"} & set(names):
            scenarios["baseline"] = Baseline(rig)
        if "accept" in names:
            scenarios["accept"] = Accept(rig)
        if "pipeline" in names:
            scenarios["pipeline"] = Pipeline(rig)
        if "deliveries" in names:
            scenarios["deliveries"] = deliveries = Deliveries(rig)
            scenarios["bare client"] = BareClient(rig, deliveries)
        for scenario in scenarios.values():
            await scenario.open()
        taken, troubles = await in_turns(scenarios, seconds, turns)
    return report.speed_figures(taken), troubles


async def scaled(seconds: float, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Take turns between one node and several."""
    async with Rig() as rig:
        scenarios = scaling.scenarios(rig, smoke=smoke)
        for name, scenario in scenarios.items():
            say(f"scaling: {name} comes up")
            await scenario.open()
        if not await scenarios[scaling.FORWARD].forwards():
            say(f"{scaling.FORWARD} is left out: these nodes forward nothing")
            del scenarios[scaling.FORWARD]
        taken, troubles = await in_turns(scenarios, seconds, turns)
    return scaling.figures(taken), troubles


async def cached(seconds: float, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Take turns between all that the cache is compared with; then what its parts cost by themselves."""
    async with Rig() as rig:
        scenarios = await cache_speed.scenarios(rig)
        if cache_speed.WEBDIS_GET not in scenarios:
            say(cache_speed.NO_WEBDIS)
        for scenario in scenarios.values():
            await scenario.open()
        taken, troubles = await in_turns(scenarios, seconds, turns)
    say("cache: what its parts cost")
    async with Rig() as rig:
        parts = await cache_costs.measure(rig, smoke=smoke)
    return [*cache_speed.figures(taken), *parts], troubles


async def channelled(seconds: float, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Take turns between the channels and what they are compared with: as fast as it goes, then at half that pace."""
    async with Rig() as rig:
        found = await channel_speed.targets(rig)
        if channel_speed.NCHAN not in found:
            say(channel_speed.NO_NCHAN)
        loops = channel_speed.fan_outs(rig, found, smoke=smoke)
        taken, troubles = await in_turns(await opened(loops), seconds, turns)
        rate = channel_speed.half_rate(taken, smoke=smoke)
        calm = channel_speed.paced(rig, found, rate, smoke=smoke)
        paced, more = await in_turns(await opened(calm), seconds * channel_speed.PACED_TURNS, turns)
        pair = channel_speed.crowded(rig, found, rate, smoke=smoke)
        pairs = 1 if smoke else channel_speed.STALL_PAIRS
        beside, yet_more = await in_turns(await opened(pair), seconds * channel_speed.PACED_TURNS, pairs)
        troubles += more + yet_more
    figures = [
        *channel_figures.speeds(taken),
        *channel_figures.latencies(paced, calm, rate),
        *channel_figures.stall(beside, pair),
    ]
    say("channels: idle connections")
    async with Rig() as rig:
        weighed, wrong = await channel_speed.idle(rig, smoke=smoke)
    return [*figures, *weighed], troubles + wrong


async def published(seconds: float, turns: int) -> tuple[list[Figure], list[str]]:
    """Take turns between publishing and doing nothing."""
    async with Rig() as rig:
        pair = publish.scenarios(rig)
        for each in pair.values():
            await each.open()
        taken, troubles = await in_turns(pair, seconds, turns)
    return publish.figures(taken), troubles


async def sent(seconds: float, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Take turns between accepting sends and doing nothing; then between the node and Celery."""
    async with Rig() as rig:
        pair = send_accept.scenarios(rig)
        for each in pair.values():
            await each.open()
        accepted, troubles = await in_turns(pair, seconds, turns)
    async with Rig(shared=True) as rig:
        say("sends: both sides come up")
        scenarios = sends.scenarios(rig, await sends.sides(rig, smoke=smoke), smoke=smoke)
        for scenario in scenarios.values():
            await scenario.open()
        taken, more = await in_turns(scenarios, seconds, turns)
    return [*send_accept.figures(accepted), *send_figures.figures(taken)], troubles + more


async def stocked(seconds: float, turns: int, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Rebuild the inventory's projection; take turns between the inventory and its likes; then look at the lag."""
    async with Rig() as rig:
        say("inventory: rebuilds")
        postgres = await rig.postgres()
        await make_tables(postgres)
        rebuilt, wrong = await inventory_rebuild.measure(postgres, turns, smoke=smoke)
        say("inventory: all sides come up")
        scenarios, node = await inventory_speed.scenarios(rig, postgres, smoke=smoke)
        for scenario in scenarios.values():
            await scenario.open()
        taken, troubles = await in_turns(scenarios, seconds, turns)
        say("inventory: the projection's lag")
        lag, late = await inventory_lag.measure(rig, node, postgres.url_of(inventory_speed.OURS), smoke=smoke)
    return [*inventory_speed.figures(taken), *lag, *rebuilt], wrong + troubles + late


async def opened(loops: Mapping[str, channel_speed.FanOut]) -> Mapping[str, Scenario]:
    """All of them, warm."""
    for loop in loops.values():
        await loop.open()
    return loops


async def in_turns(
    scenarios: Mapping[str, Scenario], seconds: float, turns: int
) -> tuple[dict[str, list[Turn]], list[str]]:
    """A B C A B C …, and what was wrong."""
    taken: dict[str, list[Turn]] = {name: [] for name in scenarios}
    for turn in range(turns):
        for name, scenario in scenarios.items():
            say(f"turn {turn + 1} of {turns}: {name}")
            taken[name].append(await scenario.turn(seconds))
    troubles = [f"{name}: {what}" for name, done in taken.items() for turn in done for what in turn.troubles]
    for name, scenario in scenarios.items():
        troubles += [f"{name}: {what}" for what in await scenario.check()]
    return taken, troubles


async def run(names: Sequence[str], seconds: float, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Everything that was asked for, one after the other."""
    figures: list[Figure] = []
    troubles: list[str] = []
    if {*COMPARED, "baseline"} & set(names):
        figures, troubles = await throughput(names, seconds, 1 if smoke else TURNS)
    if "memory" in names:
        say("memory")
        async with Rig() as rig:
            found = await (memory.measure(rig, SMOKE_BUFFERS, 0.5) if smoke else memory.measure(rig))
        figures, troubles = figures + found[0], troubles + [f"memory: {what}" for what in found[1]]
    if "lateness" in names:
        say("lateness")
        async with Rig() as rig:
            found = await (lateness.measure(rig, SMOKE_LATENESS_S) if smoke else lateness.measure(rig))
        figures, troubles = figures + found[0], troubles + [f"lateness: {what}" for what in found[1]]
    if "scaling" in names:
        found = await scaled(seconds, 1 if smoke else TURNS, smoke=smoke)
        figures, troubles = figures + found[0], troubles + [f"scaling, {what}" for what in found[1]]
    if "idle" in names:
        say("idle")
        async with Rig() as rig:
            figures = [*figures, await scaling.idle(rig, SMOKE_TURN_S if smoke else scaling.IDLE_S, smoke=smoke)]
    if "cache" in names:
        found = await cached(SMOKE_CACHE_TURN_S if smoke else seconds, 1 if smoke else TURNS, smoke=smoke)
        figures, troubles = figures + found[0], troubles + [f"cache, {what}" for what in found[1]]
    if "channels" in names:
        found = await channelled(seconds, 1 if smoke else TURNS, smoke=smoke)
        figures, troubles = figures + found[0], troubles + [f"channels, {what}" for what in found[1]]
    if "publish" in names:
        found = await published(seconds, 1 if smoke else TURNS)
        figures, troubles = figures + found[0], troubles + [f"publish, {what}" for what in found[1]]
    if "sends" in names:
        found = await sent(seconds, 1 if smoke else TURNS, smoke=smoke)
        figures, troubles = figures + found[0], troubles + [f"sends, {what}" for what in found[1]]
    if "inventory" in names:
        found = await stocked(seconds, 1 if smoke else TURNS, smoke=smoke)
        figures, troubles = figures + found[0], troubles + [f"inventory, {what}" for what in found[1]]
    return figures, troubles


def say(what: str) -> None:
    """Progress, beside the result."""
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Buzón against bare aiohttp.")
    parser.add_argument("--only", action="append", choices=NAMES, help="one of the scenarios; may be repeated")
    parser.add_argument("--seconds", type=float, default=TURN_S, help="length of a turn (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a second or two each: does everything still work?")
    parser.add_argument("--markdown", action="store_true", help="print the table for the README")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) == 1:
        say("only one core: the server shares it with everything else, so the figures say little")
    seconds = SMOKE_TURN_S if arguments.smoke else arguments.seconds
    Rig.forks = arguments.smoke
    try:
        figures, troubles = asyncio.run(run(arguments.only or NAMES, seconds, smoke=arguments.smoke))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(report.machine() + "\n")
    print((report.markdown if arguments.markdown else report.table)(figures))
    for trouble in troubles:
        say(f"WRONG: {trouble}")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
