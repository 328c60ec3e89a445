"""Judge: tries out many mutants, some at a time, after their tests have passed without any.

A test that fails without a mutant proves nothing with one: every mutant that relies on it is in trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue

from tests.mutation import lua
from tests.mutation.mutant import Mutant
from tests.mutation.trial import ERROR_CHARACTERS, PASSED, PLAIN_S_MAX, Bench, Run, Verdict, bench, node_ids, without

Told = Callable[[Verdict], None]
Trial = Callable[[Bench], list[Verdict]]
MANY = 8
"""So many are worth compiling everything for."""


def judged(mutants: Sequence[Mutant], scripts: Sequence[str], jobs: int, told: Told) -> list[Verdict]:
    """What became of each mutant, and of the named ones in scripts; `told` hears each as it ends."""
    with ExitStack() as stack:
        benches = [stack.enter_context(bench(compiled=len(mutants) > MANY)) for _ in range(jobs)]
        failing = _failing(benches, [*lua.laws(scripts), *(test for of in mutants for test in node_ids(of))])
        free: SimpleQueue[Bench] = SimpleQueue()
        for one in benches:
            free.put(one)

        def work(trial: Trial) -> list[Verdict]:
            mine = free.get()
            try:
                verdicts = trial(mine)
            finally:
                free.put(mine)
            for verdict in verdicts:
                told(verdict)
            return verdicts

        trials: list[Trial] = [partial(lua.try_out, mutants=scripts, failing=failing)] if scripts else []
        trials += [partial(tried, mutant=mutant, failing=failing) for mutant in mutants]
        with ThreadPoolExecutor(jobs) as pool:
            return [verdict for verdicts in pool.map(work, trials) for verdict in verdicts]


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """0 when every mutant was killed."""
    return 0 if all(of.killed_by for of in verdicts) else 1


def tried(bench: Bench, mutant: Mutant, failing: Mapping[str, str]) -> list[Verdict]:
    """Try a mutant out, unless one of its tests is among the `failing`."""
    trouble = without(node_ids(mutant), failing)
    if trouble:
        return [Verdict(name=mutant.name, file=mutant.file, taken=mutant.taken, trouble=trouble)]
    return [bench.try_out(mutant)]


def _failing(benches: Sequence[Bench], tests: Sequence[str]) -> dict[str, str]:
    """The tests that fail without a mutant, and what pytest wrote."""
    wanted = list(dict.fromkeys(tests))
    shares = [wanted[at :: len(benches)] for at in range(len(benches))]
    failing: dict[str, str] = {}
    with ThreadPoolExecutor(len(benches)) as pool:
        runs = pool.map(_plain, benches, shares)
        for share, ended in zip(shares, runs, strict=True):
            if ended.code != PASSED:
                failing |= dict.fromkeys(ended.failed or share, ended.output.strip()[-ERROR_CHARACTERS:])
    return failing


def _plain(bench: Bench, tests: Sequence[str]) -> Run:
    return bench.run(tests, PLAIN_S_MAX) if tests else Run(PASSED, (), "")
