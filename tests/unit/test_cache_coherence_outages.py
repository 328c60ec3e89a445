"""What the chaos rows without a cache server judge: each fault that is planted into good manners is found."""

from __future__ import annotations

import pytest

from tests.chaos.coherence_ledger import FOR_EVER, FOREIGN, Ledger, Line, Looked, Refused, Wrote
from tests.chaos.coherence_load import PINNED
from tests.chaos.rows_cache_store import polite, remembered

DOWN_AT, UP_AT = 10.0, 20.0
NODES = {"a", "b"}


def refused(at: float, took_s: float = 0.01, what: str = "read", via: str = "a") -> Refused:
    """A refusal."""
    return Refused(via, what, at, at + took_s, 503)


def looked(at: float, took_s: float = 0.01, via: str = "a", *, stale: bool = False) -> Looked:
    """An answer."""
    return Looked(via, [0], [1], [FOR_EVER], at, at + took_s, stale)


def wrote(at: float, via: str = "a") -> Wrote:
    """A write."""
    return Wrote(via, "set", [0], [1], FOR_EVER, at, at + 0.01)


GOOD: tuple[Line, ...] = (
    *(each for via in sorted(NODES) for each in (looked(12, via=via, stale=True), looked(23, via=via), wrote(23, via))),
    refused(DOWN_AT - 0.02, took_s=1.1),
    refused(DOWN_AT + 1, took_s=1.0),
    refused(DOWN_AT + 5),
    refused(UP_AT + 1.5),
    refused(DOWN_AT + 5, took_s=2.0, via=FOREIGN),
    looked(DOWN_AT + 0.5, took_s=1.1),
)


def told(*lines: Line) -> list[str]:
    """Everything that is found wrong."""
    ledger = Ledger()
    for line in lines:
        ledger.add(line)
    return [*polite(ledger, DOWN_AT, UP_AT), *remembered(ledger, NODES, DOWN_AT, UP_AT)]


def test_good_manners_are_not_complained_of() -> None:
    """Refusals at once, marked answers, all well two seconds after the return."""
    assert not told(*GOOD)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refused(DOWN_AT + 0.5, took_s=1.3), "took 1.30 s"),
        (refused(DOWN_AT + 5, took_s=0.4), "took 0.40 s"),
        (looked(DOWN_AT + 5, took_s=1.3, stale=True), "took 1.30 s"),
        (refused(DOWN_AT - 1), "after the return"),
        (refused(UP_AT + 2.1), "after the return"),
        (refused(DOWN_AT + 1, what=PINNED), "that were near were refused"),
        (looked(UP_AT + 2.1, stale=True), "still marked"),
    ],
)
def test_each_bad_manner_is_found(fault: Refused | Looked, words: str) -> None:
    """Hangs, refusals without a reason, forgetting, and not coming back."""
    assert any(words in each for each in told(*GOOD, fault))


@pytest.mark.parametrize("absent", range(3))
def test_a_node_that_does_less_is_found(absent: int) -> None:
    """Each must serve what it has, and read and write again."""
    assert told(*(line for number, line in enumerate(GOOD) if number != absent))
