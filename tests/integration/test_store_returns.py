"""A store that was refused and is fit again: what was acknowledged just before went elsewhere, and is brought back."""

from __future__ import annotations

from tests.integration.test_store_replay import _nodes
from tests.support.store import entry
from tests.support.until import until
from tests.support.valkey import ValkeyServer


async def test_what_went_into_another_database_comes_back(own_store: ValkeyServer) -> None:
    """The same server, the same run: only the refusal says that messages may be missing."""
    async with _nodes(own_store, 1) as (node,):
        await node.append(entry("k", "m1"))
        assert node.replayed == []

        node.store.reject("the store belongs to another cluster now")
        await until(lambda: node.store.connected, 8, what="the store is fit again")

        assert node.replayed == [(1, 0)]
