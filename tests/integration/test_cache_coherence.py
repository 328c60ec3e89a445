"""Three nodes, a foreign client and lost links: no read of the cache is older than it may be. `make chaos` runs the
long form, rows 53 to 59."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import msgspec

from tests.chaos import coherence_ledger
from tests.chaos.coherence import check
from tests.chaos.coherence_ledger import FOREIGN, LINK_LOSS_S, TOLD_S, Ledger, Loosened
from tests.chaos.coherence_load import Begin, CoherenceLoad
from tests.chaos.control import Remote
from tests.chaos.remotes import Toxics
from tests.conftest import NodeFactory
from tests.support.child import Child
from tests.support.node import NodeProcess
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

NAMES = ("n0", "n1", "n2")
READS_MIN = 20_000
WARM_S = 0.4
NOTICED_S = LINK_LOSS_S + 0.4
"""A link that says nothing is given up by then, and what it hid would show."""
BEGIN = Begin(
    ledger="",
    nodes={},
    store="",
    prefix="short",
    seed="short",
    batches_per_s=100.0,
    gets_per_s=150.0,
    writes_per_s=200.0,
    patterns_every_s=0.3,
    flush_every_s=2.5,
)


class Rig:
    """Three nodes, each with a proxy of its own before the one store."""

    def __init__(self, store: ValkeyServer, toxics: Toxics) -> None:
        self.store = store
        self.loosened: list[Loosened] = []
        self.ways: dict[str, int] = {}
        self._toxics = toxics

    async def start(self, make_node: NodeFactory) -> dict[str, int]:
        """All nodes, ready; gives their ports."""
        nodes: dict[str, NodeProcess] = {}
        for name in NAMES:
            self.ways[name] = await self._toxics.add(name, self.store.port)
            nodes[name] = make_node({"NODE_ID": name}, redis_url=f"redis://127.0.0.1:{self.ways[name]}/0")
        await asyncio.gather(*(node.start() for node in nodes.values()))
        return {name: node.port for name, node in nodes.items()}

    async def cut(self, name: str) -> None:
        """Have the store hang up on a node's link."""
        client, _ = await self._link(name)
        self._loosen(name)
        await asyncio.to_thread(self.store.command, "CLIENT", "KILL", "ID", client)

    async def hold(self, name: str) -> None:
        """Let nothing pass a node's link any more, without a word."""
        _, port = await self._link(name)
        self._loosen(name)
        assert await self._toxics.hold(port) == 1

    def _loosen(self, name: str) -> None:
        at = monotonic()
        self.loosened.append(Loosened(name, at, at + LINK_LOSS_S + TOLD_S, "link lost"))

    async def _link(self, name: str) -> tuple[str, int]:
        async def found() -> tuple[str, int] | None:
            owners = await self._toxics.clients_of_the_store()
            with self.store.client() as client:
                for each in client.client_list():
                    port = int(each["addr"].rpartition(":")[2])
                    if "B" in each["flags"] and owners.get(port) == name:
                        return each["id"], port
            return None

        link = await until(found, 3, what=f"{name} has a link")
        assert link is not None
        return link


async def test_no_read_is_older_than_its_bound(make_node: NodeFactory, tmp_path: Path) -> None:
    """Own writes are seen at once, others' within 50 ms, within a second more after a link was lost; nothing comes
    back, nothing outlives its time, and no request is refused for all that."""
    async with running(tmp_path) as (rig, prober):
        ports = await rig.start(make_node)
        begin = replaced(tmp_path / "cache.jsonl", ports, rig.store)
        await prober.ask("begin", log=str(tmp_path / "stalls.jsonl"), nodes=ports, ways=rig.ways)
        load = CoherenceLoad(begin)
        await load.start()
        try:
            await lose_links(rig)
        finally:
            await load.stop()
        await prober.ask("stop")

    ledger = coherence_ledger.read(tmp_path / "cache.jsonl", tmp_path / "stalls.jsonl")
    ledger.loosened += rig.loosened
    report = check(ledger)
    told = f"{report.usual.line()}; cut: {report.loosened.line()}; {report.stalled} explained by stalls"
    assert not report.problems, "\n".join([told, *report.samples])
    assert not ledger.refused, ledger.refused[:5]
    assert report.reads >= READS_MIN, told
    assert report.loosened.late_s, f"no cut was ever felt: {told}"
    shared_with_all(ledger)


async def lose_links(rig: Rig) -> None:
    """One link is cut and one goes silent, so that what was not told shows; then all are cut at once."""
    await passing(WARM_S)
    await rig.cut("n0")
    await rig.hold("n1")
    await passing(NOTICED_S)
    for name in NAMES:
        await rig.cut(name)
    await rig.hold("n2")
    await passing(NOTICED_S)


def replaced(ledger: Path, nodes: dict[str, int], store: ValkeyServer) -> Begin:
    """The load on these nodes."""
    return msgspec.structs.replace(BEGIN, ledger=str(ledger), nodes=nodes, store=str(store.socket_path))


def shared_with_all(ledger: Ledger) -> None:
    """Every node and the foreign client wrote and read."""
    assert {each.via for each in ledger.wrote} == {*NAMES, FOREIGN}
    assert {each.via for each in ledger.looked} == {*NAMES, FOREIGN}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Rig, Remote]]:
    """A store, and the processes of proxies and of the prober for stalls: this machine may be busy."""
    store = ValkeyServer(tcp=True)
    try:
        await asyncio.to_thread(store.start)
        async with helper(folder, "toxics") as toxics, helper(folder, "stalls") as prober:
            yield Rig(store, Toxics(toxics)), prober
    finally:
        store.close()


@asynccontextmanager
async def helper(folder: Path, module: str) -> AsyncIterator[Remote]:
    """A process of the chaos suite."""
    path = folder / f"{module}.sock"
    with Child([sys.executable, "-m", f"tests.chaos.{module}", str(path)], folder / module) as child:
        remote = Remote(child.output)
        await until(path.exists, 5, what=f"{module} listens")
        await remote.connect(path)
        try:
            yield remote
        finally:
            remote.hang_up()
