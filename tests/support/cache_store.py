"""Cache store: the real ValkeyCache, connected to a real server.

Nothing here decides what is right.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from actors.adapters.valkey.cache_store import CacheOptions, ValkeyCache
from actors.cache_ports import CacheWrite, Loaded, Proof, SliceCursor, WriteOutcome
from actors.ports import StoreAway
from tests.support.store import running
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster


def boottime() -> float:
    """Seconds of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HeardCache(ValkeyCache):
    """A cache's store that notes what it is told: each name, "*" for everything."""

    def __init__(self, url: str, reserved: Sequence[str] = ("buzon:",)) -> None:
        super().__init__(CacheOptions(url=url, client_name="buzon-test", reserved=reserved), lambda: 0.0, boottime)
        self.heard: list[str] = []
        self.on_invalidated = self._note

    def _note(self, names: Sequence[bytes] | None) -> None:
        self.heard += ["*"] if names is None else [name.decode(errors="replace") for name in names]

    def proofs(self) -> list[Proof]:
        """Of each server."""
        return [shard.proof for shard in self._servers.shards]

    def proven(self) -> bool:
        """Whether all of it is proven now."""
        return self.connected and all(proof.until > boottime() for proof in self.proofs())


@asynccontextmanager
async def cache_on(server: ValkeyServer | ValkeyCluster, url: str = "") -> AsyncIterator[HeardCache]:
    """A cache whose lanes are open and whose links listen."""
    cache = HeardCache(url or server.unix_url)
    async with running(cache):
        cache.listen()
        await until(cache.proven, what="the cache's lanes and links")
        yield cache


def setting(
    key: str, value: bytes = b"1", ttl_ms: int = 0, *, if_match: str = "", if_none_match: str = ""
) -> CacheWrite:
    """One set."""
    return CacheWrite(key=key, op="set", value=value, ttl_ms=ttl_ms, if_match=if_match, if_none_match=if_none_match)


def deleting(key: str, *, if_match: str = "", if_none_match: str = "") -> CacheWrite:
    """One delete."""
    return CacheWrite(key=key, op="delete", if_match=if_match, if_none_match=if_none_match)


def expiring(key: str, ttl_ms: int, *, if_match: str = "", if_none_match: str = "") -> CacheWrite:
    """One new time to live."""
    return CacheWrite(key=key, op="expire", ttl_ms=ttl_ms, if_match=if_match, if_none_match=if_none_match)


async def did(cache: ValkeyCache, *writes: CacheWrite) -> list[WriteOutcome]:
    """The outcomes of writes, of which none met a server that is away."""
    outcomes = [each for each in await cache.write(writes) if not isinstance(each, StoreAway)]
    assert len(outcomes) == len(writes)
    return outcomes


async def loaded(cache: ValkeyCache, key: str) -> Loaded:
    """What is under a key."""
    (found,) = await cache.load([key])
    assert isinstance(found, Loaded), found
    return found


async def values(cache: ValkeyCache, *keys: str) -> list[bytes | None]:
    """What is under keys."""
    answers = await cache.load(keys)
    found = [each for each in answers if isinstance(each, Loaded)]
    assert len(found) == len(keys), answers
    return [each.value for each in found]


async def walked(cache: ValkeyCache, pattern: str = "*", limit: int = 1000) -> list[list[str]]:
    """The names of each slice, to the end."""
    slices: list[list[str]] = []
    cursor: SliceCursor | None = SliceCursor()
    while cursor is not None:
        assert len(slices) < 50_000, "the walk never ends"
        part = await cache.slice(pattern, cursor, limit)
        slices.append(list(part.names))
        cursor = part.following
    return slices
