"""The inventory's commands and queries: of the node, of handlers that do nothing, and of FastAPI with SQLAlchemy.

Node and FastAPI have databases of their own on one engine, filled alike. A command of the node is paid for when the
projection has it: relay, stream, channel and projector are in its figure. FastAPI's ends with the row in the outbox.
Answers are checked, and so is what the databases hold after the last command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final

import msgspec

from actors.adapters.postgres.database import Database
from actors.adapters.postgres.inventory_store import PostgresQueries
from actors.adapters.postgres.inventory_upkeep import PostgresUpkeep
from tests.bench import report
from tests.bench.figures import Figure, Turn
from tests.bench.inventory_history import FIRST_EVENT, TABLES, fill
from tests.bench.inventory_requests import LINES, RANGE, InventorySpec, makes
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.postgres import PostgresEngine
from tests.bench.rig import Rig
from tests.bench.running import Node
from tests.bench.sqlalchemy_stack import stack
from tests.bench.throughput import Scenario, quiet, troubles_of, turn_of
from tests.support.until import NeverHappened, until
from tests.support.valkey import ValkeyServer

SETTLE_S = 30.0
WARM, SMOKE_WARM = RANGE, 0
RANGES = 3
OURS, THEIRS = "node", "fastapi"
"""The databases."""
DO_NOTHING, FASTAPI = "do-nothing {}", "FastAPI's {}"
COMMANDS, LIST, ONE, AFTER = "inventory commands", "GET /inventario?limit=20", "GET /inventario/{id}", "GET …?after"
TITLES = {
    COMMANDS: "inventory: POST /inventario and …/linea, until projected",
    LIST: "inventory: GET /inventario?limit=20",
    ONE: "inventory: GET /inventario/{id}",
    AFTER: "inventory: GET /inventario/{id}?after, past the near cache",
    DO_NOTHING.format(COMMANDS): "aiohttp handlers of the inventory's POSTs that decode and answer a constant",
    DO_NOTHING.format(LIST): "aiohttp handler of GET /inventario that answers a constant",
    DO_NOTHING.format(ONE): "aiohttp handler of GET /inventario/{id} that answers a constant",
    FASTAPI.format(COMMANDS): "FastAPI + SQLAlchemy: the same POSTs, until in the outbox",
    FASTAPI.format(LIST): "FastAPI + SQLAlchemy: GET /inventario?limit=20",
    FASTAPI.format(ONE): "FastAPI + SQLAlchemy: GET /inventario/{id}",
}
QUERIES = {LIST: InventorySpec(kind="list"), ONE: InventorySpec(kind="one")}
SHARES: Sequence[report.Share] = (
    (COMMANDS, DO_NOTHING.format(COMMANDS), None),
    (COMMANDS, FASTAPI.format(COMMANDS), None),
    (LIST, DO_NOTHING.format(LIST), None),
    (LIST, FASTAPI.format(LIST), None),
    (ONE, DO_NOTHING.format(ONE), None),
    (ONE, FASTAPI.format(ONE), None),
    (AFTER, FASTAPI.format(ONE), None),
)


class Server:
    """A process that takes requests, and all that it keeps things in. `database_url` is "" for one that keeps none."""

    def __init__(
        self, port: int, pid: int, database_url: str = "", stores: Sequence[PostgresEngine | ValkeyServer] = ()
    ) -> None:
        self.port: Final = port
        self.pid: Final = pid
        self.database_url: Final = database_url
        self._stores = stores

    async def store_cpu_s(self) -> float:
        """What PostgreSQL has used, and the node's Valkey with it."""
        total = 0.0
        for store in self._stores:
            total += store.cpu_s() if isinstance(store, PostgresEngine) else await quiet(store.child.pid)
        return total


class Requests:
    """Requests of one kind to a server that is up."""

    def __init__(self, rig: Rig, server: Server, spec: InventorySpec, warm: int) -> None:
        self._rig = rig
        self._warm = warm
        self._server = server
        self._spec = spec
        self._sent = 0

    async def open(self) -> None:
        """Warm up, but for a smoke run: what can be near is near from now on."""
        if self._warm and (turn := await self._measured(count=self._warm)).troubles:
            raise RuntimeError(f"{self._spec.kind}: {turn.troubles}")

    async def turn(self, seconds: float) -> Turn:
        """Closed loop for that long."""
        return await self._measured(seconds=seconds)

    async def check(self) -> list[str]:
        """Its answers were checked."""
        return []

    async def _measured(self, seconds: float = 0.0, count: int = 0) -> Turn:
        server, pids = self._server, {"server": self._server.pid}
        spec = LoadSpec(port=server.port, message=self._spec, first=self._sent, seconds=seconds, count=count, pids=pids)
        before = await server.store_cpu_s()
        result = await self._rig.load(spec)
        self._sent += result.sent
        turn = await self._turn_of(result)
        return msgspec.structs.replace(turn, store_cpu_s=await server.store_cpu_s() - before)

    async def _turn_of(self, result: LoadResult) -> Turn:
        return turn_of(result)


