"""`python -m tests.simulation`: run one seed and show it, or many and sum them up."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Outcome, Wish, run


def main() -> int:
    """0 when no run broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: show all that happened")
    parser.add_argument("--no-faults", action="store_true", help="nothing goes wrong in the run")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return _one(chosen.seed, faults=not chosen.no_faults, trace=chosen.trace)
    return _many(chosen.first, chosen.seeds, chosen.jobs)


def _one(seed: int, *, faults: bool, trace: bool) -> int:
    outcome = run(seed, Wish(faults=faults, trace=trace))
    for line in outcome.trace:
        sys.stdout.write(f"{line}\n")
    _show(outcome)
    sys.stdout.write(f"{outcome.seconds:.1f} s, {outcome.counts}, trace {outcome.digest}\n")
    return bool(outcome.violations)


def _many(first: int, count: int, jobs: int) -> int:
    began, counts, broken = time.monotonic(), Counter[str](), []
    for outcome in outcomes(first, count, jobs):
        counts.update(outcome.counts)
        if outcome.violations:
            broken.append(outcome.seed)
            _show(outcome)
    seconds = time.monotonic() - began
    sys.stdout.write(f"{count} seeds from {first} in {seconds:.1f} s ({count / seconds:.1f}/s): {dict(counts)}\n")
    sys.stdout.write(f"{len(broken)} broke a promise{': ' if broken else ''}{' '.join(map(str, broken))}\n")
    return bool(broken)


def outcomes(first: int, count: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes of so many seeds, in order, by so many processes."""
    seeds = range(first, first + count)
    if jobs < 2:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds, chunksize=4)


def _show(outcome: Outcome) -> None:
    sys.stdout.write(f"seed {outcome.seed}: {', '.join(outcome.faults) or 'no fault'}\n")
    for line in outcome.violations[:8]:
        sys.stdout.write(f"  {line}\n")


if __name__ == "__main__":
    sys.exit(main())
