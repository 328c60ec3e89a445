"""Trace: what happened in a run, in order. Two runs of one seed must have the same."""

from __future__ import annotations

from hashlib import blake2b

from tests.simulation.loop import SimLoop
from tests.support.virtual_time import STARTS_AT_S


class Trace:
    """Rows of an instant (seconds since the start), who, and what."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._rows: list[tuple[float, str, str, object]] = []

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        return self._loop.now - STARTS_AT_S

    def note(self, who: str, what: str, detail: object = "") -> None:
        """One more. `detail` must not change afterwards."""
        self._rows.append((self.now, who, what, detail))

    def lines(self) -> list[str]:
        """As text."""
        return [f"{at:11.6f} {who:8} {what} {detail}" for at, who, what, detail in self._rows]

    def digest(self) -> str:
        """A fingerprint of all of it."""
        return blake2b("\n".join(self.lines()).encode(), digest_size=16).hexdigest()
