"""WhatsApp sends: Buzón, one node or two workers, beside FastAPI and Celery, to stand-ins that answer at once.

Everything of either side shares the same two cores, its store and its stand-in too, and the load generator while it
works; so a side is as fast as it leaves the cores to itself. Measured end to end, from the first `POST /messages`
until the last message has arrived, and alone: what waits because the stand-in holds its answers, from its letting go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from tests.bench.celery_stack import stack as celery_stack
from tests.bench.evolution_fast import KEY
from tests.bench.figures import Turn
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.rig import Rig
from tests.bench.running import SETTLED_S, Sink
from tests.bench.task_requests import PATH, TaskSpec, document
from tests.bench.throughput import DRAIN_S, quiet, troubles_of
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.workers import children

CONTACTS = 1000
"""Each keeps to one of the instances, and has its messages in order where that is promised."""
WORKERS = 2
SMOKE_LEAST, LEAST = 40, 200
"""Tasks of a turn at the least: a few for each connection, or the start of the load is what is measured."""
CELERY, NODE, TWO = "Celery", "1 node", f"{WORKERS} workers"
ONE, MANY, WAITING = "{}, 1 instance", "{}, 8 instances", "{}, 8 instances, what waits"


class Queued(Struct, frozen=True):
    """The answer to a task."""

    task_id: str


class Result(Struct, frozen=True):
    """What a task that was done says."""

    evolution_key: str = ""


class Task(Struct, frozen=True):
    """How far a task is."""

    status: str
    result: Result | None = None


class Side:
    """One of those that are compared: where it takes tasks, all its processes, its store and its Evolution."""

    def __init__(self, port: int, programs: Mapping[str, int], store: ValkeyServer, evolution: Sink) -> None:
        self.port: Final = port
        self.evolution: Final = evolution
        self.sent = 0
        self._programs = programs
        self._store = store

    def next(self, count: int, instances: int) -> LoadSpec:
        """Book that many tasks; what posts them."""
        task = TaskSpec(contacts=CONTACTS, instances=instances)
        spec = LoadSpec(port=self.port, message=task, first=self.sent, count=count)
        self.sent += count
        return spec

    async def arrived(self) -> float | None:
        """When the last task booked had arrived; None when that took too long."""
        return monotonic() if await self.evolution.arrived(self.sent, DRAIN_S) else None

    async def quiet(self) -> tuple[float, float]:
        """The CPU time of its processes and of its store, once none of them works any more."""
        servers = [await quiet(pid) for program in self._programs.values() for pid in family(program)]
        return sum(servers), await quiet(self._store.child.pid)

    async def check(self, http: aiohttp.ClientSession) -> list[str]:
        """Every task arrived, and none twice; one more says of itself that it was done."""
        url = f"http://127.0.0.1:{self.port}"
        async with http.post(url + PATH, json=document("0" * 10, f"{self.sent}", "0")) as response:
            queued = msgspec.json.decode(await response.read(), type=Queued)
        self.sent += 1

        async def done() -> bool:
            async with http.get(f"{url}/tasks/{queued.task_id}") as response:
                task = msgspec.json.decode(await response.read(), type=Task)
            return task.status == "SUCCESS" and task.result is not None and bool(task.result.evolution_key)

        await until(done, DRAIN_S, what="a task says that it was done")
        return await unlike(self.evolution, self.sent)


async def unlike(evolution: Sink, sent: int) -> list[str]:
    """What is wrong when not every task arrived once."""
    counts = await evolution.counts()
    if counts.messages == counts.requests == sent:
        return []
    return [f"{sent} accepted, {counts.messages} arrived, in {counts.requests} requests"]


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    return [pid, *(each for child in children(pid) for each in family(child))]


class EndToEnd:
    """From the first request until the last message has arrived."""

    def __init__(self, rig: Rig, side: Side, instances: int, least: int) -> None:
        self._rig = rig
        self._side = side
        self._instances = instances
        self._least = least
        self._per_s = 2.0 * least

    async def open(self) -> None:
        """Warm up."""
        await self.turn(0.5)

    async def turn(self, seconds: float) -> Turn:
        """As many tasks as it managed in that time last turn."""
        side, count = self._side, max(self._least, round(self._per_s * seconds))
        before = await side.quiet()
        spec = side.next(count, self._instances)
        result, ended = await asyncio.gather(self._rig.load(spec), side.arrived())
        after = await side.quiet()
        elapsed = (ended or monotonic()) - result.began
        self._per_s = count / elapsed
        return turn_of(result, count if ended else 0, elapsed, before, after)

    async def check(self) -> list[str]:
        """What its side has to say."""
        return await self._side.check(self._rig.http)


class Drain(EndToEnd):
    """From the stand-in's letting go until the last message has arrived. What was under way then is not counted."""

    async def turn(self, seconds: float) -> Turn:
        """Let as many tasks wait as it managed in that time last turn."""
        side, count = self._side, max(self._least, round(self._per_s * seconds))
        await side.evolution.hold()
        result = await self._rig.load(side.next(count, self._instances))
        before = await side.quiet()
        held = await side.evolution.held()
        began = monotonic()
        await side.evolution.release()
        ended = await side.arrived()
        after = await side.quiet()
        elapsed = (ended or monotonic()) - began
        self._per_s = count / elapsed
        return turn_of(result, count - held if ended else 0, elapsed, before, after)


