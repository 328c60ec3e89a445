"""How long the projection takes: commands at a fixed pace, while somebody looks at how far it is in the database.

`python -m tests.bench.inventory_lag SPEC_AS_JSON` is the client, a process of its own, and prints a `LagResult`. The
lag of a command is the time from its answer until the database's projection has its event; the wait of a reader that
until the answer to `GET /inventario/{id}?after=<the event>`, which must hold what was acknowledged by then.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections import Counter
from http import HTTPStatus

import aiohttp
import asyncpg
import msgspec
import uvloop
from msgspec import Struct

from tests.bench.figures import Figure, at_most, percentile
from tests.bench.inventory_requests import (
    CANTIDAD,
    LINES,
    PATH,
    WATCHED,
    Made,
    command,
    decode_added,
    decode_made,
    decode_one,
    makes,
)
from tests.bench.rig import Rig, as_json
from tests.bench.running import Node
from tests.support.until import passing, until

RATE = 300.0
SECONDS = 15.0
SMOKE_RATE, SMOKE_SECONDS = 50.0, 0.6
ASKED_MS = 100.0
PUT_OFF_MS = 2_000.0
ERRORS_KEPT = 5
LOOK_S = 0.004
LAST_S = 30.0


class LagSpec(Struct, frozen=True, kw_only=True):
    """`rate` commands a second, for so long. `reads`: each is followed by a read that waits for its event."""

    port: int
    database_url: str
    rate: float
    seconds: float
    reads: bool


class LagResult(Struct, kw_only=True):
    """All times in milliseconds. `late_ms`: how much after its time the client began a command, at the most.

    `put_off` readers were told to come again: none of them waited less than what a reader may wait at the most.
    """

    answers_ms: list[float] = []
    lags_ms: list[float] = []
    reads_ms: list[float] = []
    late_ms: float = 0.0
    put_off: int = 0
    errors: list[str] = []


class Watch:
    """Looks at how far the projection is, by a session of its own."""

    def __init__(self, session: asyncpg.Connection[asyncpg.Record]) -> None:
        self._session = session
        self._times: list[float] = []
        self._seqs: list[int] = []

    async def run(self) -> None:
        """Look until cancelled, and note when it has moved."""
        clock = asyncio.get_running_loop().time
        statement = await self._session.prepare("SELECT seq FROM proyeccion")
        while True:
            seq: int = await statement.fetchval()
            if not self._seqs or seq > self._seqs[-1]:
                self._seqs.append(seq)
                self._times.append(clock())
            await passing(LOOK_S)

    def has(self, seq: int) -> bool:
        """Whether the projection had that number at the last look."""
        return bool(self._seqs) and self._seqs[-1] >= seq

    def when(self, seq: int) -> float:
        """When it had that number, by the loop's clock."""
        return self._times[bisect_left(self._seqs, seq)]


class Client:
    """Sends the commands, and reads after them."""

    def __init__(self, spec: LagSpec, session: aiohttp.ClientSession) -> None:
        self.result = LagResult(answers_ms=[], lags_ms=[], reads_ms=[], errors=[])
        self.answered: dict[str, float] = {}
        """When the command of an event was answered."""
        self._url = f"http://127.0.0.1:{spec.port}"
        self._spec = spec
        self._session = session
        self._acknowledged: Counter[int] = Counter()

    async def run(self) -> None:
        """Begin each command when it is due, whatever became of those before it."""
        loop, rate = asyncio.get_running_loop(), self._spec.rate
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate * self._spec.seconds)):
                due = began + number / rate
                if (wait := due - loop.time()) > 0:
                    await passing(wait)
                self.result.late_ms = max(self.result.late_ms, (loop.time() - due) * 1e3)
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        try:
            inventory, event_id, least = await self._commanded(number)
            if self._spec.reads:
                await self._read(inventory, event_id, least)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, Wrong) as error:
            self.result.errors.append(f"command {number}: {error!r}")

    async def _commanded(self, number: int) -> tuple[int, str, int]:
        """The inventory, the event, and how many items the inventory must have from now on."""
        clock = asyncio.get_running_loop().time
        path, document = command(number, WATCHED)
        began = clock()
        async with self._session.post(self._url + path, json=document) as response:
            body = await response.read()
        answered = clock()
        if response.status != HTTPStatus.CREATED:
            raise Wrong(f"{response.status} {body[:200]!r}")
        self.result.answers_ms.append((answered - began) * 1e3)
        done = decode_made(body) if makes(number) else decode_added(body)
        self.answered[done.event_id] = answered
        if isinstance(done, Made):
            return done.id, done.event_id, 0
        self._acknowledged[done.inventario_id] += CANTIDAD
        return done.inventario_id, done.event_id, LINES * CANTIDAD + self._acknowledged[done.inventario_id]

    async def _read(self, inventory: int, event_id: str, least: int) -> None:
        url = f"{self._url}{PATH}/{inventory}"
        async with self._session.get(url, params={"after": event_id}) as response:
            body = await response.read()
        seen = asyncio.get_running_loop().time()
        waited_ms = (seen - self.answered[event_id]) * 1e3
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.result.put_off += 1
            self.result.reads_ms.append(max(waited_ms, PUT_OFF_MS))
            return
        if response.status != HTTPStatus.OK or decode_one(body).total_items < least:
            raise Wrong(f"{response.status} {body[:200]!r}, at least {least} items were acknowledged")
        self.result.reads_ms.append(waited_ms)


