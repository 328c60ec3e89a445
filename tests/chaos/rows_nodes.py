"""Rows 7, 8, 39, 49 and 50: nodes that are restarted in turn, go and come, are poisoned, and run out of files and
memory."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from time import monotonic

import aiohttp
from msgspec import structs

from actors.adapters.valkey.deliveries import CRASHES_MAX
from actors.core.partition import locate
from actors.core.rendezvous import winners
from tests.bench.readings import PAGE_BYTES, cpu_s
from tests.chaos import stretch
from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.checker import check, percentile
from tests.chaos.evidence import OK, Crash, Evidence
from tests.chaos.owners import Owners, settled_owners
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Allows, Setup, row
from tests.support import poison_node
from tests.support.client import Client
from tests.support.until import until

RESTARTS = 10
PROBE_P99_S = 0.100
HANDOVER_S = 0.200
HINT_LOST_S = 0.250
"""A batch that another node closes while its partition moves is told of to the old owner; the new one sweeps."""
HANDOVER_SUM = re.compile(r"^buzon_handover_seconds_(sum|count) (\S+)$", re.MULTILINE)
RESTART_S = 4.5
"""Its successor is there, or others have taken over."""
HELD_BACK_S = 2.0 + 4.0 + 6.0 + RESTART_S
"""What `SPREAD_MS` in `_ownership.lua` adds up to before the fifth claim."""
NOTICED_S = 0.1
"""It is noticed that late that a node has died."""
FILES_MAX = 256
SILENT = 400
CPU_SHARE_MAX = 0.5
SHED_S = 4.0
ROOM_BYTES = 2**20
BIG_KEY = "chaos/big"
BIG = {"big": "x" * 900_000}
OUT_OF_MEMORY = ("Fatal error on", "request failed", "service crashed", "job crashed", "node ended")


@row(
    7,
    title=f"rolling restart, {RESTARTS} times, two equal versions mixed",
    allows=Allows(duplicates=0),
    setup=Setup(limit_s=90),
)
async def rolling_restart(rig: Rig, chaos: Chaos) -> None:
    """Nobody notices: each gives back what it has, and finishes what it began. Both versions are this tree."""
    await chaos.balanced()
    took = []
    for node in islice(cycle(rig.nodes), RESTARTS):
        stopped = await chaos.stop(node)
        chaos.expect(stopped.exit_code == 0, f"{node.name} ended with {stopped.exit_code}")
        took.append(stopped.seconds)
        await chaos.start(node)
    chaos.note(f"{RESTARTS} restarts, the slowest stop {max(took):.2f} s")

    def quick(evidence: Evidence) -> Iterator[str]:
        p99_s = check(evidence).probe_p99_s
        if p99_s > PROBE_P99_S:
            yield f"nodes that were not being restarted took {p99_s * 1e3:.0f} ms at the 99th percentile"

    chaos.judge(quick)


@row(8, title="a node goes, and comes back", allows=Allows(duplicates=0), setup=Setup(load_s=8, limit_s=40))
async def goes_and_comes(rig: Rig, chaos: Chaos) -> None:
    """Only what it had moves away, and only what it wins moves back; each partition stands still for a moment only."""
    await chaos.balanced()
    node = await chaos.pick()
    names = frozenset(each.name for each in rig.nodes)
    before = await settled_owners(chaos)
    await chaos.stop(node)
    without = await settled_owners(chaos)
    moved_only(chaos, before, without, winners(names - {node.name}), node.name)
    counted = await handovers(rig, node)
    coming = stretch.begin()
    await chaos.start(node)
    chaos.expect(await chaos.balanced(), "not everything moved back")
    coming.end()
    after = await settled_owners(chaos)
    moved = moved_only(chaos, without, after, winners(names), node.name)
    moves, seconds = (late - early for early, late in zip(counted, await handovers(rig, node), strict=True))
    chaos.expect(moves > 0, "no planned move was counted")
    chaos.note(
        f"{len(moved)} partitions moved, in {moves:.0f} moves of {seconds / max(moves, 1) * 1e3:.0f} ms by the nodes"
    )
    chaos.expect(seconds <= HANDOVER_S * moves, f"a move took {seconds / max(moves, 1):.2f} s on average")

    def pause(evidence: Evidence) -> Iterator[str]:
        late = stretch.late(evidence, coming, lambda key: locate(key)[1] in moved)
        rest = stretch.late(evidence, coming, lambda key: locate(key)[1] not in moved)
        chaos.note(f"from outside {stretch.spread(late)} late where it moved, {stretch.spread(rest)} elsewhere")
        if not late:
            yield "no batch fell due in a partition that moved"
        elif percentile(late, 0.99) > HANDOVER_S + percentile(rest, 0.99):
            yield f"batches in partitions that moved came {percentile(late, 0.99):.2f} s late at the 99th percentile"
        elif max(late) > HANDOVER_S + HINT_LOST_S + max(rest):
            yield f"a batch in a partition that moved came {max(late):.2f} s late"

    chaos.judge(pause)


def moved_only(chaos: Chaos, before: Owners, after: Owners, winner: tuple[str, ...], node: str) -> set[int]:
    """The partitions that changed their owner: those from or to this node, and each to its winner."""
    moved = {partition for partition in before if before[partition][0] != after[partition][0]}
    concerned = {partition for partition in before if node in (before[partition][0], after[partition][0])}
    chaos.expect(moved == concerned, f"{len(moved - concerned)} partitions moved that had nothing to do with {node}")
    chaos.expect(all(after[partition][0] == winner[partition] for partition in moved), "some moved to the wrong node")
    touched = [partition for partition in before.keys() - moved if before[partition] != after[partition]]
    chaos.expect(not touched, f"{len(touched)} partitions that stayed have a new epoch")
    return moved


async def handovers(rig: Rig, but: Node) -> tuple[float, float]:
    """Planned moves so far and the seconds that they took, as the nodes say, one of them left out."""
    count = seconds = 0.0
    for node in rig.nodes:
        if node is not but:
            page = (await rig.client(node).call("GET", "/metrics")).body.decode()
            found = {name: float(number) for name, number in HANDOVER_SUM.findall(page)}
            count, seconds = count + found["count"], seconds + found["sum"]
    return count, seconds


@row(
    39,
    title="a payload that kills its node, nodes restarted at once",
    allows=Allows(late_s=None),
    setup=Setup(rig="poison", environment=(("RETRY_DELAY", "1s"),), limit_s=60),
)
async def poison(rig: Rig, chaos: Chaos) -> None:
    """It is dead after five claims, and the others' batches come. Those that were in hand again and again when it
    struck are held back, longer each time, so that not all of them are taken for poison."""
    await chaos.balanced()
    key = f"poison-{chaos.random.randrange(10**6)}"
    client = rig.client(rig.nodes[0])
    await client.send(f"{rig.sink.urls[0]}/hook", key, {"text": poison_node.EXIT.decode()}, wait_time=60, max_size=1)
    began = monotonic()
    deaths = 0

    async def watch_over() -> None:
        nonlocal deaths
        while True:
            for node in rig.nodes:
                if not node.alive:
                    deaths += 1
                    code = node.process.child.exit_code
                    chaos.expect(code == poison_node.EXIT_CODE, f"{node.name} ended with {code}")
                    await relaunched(rig, chaos, node)
            await chaos.passing(0.005)

    async def dead_letter() -> bool:
        ready = [node for node in rig.nodes if await node.ready()]
        try:
            return bool(ready) and bool(await rig.client(ready[0]).deliveries(status="dead", key=key))
        except aiohttp.ClientError:
            return False  # it has just died

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch_over())
        await until(dead_letter, 40, every_s=0.1, what="the poison is a dead letter")
        watching.cancel()
    chaos.note(f"dead after {deaths} deaths and {monotonic() - began:.1f} s")
    chaos.expect(deaths == CRASHES_MAX, f"it killed {deaths} nodes, not {CRASHES_MAX}")

    def others(evidence: Evidence) -> Iterator[str]:
        in_hand = {post.begun.key for post in evidence.posts if post.begun.attempt > 1}
        always = stretch.Stretch(since=0.0)
        held_back = stretch.late(evidence, always, in_hand.__contains__)
        normal = stretch.late(evidence, always, lambda key: key not in in_hand)
        chaos.note(f"keys in hand at a death: {len(in_hand)}, late {max(held_back, default=0):.1f} s at most")
        chaos.note(f"all others: late {max(normal, default=0):.1f} s at most")
        if max(normal, default=float("inf")) > RESTART_S:
            yield f"a batch that was not in hand came {max(normal, default=0):.2f} s late"
        if max(held_back, default=0.0) > HELD_BACK_S:
            yield f"a batch that was in hand came {max(held_back):.2f} s late"

    chaos.judge(others)


async def relaunched(rig: Rig, chaos: Chaos, node: Node) -> None:
    """Start a dead node again, as whoever watches over it would, without waiting for it."""
    now = monotonic()
    chaos.crashes.append(Crash(node=node.name, at=now, until=now + 0.25))
    chaos.fault(node.name).at = now - NOTICED_S
    chaos.restarted = True
    node.process.launch()
    await rig.tell_sink()


@row(
    49,
    title=f"at most {FILES_MAX} files, {SILENT} silent connections",
    allows=Allows(log_errors=("accept",)),
    setup=Setup(load_s=8, limit_s=40),
)
async def no_more_files(rig: Rig, chaos: Chaos) -> None:
    """It sheds what it cannot take, burns no CPU over it, and is well as soon as they have gone."""
    await chaos.balanced()
    victim = await chaos.pick()
    pid = victim.process.pid
    chaos.fault(victim.name)
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES_MAX, usual[1]))
    beyond = sum(int(number) >= FILES_MAX for number in os.listdir(f"/proc/{pid}/fd"))
    full = stretch.begin()
    with ExitStack() as silent:
        for _ in range(SILENT):
            silent.enter_context(socket.create_connection(("127.0.0.1", victim.process.port), timeout=5))
        await chaos.passing(1)
        before, at = cpu_s(pid), monotonic()
        await chaos.passing(SHED_S)
        share = (cpu_s(pid) - before) / (monotonic() - at)
    full.end()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    await until(victim.ready, 5, every_s=0.05, what=f"{victim.name} is ready again")
    chaos.recovered(victim.name, RECOVERY_S)
    chaos.note(f"{share:.0%} of a core meanwhile, ready {monotonic() - full.until:.2f} s after")
    chaos.expect(share < CPU_SHARE_MAX, f"it used {share:.0%} of a core")

    def files(evidence: Evidence) -> Iterator[str]:
        most = max(each.fds for each in evidence.samples if each.node == victim.name and full.holds(each.at))
        if not FILES_MAX - 30 < most <= FILES_MAX + beyond:
            yield f"it had {most} files open, {beyond} of them since before"

    chaos.judge(files)


@row(
    50,
    title="a node's memory is used up, then it is killed for it",
    allows=Allows(late_s=4.0, log_errors=OUT_OF_MEMORY),
    setup=Setup(load_s=8, limit_s=40),
)
async def no_more_memory(rig: Rig, chaos: Chaos) -> None:
    """What it cannot hold it refuses, and goes on or ends by itself; killed, it is missed as little as in row 1."""
    await chaos.balanced()
    victim = await chaos.pick()
    process = victim.process.child
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    resource.prlimit(process.pid, resource.RLIMIT_AS, (pages * PAGE_BYTES + ROOM_BYTES, resource.RLIM_INFINITY))
    chaos.fault(victim.name)
    limited_at = monotonic()
    client, other = rig.client(victim), rig.client(next(node for node in rig.nodes if node is not victim))
    refused = 0
    while process.exit_code is None and monotonic() < limited_at + SHED_S:
        sending = [
            client.try_send(f"{rig.sink.urls[0]}/big", BIG_KEY, BIG, max_size=1000, wait_time=3600) for _ in range(3)
        ]
        refused += sum(status != OK for status in await asyncio.gather(*sending))
        await chaos.passing(0.1)
    chaos.expect(refused > 0, "nothing was refused: its memory was not used up")
    if process.exit_code is None:
        chaos.note(f"it refused {refused} large messages and went on")
        await chaos.kill(victim)
    else:  # what it could not settle since then may come again
        chaos.note(f"it refused {refused} large messages and ended with {process.exit_code}")
        await chaos.died(victim)
        chaos.crashes[-1] = structs.replace(chaos.crashes[-1], at=limited_at)
    await chaos.flushed_by_others(victim)
    await until(lambda: dropped(other), 5, every_s=0.2, what="the large batch is dropped")
    await chaos.passing(1)


async def dropped(client: Client) -> bool:
    """Whether there is no batch of large messages (any more)."""
    return (await client.drop(BIG_KEY)).status in (OK, 404)
