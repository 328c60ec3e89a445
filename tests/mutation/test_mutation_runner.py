"""The mutation runner bites: a mutant is killed or told, and none in the catalogue is stale."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from tests.mutation import lua, report
from tests.mutation.catalogue import MUTANTS, chosen
from tests.mutation.judge import exit_code, judged, tried
from tests.mutation.mutant import Mutant, Stale, applied, mutated
from tests.mutation.trial import ROOT, Bench, Verdict

SHARE = "test_placement.py::test_an_eighth_moves_at_once_at_the_most"
KILLED = Mutant(
    name="moves all at once",
    file="actors/core/placement.py",
    taken="MOVING_MAX // max(len(alive), 1)",
    put="PARTITIONS",
    tests=(f"unit/{SHARE}",),
)
NO_OP = Mutant(
    name="the same in other words",
    file="actors/core/placement.py",
    taken="PARTITIONS // 8",
    put="(PARTITIONS // 8)",
    tests=KILLED.tests,
)
STALE = Mutant(name="of another time", file=NO_OP.file, taken="no such text", put="", tests=KILLED.tests)


def test_a_survivor_is_told() -> None:
    """Beside one that is killed and one that cannot be tried; and the working tree is as it was."""
    before = (ROOT / KILLED.file).read_text()
    heard: list[str] = []

    verdicts = judged([KILLED, NO_OP, STALE], [], 1, lambda verdict: heard.append(report.line(verdict)))

    killed, survived, stale = verdicts
    assert killed.killed_by.startswith(f"tests/unit/{SHARE}")
    assert survived.survived
    assert stale.trouble.startswith("stale: ")
    assert exit_code(verdicts) == exit_code([survived]) == exit_code([stale]) == 1
    assert exit_code([killed]) == 0
    assert len(heard) == 3
    table = report.markdown(verdicts)
    assert "3 mutants: 1 killed, 1 survived, 1 could not be tried." in table
    assert f"- {NO_OP.name}: no test noticed" in table
    assert (ROOT / KILLED.file).read_text() == before


def test_a_test_that_fails_anyway_proves_nothing() -> None:
    """A mutant that relies on it is in trouble, whatever becomes of it."""
    nobody = cast(Bench, None)
    for failing in (f"tests/unit/{SHARE}", f"tests/unit/{SHARE}[2]"):
        [verdict] = tried(nobody, KILLED, {failing: "assert 1 == 2"})
        assert verdict.trouble == f"{failing} fails without a mutant: assert 1 == 2"
        assert not verdict.killed_by


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_no_mutant_is_stale(mutant: Mutant) -> None:
    """Its text stands in its file, and so do its tests."""
    assert mutated(mutant, ROOT) != (ROOT / mutant.file).read_text()
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert re.search(
            rf"^(async )?def {name.partition('[')[0]}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE
        )


def test_no_fence_is_left_out() -> None:
    """Every script that looks at the epoch of its caller has a mutant that does not."""
    scripts = {path.stem: path.read_text() for path in (ROOT / lua.SCRIPTS).glob("*.lua")}
    looking = {name for name, text in scripts.items() if "= fenced(" in text}
    taken = {Path(of.file).stem for of in MUTANTS if "if fence then return fence end" in of.taken}
    assert looking
    assert looking - taken - lua.unfenced() == set()


def test_each_mutant_has_its_own_name() -> None:
    """And can be asked for by it, or by its file."""
    assert [name for name, count in Counter((of.file, of.name) for of in MUTANTS).items() if count > 1] == []
    first = MUTANTS[0]
    assert first in chosen([first.name])
    assert {of.file for of in chosen([first.file])} == {first.file}
    assert chosen(["nothing is called so"]) == []


def test_a_mutant_is_taken_out_again(tmp_path: Path) -> None:
    """Also when something goes wrong; text that is there twice is stale."""
    file = tmp_path / "x.py"
    file.write_text("a = 1\nb = 2\nb = 2\n")
    stands = file.stat()
    mutant = Mutant(name="x", file="x.py", taken="a = 1", put="a = 3", tests=())

    def broken() -> None:
        with applied(mutant, tmp_path):
            assert file.read_text() == "a = 3\nb = 2\nb = 2\n"
            assert file.stat().st_mtime > stands.st_mtime + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert file.read_text() == "a = 1\nb = 2\nb = 2\n"
    assert file.stat().st_mtime_ns == stands.st_mtime_ns
    with pytest.raises(Stale, match="2 times"):
        mutated(Mutant(name="y", file="x.py", taken="b = 2", put="", tests=()), tmp_path)


def test_the_table_holds_any_text() -> None:
    """Lines and bars of code would break it."""
    verdict = Verdict(name="n", file="actors/x.py", taken="if a | b:\n    " + "c" * 200, killed_by="tests/unit/t.py::t")
    [_, _, row, *_] = report.markdown([verdict]).splitlines()
    assert "a \\| b: ccc" in row
    assert row.replace("\\|", "").count("|") == len(report.COLUMNS) + 1
    assert len(row) < 200
