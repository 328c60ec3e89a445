"""What watches the cache in the chaos suite notices a server that stands still, and tells nothing of others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.readings import RunQueue
from tests.chaos import coherence_ledger
from tests.chaos.coherence_ledger import Stall
from tests.chaos.stalls import GONE_S, Prober
from tests.support.until import passing, until

STOOD_S = 0.3


class Server:
    """Answers every line with one, `delay_s` later."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.asked = 0
        self.port = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open += 1
        while await reader.read(1024):
            self.asked += 1
            if self.delay_s:
                await passing(self.delay_s)
            writer.write(b"+PONG\r\n")
        writer.transport.abort()
        self.open -= 1


@asynccontextmanager
async def served() -> AsyncIterator[Server]:
    """One that listens."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()
        await until(lambda: not server.open, what="everybody has hung up")


async def watched(server: Server, other: Server, log: Path, delay_s: float) -> list[Stall]:
    """What a prober notes when a server is slow to answer once, and quick before and after."""
    prober = Prober(str(log), {"a": server.port}, {"b": other.port})
    await until(lambda: server.asked > 5 and other.asked > 5, what="both were asked")
    server.delay_s, asked = delay_s, server.asked
    await until(lambda: server.asked > asked, what="it is asked again")
    server.delay_s = 0.0
    asked = server.asked
    await until(lambda: server.asked > asked + 5, what="it answers again")
    await prober.stop()
    return [stall for stall in coherence_ledger.read(log).stalls if stall.until - stall.at > STOOD_S / 2]


async def test_a_server_that_stands_still_is_noticed(tmp_path: Path) -> None:
    """With its name, for as long as that; the other one is not accused."""
    own = RunQueue(os.getpid())
    waited_s = own.waited_s()
    async with served() as server, served() as other:
        stalls = await watched(server, other, tmp_path / "log", STOOD_S)
    waited_s = own.waited_s() - waited_s  # what this process waited for a core is nobody's standing still
    own.close()

    assert [stall.node for stall in stalls] == ["a"]
    assert STOOD_S * 0.9 - waited_s < stalls[0].until - stalls[0].at < STOOD_S * 1.5


async def test_a_server_that_is_away_is_no_stall(tmp_path: Path) -> None:
    """An absence must not excuse what a stall would."""
    async with served() as server, served() as other:
        assert not await watched(server, other, tmp_path / "log", GONE_S * 1.5)
