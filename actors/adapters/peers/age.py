"""Age: for how long something that was received has been on its way, from two clocks that know nothing of each other.

The smallest difference ever seen between the receiver's clock and the sender's time of sending stands for "at once";
what arrives later than that has waited: in a socket, because this process was frozen. Pure.
Invariant: no clock that drifts by less than DRIFT makes anything look older than it is.
"""

from __future__ import annotations

DRIFT = 0.001
"""Twice what NTP may slew a clock by (500 ppm)."""


class Age:
    """The age of what one sender sent."""

    __slots__ = ("_offset", "_since")

    def __init__(self) -> None:
        self._offset: float | None = None
        self._since = 0.0

    def of(self, sent: float, received: float) -> float:
        """Seconds, never negative; both times are boot times, each of its own machine."""
        offset = received - sent
        allowed = offset if self._offset is None else self._offset + DRIFT * abs(sent - self._since)
        if offset <= allowed:
            self._offset, self._since = offset, sent
            return 0.0
        return offset - allowed
