"""Cache walk: all names of the cache, a bounded part of one server at a time.

A server gives whole buckets of its table and may give more than is wanted: then it is asked for fewer of them, and the
smallest part there is is given in parts of its own, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.adapters.valkey.cache_shard import CacheShard
from actors.adapters.valkey.topology import Topology
from actors.adapters.valkey.wire import StoreRefused
from actors.cache_ports import Slice, SliceCursor

COUNT_MAX = 1000
"""Names looked at in one call: about a third of a millisecond of the server's time."""
PLACE_MAX = 2**64 - 1
END = Slice((), None)


class CacheWalk:
    """Walks over the strings whose names begin with none of `reserved`."""

    def __init__(self, servers: Topology[CacheShard], reserved: Sequence[str]) -> None:
        self._servers = servers
        self._reserved = tuple(reserved)

    async def slice(self, pattern: str, cursor: SliceCursor, limit: int) -> Slice:
        """At most `limit` names from the cursor on. A cursor that leads nowhere is at the end."""
        shards = self._servers.all_in_order()
        if not (0 <= cursor.server < len(shards) and 0 <= cursor.place <= PLACE_MAX and limit > 0):
            return END
        count = 1 if cursor.name else min(COUNT_MAX, limit) if pattern.strip("*") == "" else COUNT_MAX
        shard = shards[cursor.server]
        try:
            place, names = await self._scanned(shard, pattern, cursor.place, count)
            while len(names) > limit and count > 1:
                count = max(1, min(count // 2, count * limit // len(names)))
                place, names = await self._scanned(shard, pattern, cursor.place, count)
        except StoreRefused:
            return END
        if cursor.name:
            names = [name for name in names if name > cursor.name]
        if len(names) > limit:
            return Slice(names[:limit], SliceCursor(cursor.server, cursor.place, names[limit - 1]))
        if place:
            return Slice(names, SliceCursor(cursor.server, place))
        return Slice(names, SliceCursor(cursor.server + 1) if cursor.server + 1 < len(shards) else None)

    async def _scanned(self, shard: CacheShard, pattern: str, place: int, count: int) -> tuple[int, list[str]]:
        """Where to go on (0: nowhere), and the names, in order."""
        following, found = await shard.cold.call("SCAN", place, "MATCH", pattern, "COUNT", count, "TYPE", "string")
        return int(following), sorted(self._named(found))

    def _named(self, found: Sequence[Any]) -> set[str]:
        """Those of the cache, each once; a name that is not UTF-8 cannot be said in JSON nor in a URL."""
        names = set()
        for raw in found:
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                continue
            if not name.startswith(self._reserved):
                names.add(name)
        return names
