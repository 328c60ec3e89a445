"""A server that became a replica: it holds our record and answers, and is still not written to or believed."""

from __future__ import annotations

import pytest

from actors.ports import StoreAway
from tests.support.store import connected, entry, when_back
from tests.support.until import steady, until
from tests.support.valkey import ValkeyServer

STILL_S = 0.3
"""Long enough for several attempts to connect."""


async def test_a_replica_with_our_data_is_not_used(own_store: ValkeyServer) -> None:
    """No lane opens: what it says of owners may be old. As a master again it is used."""
    async with connected(own_store) as store:
        own_store.command("REPLICAOF", "127.0.0.1", "1")
        own_store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: store.hot.why_down == "the store is a replica", what="a look at the server")
        await steady(lambda: not store.hot.up.is_set() and not store.cold.up.is_set(), STILL_S)
        with pytest.raises(StoreAway, match="the store is a replica"):
            await store.batches.append([entry("k", "m1")])

        own_store.command("REPLICAOF", "NO", "ONE")
        await when_back(lambda: store.batches.append([entry("k", "m1")]))
