"""Ten thousand keys that fall due at the same moment: each delivered once, and nobody else notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.client import Client
from tests.support.ledger import Ledger
from tests.support.sink import Sink
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

KEYS = 10_000
SENDERS = 48
LOAD_S = 15.0
"""Time to send them all: each message's window is what is left of it, so that all end together."""
STALL_S = 0.5
"""Generous, the machine is shared: seconds would be a loop that handles them all in one go."""
GROWTH_KB_MAX = 100 * 1024


def resident_kb(pid: int) -> int:
    """Memory of a process that is really there."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@asynccontextmanager
async def probed(client: Client) -> AsyncIterator[list[float]]:
    """Asks for /livez twenty times a second and collects how long each answer took."""
    took: list[float] = []

    async def probe() -> None:
        while True:
            began = time.monotonic()
            assert (await client.call("GET", "/livez")).status == 200
            took.append(time.monotonic() - began)
            await passing(0.05)

    probing = asyncio.ensure_future(probe())
    try:
        yield took
    finally:
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)


@pytest.mark.timeout(120)
async def test_ten_thousand_keys_due_at_once(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """To one webhook, with a prober beside it."""
    node = make_node(redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    ledger = Ledger()
    numbers = iter(range(KEYS))
    async with Sink() as sink, probed(client) as took:
        before_kb = resident_kb(node.pid)
        due_at = time.time() + LOAD_S

        async def send(numbers: Iterator[int]) -> None:
            for number in numbers:
                key = f"k{number}"
                wait_s = max(due_at - time.time(), 0.05)
                await client.send(sink.url(), key, {}, message_id=key, wait_time=wait_s)
                ledger.note(key, key, acknowledged=True)

        await asyncio.gather(*(send(numbers) for _ in range(SENDERS)))
        loaded_at = time.time()
        assert loaded_at < due_at, "the machine is too slow for this test"
        assert sink.count == 0
        await until(lambda: sink.count >= KEYS, 40, every_s=0.1, what="all are delivered")
        peak_kb = resident_kb(node.pid)

    findings = ledger.reconcile(sink.requests)
    assert findings.clean, findings
    assert min(request.at for request in sink.requests) >= due_at - 0.01
    assert max(took) < STALL_S
    assert peak_kb - before_kb < GROWTH_KB_MAX
