"""The chaos suite's webhook, a process of its own: `python -m tests.chaos.sink SOCKET`.

Writes down every request when it is whole and every answer when it is sent, on two ports that count as two hosts.
Asks the kernel which node holds the other end of each connection. Knows nothing of the ledger.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from bisect import bisect_left
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

import msgspec
import uvloop
from msgspec import Struct

from actors.core.partition import locate
from tests.chaos.control import serve
from tests.chaos.evidence import Answered, Begun
from tests.chaos.sockets import Kernel
from tests.support.behaviours import Behaviour, Reply, behaviour_of
from tests.support.sink import Received, Sink


class Named(Struct, frozen=True):
    """A message of an envelope."""

    message_id: str


class Envelope(Struct, frozen=True):
    """The body of a delivery."""

    messages: list[Named]


THINKS_S = 0.03
"""Long enough that a crash finds some requests under way."""
_envelope = msgspec.json.Decoder(Envelope)


class Desk:
    """The log, what is answered, and what the harness may ask."""

    def __init__(self) -> None:
        self.pids: dict[int, str] = {}
        self._log = -1
        self._number = 0
        self._ids: set[str] = set()
        self._posts: list[tuple[float, str, int]] = []
        self._sinks: list[ChaosSink] = []

    def begun(self, request: Received, node: str) -> int:
        """Write a request down; gives its number."""
        self._number += 1
        ids = _ids(request.body)
        key = unquote(request.headers.get("x-buffer-key", ""))
        now = time.monotonic()
        line = Begun(
            number=self._number,
            at=now,
            node=node,
            webhook_id=request.headers.get("webhook-id", ""),
            sha256=hashlib.sha256(request.body).hexdigest(),
            key=key,
            reason=request.headers.get("x-buffer-reason", ""),
            attempt=int(request.headers.get("x-attempt", "0")),
            ids=ids,
            path=request.path,
        )
        self._posts.append((now, node, locate(key)[1]))
        self._ids.update(ids)
        self._write(line)
        return self._number

    def answered(self, number: int, status: int, *, whole: bool) -> None:
        """Write an answer down."""
        self._write(Answered(number, time.monotonic(), status, whole))

    def _write(self, line: Begun | Answered) -> None:
        if self._log >= 0:
            os.write(self._log, msgspec.json.encode(line) + b"\n")

    async def do_open(self) -> list[int]:
        """Listen; gives the two ports."""
        self._sinks = [ChaosSink(self), ChaosSink(self)]
        for sink in self._sinks:
            await sink.start()
        return [sink.address[1] for sink in self._sinks]

    async def do_begin(self, log: str) -> None:
        """A new row: its own log, nothing seen, all is answered 200, `/hook` after a moment's thought."""
        if self._log >= 0:
            os.close(self._log)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._ids.clear()
        self._posts.clear()
        for sink in self._sinks:
            sink.clear()
            sink.on("/hook", Reply(delay_s=THINKS_S))

    async def do_pids(self, pids: dict[str, str]) -> None:
        """Which processes are which nodes from now on."""
        self.pids = {int(pid): name for pid, name in pids.items()}

    async def do_on(self, path: str, behave: list[str], sink: int) -> None:
        """Answer a path as other paths are answered: one after the other, the last one for ever."""
        self._sinks[sink].on(path, *(behaviour_of(each, 0) for each in behave))

    async def do_reset_connections(self, count: int, sink: int) -> None:
        """Answer the next connections with RST."""
        self._sinks[sink].reset_connections(count)

    async def do_seen(self) -> int:
        """How many different messages have come since `begin`."""
        return len(self._ids)

    async def do_first(self, partitions: list[int], but: list[str], since: float) -> float:
        """When the first batch of one of these partitions came from another node than these; 0 not yet."""
        wanted = set(partitions)
        posts = islice(self._posts, bisect_left(self._posts, (since,)), None)
        return next((at for at, node, partition in posts if partition in wanted and node not in ("", *but)), 0.0)


class ChaosSink(Sink):
    """One port. Each connection is looked up in the kernel once."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(keep=False)
        self._desk = desk
        self._kernel = Kernel()
        self._ports: dict[int, int] = {}
        self._node_of: dict[int, str] = {}
        self._number_of: dict[int, int] = {}

    def connected(self, connection: object) -> None:
        """Note the other end's port."""
        super().connected(connection)  # type: ignore[arg-type]  # the class is the other file's own
        self._ports[self.connections] = connection.transport.get_extra_info("peername")[1]  # type: ignore[attr-defined]  # same

    def take(self, request: Received) -> Behaviour:
        """Write a request down and say how to answer it."""
        number = request.connection
        self._number_of[number] = self._desk.begun(request, self._node(number))
        return super().take(request)

    def answered(self, connection: int, status: int, *, whole: bool) -> None:
        """Write an answer down."""
        self._desk.answered(self._number_of[connection], status, whole=whole)

    def clear(self) -> None:
        """Forget what was scripted."""
        self._scripts.clear()
        self._turns.clear()
        self.resets_left = 0

    def _node(self, connection: int) -> str:
        port = self._ports.pop(connection, 0)
        if port:
            self._node_of[connection] = self._kernel.owner_of(port, self.address[1], self._desk.pids)
        return self._node_of[connection]


def _ids(body: bytes) -> tuple[str, ...]:
    try:
        return tuple(message.message_id for message in _envelope.decode(body).messages)
    except msgspec.MsgspecError:
        return ()


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
