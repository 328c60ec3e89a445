"""Rig: the processes of a chaos run, every one of which ends with it: store, proxies, nodes, sink, driver.

Everything listens on loopback. Each node reaches the store through a proxy of its own. Children hang on a leash, so
they end when we do, however that happens. Starts and stops; judges nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from actors.adapters.valkey.keys import OWNERS
from tests.chaos.control import Remote
from tests.chaos.monitor import Monitor
from tests.chaos.remotes import Driver, Toxics, Webhook
from tests.chaos.rows import Row
from tests.support.child import Child
from tests.support.client import Client
from tests.support.node import SERVE, NodeProcess, answers_200, http_client
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port

START_S = 10.0
LOOPBACK = "127.0.0.1"
NODE_ENVIRONMENT = {"RETRY_DELAY": "100ms", "MAX_RETRIES": "20", "LOG_LEVEL": "info"}
"""Failures of the webhook are retried quickly, and rarely end in dead letters."""


class Node:
    """One node and its proxy."""

    def __init__(self, name: str, process: NodeProcess, peer_port: int) -> None:
        self.name = name
        self.process = process
        self.peer_port = peer_port
        self.store_proxy = store_proxy(name)
        self.store_port = 0
        """The proxy's."""
        self.launched = False

    @property
    def alive(self) -> bool:
        """Whether its process runs; a frozen one does."""
        return self.launched and self.process.child.exit_code is None

    async def ready(self) -> bool:
        """Whether /readyz is green."""
        return await answers_200(self.process.port, "/readyz")


def store_proxy(name: str) -> str:
    """The proxy between a node and the store."""
    return f"store-{name}"


def peer_proxy(caller: str, called: str) -> str:
    """The proxy through which one node calls another."""
    return f"peer-{caller}-{called}"


def kind_of(row: Row) -> tuple[object, ...]:
    """Rows that give the same share a rig."""
    return row.setup.rig, row.setup.nodes, row.setup.environment


