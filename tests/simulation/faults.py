"""Faults: the account of what was done to a cluster and when, and what it excuses.

An excuse is for what the promise leaves open: a duplicate after a crash, lateness while something is away. Nothing
here excuses a loss, another body, or a stale write.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from actors.handover import HELD_S_MAX

Kind = Literal[
    "kill",
    "freeze",
    "sleep",
    "stop",
    "start",
    "cut",
    "slow",
    "apart",
    "reset",
    "away",
    "paused",
    "rollback",
    "clock",
    "webhook",
]
STORE = "store"
AFTERMATH_S: dict[Kind, float] = {
    "kill": 3.5,
    "freeze": 3.5,
    "sleep": 3.5,
    "stop": 1.5,
    "start": 2.5,
    "cut": 5.0,
    "slow": 3.0,
    "apart": 0.0,
    "reset": 1.5,
    "away": 4.0,
    "paused": 5.0,
    "rollback": 4.0,
    "clock": 1.0,
    "webhook": 0.0,
}
"""How long something is felt after its end: a detector's time and the reads before it, a reconnection, a handover."""


SLOW_S = 2.0
"""How long a host that is well again may still take over what it began before."""


class Fault(Struct, frozen=True):
    """`target` is a node, "store", or a host. Times are the loop's; the end of one that lasts is known beforehand."""

    kind: Kind
    target: str
    start: float
    end: float


class Faults:
    """All of a run."""

    def __init__(self) -> None:
        self.all: list[Fault] = []

    def note(self, kind: Kind, target: str, start: float, end: float) -> None:
        """One more."""
        self.all.append(Fault(kind, target, start, end))

    def of(self, kind: Kind) -> list[Fault]:
        """All of one kind."""
        return [fault for fault in self.all if fault.kind == kind]

    def any(self, kind: Kind, start: float, end: float) -> bool:
        """Whether one of this kind lies between two instants."""
        return any(fault.kind == kind and fault.start <= end and fault.end >= start for fault in self.all)

    def touch(self, node: str, start: float, end: float) -> bool:
        """Whether something that makes duplicates happened to the node or the store then, or is still felt."""
        return any(
            fault.target in (node, STORE)
            and fault.kind != "start"
            and fault.start <= end
            and fault.end + AFTERMATH_S[fault.kind] >= start
            for fault in self.all
        )

    def restarted(self, node: str, rollback: Fault) -> bool:
        """Whether a node was started within what the store then lost: its former process's record came back."""
        return any(
            fault.target == node and rollback.start - 1.0 <= fault.start <= rollback.end for fault in self.of("start")
        )

    def hurt(self, node: str, start: float, end: float) -> bool:
        """Whether something happened to this very node that may keep it from beating."""
        return any(
            fault.target == node and fault.kind != "start" and fault.start <= end and fault.end + 1.5 >= start
            for fault in self.all
        )

    def away_often(self, start: float, end: float) -> bool:
        """Whether the store went more than once: between its absences some nodes may be back and others not yet."""
        times = sum(
            fault.target == STORE and fault.kind in ("away", "paused") and fault.start <= end and fault.end >= start
            for fault in self.all
        )
        return times > 1

    def excuse(self, start: float, end: float) -> float:
        """For how long, of the time between two instants, somebody may have had a reason not to act."""
        felt = [
            (max(fault.start, start), min(fault.end + AFTERMATH_S[fault.kind], end))
            for fault in self.all
            if fault.kind != "webhook"
        ]
        waits = any(
            fault.kind == "webhook" and fault.start <= end and fault.end + SLOW_S >= start for fault in self.all
        )
        return sum(to - since for since, to in felt if to > since) + (HELD_S_MAX if waits else 0.0)

    def up_between(self, start: float, end: float) -> float:
        """How much of the time between two instants the store was there for everybody."""
        away = sum(
            max(min(fault.end, end) - max(fault.start, start), 0.0)
            for fault in self.all
            if fault.target == STORE and fault.kind in ("away", "paused")
        )
        return end - start - away
