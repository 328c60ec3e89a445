"""Rows 43, 44, 60 to 64 and 6b: whoever listens has no hole and does not know, whatever dies under it."""

from __future__ import annotations

import asyncio
from time import monotonic

from msgspec import structs

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.listening_run import Listening
from tests.chaos.rig import Rig
from tests.chaos.rows import STANDARD_LOAD, Allows, Setup, row
from tests.chaos.rows_rollback import log_bytes
from tests.chaos.stretch import compared

LIGHT = tuple(structs.replace(group, rate=group.rate / 10) for group in STANDARD_LOAD)
"""Fifty messages a second beside the listeners: they must not notice."""
PLAIN = Setup(load=LIGHT, load_s=0, limit_s=60)
CALM_S = 1.5
CUTS = 8
GONE_S = 2.0
DOWN_S = 1.5
HELD_S = 8.0
HELD_MANY_S = 3.0
STALLED = 60
STALL_S = 8.0
STALLED_P99_S = 0.020
PADDING = 8000
SMALL_HISTORY = (("CHANNEL_HISTORY_SIZE", "20"),)


def none_lost(chaos: Chaos, listening: Listening) -> None:
    """Nothing was lost in the store, and the histories reach back: nobody may be told that something was missed."""
    told = listening.told
    chaos.expect(told.unrecovered == 0, f"{told.unrecovered} came back and were told that something is missing")
    chaos.expect(told.lost == 0, f"{told.lost} were told of a loss")


@row(
    43,
    title="half of the listeners stop reading",
    allows=Allows(rss_mib=400.0),
    setup=Setup(load=LIGHT, load_s=0, limit_s=60),
)
async def stop_reading(rig: Rig, chaos: Chaos) -> None:
    """They are closed, with 3008 for who can read it; the others get their messages as quickly as before."""
    options = {
        "channels": 1,
        "per_listener": 1,
        "listeners": 2 * STALLED,
        "padding": PADDING,
        "foreign_per_s": 0.0,
        "publishes_per_s": 150.0,
        "stays_s": 1e9,
    }
    async with Listening(rig, chaos, options) as listening:
        await chaos.passing(CALM_S)
        await listening.late()
        await chaos.passing(STALL_S)
        before = await listening.late()
        await listening.stall(STALLED)
        await chaos.passing(STALL_S)
        meanwhile = await listening.late()
        await listening.unstall()
        await chaos.passing(CALM_S)
        await listening.joined()
    chaos.note(compared("receive", before, meanwhile))
    was, came = _p99(before), _p99(meanwhile)
    chaos.expect(came <= was + STALLED_P99_S, f"p99 {came * 1e3:.0f} ms, {was * 1e3:.0f} ms before")
    # Whoever never reads does not see the code either: its connection is cut five seconds after the close frame.
    closed = sum(count for code, count in listening.told.closed.items() if code in {3008, 1006})
    chaos.expect(closed >= STALLED, f"closed: {listening.told.closed}")


@row(44, title="subscriptions killed again and again amid fan-out", setup=PLAIN)
async def kill_subscriptions(rig: Rig, chaos: Chaos) -> None:
    """Each gap is filled from the history."""
    async with Listening(rig, chaos) as listening:
        for _ in range(2 if chaos.hurried else CUTS):
            await chaos.passing(chaos.random.uniform(0.2, CALM_S))
            await asyncio.to_thread(rig.store.command, "CLIENT", "KILL", "TYPE", "pubsub")
        await chaos.passing(CALM_S)
        await listening.joined()
    none_lost(chaos, listening)


@row(60, title="kill -9 of a node with listeners", allows=Allows(late_s=4.0), setup=PLAIN)
async def kill_a_node(rig: Rig, chaos: Chaos) -> None:
    """They come back elsewhere with nothing missed; the others notice nothing."""
    async with Listening(rig, chaos) as listening:
        await chaos.balanced()
        victim = await chaos.pick()
        await chaos.kill(victim)
        await chaos.flushed_by_others(victim)
        await listening.joined()
        await chaos.passing(GONE_S)
        await chaos.start(victim)
        await chaos.passing(CALM_S)
        await listening.joined()
    none_lost(chaos, listening)


