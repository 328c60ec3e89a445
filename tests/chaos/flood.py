"""Flood: as many messages as one process can send: `python -m tests.chaos.flood SPEC_AS_JSON` prints a `Flooded`.

The benchmark's generator, but a refusal is an answer like any other: it is counted, timed and looked at.
"""

from __future__ import annotations

import sys
from collections import Counter
from time import monotonic

import msgspec
from msgspec import Struct

from tests.bench.load import Broken, Connection, Generator, LoadSpec, receive

ACCEPTED = b"200"


class Flooded(Struct, kw_only=True):
    """What came of it. `statuses`: how often each; times in seconds; `accepted` are the messages' numbers."""

    seconds: float
    statuses: dict[str, int]
    without_retry_after: int
    refusals_p50_s: float
    refusals_p99_s: float
    refusals_max_s: float
    accepted: list[int]

    @property
    def rate(self) -> float:
        """Messages accepted in a second."""
        return len(self.accepted) / self.seconds


class Flood(Generator):
    """Goes on at once, whatever is answered."""

    def __init__(self, spec: LoadSpec) -> None:
        super().__init__(spec)
        self._statuses: Counter[str] = Counter()
        self._without = 0
        self._refusals: list[float] = []
        self._accepted: list[int] = []

    def flood(self) -> Flooded:
        """Send until the time is over."""
        result = self.run()
        refusals = sorted(self._refusals) or [0.0]
        return Flooded(
            seconds=result.seconds,
            statuses=dict(self._statuses),
            without_retry_after=self._without,
            refusals_p50_s=refusals[len(refusals) // 2],
            refusals_p99_s=refusals[int(len(refusals) * 0.99)],
            refusals_max_s=refusals[-1],
            accepted=self._accepted,
        )

    def _finish(self, connection: Connection) -> bool:
        try:
            answer = receive(connection)
        except Broken:
            self._poll.unregister(connection.socket)
            connection.number = -2
            self._statuses["broken"] += 1
            return True
        if answer is None:
            return False
        status = answer[9:12]
        self._statuses[status.decode()] += 1
        if status == ACCEPTED:
            self._accepted.append(connection.number)
        else:
            self._refusals.append(monotonic() - connection.sent_at)
            self._without += b"\r\nretry-after: " not in answer.partition(b"\r\n\r\n")[0].lower()
        return True


def main() -> None:
    """Flood as the command line says."""
    spec = msgspec.json.decode(sys.argv[1], type=LoadSpec)
    sys.stdout.buffer.write(msgspec.json.encode(Flood(spec).flood()))


if __name__ == "__main__":
    main()
