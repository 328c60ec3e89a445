"""Metrics sum: the metrics of several processes as if they were one.

Pure: knows families and numbers, neither processes nor the client library. Counters and histograms are added, gauges
too unless a sum would mean nothing: of those the largest or the smallest stays, and what only describes stays once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import add

from msgspec import Struct

LARGEST = frozenset({"buzon_oldest_waiting_seconds", "buzon_nodes_alive", "python_info"})
SMALLEST = frozenset({"process_start_time_seconds"})
GROWING = frozenset({"counter", "histogram"})
"""Kinds that must never go backwards, so that a rate over them stays true."""


class Series(Struct, frozen=True, array_like=True):
    """One number; `labels` in the order of the family."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(Struct, frozen=True, array_like=True):
    """A metric with all its numbers. `name` and `kind` as the client library has them."""

    name: str
    text: str
    kind: str
    series: Sequence[Series]


Families = Sequence[Family]


def added(processes: Iterable[Families]) -> list[Family]:
    """One list of families out of those of several processes; series stand in the order in which they first appear."""
    heads: dict[str, Family] = {}
    numbers: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in processes:
        for family in families:
            heads.setdefault(family.name, family)
            known = numbers.setdefault(family.name, {})
            together = _together(family)
            for each in family.series:
                place = (each.name, each.labels)
                known[place] = together(known[place], each.value) if place in known else each.value
    return [
        Family(name, head.text, head.kind, [Series(*place, value) for place, value in numbers[name].items()])
        for name, head in heads.items()
    ]


def growing(families: Families) -> list[Family]:
    """Those that only grow: what stays true of a process that has ended."""
    return [family for family in families if family.kind in GROWING]


def _together(family: Family) -> Callable[[float, float], float]:
    if family.name in LARGEST or family.kind == "info":
        return max
    return min if family.name in SMALLEST else add
