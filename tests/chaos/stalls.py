"""Stalls: `python -m tests.chaos.stalls SOCKET` notes when a node, or its way to the store, stood still.

Asks each node for /livez, and the store for a PING through each node's proxy, all the time, each on one connection of
its own. An answer that took over STALL_S is a stall from the question on, less what the kernel made this process itself
wait for a core. What gives no answer within GONE_S is no stall: it is away, and judged as that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import monotonic

import msgspec
import uvloop

from tests.bench.readings import RunQueue
from tests.chaos.coherence_ledger import Stall
from tests.chaos.control import serve
from tests.support.until import passing

EVERY_S = 0.005
STALL_S = 0.010
GONE_S = 0.5
PAUSE_S = 0.1
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PING = b"PING\r\n"
READ_BYTES = 65536


class Prober:
    """Probes until it is stopped. `nodes` and `ways`: ports by the node's name."""

    def __init__(self, log: str, nodes: dict[str, int], ways: dict[str, int]) -> None:
        self._log = Path(log)
        self._own = RunQueue(os.getpid())
        self._stopped = False
        self._stalls: list[Stall] = []
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(self._probe(name, port, LIVEZ)) for name, port in nodes.items()]
        self._tasks += [spawn(self._probe(name, port, PING)) for name, port in ways.items()]

    async def stop(self) -> int:
        """Write down the stalls; gives how many."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        self._own.close()
        self._log.write_bytes(b"".join(msgspec.json.encode(stall) + b"\n" for stall in self._stalls))
        return len(self._stalls)

    async def _probe(self, node: str, port: int, question: bytes) -> None:
        while not self._stopped:
            try:
                async with asyncio.timeout(GONE_S):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except (OSError, TimeoutError):
                await passing(PAUSE_S)
                continue
            try:
                await self._ask(node, reader, writer, question)
            except (OSError, TimeoutError):
                await passing(PAUSE_S)
            finally:
                writer.close()

    async def _ask(
        self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes
    ) -> None:
        while not self._stopped and not writer.is_closing():
            waited, began = self._own.waited_s(), monotonic()
            writer.write(question)
            async with asyncio.timeout(GONE_S):
                if not await reader.read(READ_BYTES):
                    raise ConnectionResetError
            ended = monotonic() - (self._own.waited_s() - waited)
            if ended - began > STALL_S:
                self._stalls.append(Stall(node, began, ended, "way" if question is PING else "node"))
            await passing(EVERY_S)


class Desk:
    """What the harness may ask."""

    def __init__(self) -> None:
        self._prober: Prober | None = None

    async def do_begin(self, log: str, nodes: dict[str, int], ways: dict[str, int]) -> None:
        """Start."""
        assert self._prober is None, "stalls are being looked for"
        self._prober = Prober(log, nodes, ways)

    async def do_stop(self) -> int:
        """Stop; gives how many stalls there were."""
        assert self._prober is not None, "nobody looks for stalls"
        prober, self._prober = self._prober, None
        return await prober.stop()


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
