"""The cold lane follows the hot one: it opens to the same run of the same server, as a master, and to no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from actors.adapters.valkey import shard as adapter
from actors.adapters.valkey.greeting import Greeter, Server
from actors.adapters.valkey.shard import Shard
from actors.ports import StoreAway
from tests.support.virtual_time import in_virtual_time

RIGHT = {"run_id": "run-1", "role": "master"}


def _nobody() -> Any:
    raise AssertionError("nothing is dialled here")


@asynccontextmanager
async def greeted(patch: pytest.MonkeyPatch, found: dict[str, str], server: Server | None) -> AsyncIterator[Shard]:
    """A shard whose hot lane is open to a server; another connection finds this."""

    async def info_of(_connection: object) -> dict[str, str]:
        return found

    patch.setattr(adapter, "info_of", info_of)
    shard = Shard(_nobody, cast(Greeter, None), lambda: 0.0)
    shard.server = server
    yield shard


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (RIGHT | {"run_id": "run-2"}, True),
        (RIGHT | {"role": "slave"}, True),
        (RIGHT, False),
    ],
    ids=["another run", "a replica now", "nobody was greeted"],
)
@in_virtual_time
async def test_another_server_is_not_followed_to(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], known: bool
) -> None:
    """What it would say of lists and signs of life is not what the hot lane writes to."""
    server = Server("run-1", "Valkey 9", ()) if known else None
    async with greeted(monkeypatch, found, server) as shard:
        shard.hot.up.set()
        with pytest.raises(StoreAway, match="the store has changed"):
            await shard._greet_cold(cast(Any, None))


@in_virtual_time
async def test_the_same_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not before the hot lane is open: nobody knows yet what stands there."""
    async with greeted(monkeypatch, RIGHT, Server("run-1", "Valkey 9", ())) as shard:
        shard.hot.up.set()
        await shard._greet_cold(cast(Any, None))
        shard.hot.up.clear()
        with pytest.raises(StoreAway):
            await shard._greet_cold(cast(Any, None))
