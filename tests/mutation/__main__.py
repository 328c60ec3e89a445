"""Takes each fence, dedupe and repair check out once: `python -m tests.mutation --help`. Exits 1 for a survivor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from tests.mutation import lua, report
from tests.mutation.catalogue import chosen
from tests.mutation.judge import exit_code, judged
from tests.mutation.trial import Verdict


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="mutants whose name or file holds this; repeatable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    return parser.parse_args(arguments)


def main() -> int:
    """Read the command line, run, print."""
    given = parsed()
    mutants, scripts = chosen(given.only), lua.chosen(given.only)
    if given.list:
        lines = [f"{of.file}: {of.name}" for of in mutants] + [
            f"{lua.file_of(of)}: {lua.name_of(of)}" for of in scripts
        ]
        print("\n".join(lines))
        return 0
    if not mutants and not scripts:
        print("no mutant is called so", file=sys.stderr)
        return 2
    began = monotonic()
    verdicts = judged(mutants, scripts, given.jobs, _say)
    table = report.markdown(verdicts)
    print(f"\n{table}\n\n{monotonic() - began:.0f} s")
    if given.markdown:
        given.markdown.write_text(table + "\n")
    return exit_code(verdicts)


def _say(verdict: Verdict) -> None:
    print(report.line(verdict), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
