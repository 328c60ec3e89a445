"""A lane whose store is away for a long time: it keeps trying, calmly, and nothing grows meanwhile."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NotConnected

from actors.adapters.valkey.lane import RECONNECT_S_MAX, Lane
from actors.adapters.valkey.question import ask_all, connect
from actors.ports import StoreAway
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

AWAY_S = 600.0
PER_SECOND_MAX = 20 / 3
"""Three of a node's connections knock at a server that is away: the hot lanes of store and cache, and the echo. It may
try 20 times a second in all."""


class Gate:
    """Where connections are made: refuses while it is shut, and notes when somebody knocked."""

    def __init__(self) -> None:
        self.knocked_at: list[float] = []

    def connect(self) -> AbstractConnection:
        """Nobody is there."""
        self.knocked_at.append(asyncio.get_running_loop().time())
        raise NotConnected("connection refused")


async def _greet(_connection: Any) -> None:
    raise AssertionError("there is nobody to greet")


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@in_virtual_time
async def test_ten_minutes_without_a_store(jitter: float) -> None:
    """The next try is never more than half a second away, so that a store that is back is soon used; callers are
    refused at once and leave nothing behind."""
    gate = Gate()
    lane = Lane(gate.connect, _greet, lambda: None, lambda: jitter)
    running = asyncio.ensure_future(lane.run())
    await passing(10)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(int(AWAY_S)):
        await passing(1)
        with pytest.raises(StoreAway, match="connection refused"):
            lane.call("PING")
    gc.collect()
    grown = sys.getallocatedblocks() - before - 2 * len(gate.knocked_at)  # the notes of this test itself

    pauses = [later - sooner for sooner, later in zip(gate.knocked_at, gate.knocked_at[1:], strict=False)]
    assert max(pauses) <= RECONNECT_S_MAX
    assert len(gate.knocked_at) / (AWAY_S + 10) < PER_SECOND_MAX
    assert grown < 500
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Ended:
    """A connection that ended just now, on uvloop: whatever is written to it raises RuntimeError."""

    def pack_commands(self, commands: object) -> object:
        """As they are."""
        return commands

    async def connect(self) -> None:
        """Its first words are written, too."""
        raise RuntimeError("the handler is closed")

    async def send_packed_command(self, _command: object, *, check_health: bool) -> None:
        """Too late."""
        raise RuntimeError(f"the handler is closed ({check_health})")


async def test_a_connection_that_ends_during_its_greeting_is_no_crash() -> None:
    """It is not connected, as any other that cannot be used; whoever keeps it tries again."""
    ended: Any = Ended()
    with pytest.raises(NotConnected, match="closed"):
        await connect(ended)
    with pytest.raises(NotConnected, match="closed"):
        await ask_all(ended, [("INFO",)])
