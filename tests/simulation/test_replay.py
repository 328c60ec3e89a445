"""Replay: a seed stands for one run, wherever and whenever it is run."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.simulation.run import Wish, run

SEEDS = (9, 35, 66, 106, 249, 281)
"""Runs with many faults each."""
PROGRAM = f"from tests.simulation.run import run; print([run(seed).digest for seed in {SEEDS}])"


def test_a_seed_gives_the_same_trace_twice() -> None:
    """Every line of it, also the second time in one process."""
    first, second = (run(SEEDS[0], Wish(trace=True)) for _ in range(2))
    assert len(first.trace) > 100
    assert first == second


def test_seeds_differ() -> None:
    """The trace is about the run."""
    assert len({run(seed).digest for seed in SEEDS}) == len(SEEDS)


def test_processes_with_other_hashes_give_the_same_traces() -> None:
    """Nothing depends on the order of a set: its strings' hashes are other ones in each process."""
    printed = [
        subprocess.run(  # noqa: S603  our own interpreter and text
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert printed[0] == printed[1] == f"{[run(seed).digest for seed in SEEDS]}\n"
