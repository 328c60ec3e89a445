"""Runner: how the store's parts reach their scripts. Hot calls keep one order on one lane; cold ones have their own
lane, so that a long list never stands in front of a write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.lane import Begun, Lane
from actors.adapters.valkey.scripts import Script
from actors.core.partition import PARTITIONS
from actors.ports import ListCursor

ROWS_LOOKED_AT_MAX = 5_000
"""A page of a list looks at no more rows than this in one call, so that it never stalls other requests."""
_SCORE = re.compile(r"[0-9]{0,16}")


class OfPartition(Protocol):
    """Anything that belongs to one partition."""

    @property
    def partition(self) -> int: ...


def owners_of(requests: Iterable[OfPartition]) -> list[str]:
    """The owner keys of all partitions that the requests belong to."""
    return [OWNERS[partition] for partition in {request.partition for request in requests}]


class Walk(Struct, frozen=True, kw_only=True):
    """What a list goes through: an index (open, live, done, dead), up to a partition, and which rows it wants."""

    index: str
    last_partition: int = PARTITIONS - 1
    status: str = ""
    kid: str = ""


class Runner:
    """Two lanes and the scripts."""

    def __init__(self, hot: Lane, cold: Lane, scripts: Mapping[str, Script]) -> None:
        self._hot = hot
        self._cold = cold
        self._scripts = scripts

    async def hot(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script that writes; its keys name the partitions it touches."""
        return await self._hot.script(self._scripts[name], keys, arguments)

    def begin(self, name: str, keys: list[str], arguments: list[Any]) -> Begun:
        """Like `hot`, but on its way when this returns; to be awaited or left."""
        return self._hot.script(self._scripts[name], keys, arguments)

    async def cold(self, name: str, keys: Sequence[str], arguments: list[Any]) -> Any:
        """Run a script that only looks."""
        return await self._cold.script(self._scripts[name], list(keys), arguments)

    async def command(self, *command: Any) -> Any:
        """Run a plain command beside the hot path."""
        return await self._cold.call(*command)

    async def page(self, walk: Walk, cursor: ListCursor, limit: int) -> tuple[list[tuple[int, Any]], ListCursor | None]:
        """Rows of one index from the cursor on, each with its partition; and where to go on, None at the end.

        Cursors come from outside: one that leads nowhere is at the end.
        """
        first = cursor.partition
        if not (0 <= first <= walk.last_partition and _SCORE.fullmatch(cursor.score)):
            return [], None
        prefixes = PREFIXES[first : walk.last_partition + 1]
        fixed = [walk.index, limit, ROWS_LOOKED_AT_MAX, cursor.score, cursor.name, walk.status, walk.kid]
        rows, goes_on, score, name = await self.cold("page", (OWNERS[first],), [*fixed, *prefixes])
        found = [(first + row[0], row) for row in rows]
        if goes_on < 0:
            return found, None
        return found, ListCursor(cursor.stage, first + goes_on, score.decode(), name.decode())
