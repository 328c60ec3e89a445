"""A PostgreSQL that hangs: who is caught by it is refused in time, everybody after that at once, until it answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.adapters.postgres.embedded import EmbeddedPostgres
from tests.conftest import NodeFactory
from tests.support.client import Answer
from tests.support.inventory_api import InventoryClient
from tests.support.postgres import MadeCluster
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer
from tests.support.workers import children

CAUGHT_S = 1.2
KNOWN_AWAY_S = 0.3
BACK_S = 1.5
"""The contract's section 1; the last is a second and what a machine at work takes."""
AT_ONCE = 8


@pytest.fixture
async def engine(short_path: Path, made_cluster: MadeCluster) -> AsyncIterator[EmbeddedPostgres]:
    """A running engine of the test's own, to be frozen."""
    async with made_cluster.running(short_path) as engine:
        try:
            yield engine
        finally:
            send(engine, signal.SIGCONT)


def send(engine: EmbeddedPostgres, number: signal.Signals) -> None:
    """A signal for all processes of an engine."""
    assert engine.pid is not None
    for pid in (engine.pid, *children(engine.pid)):
        os.kill(pid, number)


async def timed(call: Coroutine[Any, Any, Answer]) -> tuple[int, float]:
    """The status of an answer, and how long it took."""
    began = time.monotonic()
    answer = await call
    return answer.status, time.monotonic() - began


async def test_a_frozen_database_holds_nobody_up(
    make_node: NodeFactory, valkey: ValkeyServer, engine: EmbeddedPostgres, http: aiohttp.ClientSession
) -> None:
    """Commands of one inventory that wait for each other, commands of others, and queries."""
    node = make_node({"LOG_LEVEL": "warning", "DATABASE_URL": engine.url}, redis_url=valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    made = await client.made()
    key = made["id"]

    for after in (made["event_id"], "", ""):  # the last of them has it near
        answer = await client.get(key, after)
        assert (answer.status, answer.headers.get("Cache-Status")) == (200, None)

    send(engine, signal.SIGSTOP)
    caught = await asyncio.gather(
        *(timed(client.line(key)) for _ in range(AT_ONCE)),
        *(timed(client.create()) for _ in range(2 * AT_ONCE)),
        *(timed(client.call("GET", f"/inventario?limit={limit}")) for limit in range(1, AT_ONCE)),
    )
    assert {status for status, _ in caught} == {503}
    assert max(took for _, took in caught) < CAUGHT_S

    async def known() -> bool:
        status, took = await timed(client.create())
        assert status == 503
        assert took < CAUGHT_S
        return took < KNOWN_AWAY_S

    await until(known, what="an answer at once")
    for _ in range(5):
        refused = await asyncio.gather(*(timed(client.line(key)) for _ in range(AT_ONCE)), timed(client.create()))
        assert {status for status, _ in refused} == {503}
        assert max(took for _, took in refused) < KNOWN_AWAY_S
        await passing(0.3)
    assert await client.postgres() == "away"
    shown = await client.get(key)
    assert (shown.status, shown.headers.get("Cache-Status"), shown.body) == (200, "buzon; hit", answer.body)

    send(engine, signal.SIGCONT)

    async def back() -> bool:
        return (await client.line(key)).status == 201

    await until(back, BACK_S, what="a command that is done")
