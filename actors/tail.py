"""Tail: what this node acknowledged in the last seconds, to be appended again when the store came back changed.

A store that restarts may have lost the end of its log, a replica that takes over may lag: both lose at most the last
two seconds of what was acknowledged. Appending again under the old ids is exact, the script drops what is known.
While a partition's store is away nothing of it gets old: however long that takes, its end may be missing afterwards.
Invariants: bounded in time and bytes; never holds what was not acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

import msgspec

from actors.ports import Entry
from actors.task_ports import NewTask

KEPT_S = 4.0
"""Twice what `appendfsync everysec` can lose [Redis documentation: up to two seconds]."""
KEPT_BYTES_MAX = 32 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 600

Promised = Entry | NewTask
Kept = tuple[float, int, Sequence[Promised], Sequence[int]]
"""When entries were acknowledged, their size, and the store's times (µs) at which they were received."""


class Tail:
    """The last acknowledged entries, oldest first. `away` names the partitions whose store is away now."""

    def __init__(self, away: Callable[[], Collection[int]] = frozenset) -> None:
        self._away = away
        self._gone: Collection[int] = ()
        self._kept: deque[Kept] = deque()
        self._stranded: deque[Kept] = deque()
        """What would be too old, had its store not gone away before."""
        self._bytes = 0

    def keep(self, entries: Sequence[Promised], now: float, received_us: Sequence[int] = ()) -> None:
        """Remember entries that are being acknowledged at `now`; the store received them at `received_us`."""
        size = _size(entries)
        self._kept.append((now, size, entries, received_us or [0] * len(entries)))
        self._bytes += size
        self.trim(now)

    def trim(self, now: float) -> None:
        """Let go of what is too old or too much."""
        kept, stranded = self._kept, self._stranded
        if stranded or (kept and kept[0][0] < now - KEPT_S):
            gone = self._away()
            if gone != self._gone:
                self._gone = gone
                for _ in range(len(stranded)):
                    self._strand(stranded.popleft())
            while kept and kept[0][0] < now - KEPT_S:
                self._strand(kept.popleft())
        for oldest in (stranded, kept):
            while oldest and self._bytes > KEPT_BYTES_MAX:
                self._bytes -= oldest.popleft()[1]

    def entries(self) -> list[Promised]:
        """Everything remembered, in the order in which it was acknowledged, each with its time of receipt."""
        return [
            msgspec.structs.replace(entry, received_us=received_us)
            for _, _, entries, times in (*self._stranded, *self._kept)
            for entry, received_us in zip(entries, times, strict=True)
        ]

    def _strand(self, old: Kept) -> None:
        """Of what is too old keep that whose store is away. When it comes back it is appended again before any of this
        is let go."""
        at, size, entries, times = old
        self._bytes -= size
        gone = self._gone
        left = [pair for pair in zip(entries, times, strict=True) if pair[0].partition in gone] if gone else ()
        if left:
            stranded = [entry for entry, _ in left]
            size = _size(stranded)
            self._stranded.append((at, size, stranded, [received for _, received in left]))
            self._bytes += size


def _size(entries: Sequence[Promised]) -> int:
    return sum([len(entry.payload) for entry in entries]) + ENTRY_OVERHEAD_BYTES * len(entries)
