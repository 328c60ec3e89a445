"""Run: one row from its load's first message to its verdict.

Order: load on, harm, heal, load off, wait until everything is delivered, gather what the observers wrote, check. Keeps
the ledgers of a row that failed and what the nodes wrote meanwhile; removes those of one that passed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from time import monotonic

import aiohttp
import msgspec
from msgspec import Struct

from tests.chaos import node_logs
from tests.chaos.chaos import Chaos
from tests.chaos.checker import Report, check
from tests.chaos.control import Refused
from tests.chaos.evidence import Counted, Evidence, Policy, posts_in, probes_in, tries_in
from tests.chaos.load import PROBE_KEYS, Begin
from tests.chaos.rig import Rig
from tests.chaos.rows import Row
from tests.chaos.sampler import Sampler
from tests.chaos.settled import counted, dead_letters, not_over
from tests.chaos.verdict import violations
from tests.support.until import NeverHappened, passing, until

WARM_S = 1.5
"""Load before the harm begins."""
LAST_MESSAGE_S = 10.0
QUIESCE_S = 15.0
FAILURES = (AssertionError, NeverHappened, TimeoutError, OSError, Refused, aiohttp.ClientError)
"""What may go wrong in a row because of the system under test. Anything else is a mistake of ours and is not caught."""


class Result(Struct, frozen=True, kw_only=True):
    """How a row ended."""

    row: str
    title: str
    report: Report
    budget: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    kept: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


async def run_row(rig: Rig, row: Row, seed: str, keep: Path, *, hurried: bool = False) -> Result:
    """Run one row on a healthy rig. `keep`: where the evidence of a failure goes. In a hurry the load lasts no longer
    than the harm."""
    began = monotonic()
    folder = rig.directory / f"row-{row.name}-{seed}"
    folder.mkdir()
    prefix = f"r{row.name}-{seed}"
    chaos = Chaos(rig, row, Random(f"{seed} {row.name}"), hurried=hurried)  # noqa: S311  a repeatable run, no secret
    chaos.folder = folder
    logs = node_logs.Positions(rig.nodes)
    before = await counted(rig)
    async with Sampler(lambda: {node.process.pid: node.name for node in rig.nodes if node.alive}) as sampler:
        await _under_load(chaos, folder, prefix, 0.0 if hurried else row.setup.load_s)
        await _quiesce(chaos)
    evidence = await _gathered(chaos, folder, prefix, before)
    evidence = msgspec.structs.replace(evidence, samples=sampler.samples)
    report = check(evidence)
    problems = [*chaos.problems, *violations(report, row.allows)]
    for judge in chaos.judges:
        problems += judge(evidence)
    problems += logs.unhandled(row.allows.log_errors)
    kept = str(_kept(folder, keep, chaos, logs, problems)) if problems else ""
    shutil.rmtree(folder)
    allowed = row.allows.duplicates
    return Result(
        row=row.name,
        title=row.title,
        report=report,
        budget=report.budget if allowed is None else allowed,
        problems=tuple(problems),
        notes=tuple(chaos.notes),
        seconds=monotonic() - began,
        kept=kept,
    )


async def _under_load(chaos: Chaos, folder: Path, prefix: str, load_s: float) -> None:
    rig, row = chaos.rig, chaos.row
    await rig.sink.begin(folder / "sink.jsonl")
    await rig.driver.begin(
        Begin(
            ledger=str(folder / "ledger.jsonl"),
            probes=str(folder / "probes.jsonl"),
            nodes=rig.ports(),
            sinks=rig.sink.urls,
            groups=list(row.setup.load),
            prefix=prefix,
            seed=prefix,
        )
    )
    ends_at = monotonic() + load_s
    await passing(WARM_S)
    try:
        async with asyncio.timeout(row.setup.limit_s):
            await row.act(rig, chaos)
    except FAILURES as error:
        chaos.problem(f"{type(error).__name__}: {error}")
    await passing(max(0.0, ends_at - monotonic()))
    chaos.note(f"ready {await chaos.heal():.1f} s after healing")
    given_up = await rig.driver.stop(LAST_MESSAGE_S)
    chaos.expect(given_up == 0, f"{given_up} messages were not acknowledged within {LAST_MESSAGE_S:g} s after healing")


async def _quiesce(chaos: Chaos) -> None:
    rig = chaos.rig

    async def over() -> bool:
        return not await not_over(rig, rig.nodes[0])

    try:
        await until(over, QUIESCE_S, every_s=0.2, what="everything is delivered")
    except FAILURES as error:
        chaos.problem(f"{type(error).__name__}: {error}")


async def _gathered(chaos: Chaos, folder: Path, prefix: str, before: Mapping[str, Counted]) -> Evidence:
    rig = chaos.rig
    posts = posts_in(folder / "sink.jsonl")
    ids = {post.begun.webhook_id: post.begun.ids for post in posts}
    dead: set[str] = set()
    still_open: set[str] = set()
    try:
        for node in rig.nodes:
            still_open |= await not_over(rig, node)
        for delivery in await dead_letters(rig, prefix):
            dead |= set(ids.get(delivery, ()))
        after = await counted(rig)
    except FAILURES as error:
        chaos.problem(f"the nodes could not be asked at the end: {type(error).__name__}: {error}")
        after = {}
    same = not chaos.restarted and chaos.row.allows.counters and before.keys() == after.keys()
    both = [(before[name], after[name]) for name in before.keys() & after.keys()]
    total = Counted(
        accepted=sum(late.accepted - early.accepted for early, late in both),
        duplicates=sum(late.duplicates - early.duplicates for early, late in both),
        delivered=sum(late.delivered - early.delivered for early, late in both),
    )
    return Evidence(
        tries=tries_in(folder / "ledger.jsonl"),
        posts=posts,
        probes=probes_in(folder / "probes.jsonl"),
        policies=_policies(chaos.row, prefix, [node.name for node in rig.nodes]),
        crashes=chaos.crashes,
        faults=chaos.faults,
        dead=frozenset(dead),
        still_open=frozenset(still_open),
        counted=total if same else None,
    )


def _policies(row: Row, prefix: str, nodes: list[str]) -> dict[str, Policy]:
    policies = {
        f"{prefix}/{group.name}-{number}": group.policy for group in row.setup.load for number in range(group.keys)
    }
    return policies | {f"{prefix}/probe-{name}": PROBE_KEYS.policy for name in nodes}


def _kept(folder: Path, keep: Path, chaos: Chaos, logs: node_logs.Positions, problems: list[str]) -> Path:
    target = keep / folder.name
    shutil.copytree(folder, target, dirs_exist_ok=True)
    logs.copy(target)
    deeds = [
        *(f"{each.at:.3f} crash {each.node} until {each.until:.3f}" for each in chaos.crashes),
        *(f"{each.at:.3f} fault {each.node} until {each.until:.3f}" for each in chaos.faults),
    ]
    (target / "problems.txt").write_text("\n".join([*problems, "", *chaos.notes, "", *sorted(deeds), ""]))
    return target
