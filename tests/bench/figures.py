"""Figures: what one turn of a scenario measured, and what is made of several turns. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import msgspec
from msgspec import Struct


class Turn(Struct, frozen=True, kw_only=True):
    """One turn: operations done, and what they cost the server and the store in CPU-seconds over `seconds`."""

    operations: int
    seconds: float
    server_cpu_s: float
    store_cpu_s: float = 0.0
    generator_busy: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    answer_bytes: int = 0
    checked: int = 0
    hits: int = 0
    frames_per_read: float = 0.0
    troubles: tuple[str, ...] = ()

    @property
    def per_cpu_s(self) -> float:
        """Operations per CPU-second of the server."""
        return self.operations / self.server_cpu_s if self.server_cpu_s > 0 else 0.0

    @property
    def per_s(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds if self.seconds > 0 else 0.0


def with_trouble(turn: Turn, what: str) -> Turn:
    """The same turn, with one more trouble."""
    return msgspec.structs.replace(turn, troubles=(*turn.troubles, what))


class Spread(Struct, frozen=True):
    """Median, smallest and largest of several turns."""

    middle: float
    low: float
    high: float

    def of(self, pattern: str) -> str:
        """`middle (low … high)`, each written with a format like `,.0f`."""
        return f"{self.middle:{pattern}} ({self.low:{pattern}} … {self.high:{pattern}})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(median(values), min(values), max(values))


def per_cpu_s(turn: Turn) -> float:
    """What ratios are usually taken of."""
    return turn.per_cpu_s


def ratios(ours: Sequence[Turn], theirs: Sequence[Turn], of: Callable[[Turn], float] = per_cpu_s) -> Spread:
    """Ours over theirs, turn by turn: neighbours in time saw the same machine."""
    pairs = [(of(a), of(b)) for a, b in zip(ours, theirs, strict=True)]
    return spread([a / b if b else 0.0 for a, b in pairs])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank); 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the result: what was measured, what was asked for (None: nothing) and whether that was met."""

    name: str
    measured: str
    asked: str = ""
    met: bool | None = None
    detail: str = ""


def at_least(name: str, ratio: Spread, asked: float, detail: str) -> Figure:
    """A share of the baseline; its median counts."""
    return Figure(name=name, measured=ratio.of(".2f"), asked=f"≥ {asked:.2f}", met=ratio.middle >= asked, detail=detail)


def at_most(name: str, value: float, asked: float, unit: str, detail: str = "") -> Figure:
    """An amount that must stay small."""
    return Figure(
        name=name, measured=f"{value:,.0f} {unit}", asked=f"≤ {asked:,.0f} {unit}", met=value <= asked, detail=detail
    )
