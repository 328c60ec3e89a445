"""Rows 19, 21, 22 and 25: a store without memory, without disk, without room for connections."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import redis

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.evidence import Evidence
from tests.chaos.rig import Rig
from tests.chaos.rig_machines import with_machines
from tests.chaos.rows import Allows, Setup, row
from tests.chaos.rows_store import full_rate
from tests.chaos.settled import not_over
from tests.support.until import until
from tests.support.valkey import ValkeyServer

MACHINES = Setup(rig="machines")
FULL_S = 5.0
"""Longer than any batch of the load stays open."""
DISK_ROOM_BYTES = 200_000
"""What still fits on the disk when it gets full: a moment's worth."""
DISK_CHECK_S = 1.0
"""How often the store looks whether its disk has room again."""
KILL_EVERY_S = 1.0
KILLS = 5
REFUSED_FOR_S = 3.0
MAXCLIENTS = 10_000
CONNECTS_PER_S_MAX = 20.0
HALF_RATE = 250.0


def nothing_stored(chaos: Chaos, since: float, until_: float) -> None:
    """Judge that every message sent in this time was refused."""

    def judge(evidence: Evidence) -> Iterator[str]:
        for each in evidence.tries:
            if each.acknowledged and not each.duplicate and since < each.sent_at and each.answered_at < until_:
                yield f"{each.id} was acknowledged though nothing could be stored"

    chaos.judge(judge)


@row(19, title="maxmemory reached", allows=Allows(duplicates=0, late_s=2.0), setup=MACHINES)
async def memory_full(rig: Rig, chaos: Chaos) -> None:
    """New messages are refused whole, those in the store go out, and then all is well again at once."""
    await chaos.balanced()
    owners = await rig.owners()
    chaos.fault()
    rig.store.command("CONFIG", "SET", "maxmemory", "1mb")
    full_at = monotonic()

    async def drained() -> bool:
        return not await not_over(rig, rig.nodes[0])

    try:
        await until(drained, FULL_S, every_s=0.2, what="what is in the store goes out though its memory is full")
        chaos.note(f"drained in {monotonic() - full_at:.1f} s")
        await chaos.passing(1)
        chaos.expect(await rig.owners() == owners, "partitions changed hands")
    finally:
        rig.store.command("CONFIG", "SET", "maxmemory", "0")
    room_at = monotonic()
    chaos.recovered(after_s=RECOVERY_S)
    nothing_stored(chaos, full_at + 0.1, room_at)
    full_rate(chaos, room_at + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)


@row(
    21,
    title="the store's disk full, then freed (everysec)",
    allows=Allows(duplicates=0, late_s=FULL_S + 4),
    setup=MACHINES,
)
async def disk_full(rig: Rig, chaos: Chaos) -> None:
    """Refusals and readable lists while it is full; it heals by itself."""
    if not with_machines(rig, chaos):
        return
    await chaos.balanced()
    chaos.fault()
    disk = rig.machine_of("store")
    try:
        disk.disk_room(DISK_ROOM_BYTES)
        await until(lambda: log_is_stuck(rig.store), FULL_S, every_s=0.05, what="the store refuses to write")
        full_at = monotonic()
        await chaos.passing(FULL_S)
        for node in rig.nodes:
            page = await rig.client(node).call("GET", "/api/v1/buffers")
            chaos.expect(page.status == 200, f"{node.name} cannot list its buffers: {page.status}")
            ready = await rig.client(node).call("GET", "/readyz")
            chaos.expect(ready.status == 503, f"{node.name} calls itself ready: {ready.status}")
    finally:
        disk.heal()
    room_at = monotonic()
    chaos.recovered(after_s=RECOVERY_S + DISK_CHECK_S)
    nothing_stored(chaos, full_at, room_at)
    full_rate(chaos, room_at + RECOVERY_S + DISK_CHECK_S)
    await chaos.passing(RECOVERY_S + DISK_CHECK_S + 2)


@row(
    22,
    title="the store's disk full (always): the store ends, and is started when there is room",
    allows=Allows(duplicates=0, late_s=6.0),
    setup=MACHINES,
)
async def disk_full_always(rig: Rig, chaos: Chaos) -> None:
    """As if it had been killed; what it did not have on disk it had not acknowledged."""
    if not with_machines(rig, chaos):
        return
    await chaos.balanced()
    rig.store.command("CONFIG", "SET", "appendfsync", "always")
    await chaos.passing(1)
    chaos.fault()
    disk = rig.machine_of("store")
    try:
        disk.disk_room(DISK_ROOM_BYTES)
        await until(lambda: rig.store.child.exit_code is not None, FULL_S, every_s=0.02, what="the store ends")
        chaos.expect(rig.store.child.exit_code == 1, f"the store's exit code is {rig.store.child.exit_code}")
        await chaos.kill_store()
        await chaos.passing(1)
    finally:
        disk.heal()
    await chaos.start_store()
    full_rate(chaos, monotonic() + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)


@row(
    25,
    title="all clients of the store killed every second; then its maxclients reached",
    allows=Allows(late_s=4.0, counters=False),
    setup=MACHINES,
)
async def clients_killed(rig: Rig, chaos: Chaos) -> None:
    """Nodes connect again, but never in a storm."""
    await chaos.balanced()
    chaos.fault()
    with rig.store.client() as store:
        tried, began = connects(store), monotonic()
        for _ in range(KILLS):
            store.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await chaos.passing(KILL_EVERY_S)
        no_storm(chaos, "while killed", (connects(store) - tried) / (monotonic() - began))
        await chaos.passing(RECOVERY_S)
        tried, began = connects(store), monotonic()
        store.config_set("maxclients", 1)
        try:
            store.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await chaos.passing(REFUSED_FOR_S)
            no_storm(chaos, "at maxclients", (connects(store) - tried) / (monotonic() - began))
        finally:
            store.config_set("maxclients", MAXCLIENTS)
    back_at = monotonic()
    chaos.recovered(after_s=RECOVERY_S)
    full_rate(chaos, back_at + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)

    def no_hole(evidence: Evidence) -> Iterator[str]:
        """Between two kills there is time to connect and work."""
        count = sum(each.acknowledged and began - RECOVERY_S < each.answered_at < began for each in evidence.tries)
        if count < HALF_RATE * RECOVERY_S:
            yield f"only {count / RECOVERY_S:.0f} messages/s acknowledged after the last kill"

    chaos.judge(no_hole)


def connects(store: redis.Redis) -> int:
    """How many connections the store was asked for so far, refused ones included."""
    stats: dict[str, int] = store.info("stats")
    return int(stats["total_connections_received"]) + int(stats["rejected_connections"])


def no_storm(chaos: Chaos, when: str, connects_per_s: float) -> None:
    """Expect few attempts to connect."""
    per_node = connects_per_s / len(chaos.rig.nodes)
    chaos.note(f"{per_node:.1f} connects/s a node {when}")
    chaos.expect(per_node <= CONNECTS_PER_S_MAX, f"{per_node:.0f} connects/s a node {when}")


def log_is_stuck(store: ValkeyServer) -> bool:
    """Whether the store could not write its log the last time."""
    with store.client() as client:
        persistence: dict[str, str] = client.info("persistence")
    return persistence["aof_last_write_status"] == "err"
