"""Trial: runs tests on a copy of the tree, as it is or with a mutant in it, and says which test noticed.

Each copy is used by one run at a time and is as before after each. The interpreter and its packages are those of the
one that runs this; the working tree is only read.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import msgspec
from msgspec import Struct

from tests.mutation.mutant import Mutant, Stale, applied
from tests.mutation.warm import Request

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("actors", "router", "tests", "pyproject.toml")
COMPILED = ("actors", "router", "tests/support", "tests/unit", "tests/integration", "tests/simulation")
"""Once, instead of in every run."""
TEST_S_MAX = 20
"""A mutant may make its test wait for ever: that is noticed, too, as a failure."""
RUN_S_MAX = 60.0
PLAIN_S_MAX = 300.0
"""The tests of all mutants, without a mutant."""
PYTEST = (
    *("-q", "-rfE", "--tb=no", "--no-header", "--color=no", "--assert=plain", "-p", "no:randomly"),
    *("-p", "no:cacheprovider", "-p", "tests.mutation.lean", "-o", f"timeout={TEST_S_MAX}"),
)
PASSED, FAILED = 0, 1
_FAILED = re.compile(r"^FAILED (?P<test>tests/.+?)(?: - .*)?$", re.MULTILINE)
ERROR_CHARACTERS = 400


class Run(Struct, frozen=True):
    """How a run of pytest ended: its exit code, the tests that failed, what it wrote."""

    code: int
    failed: tuple[str, ...]
    output: str


class Verdict(Struct, frozen=True, kw_only=True):
    """What became of a mutant. `killed_by` is the test that noticed, "" when none did; `trouble` is why nobody can
    say."""

    name: str
    file: str
    taken: str
    killed_by: str = ""
    trouble: str = ""
    seconds: float = 0.0

    @property
    def survived(self) -> bool:
        """Whether no test noticed."""
        return not self.killed_by and not self.trouble


class Bench:
    """A copy of the tree, and the process that runs tests in it. `compiled`: for many runs."""

    def __init__(self, folder: Path, *, compiled: bool) -> None:
        self._copy = folder / "tree"
        self._output = folder / "output"
        self._copy.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self._copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, self._copy / name)
        for name in COMPILED if compiled else ():
            compileall.compile_dir(self._copy / name, quiet=2)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.warm"],
            cwd=self._copy,
            env=os.environ | {"PYTHONPATH": str(self._copy)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def run(self, arguments: Sequence[str], within_s: float = RUN_S_MAX) -> Run:
        """Run pytest."""
        request = Request([*PYTEST, *arguments], str(self._output), within_s)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(request).decode() + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        output = self._output.read_text(errors="replace")
        return Run(code, tuple(found["test"] for found in _FAILED.finditer(output)), output)

    def try_out(self, mutant: Mutant) -> Verdict:
        """Run the mutant's tests on the mutant."""
        began = monotonic()
        killed_by = trouble = ""
        try:
            with applied(mutant, self._copy):
                ended = self.run(["-x", *node_ids(mutant)])
            if ended.code == FAILED and ended.failed:
                killed_by = ended.failed[0]
            elif ended.code != PASSED:
                trouble = f"its tests ended with {ended.code}: {ended.output.strip()[-ERROR_CHARACTERS:]}"
        except Stale as error:
            trouble = f"stale: {error}"
        return Verdict(
            name=mutant.name,
            file=mutant.file,
            taken=mutant.taken,
            killed_by=killed_by,
            trouble=trouble,
            seconds=monotonic() - began,
        )


@contextmanager
def bench(*, compiled: bool = True) -> Iterator[Bench]:
    """A bench that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="buzon-mutation-", dir="/tmp"))
    try:
        made = Bench(folder, compiled=compiled)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def node_ids(mutant: Mutant) -> list[str]:
    """The mutant's tests as pytest names them."""
    return [f"tests/{test}" for test in mutant.tests]


def without(tests: Sequence[str], failing: Mapping[str, str]) -> str:
    """Why these tests prove nothing: one of them fails without a mutant; "" when none does."""
    for test in tests:
        for failed, why in failing.items():
            if failed == test or failed.startswith(f"{test}["):
                return f"{failed} fails without a mutant: {why}"
    return ""
