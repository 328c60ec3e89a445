"""The cache's scenarios: reads, writes and batches of the node, of handlers that do nothing, and of webdis.

One node holds every key near, a second one, on a store of its own, nothing at all; webdis works on the first node's
store. What is read was put there by a foreign client, so the nodes had to load it. All speak to a store over its Unix
socket. Answers are checked, and so is what lies in the store after the last write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec
from msgspec import Struct

from tests.bench import report, webdis
from tests.bench.cache_requests import BATCH, BATCH_KEYS, BATCHES, KEYS, READ_KEY, WRITTEN, CacheSpec, value_of
from tests.bench.figures import Figure, Turn, with_trouble
from tests.bench.load import Generator, LoadSpec
from tests.bench.rig import START_S, Rig
from tests.bench.running import Node
from tests.bench.throughput import Scenario, troubles_of, turn_of
from tests.support.node import answers_200
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port

HOUR_MS = 3_600_000
NO_WEBDIS = "webdis is not installed (make test-packages): what it does is left out"
BASE_GET, BASE_POST, FLOOR = "do-nothing GET", "do-nothing POST", "constant bytes"
GET, GET_V0, COLD_GET, PUT, POST_V0 = "hot GET", "hot GET v0", "cold GET", "PUT", "POST v0"
BATCH_GET, COLD_BATCH = f"hot batch get of {BATCH}", f"cold batch get of {BATCH}"
WEBDIS_GET, WEBDIS_SET, WEBDIS_MGET = "webdis GET", "webdis SET", f"webdis MGET of {BATCH}"
TITLES = {
    BASE_GET: "aiohttp GET handler that answers a constant",
    BASE_POST: "aiohttp POST handler that decodes and answers a constant",
    FLOOR: "uvloop protocol that answers whatever arrives with the same bytes",
    GET: "cache: hot GET",
    GET_V0: "cache: hot GET of the v0 API",
    COLD_GET: "cache: GET with nothing near",
    PUT: "cache: PUT",
    POST_V0: "cache: POST of the v0 API",
    BATCH_GET: f"cache: keys of a hot batch get of {BATCH}",
    COLD_BATCH: f"cache: keys of a batch get of {BATCH} with nothing near",
    WEBDIS_GET: "webdis (C, 1 thread): GET",
    WEBDIS_SET: "webdis (C, 1 thread): SET",
    WEBDIS_MGET: f"webdis (C, 1 thread): keys of an MGET of {BATCH}",
}
SHARES: Sequence[report.Share] = (
    (GET, BASE_GET, 4.0),
    (FLOOR, BASE_GET, None),
    (GET, FLOOR, None),
    (GET_V0, BASE_GET, None),
    (COLD_GET, BASE_GET, None),
    (PUT, BASE_POST, 1.5),
    (POST_V0, BASE_POST, 1.5),
    (BATCH_GET, WEBDIS_MGET, 0.50),
    (COLD_BATCH, WEBDIS_MGET, None),
    (GET, WEBDIS_GET, 1.5),
    (COLD_GET, WEBDIS_GET, None),
    (PUT, WEBDIS_SET, None),
    (BASE_GET, WEBDIS_GET, None),
)
"""Those of which nothing is asked are printed as well, however they come out."""
OLD_VERSIONS = 2
"""Writes of one key are 1,000 requests apart, so two of them are hardly ever under way together."""


class Server(Struct, frozen=True):
    """A process that takes requests, and the store behind it."""

    port: int
    pid: int
    store: ValkeyServer | None


class Requests:
    """Requests of one kind to a server that is up. `near`: whether the near cache must answer some, or none.

    Not all: a machine that is so busy that the node hears nothing for a second makes it ask for everything again. How
    many were hits is printed.
    """

    def __init__(self, rig: Rig, server: Server, spec: CacheSpec, *, near: bool | None = None) -> None:
        self._rig = rig
        self._server = server
        self._spec = spec
        self._near = near
        self._sent = 0

    async def open(self) -> None:
        """Ask for every key, so that what can be near is near from now on."""
        count = BATCH_KEYS // BATCH if self._batches else KEYS
        with closing(Generator(LoadSpec(port=self._server.port, message=self._spec, count=count))) as generator:
            result = await asyncio.to_thread(generator.run)
        if result.errors:
            raise RuntimeError(f"{self._spec.kind}: {troubles_of(result)}")
        self._sent = result.sent

    async def turn(self, seconds: float) -> Turn:
        """Closed loop for that long; a batch counts as its keys."""
        server = self._server
        pids = {"server": server.pid} | ({"store": server.store.child.pid} if server.store is not None else {})
        spec = LoadSpec(port=server.port, message=self._spec, first=self._sent, seconds=seconds, pids=pids)
        result = await self._rig.load(spec)
        self._sent += result.sent
        turn = turn_of(result)
        if self._near is not None and turn.checked and self._near != (turn.hits > 0):
            turn = with_trouble(turn, f"{turn.hits} of {turn.checked} answers came from the near cache")
        return msgspec.structs.replace(turn, operations=turn.operations * (BATCH if self._batches else 1))

    async def check(self) -> list[str]:
        """What was written last under each key is what the store holds, for as long as it was asked to."""
        name, store = WRITTEN.get(self._spec.kind), self._server.store
        if name is None or store is None or not self._sent:
            return []
        with store.client() as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(KEYS):
                pipeline.get(name % number).pttl(name % number)
            answers = pipeline.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        wrong = [n for n, (value, left_ms) in enumerate(pairs) if not self._is_latest(n, value, left_ms)]
        return [f"{len(wrong)} keys do not hold what was written last, such as {name % wrong[0]}"] if wrong else []

    @property
    def _batches(self) -> bool:
        return self._spec.kind in BATCHES

    def _is_latest(self, number: int, value: str | None, left_ms: int) -> bool:
        newest = self._sent - 1 - (self._sent - 1 - number) % KEYS
        versions = range(newest, max(-1, newest - OLD_VERSIONS * KEYS), -KEYS)
        lasts = left_ms == -1 if self._spec.kind == "webdis_set" else 0 < left_ms <= HOUR_MS
        return lasts and value in [value_of(number, version).decode() for version in versions]


async def scenarios(rig: Rig) -> dict[str, Scenario]:
    """Start all servers, fill the stores, and give the scenarios in the order of their turns."""
    (child, port), (bare, bare_port), near, far = await asyncio.gather(
        rig.serving("baseline", server=True),
        rig.serving("floor", server=True),
        rig.node(),
        rig.node({"CACHE_NEAR_BYTES": "0"}),
    )
    baseline, floor = Server(port, child.pid, None), Server(bare_port, bare.pid, None)
    hot, cold = server_of(near), server_of(far)
    for node in (near, far):
        fill(node.store)
    found: dict[str, Scenario] = {
        BASE_GET: Requests(rig, baseline, CacheSpec(kind="get", constant=True)),
        FLOOR: Requests(rig, floor, CacheSpec(kind="get", constant=True)),
        GET: Requests(rig, hot, CacheSpec(kind="get"), near=True),
        GET_V0: Requests(rig, hot, CacheSpec(kind="get_v0"), near=True),
        COLD_GET: Requests(rig, cold, CacheSpec(kind="get"), near=False),
        BASE_POST: Requests(rig, baseline, CacheSpec(kind="post_v0", constant=True)),
        PUT: Requests(rig, hot, CacheSpec(kind="put")),
        POST_V0: Requests(rig, hot, CacheSpec(kind="post_v0")),
        BATCH_GET: Requests(rig, hot, CacheSpec(kind="batch_get"), near=True),
        COLD_BATCH: Requests(rig, cold, CacheSpec(kind="batch_get"), near=False),
    }
    program = webdis.binary()
    if program is not None:
        other = await start_webdis(rig, program, near.store)
        found[WEBDIS_MGET] = Requests(rig, other, CacheSpec(kind="webdis_mget"))
        found[WEBDIS_GET] = Requests(rig, other, CacheSpec(kind="webdis_get"))
        found[WEBDIS_SET] = Requests(rig, other, CacheSpec(kind="webdis_set"))
    return found


def server_of(node: Node) -> Server:
    """The node as a server."""
    return Server(node.process.port, node.process.pid, node.store)


async def start_webdis(rig: Rig, program: str, store: ValkeyServer) -> Server:
    """webdis on the server's core, on this store."""
    port = free_port()
    child = rig.program(webdis.NAME, webdis.command(program, rig.directory, store, port), server=True)
    await until(lambda: answers_200(port, webdis.PROBE), START_S, what="webdis answers")
    return Server(port, child.pid, store)


def fill(store: ValkeyServer) -> None:
    """Put there what is read, as any other program would."""
    with store.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(BATCH_KEYS):
            pipeline.set(READ_KEY % number, value_of(number), px=HOUR_MS)
        pipeline.execute()


def figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """All speeds, then the shares."""
    return report.speed_figures(turns, TITLES, SHARES)
