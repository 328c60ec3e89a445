"""Many seeds: whatever happens to a cluster, what it promised is kept."""

from __future__ import annotations

import pytest

from tests.simulation.run import Wish, run

SEEDS = 40
TOGETHER = 20


@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_what_was_promised_is_kept(first: int) -> None:
    """Nodes die, freeze, sleep, stop and are cut off; the store dies, hangs, forgets its last seconds and what time it
    is; webhooks hang and fail. Nothing acknowledged is lost, nothing is out of order or sent in two versions, nothing
    is twice without a reason, and in the end every partition is where it belongs."""
    broken = {seed: violations[:3] for seed in range(first, first + TOGETHER) if (violations := run(seed).violations)}
    assert not broken, "python -m tests.simulation --seed N --trace"


def test_without_a_fault_nothing_is_twice() -> None:
    """A cluster that nothing happens to, but that nodes join it and partitions move."""
    for seed in range(SEEDS, SEEDS + TOGETHER):
        outcome = run(seed, Wish(faults=False))
        assert outcome.violations == []
        assert "duplicates" not in outcome.counts
        assert outcome.counts["acknowledged"] > 0


@pytest.mark.parametrize(
    "only",
    [
        ("freeze", "kill", "pause"),
        ("cut", "slow", "sleep"),
        ("rollback", "stop", "reset"),
        ("webhook", "kill", "apart"),
    ],
    ids=",".join,
)
def test_many_faults_of_few_kinds(only: tuple[str, ...]) -> None:
    """Six of them in one run, so that they meet each other."""
    broken = {
        seed: violations[:3]
        for seed in range(SEEDS, SEEDS + TOGETHER // 2)
        if (violations := run(seed, Wish(only=only)).violations)
    }
    assert not broken
