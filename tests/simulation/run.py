"""Run: one seed from start to end: nodes come up, clients send, faults happen, everything heals, all is settled.

The same seed and options give the same run, whatever the machine, the process or the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from msgspec import Struct

from tests.simulation import plan
from tests.simulation.clients import Client, Operator, habits
from tests.simulation.cluster import Cluster, Mutation
from tests.simulation.final import differences, judge, judge_empty
from tests.simulation.loop import SimLoop
from tests.support.until import NeverHappened, passing

STARTS_S = 8.0
SETTLES_S = 60.0
"""How long a healed cluster may take: retries, breakers, hosts' lines, the moves of all partitions."""
LOOK_S = 0.25
NONE = Mutation()


class Wish(Struct, frozen=True, kw_only=True):
    """How a run should be: what is planted in it, whether anything goes wrong, and which kinds of faults alone do."""

    mutation: Mutation = NONE
    faults: bool = True
    only: tuple[str, ...] = ()
    trace: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a run. `violations` are empty when all is well."""

    seed: int
    violations: list[str]
    counts: dict[str, int]
    faults: list[str]
    digest: str
    trace: list[str]
    seconds: float


PLAIN = Wish()


def run(seed: int, wish: Wish = PLAIN) -> Outcome:
    """Run one seed."""
    loop = SimLoop()
    try:
        cluster = loop.run_until_complete(_run(Random(seed), wish))  # noqa: S311  chance is the point here
    finally:
        loop.close()
    audit = cluster.audit
    return Outcome(
        seed=seed,
        violations=audit.violations,
        counts=dict(sorted(audit.counts.items())),
        faults=[f"{fault.kind} {fault.target}" for fault in audit.faults.all],
        digest=cluster.trace.digest(),
        trace=cluster.trace.lines() if wish.trace else [],
        seconds=cluster.trace.now,
    )


async def _run(random: Random, wish: Wish) -> Cluster:
    cluster = Cluster(random, wish.mutation)
    try:
        await _live(cluster, random, wish)
    except NeverHappened as error:
        cluster.audit.violation("I9", str(error))
    await cluster.bury()
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        cluster.audit.violation("tasks", f"{sorted(task.get_name() for task in left)} are left")
        for task in left:
            task.cancel()
    return cluster


async def _live(cluster: Cluster, random: Random, wish: Wish) -> None:
    cluster.forward_appends = random.random() < 0.4
    for number in range(random.choice((2, 3, 3, 3, 4, 5))):
        cluster.start(f"node-{number + 1}")
        if random.random() < 0.3:
            await passing(random.uniform(0.0, 2.0))
    await _settled(cluster, STARTS_S, lambda: [name for name, node in cluster.nodes.items() if not node.accepting])
    load_s = random.uniform(4.0, 10.0)
    if wish.faults:
        plan.lay(cluster, load_s, wish.only)
    chosen = habits(random, random.randint(3, 8), load_s)
    people: list[Client | Operator] = [Client(cluster, habit) for habit in chosen]
    if random.random() < 0.4:
        people.append(Operator(cluster, [habit.key for habit in chosen], random.randint(1, 12), load_s))
    sending = [asyncio.ensure_future(each.run()) for each in people]
    await passing(load_s + 0.001)
    plan.heal(cluster)
    await asyncio.wait(sending, timeout=SETTLES_S)
    for task in sending:
        if task.cancel():
            cluster.audit.violation("I9", "a client could not send")
    await asyncio.gather(*sending, return_exceptions=True)
    await _settled(cluster, SETTLES_S, lambda: differences(cluster))
    cluster.closed = True
    judge(cluster)
    for name in cluster.living():
        cluster.stop(name)
        await _settled(cluster, STARTS_S, lambda: [name for name in cluster.living() if cluster.is_leaving(name)])
    judge_empty(cluster)


async def _settled(cluster: Cluster, within_s: float, left: Callable[[], list[str]]) -> None:
    """Wait until nothing is left; what is left for too long is a violation."""
    ends_at = cluster.loop.now + within_s
    while found := left():
        if cluster.loop.now >= ends_at:
            cluster.audit.violation("I9", f"not settled after {within_s:g} s: {'; '.join(found[:6])}")
            return
        await passing(LOOK_S)
