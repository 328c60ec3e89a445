"""Rows 9 and 12: a store that is killed and one that is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.evidence import Evidence
from tests.chaos.rig import Rig
from tests.chaos.rows import Allows, Setup, row

DOWN_S = 1.5
FROZEN_S = 30.0
SUDDEN_S = 1.2
KNOWN_S = 0.3
"""How long a refusal may take once the node knows that the store is away; 0.25 by itself, on a shared machine."""
FULL_RATE = 0.9 * 500


def quick_refusals(chaos: Chaos, down_at: float, up_at: float) -> None:
    """While the store is known to be away, every request is refused at once."""

    def judge(evidence: Evidence) -> Iterator[str]:
        for each in evidence.tries:
            took_s = each.answered_at - each.sent_at
            if each.status > 0 and down_at + SUDDEN_S < each.sent_at and each.answered_at < up_at and took_s > KNOWN_S:
                yield f"{each.id}: {each.status} after {took_s:.2f} s"

    chaos.judge(judge)


def full_rate(chaos: Chaos, since: float, for_s: float = 1.5) -> None:
    """From then on messages are acknowledged as fast as they are meant to come."""

    def judge(evidence: Evidence) -> Iterator[str]:
        count = sum(each.acknowledged and since < each.answered_at < since + for_s for each in evidence.tries)
        if count < FULL_RATE * for_s:
            yield f"{count / for_s:.0f} messages/s acknowledged {RECOVERY_S:g} s after the store was back"

    chaos.judge(judge)


@row(9, title="kill -9 of the store, and restart", allows=Allows(duplicates=0))
async def kill_the_store(_rig: Rig, chaos: Chaos) -> None:
    """503 at once while it is away, all is well two seconds after it is back."""
    await chaos.balanced()
    down_at = monotonic()
    await chaos.kill_store()
    await chaos.passing(DOWN_S)
    up_at = monotonic()
    await chaos.start_store()
    back_at = monotonic()
    quick_refusals(chaos, down_at, up_at)
    full_rate(chaos, back_at + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)


@row(
    12,
    title=f"the store frozen for {FROZEN_S:g} s",
    allows=Allows(duplicates=0),
    setup=Setup(limit_s=FROZEN_S + 40),
)
async def freeze_the_store(rig: Rig, chaos: Chaos) -> None:
    """Nobody takes anything over, and what was resent under its id is there once."""
    await chaos.balanced()
    before = await rig.owners()
    down_at = monotonic()
    await chaos.freeze_store()
    await chaos.passing(FROZEN_S)
    up_at = monotonic()
    await chaos.thaw_store()
    quick_refusals(chaos, down_at, up_at)
    full_rate(chaos, up_at + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)
    after = await rig.owners()
    moved = sum(before[partition] != after[partition] for partition in before)
    chaos.expect(not moved, f"{moved} partitions changed hands")
