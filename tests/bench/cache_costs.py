"""What the cache's parts cost by themselves, in µs of Python: `python -m tests.bench.cache_costs SPEC_AS_JSON`.

The real `NearCache` in a plain loop; the real `Cache` on a real store, many callers that each wait for their answer
before they ask again. No HTTP. The loops and the callers' own work are counted with it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from time import process_time

import msgspec
import uvloop
from msgspec import Struct

from actors.adapters.valkey.cache_store import CacheOptions, ValkeyCache
from actors.cache import Cache, CacheRules
from actors.cache_ports import NEVER, CacheWrite, Proof
from actors.near_cache import Entry, NearCache
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from router.edge.metrics import Metrics
from tests.bench.cache_requests import KEYS, READ_KEY, VALUE_BYTES, value_of
from tests.bench.figures import Figure, spread
from tests.bench.rig import Rig, as_json
from tests.support.until import until
from tests.support.valkey import ValkeyServer

ROUNDS = 7
GETS = 100_000
OPERATIONS = 20_000
EACH_MAX = 2_000
"""Operations of one caller in a round."""
SMOKE_ROUNDS = 1
SMOKE_OPERATIONS = 500
MANY, CONNECTIONS = 256, 64
"""Callers: as many as one call to the store takes, and as many as the other scenarios have connections."""
GET_ASKED_US = 1.0
SET_ASKED_US = 12.0
TTL_MS = 3_600_000
NEAR_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 30.0
WRITE_KEY = "bench:cost:%06d"


class CostSpec(Struct, frozen=True, kw_only=True):
    """How much of it, on which store."""

    store_url: str
    rounds: int
    gets: int
    operations: int


class Costs(Struct, kw_only=True):
    """µs of CPU per operation, one for each round. `sets` and `loads` by the number of callers."""

    near_get: list[float] = []
    read_now: list[float] = []
    sets: dict[int, list[float]] = {}
    loads: dict[int, list[float]] = {}


async def measure(rig: Rig, *, smoke: bool) -> list[Figure]:
    """Run it on the server's core, its store beside it."""
    store: ValkeyServer = rig.store()
    operations = SMOKE_OPERATIONS if smoke else OPERATIONS
    spec = CostSpec(
        store_url=store.url,
        rounds=SMOKE_ROUNDS if smoke else ROUNDS,
        gets=operations if smoke else GETS,
        operations=operations,
    )
    costs = await rig.result(rig.child("cache_costs", as_json(spec), server=True), Costs, TIMEOUT_S)
    return figures(costs)


def figures(costs: Costs) -> list[Figure]:
    """What was asked first, beside it what it is made of."""
    found = [figure("near cache's own get", costs.near_get, GET_ASKED_US, "1,000 keys, fresh")]
    found.append(figure("read_now: the same with its clock and its counter", costs.read_now))
    for callers, taken in costs.sets.items():
        asked = SET_ASKED_US if callers == MANY else None
        detail = f"values of {VALUE_BYTES} bytes, their invalidations heard"
        found.append(figure(f"group-committed set, callers: {callers}", taken, asked, detail))
    found += [figure(f"load of what is not near, callers: {callers}", taken) for callers, taken in costs.loads.items()]
    return found


def figure(name: str, taken_us: Sequence[float], asked_us: float | None = None, detail: str = "") -> Figure:
    """The median of the rounds counts."""
    taken = spread(taken_us)
    name, measured = f"{name}: CPU", f"{taken.of('.2f')} µs"
    if asked_us is None:
        return Figure(name=name, measured=measured, detail=detail)
    met = taken.middle <= asked_us
    return Figure(name=name, measured=measured, asked=f"≤ {asked_us:.0f} µs", met=met, detail=detail)


def near_gets(spec: CostSpec) -> list[float]:
    """Gets of fresh entries, over all keys in turn."""
    near = NearCache(NEAR_BYTES, 0.0)
    proof, later = Proof(2.0), 2.0
    keys = [READ_KEY % number for number in range(KEYS)]
    for number, key in enumerate(keys):
        near.put(key, Entry(value_of(number), value_of(number), NEVER, later, later, proof))
    get, passes = near.get, spec.gets // KEYS or 1
    found = []
    for _ in range(spec.rounds):
        began = process_time()
        for _ in range(passes):
            for key in keys:
                get(key, 1.0)
        found.append((process_time() - began) / (passes * KEYS) * 1e6)
    if any(get(key, 1.0) is None for key in keys):
        raise RuntimeError("what was put into the near cache is not there")
    return found


