"""Stretches of a chaos row: what fell due, was sent or sampled in one is told apart from what came before and after."""

from __future__ import annotations

from tests.chaos import stretch
from tests.chaos.evidence import Begun, Evidence, Policy, Post, Sample, Try
from tests.chaos.stretch import Stretch

SICK = stretch.of_group("sick")
EARLY, LATE = Stretch(since=0.0, until=10.0), Stretch(since=10.0, until=20.0)


def sent(key: str, at: float, took_s: float = 0.01) -> Try:
    """One message, acknowledged."""
    return Try(f"{key}.1", key, 1, "n0", at, 200, at + took_s)


def post(key: str, at: float, *, batch: str = "d", attempt: int = 1, node: str = "n0") -> Post:
    """One request, answered 200."""
    begun = Begun(0, at, node, batch, "hash", key, "timeout", attempt, (f"{key}.1",), "/hook")
    return Post(begun=begun, status=200, answered_at=at + 0.01, whole=True)


def test_a_batch_belongs_to_the_stretch_in_which_it_fell_due() -> None:
    """One that fell due at the end of the first and came late in the second is the first's."""
    evidence = Evidence(
        tries=[sent("r/sick-1", 8.0)],
        posts=[post("r/sick-1", 12.0)],
        policies={"r/sick-1": Policy(max_size=9, wait_s=1)},
    )

    (late,) = stretch.late(evidence, EARLY, SICK)

    assert round(late, 2) == 2.99
    assert stretch.late(evidence, LATE, SICK) == []
    assert stretch.late(evidence, EARLY, stretch.of_group("well")) == []


def test_answers_and_memory_of_a_stretch() -> None:
    """Only acknowledged messages that were sent in it, and the most that each node had in it."""
    refused = Try("r/sick-1.2", "r/sick-1", 2, "n0", 3.0, 503, 3.5)
    samples = [Sample(at, "n0", 1, rss, 9, 9, 9) for at, rss in ((1.0, 5), (2.0, 7), (11.0, 9))]
    evidence = Evidence(tries=[sent("r/sick-1", 2.0, 0.25), sent("r/sick-1", 12.0), refused], posts=[], samples=samples)

    assert stretch.answered_in(evidence, EARLY, SICK) == [0.25]
    assert stretch.resident(evidence, EARLY) == {"n0": 7}
    assert stretch.resident(evidence, LATE) == {"n0": 9}


def test_attempts_are_told_by_batch() -> None:
    """In order of arrival, of the wanted keys only."""
    posts = [post("r/sick-1", 1.0), post("r/well-1", 1.5, batch="e"), post("r/sick-1", 2.0, attempt=2)]

    found = stretch.attempts(Evidence(tries=[], posts=posts), SICK)

    assert {batch: [each.begun.attempt for each in tried] for batch, tried in found.items()} == {"d": [1, 2]}


def test_slower_needs_both_the_share_and_the_floor_to_be_exceeded() -> None:
    """And something to compare."""
    quick = [0.1] * 100

    assert not list(stretch.slower("x", quick, [0.2] * 100, share=0.1, floor_s=0.1))
    assert list(stretch.slower("x", quick, [0.22] * 100, share=0.1, floor_s=0.1)) == ["x: p99 220 ms, 100 ms before"]
    assert list(stretch.slower("x", quick, [], share=0.1, floor_s=0.1)) == [
        "x: 100 before and 0 meanwhile are too few to compare"
    ]
