"""How evenly rendezvous hashing spreads partitions over nodes, and how many move when one comes or goes.

Simulated with the function that the nodes use, on names like theirs, several times over with other names.
"""

from __future__ import annotations

from statistics import fmean
from time import perf_counter

from msgspec import Struct
from redis.crc import key_slot

from actors.adapters.valkey.keys import PREFIXES
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from tests.bench.figures import Spread, spread

SIZES = ((3, 256), (10, 256), (100, 256), (100, 1024), (100, 4096), (100, 16384))
TRIALS = 5
SLOTS = 16384


class Shares(Struct, frozen=True, kw_only=True):
    """`busiest` ÷ mean, nodes without a partition, and the shares of all partitions that move when a node joins
    `nodes` of them and when one leaves them. `seconds`: to compute all winners, nothing remembered."""

    nodes: int
    partitions: int
    busiest: Spread
    idle: Spread
    joining: float
    leaving: float
    seconds: float


def shares(nodes: int, partitions: int, trials: int = TRIALS) -> Shares:
    """Simulate one size."""
    busiest, idle, joining, leaving, seconds = [], [], [], [], []
    for trial in range(trials):
        names = [f"n{nodes}-{partitions}-{trial}-{number}" for number in range(nodes + 1)]
        before = frozenset(names[:-1])
        began = perf_counter()
        placed = winners(before, partitions)
        seconds.append(perf_counter() - began)
        counts = [placed.count(name) for name in before]
        busiest.append(max(counts) / (partitions / nodes))
        idle.append(float(counts.count(0)))
        joining.append(moved(placed, winners(before | {names[-1]}, partitions)))
        leaving.append(moved(placed, winners(before - {names[0]}, partitions)))
    return Shares(
        nodes=nodes,
        partitions=partitions,
        busiest=spread(busiest),
        idle=spread(idle),
        joining=fmean(joining),
        leaving=fmean(leaving),
        seconds=spread(seconds).middle,
    )


def moved(before: tuple[str, ...], after: tuple[str, ...]) -> float:
    """The share of partitions whose node is another one."""
    return sum(old != new for old, new in zip(before, after, strict=True)) / len(before)


def busiest_shard(shards: int) -> float:
    """The partitions of the shard that has most of them ÷ the mean, when each shard has one range of hash slots."""
    counts = [0] * shards
    for prefix in PREFIXES:
        counts[key_slot(prefix.encode()) * shards // SLOTS] += 1
    return max(counts) / (PARTITIONS / shards)
