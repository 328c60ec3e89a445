"""Runner: how the store's parts reach their scripts, when all of the store is one server.

Hot calls keep one order on one lane; cold ones have their own lane, so that a long list never stands in front of a
write. `ClusterRunner` does the same over many servers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.lane import Begun, Lane
from actors.adapters.valkey.scripts import Script
from actors.core.partition import PARTITIONS
from actors.ports import ListCursor, StoreAway
from actors.runtime.outcome import Promised, outcome_of

ROWS_LOOKED_AT_MAX = 5_000
"""A page of a list looks at no more rows than this in one call, so that it never stalls other requests."""
_SCORE = re.compile(r"[0-9]{0,16}")


class OfPartition(Protocol):
    """Anything that belongs to one partition."""

    @property
    def partition(self) -> int: ...


Q = TypeVar("Q", bound=OfPartition)
A = TypeVar("A")


class Transition(Struct, Generic[Q, A], frozen=True):
    """A script that changes partitions: what it is called with for some requests, and how its reply answers each."""

    script: str
    arguments: Callable[[Sequence[Q]], list[Any]]
    answers: Callable[[Sequence[Q], Any], list[A]]


class Walk(Struct, frozen=True, kw_only=True):
    """What a list goes through: an index (open, live, done, dead …), up to a partition, and which rows it wants."""

    index: str
    last_partition: int = PARTITIONS - 1
    status: str = ""
    kid: str = ""
    host: str = ""


class Row(Struct, frozen=True):
    """One row of a list: where it stands in it, and what the script says of it after that."""

    partition: int
    name: str
    score: str
    content: Sequence[Any]


class Runner:
    """Two lanes and the scripts."""

    def __init__(self, hot: Lane, cold: Lane, scripts: Mapping[str, Script]) -> None:
        self._hot = hot
        self._cold = cold
        self._scripts = scripts

    def begin(self, transition: Transition[Q, A], requests: Sequence[Q]) -> Awaitable[Sequence[A | StoreAway]]:
        """Run a transition for all requests; it is on its way when this returns, to be awaited or left.

        An answer for each request, in order; StoreAway stands for one whose server is away. Raises StoreAway when
        that is true of all.
        """
        keys = [OWNERS[partition] for partition in {request.partition for request in requests}]
        call = self._hot.script(self._scripts[transition.script], keys, transition.arguments(requests))
        return _Answers(transition, requests, call)

    async def each(self, transition: Transition[Q, A], requests: Sequence[Q]) -> Sequence[A | StoreAway]:
        """Run a transition for all requests, which may be none."""
        if not requests:
            return ()
        begun = self.begin(transition, requests)
        return await begun

    async def hot(self, name: str, partition: int, arguments: Sequence[Any]) -> Any:
        """Run a script that changes one partition."""
        return await self._hot.script(self._scripts[name], (OWNERS[partition],), arguments)

    async def cold(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script beside the hot path, where its first key is."""
        return await self._cold.script(self._scripts[name], keys, arguments)

    async def command(self, verb: str, key: str, *rest: Any) -> Any:
        """Run a plain command beside the hot path, where its key is."""
        return await self._cold.call(verb, key, *rest)

    async def spread(
        self, name: str, partitions: Sequence[int], arguments: Callable[[Sequence[int]], list[Any]]
    ) -> Sequence[tuple[Sequence[int], Any]]:
        """Run a script that only looks, over many partitions; gives which of them were asked together, and the reply,
        which is StoreAway for those whose server is away. Raises StoreAway when that is true of all."""
        if not partitions:
            return ()
        return ((partitions, await self.cold(name, (OWNERS[partitions[0]],), arguments(partitions))),)

    async def page(self, walk: Walk, cursor: ListCursor, limit: int) -> tuple[list[Row], ListCursor | None]:
        """Rows of one index from the cursor on, and where to go on, None at the end.

        Cursors come from outside: one that leads nowhere is at the end.
        """
        first = cursor.partition
        if not (0 <= first <= walk.last_partition and _SCORE.fullmatch(cursor.score)):
            return [], None

        def arguments(partitions: Sequence[int]) -> list[Any]:
            after = (cursor.score, cursor.name) if partitions[0] == first else ("", "")
            prefixes = [PREFIXES[partition] for partition in partitions]
            return [walk.index, limit, ROWS_LOOKED_AT_MAX, *after, walk.status, walk.kid, walk.host, *prefixes]

        replies = await self.spread("page", range(first, walk.last_partition + 1), arguments)
        return _merged(present(replies, whole=True), limit, cursor.stage)


class _Answers(Promised[Sequence[A | StoreAway]], Generic[Q, A]):
    """The answers of a transition that is on its way."""

    __slots__ = ("_requests", "_transition")

    def __init__(self, transition: Transition[Q, A], requests: Sequence[Q], call: Begun) -> None:
        super().__init__()
        self._transition = transition
        self._requests = requests
        call.then(self._replied)

    def _replied(self, reply: Any) -> None:
        failed = isinstance(reply, Exception)
        self.arrived(reply if failed else outcome_of(self._transition.answers, self._requests, reply))


def present(replies: Iterable[tuple[Sequence[int], Any]], *, whole: bool = False) -> list[tuple[Sequence[int], Any]]:
    """The replies of servers that are not away; raises StoreAway when one is and the `whole` is wanted."""
    found = []
    for partitions, reply in replies:
        if not isinstance(reply, StoreAway):
            found.append((partitions, reply))
        elif whole:
            raise reply
    return found


def _merged(
    replies: Sequence[tuple[Sequence[int], Any]], limit: int, stage: int
) -> tuple[list[Row], ListCursor | None]:
    """One page out of what several servers gave, each from its own partitions.

    A server that stopped early knows nothing of what comes after; so the page ends with the first that stopped.
    """
    rows: list[Row] = []
    end: ListCursor | None = None
    for partitions, (found, goes_on, score, name) in replies:
        rows += [Row(partitions[row[0]], row[1].decode(), row[2].decode(), row[3:]) for row in found]
        if goes_on >= 0:
            stopped = ListCursor(stage, partitions[goes_on], score.decode(), name.decode())
            end = stopped if end is None or stopped.partition < end.partition else end
    if len(replies) > 1:
        rows = sorted(
            (row for row in rows if end is None or row.partition <= end.partition), key=lambda row: row.partition
        )
    if len(rows) > limit:
        rows = rows[:limit]
        end = ListCursor(stage, rows[-1].partition, rows[-1].score, rows[-1].name)
    return rows, end
