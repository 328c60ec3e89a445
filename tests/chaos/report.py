"""The result as lines while it runs and as a Markdown table at the end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.run import Result

MIB = 2**20
COLUMNS = (
    "row",
    "fault",
    "acked",
    "lost",
    "again/may",
    "order",
    "first flush s",
    "late p99/max s",
    "failed elsewhere",
    "refusal max s",
    "probe p99 ms",
    "RSS MiB",
    "verdict",
)


def cells(result: Result) -> list[str]:
    """One row of the table."""
    report = result.report
    flushes = "/".join(f"{seconds:.1f}" for seconds in report.first_flushes_s)
    return [
        result.row,
        result.title,
        str(report.acknowledged),
        str(len(report.lost)),
        f"{report.duplicates}/{result.budget}",
        str(len(report.disordered)),
        flushes or "–",
        f"{report.late_p99_s:.2f}/{report.late_max_s:.2f}",
        str(len(report.failed_elsewhere)),
        f"{report.refusal_max_s:.2f}" if report.refusal_max_s else "–",
        f"{report.probe_p99_s * 1e3:.0f}",
        f"{report.rss_max_bytes / MIB:.0f}",
        "PASS" if result.passed else "FAIL",
    ]


def line(result: Result) -> str:
    """One row as it ends, for the terminal; why it failed below it."""
    named = zip(COLUMNS[2:-1], cells(result)[2:-1], strict=True)
    facts = "  ".join(f"{name} {value}" for name, value in named)
    notes = f"  ({'; '.join(result.notes)})" if result.notes else ""
    head = f"{cells(result)[-1]}  row {result.row} in {result.seconds:.0f} s: {facts}{notes}"
    where = [f"      kept in {result.kept}"] if result.kept else []
    return "\n".join([head, *(f"      {problem}" for problem in result.problems), *where])


def markdown(results: Sequence[Result]) -> str:
    """The whole table, and the reasons of what failed below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(cells(result))} |" for result in results]
    acknowledged = sum(result.report.acknowledged for result in results)
    lost = sum(len(result.report.lost) for result in results)
    lines += ["", f"{acknowledged:,} messages acknowledged, {lost} lost."]
    lines += [f"- row {result.row}: {problem}" for result in results for problem in result.problems]
    return "\n".join(lines)
