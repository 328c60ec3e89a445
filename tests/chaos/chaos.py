"""Chaos: what a row does to the nodes and the store, each deed noted with its time, and how all of it is mended.

Owns the notes that the checker needs: which node was crashed when, whose requests may fail from when until when. Every
deed is undone by `heal`, whatever the row left behind. Never looks into the ledger or the sink's log; rows that want
to judge them register a function with `judge`.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import Random
from time import monotonic

from redis.exceptions import RedisError

from actors.core.rendezvous import winners
from tests.chaos.evidence import EVERY_NODE, Crash, Evidence, Fault
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Row
from tests.chaos.toxics import Toxic
from tests.support.node import Stopped
from tests.support.until import NeverHappened, passing, until

READY_S = 5.0
RECOVERY_S = 2.0
"""How long after the store is back requests may still be refused."""
DEAD_AFTER_S = 2.0
"""T: how long a node must be silent before others take over."""
OWNED_MIN = 16
"""Partitions that are enough for a few deliveries a second."""
SELF_FENCE_S = 0.75 * DEAD_AFTER_S
"""How long a node that is cut off may act on."""
ON_THE_WAY_S = 1.0
"""How long what a crashed node wrote to its sockets may take to be read."""
HOLD = Toxic(hold=True)

Judge = Callable[[Evidence], Iterable[str]]

LOOK_S = 0.4
"""Between two looks at who owns what: longer than a beat, by then a new owner has taken what it was given."""


class Chaos:
    """One row's hands. `random` is the only source of chance, so that a seed repeats a run."""

    def __init__(self, rig: Rig, row: Row, random: Random, *, hurried: bool = False) -> None:
        self.rig = rig
        self.row = row
        self.random = random
        self.hurried = hurried
        """Whether there is only time for what tells most."""
        self.folder = rig.directory
        """Where the row's evidence is gathered; kept when it fails."""
        self.began_at = monotonic()
        self.crashes: list[Crash] = []
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.judges: list[Judge] = []
        self.hurt: set[str] = set()
        self.restarted = False

    def problem(self, what: str) -> None:
        """Something is wrong: the row fails and says this."""
        self.problems.append(what)

    def note(self, what: str) -> None:
        """Something worth reading beside the row's figures."""
        self.notes.append(what)

    def expect(self, holds: bool, otherwise: str) -> None:
        """A problem unless it holds."""
        if not holds:
            self.problem(otherwise)

    def judge(self, judge: Judge) -> None:
        """Have the evidence judged by the row, too: the function yields what is wrong."""
        self.judges.append(judge)

    async def passing(self, seconds: float) -> None:
        """Let time pass under load."""
        await passing(seconds)

    def living(self) -> list[Node]:
        """Nodes that run and that nothing was done to."""
        return [node for node in self.rig.nodes if node.alive and node.name not in self.hurt]

    async def owners(self) -> dict[int, tuple[str, int]]:
        """Node and epoch of every partition, read from the store beside the nodes."""
        return await self.rig.owners()

    async def pick(self) -> Node:
        """One of the living nodes, by chance among those that own something."""
        owned = Counter(node for node, _ in (await self.owners()).values())
        nodes = [node for node in self.living() if owned[node.name] >= OWNED_MIN]
        assert nodes, f"no living node owns much; owners: {owned}"
        return self.random.choice(nodes)

    async def balanced(self, within_s: float = 10.0) -> bool:
        """Wait until every running node owns what it should, so that nothing moves any more; in a hurry, until two of
        them own something. That it took too long is only noted."""
        winner = winners(frozenset(node.name for node in self.rig.nodes if node.alive))
        owned: Counter[str] = Counter()
        before: dict[int, tuple[str, int]] = {}

        async def even() -> bool:
            nonlocal owned, before
            last, before = before, await self.owners()
            owned = Counter(node for node, _ in before.values())
            if self.hurried:
                return sum(count >= OWNED_MIN for count in owned.values()) > 1
            # A planned move names the new owner before that one takes it under an epoch of its own.
            return before == last and all(winner[partition] == node for partition, (node, _) in before.items())

        try:
            await until(even, within_s, every_s=LOOK_S)
        except NeverHappened:
            self.note(f"uneven after {within_s:g} s: {', '.join(f'{name} {n}' for name, n in owned.items())}")
            return False
        return True

    async def kill(self, *nodes: Node) -> None:
        """kill -9, all at once."""
        await self._crashed(*nodes)
        for node in nodes:
            node.process.child.send_signal(signal.SIGKILL)
        for node in nodes:
            await node.process.ended()

    async def died(self, node: Node, within_s: float = 20.0) -> int:
        """Wait until a node is gone by itself (a failpoint, a limit) and give its exit code."""
        self.fault(node.name)
        code = await node.process.ended(within_s)
        await self._crashed(node)
        return code

    async def freeze(self, node: Node, *, takeover: bool = True) -> None:
        """SIGSTOP. `takeover`: long enough for others to take over."""
        await self._crashed(node, takeover=takeover)
        node.process.freeze()

    async def thaw(self, node: Node) -> None:
        """SIGCONT."""
        node.process.thaw()
        self.recovered(node.name, RECOVERY_S)
        self.hurt.discard(node.name)

    async def stop(self, node: Node) -> Stopped:
        """SIGTERM; waits until it has ended."""
        self.fault(node.name)
        self.hurt.add(node.name)
        self.restarted = True
        return await node.process.sigterm()

    async def start(self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None) -> float:
        """Start a node that has ended, for once with other settings; gives the seconds until it was ready."""
        seconds = await self.rig.start_node(node, failpoints=failpoints, environment=environment)
        self.recovered(node.name, RECOVERY_S)
        self.hurt.discard(node.name)
        return seconds

    async def restart(self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None) -> None:
        """SIGTERM and start, for once with other settings."""
        await self.stop(node)
        await self.start(node, failpoints=failpoints, environment=environment)

    async def cut(self, node: Node, up: Toxic = HOLD, down: Toxic = HOLD, *, takeover: bool = True) -> None:
        """Do something to the connection between a node and the store; by default no byte passes either way."""
        await self._crashed(node, takeover=takeover, acts_on_s=SELF_FENCE_S)
        await self.rig.toxics.set(node.store_proxy, up=up, down=down)

    async def mend(self, node: Node) -> None:
        """Let the bytes between a node and the store pass as they are."""
        await self.rig.toxics.heal(node.store_proxy)
        self.recovered(node.name, RECOVERY_S)
        self.hurt.discard(node.name)

    async def cut_peers(self, node: Node, toxic: Toxic = HOLD) -> None:
        """Do something to all connections between a node and the others; by default no byte passes."""
        for proxy in self.rig.peer_proxies(node):
            await self.rig.toxics.set(proxy, up=toxic, down=toxic)

    async def mend_peers(self, node: Node) -> None:
        """Let the nodes talk to each other again."""
        for proxy in self.rig.peer_proxies(node):
            await self.rig.toxics.heal(proxy)

    async def flushed_by_others(self, *nodes: Node, within_s: float = 8.0) -> float:
        """Wait for the first POST by another node of a key that the (crashed) nodes owned; gives the seconds since
        the crash. That it came in time is judged by the checker."""
        names = [node.name for node in nodes]
        crashes = [crash for crash in self.crashes if crash.node in names]
        at = max(crash.at for crash in crashes)
        partitions = [partition for crash in crashes if crash.at == at for partition in crash.partitions]
        first = await until(lambda: self.rig.sink.first(partitions, names, at), within_s, what="a new owner delivers")
        return first - at

    async def kill_store(self) -> None:
        """kill -9 of the store; connections to it are refused until `start_store`."""
        self.fault(EVERY_NODE)
        await self.rig.store_down()

    async def start_store(self, *options: str) -> None:
        """Start the store again on what its disk has."""
        await self.rig.store_up(*options)
        self._recovering()

    async def freeze_store(self) -> None:
        """SIGSTOP of the store."""
        self.fault(EVERY_NODE)
        self.rig.store.freeze()

    async def thaw_store(self) -> None:
        """SIGCONT of the store."""
        self.rig.store.thaw()
        self._recovering()

    def fault(self, node: str = EVERY_NODE) -> Fault:
        """From now on requests to this node may fail; set `until` on what is returned, or `heal` does."""
        made = Fault(node=node, at=monotonic())
        self.faults.append(made)
        return made

    def recovered(self, node: str = EVERY_NODE, after_s: float = 0.0) -> None:
        """From now (plus something) on requests to this node may fail no more."""
        for fault in self.faults:
            if fault.node == node and fault.until == float("inf"):
                fault.until = monotonic() + after_s

    async def heal(self) -> float:
        """Undo everything; gives the seconds until all nodes were ready. A node that is not in time is a problem."""
        await self.rig.toxics.heal_all()
        self.rig.store.thaw()
        if self.rig.store.child.exit_code is not None:
            await self.start_store()
        for node in self.rig.nodes:
            if node.alive:
                node.process.thaw()
        began = monotonic()
        try:
            async with asyncio.timeout(READY_S * 2):
                await asyncio.gather(*(self._ready(node) for node in self.rig.nodes))
        except (TimeoutError, NeverHappened) as reason:
            self.problem(f"after healing not all nodes got ready: {reason}")
        took_s = monotonic() - began
        self.expect(took_s <= READY_S, f"after healing it took {took_s:.1f} s until all nodes were ready")
        for fault in self.faults:
            fault.until = min(fault.until, monotonic() + RECOVERY_S)
        return took_s

    async def _ready(self, node: Node) -> None:
        if not node.alive:
            await self.rig.start_node(node)
        else:
            await until(node.ready, READY_S * 2, every_s=0.05, what=f"{node.name} is ready")
        self.hurt.discard(node.name)

    async def _crashed(self, *nodes: Node, takeover: bool = True, acts_on_s: float = 0.0) -> None:
        owners = await self._owners_now() if takeover else {}
        now = monotonic()
        for node in nodes:
            self.fault(node.name)
            self.hurt.add(node.name)
            owned = frozenset(partition for partition, (owner, _) in owners.items() if owner == node.name)
            until = now + acts_on_s + ON_THE_WAY_S
            self.crashes.append(Crash(node=node.name, at=now, until=until, partitions=owned))
        self.restarted = True

    async def _owners_now(self) -> dict[int, tuple[str, int]]:
        try:
            return await self.owners()
        except RedisError:
            return {}  # the store is away, too: nobody takes over

    def _recovering(self) -> None:
        self.recovered(EVERY_NODE, RECOVERY_S)
