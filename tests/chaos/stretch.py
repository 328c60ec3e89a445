"""Stretch: what the evidence says of one stretch of a row's time, so that it can be held against another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from time import monotonic

from msgspec import Struct

from tests.chaos.checker import lateness, percentile
from tests.chaos.evidence import Evidence, Post

Wanted = Callable[[str], bool]
"""Whether a key is looked at."""
MIB = 2**20


class Stretch(Struct, kw_only=True):
    """From `since` to `until`, on the monotonic clock."""

    since: float
    until: float = float("inf")

    def end(self) -> Stretch:
        """It ends now, and the next one begins."""
        self.until = monotonic()
        return Stretch(since=self.until)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.until - self.since

    def holds(self, at: float) -> bool:
        """Whether an instant is in it."""
        return self.since <= at < self.until


def begin() -> Stretch:
    """A stretch that begins now."""
    return Stretch(since=monotonic())


def of_group(*names: str) -> Wanted:
    """The keys of these groups of the load."""
    return lambda key: key.rpartition("/")[2].rpartition("-")[0] in names


def late(evidence: Evidence, stretch: Stretch, wanted: Wanted) -> list[float]:
    """How late the batches were that fell due in the stretch."""
    first = first_posts(evidence)
    return [
        seconds
        for seconds, batch in lateness(evidence)
        if wanted(first[batch].begun.key) and stretch.holds(first[batch].begun.at - seconds)
    ]


def answered_in(evidence: Evidence, stretch: Stretch, wanted: Wanted) -> list[float]:
    """How long the acknowledgements took of messages that were sent in the stretch."""
    return [
        each.answered_at - each.sent_at
        for each in evidence.tries
        if each.acknowledged and wanted(each.key) and stretch.holds(each.sent_at)
    ]


def first_posts(evidence: Evidence) -> dict[str, Post]:
    """The first request of every batch, by webhook-id."""
    first: dict[str, Post] = {}
    for post in evidence.posts:
        first.setdefault(post.begun.webhook_id, post)
    return first


def attempts(evidence: Evidence, wanted: Wanted) -> dict[str, list[Post]]:
    """All requests of every batch, by webhook-id, in order of arrival."""
    found: dict[str, list[Post]] = {}
    for post in evidence.posts:
        if wanted(post.begun.key):
            found.setdefault(post.begun.webhook_id, []).append(post)
    return found


def resident(evidence: Evidence, stretch: Stretch, nodes: Collection[str] = ()) -> dict[str, int]:
    """The most memory that each node (of these, else of all) had in the stretch."""
    most: dict[str, int] = {}
    for sample in evidence.samples:
        if stretch.holds(sample.at) and (not nodes or sample.node in nodes):
            most[sample.node] = max(most.get(sample.node, 0), sample.rss_bytes)
    return most


def slower(what: str, before: list[float], now: list[float], share: float, floor_s: float) -> Iterator[str]:
    """A problem when the 99th percentile grew by more than a share of it and what a busy machine explains anyway."""
    was, came = percentile(before, 0.99), percentile(now, 0.99)
    if not before or not now:
        yield f"{what}: {len(before)} before and {len(now)} meanwhile are too few to compare"
    elif came > was * (1 + share) + floor_s:
        yield f"{what}: p99 {came * 1e3:.0f} ms, {was * 1e3:.0f} ms before"


def compared(what: str, before: list[float], now: list[float]) -> str:
    """The same as a note."""
    return f"{what} p99 {percentile(before, 0.99) * 1e3:.0f} → {percentile(now, 0.99) * 1e3:.0f} ms"


def spread(values: list[float]) -> str:
    """The 99th percentile and the most, as a note."""
    return f"p99/max {percentile(values, 0.99) * 1e3:.0f}/{max(values, default=0.0) * 1e3:.0f} ms"
