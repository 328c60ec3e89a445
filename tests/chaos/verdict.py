"""Verdict: what a report says, held against what its row allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.checker import Report, shown
from tests.chaos.rows import Allows

MIB = 2**20


def violations(report: Report, allows: Allows) -> Iterator[str]:
    """Everything that the row does not allow."""
    for what, found, allowed in (
        ("lost", report.lost, allows.lost),
        ("never sent", report.phantom, 0),
        ("in two deliveries", report.twice, allows.twice),
        ("with two bodies", report.mutated, 0),
        ("keys out of order", report.disordered, 0),
        ("early", report.early, allows.early),
        ("failed elsewhere", report.failed_elsewhere, allows.failed_elsewhere),
        ("answered strangely", report.strange, 0),
        ("still open", report.still_open, 0),
    ):
        if len(found) > allowed:
            yield shown(what, found)
    budget = report.budget if allows.duplicates is None else allows.duplicates
    if report.duplicates > budget:
        yield shown(f"deliveries came again, {budget} may", tuple(report.repeated))
    yield from _slow(report, allows)
    yield from report.miscounted


def _slow(report: Report, allows: Allows) -> Iterator[str]:
    for seconds in report.first_flushes_s:
        if seconds > allows.first_flush_s:
            yield f"first flush by a new owner after {seconds:.1f} s, allowed {allows.first_flush_s:g} s"
    if allows.late_s is not None and report.late_max_s > allows.late_s:
        yield f"{report.latest} came {report.late_max_s:.2f} s late, allowed {allows.late_s:g} s"
    if allows.refusal_s is not None and report.refusal_max_s > allows.refusal_s:
        yield f"a refusal took {report.refusal_max_s:.2f} s, allowed {allows.refusal_s:g} s"
    if report.rss_max_bytes > allows.rss_mib * MIB:
        yield f"{report.rss_max_bytes / MIB:.0f} MiB resident, allowed {allows.rss_mib:g} MiB"
    if not report.acknowledged:
        yield "nothing was acknowledged"
