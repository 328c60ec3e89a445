"""Worker process: one worker as its parent sees it: started, listened to, started again, stopped.

Owns the process and the parent's end of its line. Never decides that the parent ends; it tells its crew what happens.
Invariants: at most one process at a time; none is left when `run` is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
from msgspec import Struct

from router.edge.metrics_sum import Families
from router.worker_line import (
    AskDatabase,
    AskSum,
    Collect,
    Failed,
    FromParent,
    Numbers,
    Ready,
    frame,
    from_worker,
    next_frame,
)
from router.worker_place import WorkerPlace, with_place

PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 5.0
LIVED_S = 10.0
"""A worker that lived this long starts again after the shortest pause."""
BURIED_S = 2.0
"""From the end of the line to the end of the process; the interpreter's own clearing up is in it."""
PROBE_S = 0.01


class Launch(Struct, frozen=True, kw_only=True):
    """How one worker is started."""

    group: str
    index: int
    command: Sequence[str]
    environment: Mapping[str, str]


class Ended(Struct, frozen=True, kw_only=True):
    """How a worker's process ended. `reason` is the one line it said, if it did; no exit code: it never started."""

    exit_code: int | None
    reason: str
    lived_s: float


class Crew(Protocol):
    """Who is told what a worker does."""

    def ready(self, worker: Worker, said: Ready) -> None: ...
    def wants_database(self, worker: Worker) -> None: ...
    def ended(self, worker: Worker, end: Ended, pause_s: float) -> None:
        """It starts again after `pause_s`, unless it was stopped."""
        ...

    def asked(self, worker: Worker, own: Families) -> None: ...


def next_pause_s(pause_s: float, lived_s: float) -> float:
    """How long to wait before the next start; `pause_s` is the previous wait, 0 before the first."""
    if lived_s >= LIVED_S or pause_s == 0:
        return PAUSE_S_MIN
    return min(pause_s * 2, PAUSE_S_MAX)


class Worker:
    """One worker. `run` keeps it alive until `terminate` or `kill`."""

    def __init__(self, launch: Launch, crew: Crew) -> None:
        self.index = launch.index
        self.last: Families = ()
        """The numbers that its present process told last."""
        self._launch = launch
        self._crew = crew
        self._stopping = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reason = ""
        self._is_ready = False
        self._collecting: asyncio.Future[Families] | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    async def run(self) -> None:
        """Start the process and start it again whenever it ends."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while not self.stopping:
            self._reason, self._is_ready = "", False
            began = loop.time()
            exit_code = await self._live()
            end = Ended(exit_code=exit_code, reason=self._reason, lived_s=loop.time() - began)
            pause_s = next_pause_s(pause_s, end.lived_s)
            self._crew.ended(self, end, pause_s)
            self.last = ()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    def terminate(self) -> None:
        """Tell it to end in order, and don't start it again."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, and don't start it again."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    def send(self, message: FromParent) -> None:
        """Tell it something, if it is there."""
        if self._writer is not None:
            self._writer.write(frame(message))

    async def families(self, within_s: float) -> Families | None:
        """Its numbers of now; None when it does not tell them in time. Who asks at once shares the answer."""
        if not self._is_ready or self._writer is None:
            return None
        if self._collecting is None:  # else it owes an answer already, perhaps for long: frozen
            self._collecting = asyncio.get_running_loop().create_future()
            self.send(Collect())
        collecting = self._collecting
        await asyncio.wait([collecting], timeout=within_s)
        return collecting.result() if collecting.done() and not collecting.cancelled() else None

    async def _live(self) -> int | None:
        """From the start of the process to its end."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._spawn(theirs)
        except OSError as error:
            ours.close()
            self._reason = f"cannot be started: {error.strerror}"
            return None
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
            await self._listen(reader)
            return await self._exit_code(self._process)
        finally:
            self._bury(self._process)

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        launch = self._launch
        place = WorkerPlace(group=launch.group, index=launch.index, parent=os.getpid(), line=theirs.fileno())
        return subprocess.Popen(  # noqa: S603  our own program and arguments, no shell
            launch.command,
            env=with_place(launch.environment, place),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which stops its workers in order
        )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (body := await next_frame(reader)) is not None:
            try:
                message = from_worker.decode(body)
            except msgspec.DecodeError:
                return
            match message:
                case Ready():
                    self._is_ready = True
                    self._crew.ready(self, message)
                case Failed(reason=reason):
                    self._reason = reason
                case AskSum(families=own):
                    self.last = own
                    self._crew.asked(self, own)
                case AskDatabase():
                    self._crew.wants_database(self)
                case Numbers(families=own):
                    self.last = own
                    if self._collecting is not None:
                        self._collecting.set_result(own)
                        self._collecting = None

    async def _exit_code(self, process: subprocess.Popen[bytes]) -> int:
        """The line has ended, so the process is about to; one that is not is made to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BURIED_S):
                while process.poll() is None:  # noqa: ASYNC110  for milliseconds: a process has no portable event
                    await asyncio.sleep(PROBE_S)
        if process.poll() is None:
            process.kill()
        return process.wait()

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:  # only when we are cancelled
            process.kill()
            process.wait()
        self._process = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
