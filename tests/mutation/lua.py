"""Lua: the mutants that the store's own tests plant into its scripts, with the law that must notice each.

They are tests already (`test_store_mutations` and its like): there a mutant that nobody notices is a failure. Here they
are run and told like all others. Each goes by the id of its test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tests.integration import test_store_mutations, test_store_ownership_mutations, test_store_task_mutations
from tests.integration.test_store_mutations import FENCE, Mutant
from tests.mutation.trial import ERROR_CHARACTERS, Bench, Verdict, without

SUITES = (test_store_mutations, test_store_ownership_mutations, test_store_task_mutations)
TEST = "test_a_check_that_is_missing_is_noticed"
SCRIPTS = "actors/adapters/valkey/scripts"
RUN_S_MAX = 240.0
_ENDED = re.compile(r"^(?P<word>PASSED|FAILED|ERROR) (?P<id>tests/\S+\[.*?\])(?: - .*)?$", re.MULTILINE)
_SECONDS = re.compile(r"^(?P<seconds>[\d.]+)s call +(?P<id>tests/\S+\[.*\])$", re.MULTILINE)


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


MUTANTS: Mapping[str, Mutant] = {
    f"{_path(suite.__name__)}::{TEST}[{name}]": mutant for suite in SUITES for name, mutant in suite.MUTANTS.items()
}


def chosen(only: Sequence[str]) -> list[str]:
    """The mutants whose name or script holds one of these; all when there are none."""
    return [of for of in MUTANTS if not only or any(part in f"{file_of(of)} {name_of(of)}" for part in only)]


def name_of(mutant: str) -> str:
    """What the mutant is called."""
    return mutant.partition("[")[2].removesuffix("]")


def file_of(mutant: str) -> str:
    """The script it changes."""
    return f"{SCRIPTS}/{MUTANTS[mutant].script}.lua"


def unfenced() -> set[str]:
    """The scripts of which a mutant does not look at the epoch."""
    return {of.script for of in MUTANTS.values() if of.taken in (FENCE, "if not fence then")}


def laws(mutants: Sequence[str]) -> list[str]:
    """The tests that must pass without these mutants, as pytest names them."""
    return sorted({_law(of) for of in mutants})


def try_out(bench: Bench, mutants: Sequence[str], failing: Mapping[str, str]) -> list[Verdict]:
    """Run them all; one whose law is among the `failing` proves nothing."""
    ended = bench.run([*mutants, "-rA", "--durations=0", "--durations-min=0"], RUN_S_MAX)
    words = {found["id"]: found["word"] for found in _ENDED.finditer(ended.output)}
    seconds = {found["id"]: float(found["seconds"]) for found in _SECONDS.finditer(ended.output)}
    verdicts = []
    for of in mutants:
        trouble = without([_law(of)], failing)
        if not trouble and words.get(of) not in ("PASSED", "FAILED"):
            trouble = f"not run: {ended.output.strip()[-ERROR_CHARACTERS:]}"
        verdict = Verdict(
            name=name_of(of),
            file=file_of(of),
            taken=MUTANTS[of].taken,
            killed_by=_law(of) if words.get(of) == "PASSED" and not trouble else "",
            trouble=trouble,
            seconds=seconds.get(of, 0.0),
        )
        verdicts.append(verdict)
    return verdicts


def _law(mutant: str) -> str:
    law = MUTANTS[mutant].law
    return f"{_path(law.__module__)}::{law.__name__}"