class Commands(Requests):
    """Commands to a server with a database. `projects`: whether a projection follows, and is waited for."""

    def __init__(self, rig: Rig, server: Server, warm: int, *, projects: bool) -> None:
        super().__init__(rig, server, InventorySpec(kind="command"), warm)
        self._projects = projects
        self._database = Database(server.database_url, sessions_max=1)

    async def check(self) -> list[str]:
        """The database holds what was answered, each once; and the projection what follows from it."""
        row = await self._database.row(COUNTS)
        assert row is not None, "a count is one row"
        made = RANGES * RANGE + sum(makes(number) for number in range(self._sent))
        added = RANGES * RANGE * LINES + sum(not makes(number) for number in range(self._sent))
        wrong = []
        if (found := tuple(row.values())) != (made, added, made + added):
            wrong.append(f"inventories, lines, events: {(made, added, made + added)} expected, {found} stored")
        if self._projects:
            verdict = await PostgresUpkeep(self._database).verify()
            if verdict.pending or verdict.differences:
                wrong.append(f"the projection lacks {verdict.pending}, or differs: {verdict.differences[:3]}")
        await self._database.close()
        return wrong

    async def _turn_of(self, result: LoadResult) -> Turn:
        """Until the projection has everything, and the server is quiet."""
        troubles = troubles_of(result)
        try:
            if self._projects:
                await until(self._is_projected, SETTLE_S, every_s=0.02, what="a projection that has everything")
        except NeverHappened as reason:
            troubles = (*troubles, str(reason))
        seconds = monotonic() - result.began
        return msgspec.structs.replace(
            turn_of(result),
            operations=result.ok,
            seconds=seconds,
            server_cpu_s=await quiet(self._server.pid) - result.cpu_before["server"],
            troubles=troubles,
        )

    async def _is_projected(self) -> bool:
        return (await PostgresQueries(self._database).lag()).events == 0


COUNTS = """
SELECT (SELECT count(*) FROM inventario), (SELECT count(*) FROM lineas_inventario), (SELECT count(*) FROM eventos)
"""


async def servers(rig: Rig, postgres: PostgresEngine) -> tuple[Server, Node, Server]:
    """The handlers that do nothing; the node; FastAPI. The latter two with databases that were filled alike."""
    await fill(await postgres.database("filled", TABLES), RANGES * RANGE, LINES)
    ours, theirs = [await postgres.database(name, "filled") for name in (OURS, THEIRS)]
    child, port = await rig.serving("baseline", server=True)
    node = await rig.node({"DATABASE_URL": ours})
    uvicorn_port, uvicorn = await stack.start(rig, theirs)
    return Server(port, child.pid), node, Server(uvicorn_port, uvicorn, theirs, [postgres])


async def scenarios(rig: Rig, postgres: PostgresEngine, *, smoke: bool) -> tuple[dict[str, Scenario], Node]:
    """Start all servers and give the scenarios in the order of their turns; and the node."""
    nothing, node, fastapi = await servers(rig, postgres)
    ours = Server(node.process.port, node.process.pid, postgres.url_of(OURS), [postgres, node.store])
    warm = SMOKE_WARM if smoke else WARM
    constant = InventorySpec(kind="command", constant=True)
    found: dict[str, Scenario] = {
        DO_NOTHING.format(COMMANDS): Requests(rig, nothing, constant, warm),
        COMMANDS: Commands(rig, ours, warm, projects=True),
        FASTAPI.format(COMMANDS): Commands(rig, fastapi, warm, projects=False),
    }
    for name, spec in QUERIES.items():
        constant = msgspec.structs.replace(spec, constant=True)
        found[DO_NOTHING.format(name)] = Requests(rig, nothing, constant, warm)
        found[name] = Requests(rig, ours, spec, warm)
        found[FASTAPI.format(name)] = Requests(rig, fastapi, spec, warm)
    found[AFTER] = Requests(rig, ours, InventorySpec(kind="after", after=FIRST_EVENT), warm)
    return found, node


def figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """All speeds, then the shares."""
    return report.speed_figures(turns, TITLES, SHARES)
