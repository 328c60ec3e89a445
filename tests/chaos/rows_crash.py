"""Rows 0, 1, 2, 4–6: nothing at all, and nodes that are killed, frozen, thawed and stopped under load."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from tests.chaos.chaos import DEAD_AFTER_S, Chaos
from tests.chaos.evidence import Evidence
from tests.chaos.rig import Rig
from tests.chaos.rows import Allows, row

OTHERS_SCRIPTS = frozenset({"append", "beat", "idempotency", "leave", "publish", "ingest", "mark", "report", "awaken"})
"""Whoever is not the owner may run these; every other script that writes is an owner's."""
NOTHING_OWNED_S = 2.0
"""After a thaw the others hold everything, and plan no move before twice as long has passed."""
STOP_S_MAX = 5.0


@row(0, title="none", allows=Allows(duplicates=0, late_s=1.0))
async def nothing(_rig: Rig, chaos: Chaos) -> None:
    """What the suite itself costs; partitions may move to their places meanwhile."""
    await chaos.balanced()
    await chaos.passing(5)


@row(1, title="kill -9 of an owner", allows=Allows(late_s=4.0), smoke=True)
async def kill_an_owner(_rig: Rig, chaos: Chaos) -> None:
    """Others take over; clients of other nodes notice nothing."""
    await chaos.balanced()
    victim = await chaos.pick()
    await chaos.kill(victim)
    await chaos.flushed_by_others(victim)
    await chaos.passing(1)


@row(2, title="kill -9 of two of three at once", allows=Allows(late_s=5.0, first_flush_s=4.0))
async def kill_two(_rig: Rig, chaos: Chaos) -> None:
    """The last one does all the work."""
    await chaos.balanced()
    victims = chaos.random.sample(chaos.living(), 2)
    await chaos.kill(*victims)
    await chaos.flushed_by_others(*victims)
    await chaos.passing(2)


@row(4, title="an owner frozen for 3 T, then thawed", allows=Allows(late_s=4.0), smoke=True)
async def zombie(rig: Rig, chaos: Chaos) -> None:
    """It begins no request to a webhook and applies no write of an owner: its time is over."""
    await chaos.balanced()
    victim = await chaos.pick()
    await chaos.freeze(victim)
    await chaos.flushed_by_others(victim)
    await chaos.passing(max(0.0, chaos.crashes[-1].at + 3 * DEAD_AFTER_S - monotonic()))
    async with rig.monitor() as monitor:
        thawed_at = monotonic()
        await chaos.thaw(victim)
        await chaos.passing(NOTHING_OWNED_S)
    nodes = await rig.writers()
    applied = [
        f"{write.script} {write.command} {write.key}"
        for write in monitor.writes
        if nodes.get(write.port) == victim.name and write.script not in OTHERS_SCRIPTS
    ]
    chaos.expect(not applied, f"the thawed node applied {len(applied)} writes: {applied[:4]}")
    chaos.expect(len(monitor.writes) > 100, f"the monitor saw {len(monitor.writes)} writes only")

    def no_posts(evidence: Evidence) -> Iterator[str]:
        for post in evidence.posts:
            if post.begun.node == victim.name and thawed_at < post.begun.at < thawed_at + NOTHING_OWNED_S:
                yield f"the thawed node began {post.begun.webhook_id} after {post.begun.at - thawed_at:.3f} s"

    chaos.judge(no_posts)


@row(5, title="an owner frozen for 0.5 T", allows=Allows(duplicates=0, late_s=2.5))
async def freeze_shortly(rig: Rig, chaos: Chaos) -> None:
    """Nobody takes over, nothing comes twice."""
    await chaos.balanced()
    before = await rig.owners()
    victim = await chaos.pick()
    await chaos.freeze(victim, takeover=False)
    await chaos.passing(DEAD_AFTER_S / 2)
    await chaos.thaw(victim)
    await chaos.passing(DEAD_AFTER_S)
    chaos.expect(await rig.owners() == before, "partitions changed hands")


@row(6, title="SIGTERM under load", allows=Allows(duplicates=0))
async def stop_an_owner(_rig: Rig, chaos: Chaos) -> None:
    """It ends in order within five seconds, and nothing comes twice: what it had begun it finishes."""
    await chaos.balanced()
    victim = await chaos.pick()
    stopped = await chaos.stop(victim)
    chaos.note(f"ended in {stopped.seconds:.2f} s")
    chaos.expect(stopped.exit_code == 0, f"exit code {stopped.exit_code}")
    chaos.expect(stopped.seconds <= STOP_S_MAX, f"it took {stopped.seconds:.1f} s to end")
    await chaos.passing(1)
    await chaos.start(victim)
    await chaos.passing(1)