class Wrong(Exception):
    """Not the answer that was promised."""


async def run(spec: LagSpec) -> LagResult:
    """The client's whole life: until the projection has the last event."""
    database = await asyncpg.connect(spec.database_url)
    watch = Watch(await asyncpg.connect(spec.database_url))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=10),
    ) as session:
        client = Client(spec, session)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run())
            await client.run()
            rows = await until(lambda: numbered(database, list(client.answered)), LAST_S, what="numbers for all events")
            await until(lambda: watch.has(rows[-1]["seq"]), LAST_S, what="a projection that has all")
            watching.cancel()
    lags = [(watch.when(row["seq"]) - client.answered[row["event_id"]]) * 1e3 for row in rows]
    client.result.lags_ms = [max(0.0, lag) for lag in lags]  # some are there before the answer is
    return client.result


async def numbered(database: asyncpg.Connection[asyncpg.Record], event_ids: list[str]) -> list[asyncpg.Record]:
    """The numbers of these events in order, once all of them have one; empty before."""
    rows = await database.fetch(
        "SELECT event_id, seq FROM eventos WHERE event_id = ANY($1) AND seq IS NOT NULL ORDER BY seq", event_ids
    )
    return rows if len(rows) == len(event_ids) else []


async def measure(rig: Rig, node: Node, database_url: str, *, smoke: bool) -> tuple[list[Figure], list[str]]:
    """Commands alone, then with readers; and what was wrong."""
    found, troubles = [], []
    rate, seconds = (SMOKE_RATE, SMOKE_SECONDS) if smoke else (RATE, SECONDS)
    for reads in (False, True):
        spec = LagSpec(port=node.process.port, database_url=database_url, rate=rate, seconds=seconds, reads=reads)
        node.core.restart()
        result = await rig.result(rig.child("inventory_lag", as_json(spec)), LagResult, seconds)
        found.append(figure(result, rate, node.core.of_others()))
        if result.errors:
            troubles.append(f"{len(result.errors)} commands went wrong, such as {result.errors[:ERRORS_KEPT]}")
    return found, troubles


def figure(result: LagResult, rate: float, of_others: float) -> Figure:
    """What 99 of 100 commands stay below: their lag, or if they were read, what the readers waited."""
    times = result.reads_ms or result.lags_ms
    name = f"inventory: {'GET …?after' if result.reads_ms else 'projection lag'} at {rate:g} commands/s, p99"
    words = [f"{len(times):,} commands", _spread("", times)]
    if result.reads_ms:
        words += [f"{result.put_off:,} put off", _spread("the projection's own lag ", result.lags_ms)]
    words += [_spread("commands were answered in ", result.answers_ms), f"begun {result.late_ms:.0f} ms late at most"]
    words += [f"{of_others:.0%} of the node's core went to others"]
    return at_most(name, percentile(times, 0.99), ASKED_MS, "ms", "; ".join(words))


def _spread(what: str, times: list[float]) -> str:
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    return f"{what}p50 {p50:.1f}, p99 {p99:.1f}, max {max(times, default=0):.1f} ms"


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=LagSpec)))).decode())
