"""The driver and the black-box prober, one process: `python -m tests.chaos.load SOCKET`.

The driver: sequential clients, one a key, whose messages go round the nodes; what was not acknowledged is sent again
under the same id to the next node. A node that just failed is passed over for a second, like a load balancer would.
The prober: per node, on its own connection, 20 times a second /livez, /readyz or a message under a key of its own.
Both write down everything they did; the ledger is fsynced ten times a second, and nobody ever kills this process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from time import monotonic

import msgspec
import uvloop
from msgspec import Struct

from tests.chaos.control import serve
from tests.chaos.evidence import BROKEN, OK, Probe, Try
from tests.chaos.rows import Group
from tests.chaos.wire import Node
from tests.support.until import passing

PASSED_OVER_S = 1.0
RETRY_S = 0.1
RETRY_S_MAX = 0.8
CATCH_UP_S = 0.5
FSYNC_S = 0.1
PROBE_S = 0.05
PATH = "/api/v1/message"
PROBED = ("/livez", "/readyz", PATH)
PROBE_KEYS = Group(name="probe", keys=1, rate=0, max_size=5, wait_s=1)


class Book:
    """A file of JSON lines that is on disk a moment after it was written."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sync, daemon=True)
        self._thread.start()

    def note(self, line: Try | Probe) -> None:
        """Write one line."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Everything is on disk afterwards."""
        self._closed.set()
        self._thread.join()
        os.close(self._file)

    def _sync(self) -> None:
        while not self._closed.wait(FSYNC_S):
            os.fsync(self._file)
        os.fsync(self._file)


class Begin(Struct, frozen=True, kw_only=True):
    """A load: `nodes` are names and ports, `sinks` base URLs; keys and ids begin with `prefix`."""

    ledger: str
    probes: str
    nodes: dict[str, int]
    sinks: list[str]
    groups: list[Group]
    prefix: str
    seed: str