@row(61, title="kill -9 of the store with listeners, and restart", allows=Allows(duplicates=0), setup=PLAIN)
async def kill_the_store(rig: Rig, chaos: Chaos) -> None:
    """Connections stay, and nobody is told of a loss: the log was whole."""
    async with Listening(rig, chaos) as listening:
        for _ in range(2):
            await chaos.passing(CALM_S)
            await chaos.kill_store()
            await chaos.passing(DOWN_S)
            await chaos.start_store()
            await chaos.passing(CALM_S)
            await listening.joined()
    none_lost(chaos, listening)


@row(
    62,
    title="a store that comes back without the end of its log, with listeners",
    allows=Allows(duplicates=1_000_000, twice=1_000_000, late_s=8.0, counters=False),
    setup=PLAIN,
)
async def forget(rig: Rig, chaos: Chaos) -> None:
    """Whoever may have missed something is told so; nobody takes other messages for those that are gone."""
    async with Listening(rig, chaos) as listening:
        for _ in range(3):
            await chaos.passing(CALM_S)
            size = log_bytes(rig.store.directory)
            await chaos.passing(chaos.random.uniform(0.05, 1.0))
            await chaos.kill_store()
            rig.store.cut_aof(max(1, log_bytes(rig.store.directory) - size))
            await chaos.passing(chaos.random.uniform(0.1, DOWN_S))
            await chaos.start_store()
            await chaos.passing(CALM_S)
            await listening.joined()
    chaos.expect(listening.told.lost > 0, "nobody was told of a loss")


@row(
    63,
    title="one node cut off for longer than histories reach back",
    allows=Allows(late_s=4.0),
    setup=Setup(load=LIGHT, load_s=0, limit_s=60, environment=SMALL_HISTORY),
)
async def outlive_the_history(rig: Rig, chaos: Chaos) -> None:
    """Its listeners are told that something is missing, and go on from there."""
    async with Listening(rig, chaos, {"stays_s": 1e9, "channels": 3}) as listening:
        await chaos.balanced()
        victim = await chaos.pick()
        await chaos.cut(victim)
        await chaos.passing(HELD_S)
        await chaos.mend(victim)
        await chaos.passing(CALM_S)
        await listening.joined()
    chaos.expect(listening.told.lost > 0, "nobody was told of a loss")


@row(64, title="subscriptions that look healthy and hear nothing", setup=PLAIN)
async def deafen(rig: Rig, chaos: Chaos) -> None:
    """No byte passes them any more, and nobody is told: the probe finds out."""
    async with Listening(rig, chaos) as listening:
        await chaos.balanced()
        ears = await asyncio.to_thread(rig.store.command, "CLIENT", "LIST", "TYPE", "pubsub")
        ports = [int(line.split("addr=")[1].split()[0].rpartition(":")[2]) for line in str(ears).splitlines()]
        held = [await rig.toxics.hold(port) for port in ports if port]
        chaos.expect(any(held), "no subscription is held")
        fault = chaos.fault()  # readiness says so
        await chaos.passing(HELD_MANY_S + CALM_S)
        await listening.joined()
        await chaos.passing(CALM_S)
        fault.until = monotonic() + RECOVERY_S
        for node in rig.nodes:
            await rig.toxics.heal(node.store_proxy)
    none_lost(chaos, listening)


@row("6b", title="SIGTERM of a node with listeners", setup=PLAIN)
async def stop_a_node(rig: Rig, chaos: Chaos) -> None:
    """They are sent home with 3001, and miss nothing; the node exits with 0 in time."""
    async with Listening(rig, chaos, {"stays_s": 1e9}) as listening:
        await chaos.balanced()
        victim = await chaos.pick()
        stopped = await chaos.stop(victim)
        chaos.expect(stopped.exit_code == 0 and stopped.seconds <= 5, f"it ended with {stopped}")
        await listening.joined()
        await chaos.start(victim)
        await chaos.passing(CALM_S)
    none_lost(chaos, listening)
    chaos.expect(listening.told.closed.get(3001, 0) > 0, f"closed: {listening.told.closed}")


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0
