"""Workers: WORKERS nodes on one port, each in a process of its own, under one parent.

The parent owns what they share: the data folder's lock, the ports (bound by it, listened on by them), the embedded
engine. It serves nobody itself; it starts workers again, adds up their numbers, and stops them before the engine.
Idle it waits for its sockets and does nothing. Every failure before the first worker is ready is one line.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from actors.core.refusals import CannotStart
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from router.banner import ready_lines
from router.edge import logs
from router.edge.metrics_sum import Families, added, growing
from router.engine import ENGINE_STOP_S_MIN, Engine, data_dir_lock, embedded_engine, first_start, keep
from router.inventory_database import EmbeddedDatabase
from router.listening import addresses, reserve
from router.settings import Loaded, Settings
from router.values import host_port
from router.worker_line import DatabaseAt, Ready, Sum
from router.worker_process import Crew, Ended, Launch, Worker

SERVE = (sys.executable, "-m", "router", "serve")
COLLECT_S = 0.3
"""A worker that does not tell its numbers within this time is left out of the sum."""
STOP_S = 4.5
"""From the signal to the exit, whatever hangs; the HTTP contract promises five seconds."""

MakeLaunch = Callable[[str, int, str], Launch]
"""From the group, the worker's index and the embedded engine's URL ("" when there is none)."""


class NoWorker(CannotStart):
    """Not one worker came up."""


def run(loaded: Loaded, environment: Mapping[str, str], command: Sequence[str] = SERVE) -> int:
    """Run the workers until SIGTERM or SIGINT; gives the exit code.

    Each worker runs `command` in this environment, changed by what is its own; so whatever else the parent was told
    has to be in the two of them.
    """
    settings = loaded.settings
    logs.configure(sys.stderr, level=settings.log_level)
    with ExitStack() as held:
        if settings.redis_url is None:
            held.enter_context(data_dir_lock(settings))
        sockets = reserve(settings.host, settings.ports)
        for reserved in sockets:
            held.callback(reserved.close)
        places = addresses(sockets)
        with asyncio.Runner() as runner:
            return runner.run(_run(loaded, environment, command, places))


async def _run(
    loaded: Loaded, environment: Mapping[str, str], command: Sequence[str], places: Sequence[tuple[str, int]]
) -> int:
    parent = _Parent(loaded.settings, places)
    ports = [port for _, port in places]

    def launch(group: str, index: int, engine_url: str) -> Launch:
        own = worker_environment(loaded, environment, ports, engine_url, index)
        return Launch(group=group, index=index, command=command, environment=own)

    return await parent.run(launch)


def worker_environment(
    loaded: Loaded, environment: Mapping[str, str], ports: Sequence[int], engine_url: str, index: int
) -> dict[str, str]:
    """What worker `index` is given: what the parent was, with ports, store, name and address of its own.

    `engine_url` is empty for a store of the user's own, which the worker finds by itself.
    """
    settings = loaded.settings
    own = {"PORT": ",".join(map(str, dict.fromkeys(ports)))}
    if engine_url:
        own["REDIS_URL"] = engine_url
    # Also a name that was made: a worker that is started again finds its partitions under it, and need not wait.
    own["NODE_ID"] = f"{settings.node_id}-{index}"
    if settings.node_address is not None:
        host, port = settings.node_address
        own["NODE_URL"] = f"tcp://{host_port(host, port + index - 1 if port else 0)}"
    return {**environment, **own}


class _Parent(Crew):
    def __init__(self, settings: Settings, places: Sequence[tuple[str, int]]) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._places = places
        self._log = logs.get("workers")
        self._supervisor = Supervisor(LoopClock(loop.time, loop.call_at), self._crashed, self._end)
        self._engine: Engine | None = embedded_engine(self._settings) if self._settings.redis_url is None else None
        self._database = EmbeddedDatabase(settings, locked=self._engine is not None)
        self._workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._came_up: set[int] = set()
        self._refused: dict[int, str] = {}
        """Workers that ended before they were ready, and why, as long as none has come up."""
        self._gone: Families = ()
        """What only grows, of processes that have ended: a restarted worker must not turn the sum back."""
        self._ending: asyncio.Future[str | None] = loop.create_future()
        """None: we were told to end. A text: why we cannot go on."""
        self._ends_at = 0.0

    async def run(self, launch: MakeLaunch) -> int:
        """Run all that is to be run; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, None)
        try:
            if self._engine is None:
                return await self._serve(launch, "")
            return await self._serve(launch, await first_start(self._engine))
        finally:
            left_s = max(self._ends_at - loop.time(), ENGINE_STOP_S_MIN)
            engines = (each for each in (self._engine, self._database) if each is not None)
            await asyncio.gather(*(each.stop(left_s) for each in engines))

    async def _serve(self, launch: MakeLaunch, engine_url: str) -> int:
        try:
            if self._engine is not None:
                engine = self._engine
                self._supervisor.service("engine", lambda: keep(engine, self._log))
            self._supervisor.service("database engine", lambda: self._database.keep(self._log))
            if not self._ending.done():
                self._start(launch, engine_url)
            fatal = await self._ending
        finally:
            await self._stop()
        if fatal is not None and not self._came_up:
            raise NoWorker(fatal)
        if fatal is not None:
            self._log.critical("workers ended", reason=fatal)
        return 0 if fatal is None else 1

    def _start(self, launch: MakeLaunch, engine_url: str) -> None:
        group = secrets.token_hex(8)
        for index in range(1, self._settings.workers + 1):
            worker = Worker(launch(group, index, engine_url), self)
            self._workers.append(worker)
            self._tasks.append(self._supervisor.spawn(f"worker-{index}", worker.run()))

    async def _stop(self) -> None:
        """End the workers in order, and those that hang when the time is over."""
        loop = asyncio.get_running_loop()
        if not self._ends_at:
            self._ends_at = loop.time() + STOP_S
        until = self._ends_at - (ENGINE_STOP_S_MIN if self._engine is not None else 0.0)
        for worker in self._workers:
            worker.terminate()
        if self._tasks:
            _, hanging = await asyncio.wait(self._tasks, timeout=max(until - loop.time(), 0.0))
            for worker in self._workers if hanging else ():
                worker.kill()
            await asyncio.wait(self._tasks)
        await self._supervisor.stop()

    def ready(self, worker: Worker, said: Ready) -> None:
        """Say so to people once all are there, else to the log."""
        announced = len(self._came_up) == len(self._workers)
        self._came_up.add(worker.index)
        for index, reason in self._refused.items():
            self._log.warning("worker ended at its start", worker=index, reason=reason)
        self._refused.clear()
        if self._settings.database_url is None and self._database.exists:
            self.wants_database(worker)
        if announced:
            self._log.info("worker ready", worker=worker.index, node=said.node)
        elif len(self._came_up) == len(self._workers):
            for line in ready_lines(self._settings, self._places, said.store):
                print(line, flush=True)

    def wants_database(self, worker: Worker) -> None:
        """Run it from now on; all workers hear where it is, since another than this one may be to move the events."""
        self._supervisor.spawn("database", self._lend_database(worker))

    async def _lend_database(self, worker: Worker) -> None:
        try:
            found = DatabaseAt(await self._database.url())
        except CannotStart as error:
            found = DatabaseAt("", str(error))
        for each in self._workers if found.url else (worker,):
            each.send(found)

    def ended(self, worker: Worker, end: Ended, pause_s: float) -> None:
        """Keep its totals; give up when not one has ever come up."""
        self._gone = added([self._gone, growing(worker.last)])
        if worker.stopping or self._ending.done():
            return
        if not self._came_up:
            self._refused[worker.index] = end.reason
            if len(self._refused) == len(self._workers):
                said = next(filter(None, self._refused.values()), "")
                self._end(said or "WORKERS: not one could start; what they wrote says why")
            return
        self._log.error(
            "worker ended",
            worker=worker.index,
            exit_code=end.exit_code,
            reason=end.reason or None,
            starts_again_in_s=pause_s,
        )

    def asked(self, worker: Worker, own: Families) -> None:
        """Add up in a job of its own; the worker goes on meanwhile."""
        self._supervisor.spawn("sum", self._sum(worker, own))

    async def _sum(self, asking: Worker, own: Families) -> None:
        others = [worker for worker in self._workers if worker is not asking]
        answers = await asyncio.gather(*(worker.families(COLLECT_S) for worker in others))
        told = [
            growing(worker.last) if answer is None else answer for worker, answer in zip(others, answers, strict=True)
        ]
        asking.send(Sum(added([own, *told, self._gone])))

    def _crashed(self, phrase: str, name: str, error: BaseException) -> None:
        self._log.error(phrase, name=name, exc_info=error)
        if phrase == "job crashed" and name.startswith("worker"):
            self._end(f"{name} cannot be watched: {error!r}")

    def _end(self, fatal: str | None) -> None:
        if not self._ending.done():
            self._ends_at = asyncio.get_running_loop().time() + STOP_S
            self._ending.set_result(fatal)