async def reads_now(cache: Cache, spec: CostSpec) -> list[float]:
    """Reads of what is near, over all keys in turn. A round is shorter than what is near stays fresh without proof."""
    keys = [READ_KEY % number for number in range(KEYS)]
    read, now, passes = cache.read_now, cache.now, spec.gets // KEYS or 1
    found = []
    for _ in range(spec.rounds):
        await near(cache)
        began = process_time()
        for _ in range(passes):
            for key in keys:
                read(key, now())
        found.append((process_time() - began) / (passes * KEYS) * 1e6)
        if any(read(key, now()) is None for key in keys):
            raise RuntimeError("what was read is not near")
    return found


async def by_callers(ask: Callable[[int], Awaitable[None]], callers: int, spec: CostSpec) -> list[float]:
    """µs for each operation, so many callers at a time; number by number, so that no two are after the same key."""
    found = []
    operations = min(spec.operations, callers * EACH_MAX)
    for _ in range(spec.rounds):
        numbers = iter(range(operations))

        async def caller(numbers: Iterator[int] = numbers) -> None:
            for number in numbers:
                await ask(number)

        began = process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        found.append((process_time() - began) / operations * 1e6)
    return found


async def run(spec: CostSpec) -> Costs:
    """Measure everything."""
    costs = Costs(near_get=near_gets(spec))
    values = [value_of(number) for number in range(KEYS)]
    names = [WRITE_KEY % number for number in range(KEYS)]

    async with opened(spec.store_url, NEAR_BYTES) as cache:

        async def put(number: int) -> None:
            at = number % KEYS
            outcome = await cache.write(CacheWrite(key=names[at], op="set", value=values[at], ttl_ms=TTL_MS))
            if outcome != "done":
                raise RuntimeError(f"a set ended as {outcome!r}")

        for callers in (MANY, CONNECTIONS, 1):
            costs.sets[callers] = await by_callers(put, callers, spec)
        for number, value in enumerate(values):
            await cache.write(CacheWrite(key=READ_KEY % number, op="set", value=value, ttl_ms=TTL_MS))
        await near(cache)
        costs.read_now = await reads_now(cache, spec)
    async with opened(spec.store_url, 0) as cache:

        async def load(number: int) -> None:
            at = number % KEYS
            entry, how = await cache.read(names[at])
            if how != "miss" or entry.value != values[at]:
                raise RuntimeError(f"a load of {names[at]} ended as {how!r}: {entry.value!r}")

        for callers in (CONNECTIONS, 1):
            costs.loads[callers] = await by_callers(load, callers, spec)
    return costs


async def near(cache: Cache) -> None:
    """Read every key until all are near: what was being written meanwhile is not kept."""

    async def all_near() -> bool:
        entries = [await cache.read(READ_KEY % number) for number in range(KEYS)]
        return all(how == "hit" for _, how in entries)

    await until(all_near, what="every key is near")


@asynccontextmanager
async def opened(store_url: str, near_bytes: int) -> AsyncIterator[Cache]:
    """The cache as a node has it, connected."""
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop.time, loop.call_at)
    supervisor = Supervisor(clock, _crashed, _ended)
    store = ValkeyCache(CacheOptions(url=store_url, client_name="buzon-bench"), random.random, clock.boottime)
    rules = CacheRules(near_bytes_max=near_bytes, stale_s=0.0)
    cache = Cache(store, rules, supervisor, clock, Metrics("bench"))
    store.on_invalidated = cache.on_invalidated
    for name, service in store.services():
        supervisor.service(name, service)
    await until(lambda: store.connected, what="the cache's lanes")
    try:
        yield cache
    finally:
        await supervisor.stop()


def _crashed(phrase: str, name: str, error: BaseException) -> None:
    raise RuntimeError(f"{phrase}: {name}") from error


def _ended(reason: str) -> None:
    raise RuntimeError(reason)


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=CostSpec)))).decode())
