"""Row 3: a node that is killed, or frozen, at one chosen step of a delivery's life after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic

from msgspec import structs

from tests.chaos import stretch
from tests.chaos.chaos import DEAD_AFTER_S, OWNED_MIN, Chaos
from tests.chaos.evidence import Crash, Evidence
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import STANDARD_LOAD, Allows, Setup, row
from tests.chaos.stretch import Stretch
from tests.support.failpoint_node import STEPS
from tests.support.until import until

SLOW_HOOK = "/delay/0.1"
"""Longer than a request is out before `mid_post` counts as reached."""
LOAD = tuple(structs.replace(group, path=SLOW_HOOK) for group in STANDARD_LOAD)
REACHED_S = 8.0
OWNS_S = 10.0
ON_THE_WAY_S = 0.25
"""What it wrote to its sockets is read within that time; its successor is not there yet."""
AT_REST_S = 1.0
"""Between two kills: a batch that is cut off twice is held back on purpose, for it may be what kills."""
LONG_STOP_MS = 3000
LONG_STEPS = ("after_claim", "mid_post", "after_post_before_settle")
NOTHING_OWNED_S = 1.5


class Steps:
    """Nodes whose failpoints are armed while they run."""

    def __init__(self, rig: Rig, chaos: Chaos) -> None:
        self._rig = rig
        self._chaos = chaos

    def _file(self, node: Node) -> Path:
        return self._rig.directory / f"{node.name}-failpoint"

    async def start(self, node: Node) -> None:
        """Start a node that has ended; nothing is armed."""
        await self._chaos.start(node, failpoints=f"@{self._file(node)}")

    def arm(self, node: Node, failpoint: str) -> None:
        """Arm this one, and no other."""
        self._file(node).write_text(failpoint)
        node.process.child.send_signal(signal.SIGUSR1)

    async def owns(self, node: Node) -> None:
        """Wait until a node has something to do."""

        async def enough() -> bool:
            owners = await self._chaos.owners()
            return sum(owner == node.name for owner, _ in owners.values()) >= OWNED_MIN

        await until(enough, OWNS_S, every_s=0.05, what=f"{node.name} owns something")

    async def ended(self, node: Node, step: str) -> None:
        """Wait until a failpoint has killed a node. It will be back before others take over, so nobody need to."""
        chaos = self._chaos
        chaos.fault(node.name)
        chaos.hurt.add(node.name)
        chaos.restarted = True
        code = await node.process.ended(REACHED_S)
        now = monotonic()
        chaos.crashes.append(Crash(node=node.name, at=now, until=now + ON_THE_WAY_S))
        chaos.expect(code == -signal.SIGKILL, f"{step}: exit code {code}")

    async def prepare(self, node: Node) -> None:
        """Make a node one that can be armed. Killed, it is back before others take over."""
        node.process.child.send_signal(signal.SIGKILL)
        await self.ended(node, "at first")
        await self.start(node)


def frozen(node: Node) -> bool:
    """Whether a node's process stands still."""
    stat = Path(f"/proc/{node.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] in "tT"


def running(node: Node) -> bool:
    """Whether it does not."""
    return not frozen(node)


@row(
    3,
    title=f"kill -9 at each of {len(STEPS)} steps of a delivery's life",
    allows=Allows(late_s=4.0),
    setup=Setup(load=LOAD, limit_s=90),
)
async def killed_at_each_step(rig: Rig, chaos: Chaos) -> None:
    """It is started again at once and goes on where it was."""
    await chaos.balanced()
    steps = Steps(rig, chaos)
    victim = await chaos.pick()
    await steps.prepare(victim)
    for step in STEPS:
        await steps.owns(victim)
        await chaos.passing(AT_REST_S)
        steps.arm(victim, f"{step}:kill@3")
        await steps.ended(victim, step)
        if step != STEPS[-1]:
            await steps.start(victim)
    await chaos.start(victim)


@row(
    "3b",
    title=f"frozen for {LONG_STOP_MS / 1000 / DEAD_AFTER_S:g} T at each of {len(LONG_STEPS)} steps",
    allows=Allows(late_s=4.0),
    setup=Setup(load=LOAD, limit_s=90),
)
async def frozen_at_each_step(rig: Rig, chaos: Chaos) -> None:
    """Whatever it was about to do, it does not do it: others have taken over."""
    await chaos.balanced()
    steps = Steps(rig, chaos)
    victims = chaos.random.sample(chaos.living(), 2)
    for victim in victims:
        await steps.prepare(victim)
    stood: list[tuple[str, str, Stretch]] = []
    for number, step in enumerate(LONG_STEPS):
        victim = victims[number % len(victims)]
        await steps.owns(victim)
        chaos.fault(victim.name)
        steps.arm(victim, f"{step}:stop:{LONG_STOP_MS}@3")
        await until(partial(frozen, victim), REACHED_S, every_s=0.005, what=f"{step} is reached")
        still = stretch.begin()
        await chaos.freeze(victim)
        await chaos.flushed_by_others(victim)
        await until(partial(running, victim), LONG_STOP_MS / 1000 + 1, every_s=0.002, what="it goes on")
        await chaos.thaw(victim)
        await chaos.passing(NOTHING_OWNED_S)
        still.end()
        stood.append((step, victim.name, still))

    def no_posts(evidence: Evidence) -> Iterator[str]:
        for step, name, still in stood:
            begun = [post.begun.at - still.since for post in evidence.posts if post.begun.node == name]
            late = [seconds for seconds in begun if ON_THE_WAY_S < seconds < still.seconds]
            if late:
                yield f"{step}: {len(late)} requests came from the frozen node, {min(late):.2f} s after it froze"

    chaos.judge(no_posts)
    for victim in victims:
        await chaos.restart(victim)
