"""Coherence run: the cache's load and its observers during a row, what is done to its links, and the verdict.

Use as `async with CacheLoad(rig, chaos, options) as cache:`; the verdict is given at the end of the block. Whatever is
done to a node's connections must be noted with `loosen`, or reads that are late because of it fail the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.chaos import coherence_ledger
from tests.chaos.chaos import Chaos
from tests.chaos.coherence import Report, check
from tests.chaos.coherence_ledger import FOR_EVER, FOREIGN, LINK_LOSS_S, TOLD_S, Ledger, Loosened, Refused, Wrote
from tests.chaos.coherence_load import Begin, Counts
from tests.chaos.control import Remote
from tests.chaos.rig import Node, Rig
from tests.chaos.rig_cache import CacheRig, cache_proxy
from tests.support.valkey import ValkeyServer

STOP_S = 30.0
SERVER = "server"
"""As the way of a change: the server itself forgot."""
KNOWN_STATUSES = (503, 0, -1)


class CacheLoad:
    """The load on the cache of one row. `options` are fields of `Begin`; `ways`: look for stalls of the nodes' ways to
    the server, too: over connections of our own, and not where these are slow on purpose."""

    def __init__(
        self, rig: Rig, chaos: Chaos, options: Mapping[str, Any], *, ways: bool = True, evicts: bool = False
    ) -> None:
        self.rig = rig
        self.server: ValkeyServer = rig.cache if isinstance(rig, CacheRig) else rig.store
        self.ledger = Ledger(evicts=evicts)
        self.report: Report
        self._chaos = chaos
        self._with_ways = ways
        self._options = options
        self._loosened: list[Loosened] = []
        self._emptied: list[Wrote] = []
        self._load: Remote
        self._prober: Remote

    def proxy(self, node: Node) -> str:
        """The proxy between a node and the cache's server."""
        return cache_proxy(node.name) if isinstance(self.rig, CacheRig) else node.store_proxy

    async def __aenter__(self) -> Self:
        folder, chaos = self._chaos.folder, self._chaos
        self._load = await self.rig.helper("coherence_load")
        self._prober = await self.rig.helper("stalls")
        prefix = f"c{chaos.row.name}"
        begin = Begin(
            ledger=str(folder / "cache.jsonl"),
            nodes=self.rig.ports(),
            store=str(self.server.socket_path),
            prefix=f"{prefix}-{chaos.random.randrange(10**6)}",
            seed=str(chaos.random.random()),
            **self._options,
        )
        self._begin = begin
        ways = await self._ways() if self._with_ways else {}
        await self._prober.ask("begin", log=str(folder / "stalls.jsonl"), nodes=begin.nodes, ways=ways)
        await self._load.ask("begin", **msgspec.to_builtins(begin))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        counts = msgspec.convert(await self._load.ask("stop", within_s=STOP_S), Counts)
        stalls = await self._prober.ask("stop")
        if kind is None:
            await asyncio.to_thread(self._judge)
            self._chaos.note(f"{counts.reads:,} keys read, {counts.writes:,} changed, {counts.refused:,} refused")
            self._chaos.note(f"{stalls} stalls, {self.report.stalled} late reads explained by them")

    def loosen(self, node: Node | None, why: str, at: float, for_s: float = 0.0) -> None:
        """Something was done to a node's (None: everybody's) connections at this instant, for so long."""
        name = FOREIGN if node is None else node.name
        self._loosened.append(Loosened(name, at, at + for_s + LINK_LOSS_S + TOLD_S, why))

    def emptied(self, since: float, until: float) -> None:
        """The server lost everything that it had before `since` and at `until` had nothing."""
        slots = list(range(self._begin.slots + self._begin.pinned))
        self._emptied.append(Wrote(SERVER, "delete", slots, (), FOR_EVER, since, until))

    async def counts(self) -> Counts:
        """How it stands."""
        return msgspec.convert(await self._load.ask("counts"), Counts)

    async def links(self) -> dict[str, list[tuple[int, int]]]:
        """For each node: id and port of its connections that the server tells of changes, as the server sees them."""
        owners = await self.rig.toxics.clients_of_the_store()
        nodes = {self.proxy(node): node.name for node in self.rig.nodes}
        found: dict[str, list[tuple[int, int]]] = {node.name: [] for node in self.rig.nodes}
        for client in await asyncio.to_thread(self._clients):
            port = int(client["addr"].rpartition(":")[2])
            name = nodes.get(owners.get(port, ""))
            if "B" in client["flags"] and name is not None:
                found[name].append((int(client["id"]), port))
        return found

    async def kill_link(self, node: Node) -> None:
        """Have the server hang up on a node's link."""
        links = (await self.links())[node.name]
        assert links, f"{node.name} has no link"
        at = monotonic()
        for client, _ in links:
            await asyncio.to_thread(self.server.command, "CLIENT", "KILL", "ID", client)
        self.loosen(node, "link killed", at)

    async def hold_link(self, node: Node) -> None:
        """No byte passes a node's link any more, and nobody is told; heal its proxy to end that."""
        links = (await self.links())[node.name]
        assert links, f"{node.name} has no link"
        at = monotonic()
        hit = [await self.rig.toxics.hold(port) for _, port in links]
        assert any(hit), f"no link of {node.name} is held"
        self.loosen(node, "link held", at)

    async def linked(self) -> bool:
        """Whether every node has a link."""
        return all((await self.links()).values())

    def _clients(self) -> Iterable[dict[str, str]]:
        with self.server.client() as client:
            found: list[dict[str, str]] = client.client_list()
        return found

    async def _ways(self) -> dict[str, int]:
        rig = self.rig
        if isinstance(rig, CacheRig):
            return {node.name: await rig.cache_port(node) for node in rig.nodes}
        return {node.name: node.store_port for node in rig.nodes}

    def _judge(self) -> None:
        folder, chaos = self._chaos.folder, self._chaos
        notes = folder / "deeds.jsonl"
        notes.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in (*self._loosened, *self._emptied)))
        logs = folder / "cache.jsonl", folder / "stalls.jsonl", notes
        self.ledger = coherence_ledger.read(*logs, evicts=self.ledger.evicts)
        self.report = report = check(self.ledger)
        for what, count in report.problems.items():
            chaos.problem(f"{count} times {what}")
        for sample in report.samples:
            chaos.problem(sample)
        for refused in strange(self.ledger.refused):
            chaos.problem(refused)
        for what, ages in (("usual", report.usual), ("cut", report.loosened), ("marked stale", report.marked)):
            if ages.reads:
                chaos.note(f"{what}: {ages.line()}")


def strange(refused: Iterable[Refused]) -> list[str]:
    """Answers that are neither what was asked for nor a refusal."""
    found = [
        f"{each.via}: {each.what} answered {each.status}: {each.detail}"
        for each in refused
        if each.status not in KNOWN_STATUSES
    ]
    return [*found[:4], *([f"… {len(found)} strange answers in all"] if len(found) > 4 else [])]
