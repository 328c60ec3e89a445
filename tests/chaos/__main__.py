"""Runs the fault matrix: `python -m tests.chaos --help`. Exits 1 when a row fails."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

from tests.chaos import report
from tests.chaos.checker import Report
from tests.chaos.rig import Rig, kind_of
from tests.chaos.rigs import rig_of
from tests.chaos.rows import Row, all_rows, chosen
from tests.chaos.run import FAILURES, Result, run_row


class Rigs:
    """The rig of the row before, as long as it fits and is healthy; else a new one."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._made = 0
        self._rig: Rig | None = None
        self._stack = AsyncExitStack()

    async def rig_for(self, row: Row) -> Rig:
        """A healthy rig of the kind that a row wants."""
        if self._rig is None or self._rig.kind != kind_of(row):
            await self.scrap()
            self._made += 1
            self._rig = await self._stack.enter_async_context(rig_of(row, self._work / f"rig-{self._made}"))
        return self._rig

    async def scrap(self) -> None:
        """End the present rig."""
        self._rig = None
        await self._stack.aclose()


async def run(rows: Sequence[Row], seed: str, runs: int, keep: Path, *, hurried: bool) -> list[Result]:
    """Every row, `runs` times over."""
    results: list[Result] = []
    work = Path(tempfile.mkdtemp(prefix="buzon-chaos-", dir="/tmp"))  # socket paths must be short
    rigs = Rigs(work)
    try:
        for turn in range(1, runs + 1):
            for row in rows:
                say(f"row {row.name}: {row.title}")
                try:
                    result = await run_row(await rigs.rig_for(row), row, f"{seed}.{turn}", keep, hurried=hurried)
                except FAILURES as error:
                    result = unfinished(row, error)
                results.append(result)
                print(report.line(result), flush=True)
                if not result.passed:
                    await rigs.scrap()
    finally:
        await rigs.scrap()
        shutil.rmtree(work, ignore_errors=True)
    return results


def unfinished(row: Row, error: BaseException) -> Result:
    """A row that could not even be judged."""
    problem = f"{type(error).__name__}: {error}"
    return Result(
        row=row.name, title=row.title, report=Report(acknowledged=0), budget=0, problems=(problem,), notes=(), seconds=0
    )


def say(what: str) -> None:
    """Progress, beside the result."""
    print(what, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Injects faults into real processes.")
    parser.add_argument("--rows", help="numbers from the list, as 1,4,9 (default: all)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="repeats the choices of an earlier run")
    parser.add_argument("--runs", type=int, default=1, help="how often the table is run")
    parser.add_argument("--smoke", action="store_true", help="the most telling rows only, shortened: a minute")
    parser.add_argument("--keep", type=Path, help="where ledgers and logs of failed rows go (default: a new folder)")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    return parser.parse_args(arguments)


def main() -> int:
    """Read the command line, run, print."""
    given = parsed()
    rows = all_rows()
    if given.rows:
        rows = chosen(rows, given.rows.split(","))
    if given.smoke:
        rows = [row for row in rows if row.smoke]
    if given.list:
        print("\n".join(f"{row.name:>5}  {row.title}" for row in rows))
        return 0
    keep = given.keep or Path(tempfile.mkdtemp(prefix="buzon-chaos-failed-"))
    say(f"seed {given.seed}")
    began = monotonic()
    try:
        results = asyncio.run(run(rows, given.seed, given.runs, keep, hurried=given.smoke))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    table = report.markdown(results)
    print(f"\n{table}\n\nseed {given.seed}, {monotonic() - began:.0f} s")
    if given.markdown:
        given.markdown.write_text(table + "\n")
    failed = [result.row for result in results if not result.passed]
    if failed:
        say(f"failed: {', '.join(failed)}; ledgers and logs are in {keep}")
    elif given.keep is None:
        keep.rmdir()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
