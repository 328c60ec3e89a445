"""Row 1w: one of several workers that share a port is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from time import monotonic

import msgspec

from actors.adapters.valkey.keys import NODES
from actors.core.rendezvous import winners
from actors.node_ports import NodeRecord
from tests.chaos.chaos import Chaos
from tests.chaos.evidence import OK, Crash, Evidence
from tests.chaos.rig import NODE_ENVIRONMENT, Rig
from tests.chaos.rows import Allows, Setup, row
from tests.support.until import until
from tests.support.workers import Workers

PORT = "w"
"""What the driver calls the port that the workers share."""
PORT_S = 1.0
"""How long after the kill a request may meet a connection that was the dead worker's."""
BACK_S = 10.0


@row("1w", title="kill -9 of one of two WORKERS", allows=Allows(late_s=4.0), setup=Setup(limit_s=60))
async def kill_a_worker(rig: Rig, chaos: Chaos) -> None:
    """What it had others have, and its parent starts it again; the port they share is never dead."""
    folder = rig.directory / f"workers-{chaos.random.randrange(10**6)}"
    folder.mkdir()
    async with Workers(folder, REDIS_URL=rig.store.url, NODE_ID=PORT, **NODE_ENVIRONMENT) as workers:
        await workers.start()
        names = await asyncio.to_thread(nodes_by_pid, rig)
        await told(rig, names)
        await rig.driver.nodes(rig.ports() | {PORT: workers.port})
        everybody = frozenset(names.values()) | {node.name for node in rig.nodes}
        await until(lambda: settled(rig, everybody), 15, every_s=0.2, what="the workers have their share")
        await chaos.passing(1)

        pid = chaos.random.choice(workers.pids)
        name = names[pid]
        owned = frozenset(partition for partition, (owner, _) in (await chaos.owners()).items() if owner == name)
        chaos.restarted = True
        chaos.fault(PORT)
        os.kill(pid, signal.SIGKILL)
        killed_at = monotonic()
        chaos.crashes.append(Crash(node=name, at=killed_at, until=killed_at + 0.25, partitions=owned))
        born = await until(lambda: set(workers.pids) - names.keys(), BACK_S, what="it is started again")
        await told(rig, names | {born.pop(): f"{name}+"})
        await until(lambda: both(workers), BACK_S, every_s=0.2, what="both answer")
        chaos.note(f"{len(owned)} partitions, both answer {monotonic() - killed_at:.1f} s after the kill")
        await chaos.passing(1)
        await rig.driver.nodes(rig.ports())
        await chaos.passing(0.5)

    def never_dead(evidence: Evidence) -> Iterator[str]:
        failed = [each for each in evidence.tries if each.node == PORT and each.status != OK]
        chaos.note(f"{len(failed)} requests failed at their port")
        late = [each for each in failed if each.sent_at > killed_at + PORT_S]
        if late:
            yield f"{len(late)} requests failed at their port later than {PORT_S:g} s after the kill"

    chaos.judge(never_dead)


def nodes_by_pid(rig: Rig) -> dict[int, str]:
    """The processes of all nodes, as they say themselves."""
    with rig.store.client() as client:
        records = [
            msgspec.json.decode(text.split(" ", 2)[2], type=NodeRecord) for text in client.hgetall(NODES).values()
        ]
    return {record.pid: record.node for record in records}


async def told(rig: Rig, names: Mapping[int, str]) -> None:
    """Tell the sink which process is which node."""
    await rig.sink.pids({node.process.pid: node.name for node in rig.nodes} | dict(names))


async def settled(rig: Rig, nodes: frozenset[str]) -> bool:
    """Whether every partition is where it belongs when these nodes live."""
    owners = await rig.owners()
    return all(owners[partition][0] == node for partition, node in enumerate(winners(nodes)))


async def both(workers: Workers) -> bool:
    """Whether both workers answer that they are ready."""
    return len(await workers.names()) == 2