WAYS: Mapping[str, tuple[type[EndToEnd], int]] = {ONE: (EndToEnd, 1), MANY: (EndToEnd, 8), WAITING: (Drain, 8)}
"""How it is measured, and through how many instances."""


def turn_of(
    result: LoadResult, count: int, seconds: float, before: tuple[float, float], after: tuple[float, float]
) -> Turn:
    """A turn of so many deliveries; none when not all of them came."""
    return Turn(
        operations=count,
        seconds=seconds,
        server_cpu_s=after[0] - before[0],
        store_cpu_s=after[1] - before[1],
        troubles=troubles_of(result) + (() if count else (f"not all delivered within {DRAIN_S:g} s",)),
    )


async def sides(rig: Rig, *, smoke: bool) -> dict[str, Side]:
    """Start all of them. A smoke run does not wait for partitions."""
    within_s = 0.0 if smoke else SETTLED_S
    return {CELERY: await celery(rig), NODE: await buzon(rig, 1, within_s), TWO: await buzon(rig, WORKERS, within_s)}


async def celery(rig: Rig) -> Side:
    """FastAPI in one process, Celery with two worker processes and their parent."""
    evolution, store = await rig.sink("evolution_fast"), rig.store()
    port, programs = await celery_stack.start(rig, store, settings(evolution))
    return Side(port, programs, store, evolution)


async def buzon(rig: Rig, workers: int, settled_within_s: float) -> Side:
    """One node, or a parent with several."""
    evolution = await rig.sink("evolution_fast")
    node = await rig.node({**settings(evolution), "WORKERS": str(workers)})
    if settled_within_s:
        await node.settled(settled_within_s, workers)
    return Side(node.process.port, {"server": node.process.pid}, node.store, evolution)


def settings(evolution: Sink) -> dict[str, str]:
    """What either side is told of its Evolution."""
    return {"EVOLUTION_API_URL": evolution.base, "EVOLUTION_API_KEY": KEY, "EVOLUTION_INSTANCE_NAME": "bench-0"}


def scenarios(rig: Rig, found: Mapping[str, Side], *, smoke: bool) -> dict[str, EndToEnd]:
    """In the order of their turns: what is compared has its turns beside each other."""
    return {
        way.format(name): measure(rig, side, instances, SMOKE_LEAST if smoke else LEAST)
        for way, (measure, instances) in ({MANY: WAYS[MANY]} if smoke else WAYS).items()
        for name, side in found.items()
    }
