"""Recent: a memory of what was asked for lately, in two generations: what is asked for again stays, what is not goes.

The young generation is the dictionary itself, so a look-up that finds something there is no call of Python's. A full
one becomes the old one, and the old one is dropped. Invariant: bounded, whatever callers make up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def _one(_value: object) -> int:
    return 1


class Recent(dict[K, V | None]):
    """Look up by subscription, None: not remembered; add by `remember`. Each generation holds values that weigh
    `weight_max` in all, by `weigh`; if that is not given, so many."""

    def __init__(self, weight_max: int, weigh: Callable[[V], int] = _one) -> None:
        self._weight_max = weight_max
        self._weigh = weigh
        self._weight = 0
        self._old: dict[K, V | None] = {}

    def __missing__(self, key: K) -> V | None:
        value = self._old.get(key)
        if value is not None:
            self.remember(key, value)
        return value

    def remember(self, key: K, value: V) -> None:
        """Keep this in place of what was there, unless it is too heavy for any generation."""
        before = self.pop(key, None)
        if before is not None:
            self._weight -= self._weigh(before)
        weight = self._weigh(value)
        if weight > self._weight_max:
            self._old.pop(key, None)
            return
        self._weight += weight
        if self._weight > self._weight_max:
            self._old = dict(self)
            self.clear()
            self._weight = weight
        self[key] = value
