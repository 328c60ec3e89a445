"""Placement: which partitions a node should take, and which it should give away. Pure.

A partition without a living owner is taken by its rendezvous winner at once, however many there are: nobody works on
it. One that merely lies on another node than its winner moves when the membership has been stable, and only a few at a
time, because a move pauses its deliveries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners

MOVING_MAX = PARTITIONS // 8
"""Of all partitions together; each node moves its share of it at once."""


class Holder(Protocol):
    """Who holds a partition since which epoch; node "" is nobody."""

    @property
    def epoch(self) -> int: ...
    @property
    def node(self) -> str: ...


H = TypeVar("H", bound=Holder)


def to_take(
    node: str, alive: frozenset[str], leaving: frozenset[str], owners: Sequence[H], held: Sequence[int]
) -> list[tuple[int, H]]:
    """Partitions that `node` must acquire now, each with its present owner. `held` has the epoch under which the node
    holds each (0: not). One that is the node's own by name but not by epoch was given to it, or is its own past; one
    whose owner is leaving is given back by that when nothing of it is under way any more."""
    winner = winners(alive)
    owning = alive | leaving
    return [
        (partition, owner)
        for partition, owner in enumerate(owners)
        if (owner.node == node and owner.epoch != held[partition])
        or (owner.node not in owning and owner.node != node and winner[partition] == node)
    ]


def to_give(node: str, alive: frozenset[str], held: Collection[int]) -> list[tuple[int, str]]:
    """Partitions of `node` that belong to another living node, and to whom: as many as may move at once."""
    winner = winners(alive)
    misplaced = [(partition, winner[partition]) for partition in held if winner[partition] not in (node, "")]
    return misplaced[: max(1, MOVING_MAX // max(len(alive), 1))]