class Load:
    """One row's clients and probers."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._ledger = Book(begin.ledger)
        self._probes = Book(begin.probes)
        self._nodes = [Node(name, port) for name, port in begin.nodes.items()]
        self._turn = 0
        self._gives_up_at = float("inf")
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged = 0
        self.tries = 0

    def start(self) -> None:
        """Set all clients going."""
        spawn = asyncio.get_running_loop().create_task
        for group in self._begin.groups:
            for number in range(group.keys):
                self._tasks.append(spawn(self._talk(group, f"{self._begin.prefix}/{group.name}-{number}")))
        self._tasks += [spawn(self._probe(node)) for node in self._nodes]

    def set_nodes(self, nodes: dict[str, int]) -> None:
        """Use these nodes from now on; new ones are probed, too."""
        known = {node.name: node for node in self._nodes}
        kept = {name for name, port in nodes.items() if name in known and known[name].port == port}
        self._nodes = [known[name] if name in kept else Node(name, port) for name, port in nodes.items()]
        self._tasks += [
            asyncio.get_running_loop().create_task(self._probe(node)) for node in self._nodes if node.name not in kept
        ]

    def avoid(self, names: Sequence[str]) -> None:
        """Send nothing to these nodes, until told otherwise; they are not probed either."""
        for node in self._nodes:
            node.avoided = node.name in names

    async def stop(self, grace_s: float) -> int:
        """Let every client finish its message, at most so long; gives how many could not."""
        self._stopped = True
        self._gives_up_at = monotonic() + grace_s
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes:
            node.close()
        self._ledger.close()
        self._probes.close()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, GaveUp):
                raise result
        return sum(isinstance(result, GaveUp) for result in results)

    async def _talk(self, group: Group, key: str) -> None:
        chance = Random(f"{self._begin.seed} {key}")  # noqa: S311  a repeatable run, no secret
        gap_s = group.keys / group.rate
        body = Body(group, key, self._begin.sinks[group.sink])
        due = monotonic() + chance.uniform(0, gap_s)
        sequence = 0
        while True:
            await passing(max(0.0, due - monotonic()))
            if self._stopped:
                return
            sequence += 1
            await self._say(key, sequence, body.of(sequence))
            due = max(due, monotonic() - CATCH_UP_S) + gap_s * chance.uniform(0.5, 1.5)

    async def _say(self, key: str, sequence: int, body: bytes) -> None:
        tried = 0
        while True:
            node = self._next_node()
            status = await self._try(node, key, sequence, body)
            if status == OK:
                self.acknowledged += 1
                return
            if monotonic() > self._gives_up_at:
                raise GaveUp
            tried += 1
            if tried % len(self._nodes) == 0:
                await passing(min(RETRY_S * tried, RETRY_S_MAX))

    def _next_node(self) -> Node:
        now = monotonic()
        usable = [node for node in self._nodes if not node.avoided]
        for _ in self._nodes:
            self._turn += 1
            node = self._nodes[self._turn % len(self._nodes)]
            if not node.avoided and node.passed_over_until <= now:
                return node
        return usable[self._turn % len(usable)]

    async def _try(self, node: Node, key: str, sequence: int, body: bytes) -> int:
        sent_at = monotonic()
        status, answer = await node.post(PATH, body)
        if status <= BROKEN:
            node.passed_over_until = monotonic() + PASSED_OVER_S
        self.tries += 1
        duplicate = b'"duplicate":true' in answer
        self._ledger.note(Try(f"{key}.{sequence}", key, sequence, node.name, sent_at, status, monotonic(), duplicate))
        return status

    async def _probe(self, node: Node) -> None:
        prober = Node(node.name, node.port)
        key = f"{self._begin.prefix}/probe-{node.name}"
        body = Body(PROBE_KEYS, key, self._begin.sinks[0])
        due, turn, sequence = monotonic(), 0, 0
        while not self._stopped and node in self._nodes:
            path = PROBED[turn % len(PROBED)]
            turn += 1
            if node.avoided:
                pass
            elif path == PATH:
                sequence += 1
                status = await self._try(prober, key, sequence, body.of(sequence))
                self.acknowledged += status == OK
            else:
                began = monotonic()
                status, _ = await prober.get(path)
                self._probes.note(Probe(node.name, path, began, status, monotonic() - began))
            due = max(due + PROBE_S, monotonic())
            await passing(due - monotonic())
        prober.close()


class GaveUp(Exception):
    """A message was not acknowledged in time after the end."""


class Body:
    """The messages of one key as prepared bytes."""

    def __init__(self, group: Group, key: str, sink: str) -> None:
        webhook: dict[str, object] = {"url": sink + group.path}
        webhook |= _given(max_retries=group.max_retries, timeout=group.timeout_s)
        buffer: dict[str, object] = {
            "key": key,
            "wait_time": group.wait_s,
            "max_size": group.max_size,
            "format": "envelope",
        }
        if group.debounce:
            buffer |= {"mode": "debounce", "max_wait": group.max_wait_s}
        payload = {"id": f"{key}.@", "sequence": "@", "filler": "x" * group.payload_bytes}
        document = {"webhook": webhook, "buffer": buffer, "payload": payload, "message_id": f"{key}.@"}
        text = msgspec.json.encode(document).replace(b'"sequence":"@"', b'"sequence":@')
        self._pieces: list[bytes] = text.split(b"@")

    def of(self, sequence: int) -> bytes:
        """One message."""
        return str(sequence).encode().join(self._pieces)


def _given(**words: object) -> Iterable[tuple[str, object]]:
    return [(name, value) for name, value in words.items() if value is not None]


class Desk:
    """What the harness may ask."""

    def __init__(self) -> None:
        self._load: Load | None = None

    async def do_begin(self, **words: object) -> None:
        """Start a load."""
        assert self._load is None, "a load is running"
        self._load = Load(msgspec.convert(words, Begin))
        self._load.start()

    async def do_nodes(self, nodes: dict[str, int]) -> None:
        """Use these nodes."""
        self._running().set_nodes(nodes)

    async def do_avoid(self, names: list[str]) -> None:
        """Pass over these nodes."""
        self._running().avoid(names)

    async def do_counts(self) -> dict[str, int]:
        """How it stands."""
        load = self._running()
        return {"acknowledged": load.acknowledged, "tries": load.tries}

    async def do_stop(self, grace_s: float) -> int:
        """Stop; gives how many messages were given up."""
        load, self._load = self._running(), None
        return await load.stop(grace_s)

    def _running(self) -> Load:
        assert self._load is not None, "no load is running"
        return self._load


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
