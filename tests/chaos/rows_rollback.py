"""Rows 10 and 11: a store that comes back without the end of its log.

What it forgot it may be told again: messages that were delivered within that time may come in another delivery, and
deliveries whose end it forgot may come again. Nothing else may.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from msgspec import Struct

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.checker import SETTLE_S, check
from tests.chaos.evidence import Evidence
from tests.chaos.rig import Rig
from tests.chaos.rows import Allows, Setup, row

ANY = 1_000_000
"""The row itself judges which."""
TAIL_S = 4.0
"""How long nodes keep what they acknowledged: the store may be away for longer."""
LONG_S = TAIL_S + 1.5
SHORT_S = 0.5
EVERYSEC_S = 2.0
"""What `appendfsync everysec` can lose at most."""
ORPHANED_S = 4.5
"""A delivery whose end was forgotten stands in the store as claimed: its node notices when it has looked twice."""


class Forgotten(Struct, frozen=True):
    """What was written between these instants the store has lost; `back_at` it could be used again."""

    since: float
    until: float
    back_at: float

    def holds(self, at: float) -> bool:
        """Whether something that happened then may have been forgotten."""
        return self.since - SETTLE_S <= at <= self.back_at


def log_bytes(store: Path) -> int:
    """How long the store's log is."""
    return max(store.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime).stat().st_size


async def forget(rig: Rig, chaos: Chaos, seconds: float, away_s: float) -> Forgotten:
    """Kill the store so that it loses what it was told in the last seconds (0: the last byte), and bring it back."""
    since, size = monotonic(), log_bytes(rig.store.directory)
    await chaos.passing(seconds)
    await chaos.kill_store()
    until = monotonic()
    rig.store.cut_aof(max(1, log_bytes(rig.store.directory) - size) if seconds else 1)
    await chaos.passing(away_s)
    await chaos.start_store()
    return Forgotten(since, until, monotonic() + RECOVERY_S)


def only_what_was_forgotten(chaos: Chaos, *forgotten: Forgotten) -> None:
    """Judge what came again: it must have happened in a time that the store forgot."""

    def judge(evidence: Evidence) -> Iterator[str]:
        report = check(evidence)
        taken = [post for post in evidence.posts if post.taken]
        first = {post.begun.webhook_id: post.answered_at for post in reversed(taken)}
        first_of = {message: post.answered_at for post in reversed(taken) for message in post.begun.ids}
        for batch in report.repeated:
            if not any(each.holds(first[batch]) for each in forgotten):
                yield f"{batch} came again though the store knew of its end"
        for message in report.twice:
            if not any(each.holds(first_of[message]) for each in forgotten):
                yield f"{message} came in two deliveries though the store knew of the first"
        chaos.note(f"{len(report.twice)} messages in two deliveries")

    chaos.judge(judge)


@row(
    10,
    title="kill -9 of the store, its log without the last byte; without up to 2 s, back after 5 s",
    allows=Allows(late_s=LONG_S + EVERYSEC_S + ORPHANED_S + 1, counters=False, duplicates=ANY, twice=ANY),
)
async def cut_the_log(rig: Rig, chaos: Chaos) -> None:
    """Living nodes bring back what they acknowledged, however long the store was away."""
    await chaos.balanced()
    first = await forget(rig, chaos, 0, SHORT_S)
    await chaos.passing(RECOVERY_S)
    second = await forget(rig, chaos, chaos.random.uniform(0.5, 1) * EVERYSEC_S, LONG_S)
    chaos.note(f"forgot {second.until - second.since:.1f} s")
    await chaos.passing(RECOVERY_S + 1)
    only_what_was_forgotten(chaos, first, second)


@row(
    11,
    title="kill -9 of a node and the store, its log without up to 2 s",
    allows=Allows(lost=ANY, late_s=8.0, first_flush_s=6.0, duplicates=ANY, twice=ANY),
    setup=Setup(limit_s=40),
)
async def cut_the_log_and_kill(rig: Rig, chaos: Chaos) -> None:
    """Two faults at once: lost is at most what the dead node acknowledged in the seconds that the store forgot."""
    await chaos.balanced()
    victim = await chaos.pick()
    since, size = monotonic(), log_bytes(rig.store.directory)
    await chaos.passing(chaos.random.uniform(0.5, 1) * EVERYSEC_S)
    await chaos.kill(victim)
    await chaos.kill_store()
    until = monotonic()
    rig.store.cut_aof(max(1, log_bytes(rig.store.directory) - size))
    await chaos.passing(SHORT_S)
    await chaos.start_store()
    only_what_was_forgotten(chaos, Forgotten(since, until, monotonic() + RECOVERY_S))
    await chaos.flushed_by_others(victim)
    await chaos.passing(1)

    def lost_with_the_node(evidence: Evidence) -> Iterator[str]:
        lost = check(evidence).lost
        acknowledged = {each.id: each for each in evidence.tries if each.acknowledged}
        for message in lost:
            each = acknowledged[message]
            if each.node != victim.name or each.answered_at < since - SETTLE_S:
                yield f"{message} is lost: {each.node} acknowledged it {until - each.answered_at:.2f} s before the end"
        chaos.note(f"{len(lost)} lost of the last {until - since:.1f} s, by the dead node")

    chaos.judge(lost_with_the_node)
