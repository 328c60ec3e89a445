"""Rows 26 to 28: wall clocks that are wrong, and a node whose event loop is blocked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from time import monotonic

from tests.chaos.chaos import DEAD_AFTER_S, ON_THE_WAY_S, Chaos
from tests.chaos.checker import check
from tests.chaos.evidence import Crash, Evidence
from tests.chaos.rig import Rig
from tests.chaos.rig_machines import with_machines
from tests.chaos.rows import STANDARD_LOAD, Allows, Group, Setup, row
from tests.chaos.rows_crash import NOTHING_OWNED_S, OTHERS_SCRIPTS
from tests.support.stalling_node import STALL_S

ANY = 1_000_000
"""The row itself judges which."""
MACHINES = Setup(rig="machines")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WRONG_FOR_S = 4.0
"""Longer than what was armed before a jump lasts."""
WAIT_S_MAX = max(group.max_wait_s or group.wait_s for group in STANDARD_LOAD)
SOON_S = 1.5
SICK = Group(name="sick", keys=20, rate=60, max_size=3, wait_s=0.5, path="/sick", sink=1)
SICK_S = 0.7
"""Before each jump its webhook fails for so long: some deliveries wait for their next try when the clock jumps."""


@row(
    26,
    title="the store's clock an hour ahead, then an hour behind, then right",
    allows=Allows(duplicates=0, early=ANY, late_s=WAIT_S_MAX + SOON_S),
    setup=Setup(rig="machines", load=(*STANDARD_LOAD, SICK)),
)
async def wrong_store_clock(rig: Rig, chaos: Chaos) -> None:
    """A batch comes early at worst, or waits once more; so does the next try of a delivery; nobody takes over."""
    await chaos.balanced()
    if not with_machines(rig, chaos):
        return
    before = await rig.owners()
    jumps = []
    try:
        for ahead_s in (HOUR_S, -HOUR_S, 0):
            await rig.sink.on(SICK.path, "/status/503", sink=SICK.sink)
            await chaos.passing(SICK_S)
            jumps.append(monotonic())
            rig.machine_of("store").clock_ahead(ahead_s)
            await rig.sink.on(SICK.path, "/well", sink=SICK.sink)
            await chaos.passing(WRONG_FOR_S)
        after = await rig.owners()
    finally:
        rig.heal_machines()
    moved = sum(before[partition] != after[partition] for partition in before)
    chaos.expect(not moved, f"{moved} partitions changed hands")

    def judge(evidence: Evidence) -> Iterator[str]:
        report = check(evidence)
        chaos.note(f"{len(report.early)} batches came early")
        first = {post.begun.webhook_id: post.begun.at for post in reversed(evidence.posts)}
        for batch in report.early:
            if not any(jump < first[batch] < jump + WAIT_S_MAX + SOON_S for jump in jumps):
                yield f"{batch} came early {first[batch] - jumps[0]:.2f} s after the first jump"

    chaos.judge(judge)


@row(27, title="nodes' wall clocks a day ahead and a day behind", allows=Allows(duplicates=0), setup=MACHINES)
async def wrong_node_clocks(rig: Rig, chaos: Chaos) -> None:
    """Nobody notices."""
    await chaos.balanced()
    if not with_machines(rig, chaos):
        return
    before = await rig.owners()
    ahead, behind, _ = rig.nodes
    rig.machine_of(ahead.name).clock_ahead(DAY_S)
    rig.machine_of(behind.name).clock_ahead(-DAY_S)
    try:
        await chaos.passing(WRONG_FOR_S)
    finally:
        rig.heal_machines()
    await chaos.passing(2)
    chaos.expect(await rig.owners() == before, "partitions changed hands")


@row(28, title="a node's event loop blocked for 1.5 T", allows=Allows(late_s=4.0, refusal_s=None), setup=MACHINES)
async def blocked_loop(rig: Rig, chaos: Chaos) -> None:
    """Like a frozen node: others take over, and when it goes on it begins nothing and writes nothing as an owner."""
    assert STALL_S == 1.5 * DEAD_AFTER_S
    await chaos.balanced()
    victim = await chaos.pick()
    owned = frozenset(at for at, (owner, _) in (await rig.owners()).items() if owner == victim.name)
    blocked_at = monotonic()
    fault = chaos.fault(victim.name)
    chaos.hurt.add(victim.name)
    until = blocked_at + ON_THE_WAY_S
    chaos.crashes.append(Crash(node=victim.name, at=blocked_at, until=until, partitions=owned))
    async with rig.monitor() as monitor:
        victim.process.child.send_signal(signal.SIGUSR1)
        await chaos.flushed_by_others(victim)
        await chaos.passing(blocked_at + STALL_S - monotonic())
        fault.until = monotonic() + SOON_S
        await chaos.passing(NOTHING_OWNED_S)
    nodes = await rig.writers()
    woke_at = blocked_at + STALL_S
    applied = [
        f"{write.script} {write.command} {write.key}"
        for write in monitor.writes
        if write.at > woke_at and nodes.get(write.port) == victim.name and write.script not in OTHERS_SCRIPTS
    ]
    chaos.expect(not applied, f"the node that was blocked applied {len(applied)} writes: {applied[:4]}")
    chaos.hurt.discard(victim.name)

    def no_posts(evidence: Evidence) -> Iterator[str]:
        for post in evidence.posts:
            if post.begun.node == victim.name and woke_at < post.begun.at < woke_at + NOTHING_OWNED_S:
                yield f"the node that was blocked began {post.begun.webhook_id} after {post.begun.at - woke_at:.3f} s"

    chaos.judge(no_posts)
