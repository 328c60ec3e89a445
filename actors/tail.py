"""Tail: what this node acknowledged in the last seconds, to be appended again when the store came back changed.

A store that restarts may have lost the end of its log, a replica that takes over may lag: both lose at most the last
two seconds of what was acknowledged. Appending again under the old ids is exact, the script drops what is known.
Invariants: bounded in time and bytes; never holds what was not acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from actors.ports import Entry

KEPT_S = 4.0
"""Twice what `appendfsync everysec` can lose [Redis documentation: up to two seconds]."""
KEPT_BYTES_MAX = 32 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 600


class Tail:
    """The last acknowledged entries, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, int, Sequence[Entry]]] = deque()
        self._bytes = 0

    def keep(self, entries: Sequence[Entry], now: float) -> None:
        """Remember entries that are being acknowledged at `now`."""
        size = sum(len(entry.payload) for entry in entries) + ENTRY_OVERHEAD_BYTES * len(entries)
        self._kept.append((now, size, entries))
        self._bytes += size
        self.trim(now)

    def trim(self, now: float) -> None:
        """Let go of what is too old or too much."""
        kept = self._kept
        while kept and (kept[0][0] < now - KEPT_S or self._bytes > KEPT_BYTES_MAX):
            self._bytes -= kept.popleft()[1]

    def entries(self) -> list[Entry]:
        """Everything remembered, in the order in which it was acknowledged."""
        return [entry for _, _, entries in self._kept for entry in entries]
