"""Worker line: the socket between a worker and its parent, and what the two say on it.

A frame is four bytes of length and a message in MessagePack. Owns the worker's end; the parent's is in
`router/worker_process.py`. When the line ends, so does the worker: a parent leaves none behind, however it goes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec
from msgspec import Struct

from actors.inventory_ports import DatabaseAway
from router.edge.metrics_sum import Families
from router.worker_place import WorkerPlace

ANSWER_S = 1.0
"""How long a worker waits for its parent's sum before it shows its own numbers alone."""
FRAME_BYTES_MAX = 64 * 1024 * 1024
_LENGTH_BYTES = 4
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Ready(Struct, frozen=True, tag="ready"):
    """The worker's node serves; `store` names the engine and its version."""

    node: str
    store: str


class Failed(Struct, frozen=True, tag="failed"):
    """The worker ends now, for this reason in one line."""

    reason: str


class AskSum(Struct, frozen=True, tag="ask"):
    """The worker wants to know the sum of all, its own numbers being these."""

    families: Families


class Numbers(Struct, frozen=True, tag="numbers"):
    """The worker's own numbers, as the parent asked."""

    families: Families


class Collect(Struct, frozen=True, tag="collect"):
    """The parent wants the worker's own numbers."""


class Sum(Struct, frozen=True, tag="sum"):
    """The sum over all workers."""

    families: Families


class AskDatabase(Struct, frozen=True, tag="ask database"):
    """The worker wants to use the inventory's database: it is to run."""


class DatabaseAt(Struct, frozen=True, tag="database at"):
    """Where the inventory's database is; `reason` is why it is nowhere."""

    url: str
    reason: str = ""


FromWorker = Ready | Failed | AskSum | Numbers | AskDatabase
FromParent = Collect | Sum | DatabaseAt

_encoder = msgspec.msgpack.Encoder()
from_worker = msgspec.msgpack.Decoder(FromWorker)
_from_parent = msgspec.msgpack.Decoder(FromParent)


def frame(message: FromWorker | FromParent) -> bytes:
    """A message as it goes over the line."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next message, not decoded; None when the other end has gone or does not keep to the format."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        return await reader.readexactly(length) if length <= FRAME_BYTES_MAX else None
    except (asyncio.IncompleteReadError, OSError):
        return None


class ParentLine:
    """The worker's end. `open` it in the loop before anything else is said, except `failed`, which needs no loop."""

    def __init__(self, place: WorkerPlace) -> None:
        self._place = place
        self._socket = socket.socket(fileno=place.line)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked: asyncio.Future[Families] | None = None
        self._database: asyncio.Future[DatabaseAt] | None = None
        self.on_database: Callable[[], None] = lambda: None
        """Told that the inventory's database runs, whoever wanted it; set once by whoever runs the node."""

    def tie(self) -> None:
        """From now on this process dies with its parent, even while it hangs."""
        self._socket.set_inheritable(False)
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._place.parent:
            _die()  # it went before we asked for the signal: that would never come

    async def open(self) -> None:
        """Let the loop read and write. Another descriptor, so that `failed` still finds one when the loop is closed."""
        self._streams = await asyncio.open_unix_connection(sock=self._socket.dup())

    async def run(self, families: Callable[[], Families]) -> None:
        """Answer the parent; `families` gives this worker's own numbers. Ends with the process."""
        reader, writer = self._opened()
        try:
            while (body := await next_frame(reader)) is not None:
                match _from_parent.decode(body):
                    case Collect():
                        self._send(Numbers(families()))
                    case Sum(families=summed) if self._asked is not None:
                        self._asked.set_result(summed)
                        self._asked = None
                    case DatabaseAt() as found:
                        self._told_database(found)
        finally:
            writer.close()
        _die()

    def ready(self, node: str, store: str) -> None:
        """Tell that the node serves."""
        self._send(Ready(node, store))

    def failed(self, reason: str) -> None:
        """Tell why this worker ends. The last thing that is said, after the loop."""
        self._socket.settimeout(ANSWER_S)
        self._socket.sendall(frame(Failed(reason)))

    def close(self) -> None:
        """Hang up; the process is about to end."""
        self._socket.close()

    async def sum_up(self, own: Families) -> Families:
        """The numbers of all workers; only one's own when the parent does not answer. Scrapes at once share a sum."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._send(AskSum(own))
        asked = self._asked
        await asyncio.wait([asked], timeout=ANSWER_S)
        return asked.result() if asked.done() else own

    async def database(self) -> str:
        """Where the parent runs the inventory's database. Raises DatabaseAway."""
        if self._database is None:
            self._database = asyncio.get_running_loop().create_future()
            self._send(AskDatabase())
        found = await asyncio.shield(self._database)
        if found.reason:
            raise DatabaseAway(found.reason)
        return found.url

    def _told_database(self, found: DatabaseAt) -> None:
        if self._database is not None:
            self._database.set_result(found)
            self._database = None
        if found.url:
            self.on_database()

    def _send(self, message: FromWorker) -> None:
        _, writer = self._opened()
        writer.write(frame(message))

    def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            raise RuntimeError("the line to the parent is not open yet")
        return self._streams


def _die() -> None:
    """End as in a crash: nobody would restart or drain us in order, and what was in hand is found by who comes next."""
    os.kill(os.getpid(), signal.SIGKILL)
