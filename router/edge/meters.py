"""Meters: plain numbers that the event loop counts in, and their way into a Prometheus registry.

The client library's own children take a lock and loop over buckets on each call: 6 of the 60 microseconds that a whole
request took. These are written by one thread, the loop's, which also collects them. They never format anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Number:
    """A counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count."""
        self.value += amount

    def set(self, value: float) -> None:
        """Put the value of now."""
        self.value = value


class Distribution:
    """Counts observations in buckets; `bounds` are their upper ends, ascending, without infinity."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.total += amount


def _bound(value: float) -> str:
    return str(float(value))


C = TypeVar("C", Number, Distribution)


class Family(Collector, Generic[C]):
    """All children of one metric, by their label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._children: dict[tuple[str, ...], C] = {}

    def _new(self) -> C:
        raise NotImplementedError

    def child(self, *values: str) -> C:
        """The child with these label values; always the same one."""
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = self._new()
        return found


class Numbers(Family[Number]):
    """A counter or gauge metric."""

    def __init__(self, kind: Literal["counter", "gauge"], name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels)
        self._metric = CounterMetricFamily if kind == "counter" else GaugeMetricFamily

    def _new(self) -> Number:
        return Number()

    def collect(self) -> Iterator[Metric]:
        """Give the registry the state of now."""
        metric = self._metric(self.name, self.text, labels=self.labels)
        for values, number in self._children.items():
            metric.add_metric(values, number.value)
        yield metric


class Distributions(Family[Distribution]):
    """A histogram metric."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels)
        self._bounds = bounds
        self._names = [*map(_bound, bounds), "+Inf"]

    def _new(self) -> Distribution:
        return Distribution(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """Give the registry the state of now."""
        metric = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for values, each in self._children.items():
            metric.add_metric(values, list(zip(self._names, accumulate(each.counts), strict=True)), each.total)
        yield metric