class Rig:
    """Use as `async with Rig(directory, row)`: up and ready inside. `program` is what Python runs for a node."""

    program: Sequence[str] = SERVE

    def __init__(self, directory: Path, row: Row) -> None:
        self.directory = directory
        self.kind = kind_of(row)
        self.nodes: list[Node] = []
        self.store: ValkeyServer
        self.toxics: Toxics
        self.sink: Webhook
        self.driver: Driver
        self._environment = NODE_ENVIRONMENT | dict(row.setup.environment)
        self._count = row.setup.nodes
        self._replacements: dict[str, dict[str, str]] = {}
        self._stack = AsyncExitStack()
        self._helpers: dict[str, Remote] = {}
        self._store_ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.http = await self._stack.enter_async_context(http_client())
        self.store = await self.make_store()
        toxics, sink, driver = await asyncio.gather(*map(self.helper, ("toxics", "sink", "load")))
        self.toxics = Toxics(toxics)
        self.sink = Webhook(sink, await sink.ask("open"))
        self.driver = Driver(driver)
        self._stack.callback(self._end_nodes)
        for _ in range(self._count):
            await self.add_node()
        await asyncio.gather(*(self.start_node(node) for node in self.nodes))

    async def make_store(self) -> ValkeyServer:
        """The store, running."""
        return await self.engine(ValkeyServer(tcp=True))

    async def engine(self, server: ValkeyServer, *options: str) -> ValkeyServer:
        """Start a server that ends with the rig."""
        self._stack.callback(server.close)
        await asyncio.to_thread(server.start, *options)
        return server

    async def store_url(self, name: str) -> str:
        """How a new node reaches the store: through a proxy of its own."""
        self._store_ports[name] = port = await self.toxics.add(store_proxy(name), self.store.port)
        return f"redis://127.0.0.1:{port}/0"

    async def add_node(self) -> Node:
        """One more node, not started; start it with `start_node` and tell the driver."""
        name = f"n{len(self.nodes)}"
        process = NodeProcess(self.directory / name, redis_url=await self.store_url(name), program=self.program)
        node = Node(name, process, free_port())
        node.store_port = self._store_ports[name]
        for other in self.nodes:
            await self._join(node, other)
            await self._join(other, node)
        self.nodes.append(node)
        for each in self.nodes:
            await self.toxics.replace(each.store_proxy, self._replacements.get(each.name, {}))
        return node

    async def _join(self, caller: Node, called: Node) -> None:
        """A proxy for what one node asks another. The caller learns of it where it learns of the other: in what the
        store says."""
        port = await self.toxics.add(peer_proxy(caller.name, called.name), called.peer_port)
        here = self._replacements.setdefault(caller.name, {})
        here[f"{LOOPBACK}:{called.peer_port}"] = f"{LOOPBACK}:{port}"

    def peer_proxies(self, node: Node) -> list[str]:
        """The proxies between a node and all others, both ways."""
        others = [each for each in self.nodes if each is not node]
        return [
            name for each in others for name in (peer_proxy(node.name, each.name), peer_proxy(each.name, node.name))
        ]

    async def start_node(
        self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None
    ) -> float:
        """Start a node that does not run, with these settings beside the usual ones; gives the seconds until it was
        ready. Only the sink is told; the driver knows the port."""
        process = node.process
        process.failpoints = failpoints
        own = {"NODE_ID": node.name, "NODE_URL": f"tcp://{LOOPBACK}:{node.peer_port}"}
        process.environment = self._environment | own | dict(environment or {})
        starting = asyncio.ensure_future(process.start())
        await asyncio.sleep(0)  # it is launched; its first delivery may come before it is ready
        node.launched = True
        await self.tell_sink()
        return await starting

    async def tell_sink(self) -> None:
        """Tell the sink which process is which node."""
        await self.sink.pids({node.process.pid: node.name for node in self.nodes if node.launched})

    def ports(self) -> dict[str, int]:
        """The driver's view of the nodes."""
        return {node.name: node.process.port for node in self.nodes}

    def client(self, node: Node) -> Client:
        """A client of one node, for questions beside the load."""
        return Client(self.http, node.process.url)

    async def store_down(self) -> None:
        """kill -9 of the store; connections are refused."""
        await asyncio.gather(*(self.toxics.refuse(node.store_proxy) for node in self.nodes))
        self.store.kill9()

    async def store_up(self, *options: str) -> None:
        """Start the store on its data. Nodes reach it as soon as it listens."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.store.start, *options))
        await asyncio.gather(*(self.toxics.listen(node.store_proxy) for node in self.nodes))
        await starting

    def monitor(self) -> Monitor:
        """What the store is made to write, while the block lasts."""
        return Monitor(self.store.socket_path)

    async def writers(self) -> dict[int, str]:
        """The node behind each port by which the store saw a connection so far."""
        nodes = {node.store_proxy: node.name for node in self.nodes}
        ports = await self.toxics.clients_of_the_store()
        return {port: nodes[proxy] for port, proxy in ports.items() if proxy in nodes}

    async def owners(self) -> dict[int, tuple[str, int]]:
        """Node and epoch of every partition, as the store has them."""
        return await asyncio.to_thread(self._owners)

    def _owners(self) -> dict[int, tuple[str, int]]:
        with self.store.client() as client:
            pipeline = client.pipeline(transaction=False)
            for key in OWNERS:
                pipeline.hmget(key, ["node", "ep"])
            rows: list[Any] = pipeline.execute()
        return {partition: (node or "", int(epoch or 0)) for partition, (node, epoch) in enumerate(rows)}

    def _end_nodes(self) -> None:
        for node in self.nodes:
            if node.alive:
                node.process.thaw()
                node.process.child.send_signal(signal.SIGTERM)
        for node in self.nodes:
            node.process.close()

    async def helper(self, module: str) -> Remote:
        """The process of a module of this package, started when it is first wanted."""
        if module not in self._helpers:
            self._helpers[module] = await self._started(module)
        return self._helpers[module]

    async def _started(self, module: str) -> Remote:
        path = self.directory / f"{module}.sock"
        child = Child([sys.executable, "-m", f"tests.chaos.{module}", str(path)], self.directory / module)
        self._stack.callback(child.close)
        remote = Remote(child.output)

        async def listens() -> bool:
            assert child.exit_code is None, child.output()
            try:
                await remote.connect(path)
            except OSError:
                return False  # the socket is not there, or is there and nobody listens yet
            return True

        await until(listens, START_S, what=f"{module} listens")
        self._stack.callback(remote.hang_up)
        return remote
