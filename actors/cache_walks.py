"""Cache walks: everything that goes through all names: lists, deletions by pattern, flush, count.

Owns how far one goes and for how long. Goes slice by slice, so that no other request waits for more than one of them.
What changes under a walk's feet may be seen or not; what is there from its beginning to its end is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from actors.cache import Cache
from actors.cache_ports import CacheStore, CacheWrite, SliceCursor
from actors.ports import Overloaded
from actors.runtime.clock import Clock

WALKS_MAX = 4
"""Walks at once that look, and as many that delete; others wait their turn."""
WAITING_MAX = 1024
"""Walks that wait; one more is refused."""
TURN_S = 1.0
"""For how long one waits for its turn."""
NAMES_MAX = 10_000
"""Names in an answer to somebody who sets no limit."""
LIST_S = 2.0
"""A list stops after this long and says where to go on."""
WALK_S_MAX = 30.0
"""A walk that deletes or counts is given up after this long: what it did is done, and it can be begun again."""
SLICE_NAMES = 500
EVERYTHING = "*"


class CacheWalks:
    """The walks of one node."""

    def __init__(self, cache: Cache, store: CacheStore, clock: Clock) -> None:
        self._cache = cache
        self._store = store
        self._clock = clock
        self._looking = _Turns()
        self._deleting = _Turns()

    async def names(self, pattern: str, cursor: SliceCursor, limit: int | None) -> tuple[list[str], SliceCursor | None]:
        """Names that match a Redis glob, and where to go on, None at the end. Without a limit up to NAMES_MAX.

        A name may come again on a later page when the store grows or shrinks meanwhile. Raises StoreAway, Overloaded.
        """
        async with self._looking.turn():
            wanted = NAMES_MAX if limit is None else limit
            ends_at = self._clock.monotonic() + LIST_S
            found: dict[str, None] = {}
            following: SliceCursor | None = cursor
            while following is not None and len(found) < wanted and self._clock.monotonic() < ends_at:
                part = await self._store.slice(pattern, following, min(wanted - len(found), SLICE_NAMES))
                found.update(dict.fromkeys(part.names))
                following = part.following
            return list(found), following

    async def delete_matching(self, pattern: str) -> int:
        """Delete every entry whose name matches; gives how many. Raises StoreAway, Overloaded, TimeoutError."""
        deleted = 0
        async with self._deleting.turn():
            async for names in self._slices(pattern):
                outcomes = await self._cache.write_each([CacheWrite(key=name, op="delete") for name in names])
                deleted += outcomes.count("done")
        # A name that somebody else deleted meanwhile was not met, but its entry may still be near.
        self._cache.forget_all()
        return deleted

    async def flush(self) -> int:
        """Delete every entry; gives how many. Raises what `delete_matching` raises."""
        return await self.delete_matching(EVERYTHING)

    async def count(self) -> int:
        """Count all entries. Raises StoreAway, Overloaded, TimeoutError."""
        counted = 0
        async with self._looking.turn():
            async for names in self._slices(EVERYTHING):
                counted += len(names)
        return counted

    async def _slices(self, pattern: str) -> AsyncIterator[Sequence[str]]:
        """All names that match, a slice at a time. A name that comes twice is in two of them."""
        ends_at = self._clock.monotonic() + WALK_S_MAX
        cursor: SliceCursor | None = SliceCursor()
        while cursor is not None:
            if self._clock.monotonic() >= ends_at:
                raise TimeoutError(f"the walk took longer than {WALK_S_MAX:g} s")
            part = await self._store.slice(pattern, cursor, SLICE_NAMES)
            cursor = part.following
            if part.names:
                yield part.names


class _Turns:
    """Who may walk, in the order of asking: a walk takes milliseconds as a rule, and few at once are quicker."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(WALKS_MAX)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One walk's time. Raises Overloaded when its turn does not come soon."""
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many walks over all names at once")
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_S):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded("too many walks over all names at once") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()
