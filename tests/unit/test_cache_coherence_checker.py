"""The coherence checker finds every fault that is planted into a clean history, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.chaos import coherence_ledger
from tests.chaos.coherence import Report, Stretches, check
from tests.chaos.coherence_ledger import (
    FOR_EVER,
    FOREIGN,
    LINK_LOSS_S,
    NOTHING,
    Ledger,
    Line,
    Looked,
    Loosened,
    Refused,
    Stall,
    Wrote,
)
from tests.chaos.coherence_ways import left_ms, number_in, value_of

TOOK_S = 0.004
OWN = "older than what the same node had acknowledged"
OTHERS = "older than what others had acknowledged"
EXPIRED = "served after it had expired"
PHANTOM = "never written"
EARLY = "read before it was written"
LEFT = "another time left than it was given"
NONE_LEFT = "nothing left of an entry"


def put(number: int, at: float, via: str = "a", ttl_ms: int = FOR_EVER, *, known: bool = True) -> Wrote:
    """A value is written to slot 0."""
    return Wrote(via, "set", [0], [number], ttl_ms, at, at + TOOK_S if known else None)


def deleted(at: float, via: str = "a", *, known: bool = True, slots: Sequence[int] = (0,)) -> Wrote:
    """Keys are deleted."""
    return Wrote(via, "delete", slots, [], FOR_EVER, at, at + TOOK_S if known else None)


def expire(number: int, at: float, ttl_ms: int, via: str = "a", *, known: bool = True) -> Wrote:
    """The value that is there gets another time to live."""
    return Wrote(via, "expire", [0], [number], ttl_ms, at, at + TOOK_S if known else None)


def saw(number: int, at: float, via: str = "a", left_ms: int | None = None, *, stale: bool = False) -> Looked:
    """Slot 0 is read."""
    return Looked(via, [0], [number], [] if left_ms is None else [left_ms], at, at + TOOK_S, stale)


def cut(node: str, at: float) -> Loosened:
    """A node loses its link."""
    return Loosened(node, at, at + LINK_LOSS_S + 0.05, "link")


def judged(*lines: Line, evicts: bool = False) -> Report:
    """What the checker says of these lines."""
    ledger = Ledger(evicts=evicts)
    for line in lines:
        ledger.add(line)
    return check(ledger)


CLEAN: dict[str, tuple[Line, ...]] = {
    "a value, its successor, its absence": (
        saw(NOTHING, 0.0),
        put(1, 1.0),
        saw(1, 1.01),
        put(2, 2.0, "b"),
        saw(2, 2.2),
        deleted(3.0),
        saw(NOTHING, 3.01),
        saw(NOTHING, 3.2, "b"),
    ),
    "either value while a write is under way": (put(1, 1.0), put(2, 1.998), saw(1, 2.0), saw(2, 2.0)),
    "either order of two writes at once": (put(1, 1.0), put(2, 1.001, "b"), saw(1, 3.0), saw(2, 3.0, "b")),
    "others' writes are not known for 50 ms": (put(1, 1.0), put(2, 2.0, "b"), saw(1, 2.04)),
    "nor for a second after a cut": (put(1, 1.0), put(2, 2.0, "b"), cut("a", 1.9), saw(1, 2.9)),
    "nor for as long as the node stood still": (
        put(1, 1.0),
        put(2, 2.0, "b"),
        Stall("a", 1.9, 2.1),
        saw(1, 2.12),
    ),
    "a write that nobody knows of was done": (put(1, 1.0), put(2, 2.0, known=False), saw(2, 9.0), saw(2, 9.0, "b")),
    "or was not": (put(1, 1.0), put(2, 2.0, known=False), saw(1, 9.0), saw(1, 9.0, "b")),
    "a deletion that nobody knows of, too": (put(1, 1.0), deleted(2.0, known=False), saw(1, 9.0), saw(NOTHING, 9.1)),
    "a value expires": (put(1, 1.0, ttl_ms=500), saw(1, 1.502), saw(NOTHING, 1.503), saw(NOTHING, 1.6, "b")),
    "a shorter life": (put(1, 1.0), expire(1, 2.0, 100), saw(1, 2.1), saw(NOTHING, 2.11), saw(1, 2.04, "b")),
    "a longer life": (put(1, 1.0, ttl_ms=500), expire(1, 1.2, 5000), saw(1, 6.0, left_ms=203)),
    "the life of the successor counts": (put(1, 1.0, ttl_ms=500), put(2, 1.2), saw(2, 9.0), saw(2, 9.0, "b")),
    "what is left of it": (put(1, 1.0, ttl_ms=500), saw(1, 1.1, left_ms=401), saw(1, 1.2, "b", left_ms=300)),
    "a foreign client sees what is there": (put(1, 1.0), saw(1, 1.01, FOREIGN), put(2, 2.0, FOREIGN), saw(2, 2.2)),
    "marked answers may be old": (put(1, 1.0), put(2, 2.0, "b"), saw(1, 9.0, stale=True)),
    "a batch": (
        Wrote("a", "set", [0, 1], [1, 2], FOR_EVER, 1.0, 1.1),
        deleted(2.0, slots=[1]),
        Looked("a", [0, 1, 7], [1, NOTHING, NOTHING], [FOR_EVER, FOR_EVER, FOR_EVER], 2.1, 2.2),
    ),
}


@pytest.mark.parametrize("lines", CLEAN.values(), ids=CLEAN)
def test_nothing_is_found_where_all_is_well(lines: tuple[Line, ...]) -> None:
    """What may be seen is not complained of."""
    report = judged(*lines)
    assert not report.problems, report.samples
    assert report.reads == sum(len(line.slots) for line in lines if isinstance(line, Looked))


PLANTED: dict[str, tuple[str, tuple[Line, ...]]] = {
    "an old value at the node that wrote": (OWN, (put(1, 1.0), put(2, 2.0), saw(1, 2.005))),
    "a marked one, too": (OWN, (put(1, 1.0), put(2, 2.0), saw(1, 2.005, stale=True))),
    "a deleted value where it was deleted": (OWN, (put(1, 1.0, "b"), deleted(2.0), saw(1, 2.005))),
    "a remembered absence at the node that wrote": (OWN, (saw(NOTHING, 0.0), put(1, 1.0), saw(NOTHING, 1.005))),
    "an old value elsewhere after 50 ms": (OTHERS, (put(1, 1.0), put(2, 2.0, "b"), saw(1, 2.06))),
    "a deleted value elsewhere": (OTHERS, (put(1, 1.0), deleted(2.0, "b"), saw(1, 2.06))),
    "an absence elsewhere": (OTHERS, (put(1, 1.0, "b"), saw(NOTHING, 1.06))),
    "an absence after a deletion long ago": (
        OTHERS,
        (put(1, 1.0), deleted(2.0), put(2, 3.0, "b"), saw(NOTHING, 3.06)),
    ),
    "a foreign write unnoticed": (OTHERS, (put(1, 1.0), put(2, 2.0, FOREIGN), saw(1, 2.06))),
    "an acknowledged write that the store has not": (OTHERS, (put(1, 1.0), put(2, 2.0), saw(1, 2.01, FOREIGN))),
    "a value that the store lost": (OTHERS, (put(1, 1.0), saw(NOTHING, 1.01, FOREIGN))),
    "a cut that nobody noticed": (OTHERS, (put(1, 1.0), put(2, 2.0, "b"), cut("a", 1.9), saw(1, 2.96))),
    "a cut at another node": (OTHERS, (put(1, 1.0), put(2, 2.0, "b"), cut("c", 1.9), saw(1, 2.1))),
    "older than the stall explains": (
        OTHERS,
        (put(1, 1.0), put(2, 2.0, "b"), Stall("a", 1.9, 2.1), saw(1, 2.2)),
    ),
    "another node's stall": (OTHERS, (put(1, 1.0), put(2, 2.0, "b"), Stall("c", 1.9, 2.1), saw(1, 2.1))),
    "a stall before": (OTHERS, (put(1, 1.0), put(2, 2.0, "b"), Stall("a", 1.0, 2.0), saw(1, 2.1))),
    "an expired value": (EXPIRED, (put(1, 1.0, ttl_ms=500), saw(1, 1.507))),
    "an expired value elsewhere": (EXPIRED, (put(1, 1.0, ttl_ms=500), saw(1, 1.507, "b"))),
    "an expired value, marked": (EXPIRED, (put(1, 1.0, ttl_ms=500), saw(1, 1.507, stale=True))),
    "a life that was not shortened": (OWN, (put(1, 1.0), expire(1, 2.0, 5000), saw(1, 8.0))),
    "gone too early": (OTHERS, (put(1, 1.0, "b", ttl_ms=500), saw(NOTHING, 1.4))),
    "gone though its life was made longer": (
        OTHERS,
        (put(1, 1.0, "b", ttl_ms=500), expire(1, 1.2, 5000, "b"), saw(NOTHING, 1.6)),
    ),
    "gone by its predecessor's life": (
        OTHERS,
        (put(1, 1.0, "b", ttl_ms=500), put(2, 1.2, "b"), saw(NOTHING, 1.6)),
    ),
    "a value that nobody wrote": (PHANTOM, (put(1, 1.0), saw(7, 1.1))),
    "another key's value": (PHANTOM, (Wrote("a", "set", [1], [1], FOR_EVER, 1.0, 1.1), put(2, 1.0), saw(1, 1.2))),
    "a value from the future": (EARLY, (put(1, 1.0), saw(1, 0.9))),
    "a life that was lost": (LEFT, (put(1, 1.0, ttl_ms=500), saw(1, 1.1, left_ms=FOR_EVER))),
    "a life that was made up": (LEFT, (put(1, 1.0), saw(1, 1.1, left_ms=1000))),
    "a longer life than was given": (LEFT, (put(1, 1.0, ttl_ms=500), saw(1, 1.2, left_ms=400))),
    "a much shorter one": (LEFT, (put(1, 1.0, ttl_ms=5000), saw(1, 1.2, left_ms=1000))),
    "less than nothing": (NONE_LEFT, (put(1, 1.0, ttl_ms=500), saw(1, 1.502, left_ms=-20))),
}


@pytest.mark.parametrize(("what", "lines"), PLANTED.values(), ids=PLANTED)
def test_each_fault_is_found(what: str, lines: tuple[Line, ...]) -> None:
    """And named as what it is."""
    report = judged(*lines)
    assert what in report.problems, report.samples
    assert report.samples


def test_an_expiry_that_nobody_acknowledged_may_reach_a_later_value() -> None:
    """It was on its way while the value was replaced, and gave the new one another time to live; not any time later."""
    held_up = (put(1, 1.0), expire(1, 2.0, 300, via="b", known=False), put(2, 3.0, ttl_ms=100))
    assert not judged(*held_up, saw(2, 3.2, left_ms=290)).problems
    assert judged(*held_up, saw(2, 3.2, left_ms=350)).problems == {LEFT: 1}
    too_late = (put(1, 1.0), expire(1, 2.0, 300, known=False), put(2, 9.0, ttl_ms=100))
    assert EXPIRED in judged(*too_late, saw(2, 9.2, left_ms=290)).problems


def test_an_evicting_server_may_drop_keys_but_not_bring_them_back() -> None:
    """An absence proves nothing there; an old value still does."""
    assert not judged(put(1, 1.0), saw(NOTHING, 1.1, "b"), evicts=True).problems
    assert OTHERS in judged(put(1, 1.0), put(2, 2.0), saw(1, 2.1, "b"), evicts=True).problems


def test_ages_are_told_apart() -> None:
    """Reads under a cut, marked ones and all others are counted by themselves; a stall that excuses one is counted."""
    report = judged(
        put(1, 1.0),
        put(2, 2.0, "b"),
        cut("c", 1.9),
        Stall("a", 2.0, 2.1),
        saw(1, 2.03),
        saw(1, 2.12),
        saw(1, 2.204, "c"),
        saw(1, 2.304, "d", stale=True),
        saw(2, 2.3),
    )
    assert not report.problems, report.samples
    assert (report.usual.reads, report.loosened.reads, report.marked.reads) == (3, 1, 1)
    assert report.stalled == 1
    assert report.loosened.late_s == pytest.approx([0.2])
    assert "2 out of date" in report.usual.line()
    assert "≤250 ms: 1" in report.loosened.line()


def test_stretches_overlap_once() -> None:
    """Two probes that met the same stall do not excuse twice as much."""
    stretches = Stretches([Stall("a", 1.0, 2.0), Stall("a", 1.5, 2.5), Stall("a", 4.0, 5.0)])
    assert stretches.within(0.0, 9.0) == pytest.approx(2.5)
    assert stretches.within(2.0, 4.5) == pytest.approx(1.0)
    assert stretches.within(2.5, 4.0) == 0.0


def test_a_model_of_coherent_nodes_is_never_complained_of() -> None:
    """A simulated store with caches that hear of changes 40 ms late passes; one that hears 60 ms late does not."""
    for seed in range(20):
        assert not check(simulated(seed, told_after_s=0.040)).problems
    assert any(check(simulated(seed, told_after_s=0.060)).problems[OTHERS] for seed in range(20))


def simulated(seed: int, told_after_s: float) -> Ledger:
    """One key, random writes through two nodes; node `b` hears of everything that late, `a` of its own at once."""
    chance = Random(seed)  # noqa: S311  a repeatable run, no secret
    ledger = Ledger()
    changes: list[tuple[float, str, int]] = []
    at, number = 1.0, NOTHING
    for turn in range(1, 400):
        at += chance.uniform(0.001, 0.02)
        via = chance.choice("ab")
        if chance.random() < 0.3:
            number = chance.choice((turn, NOTHING))
            ledger.add(put(turn, at, via) if number else deleted(at, via))
            at += TOOK_S
            changes.append((at - TOOK_S / 2, via, number))
        else:
            known = [each for when, by, each in changes if by == via or when + told_after_s <= at]
            ledger.add(saw(known[-1] if known else NOTHING, at, via))
    return ledger


@pytest.mark.parametrize(
    ("duration", "ms"),
    [("none", FOR_EVER), ("1h0m0.5s", 3_600_500), ("99.25s", 99_250), ("100ms", 100), ("1µs", 1), ("-1.5s", -1501)],
)
def test_durations_are_read(duration: str, ms: int) -> None:
    """As Go writes them; less than nothing stays less than nothing."""
    assert left_ms(duration) == ms


@pytest.mark.parametrize("duration", ["", "0s", "soon"])
def test_a_duration_that_says_nothing_is_noticed(duration: str) -> None:
    """An entry that is served has some time left."""
    with pytest.raises(ValueError, match="no duration"):
        left_ms(duration)


def test_values_that_were_touched_are_noticed() -> None:
    """The same number in other bytes is not what was written."""
    assert number_in(value_of(7)) == 7
    for touched in (value_of(7).replace(b"x", b"y", 1), value_of(7).replace(b":", b": "), b'{"n":7}'):
        with pytest.raises(ValueError, match="other bytes"):
            number_in(touched)


def test_a_ledger_survives_its_file(tmp_path: Path) -> None:
    """What is read is what was written."""
    lines: list[Line] = [put(1, 1.0), put(2, 2.0, known=False), saw(2, 2.1, left_ms=FOR_EVER), cut("a", 1.0)]
    lines += [Refused("a", "get", 1.0, 1.1, 503), Stall("b", 1.0, 1.2, "way")]
    path = tmp_path / "ledger"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    ledger = coherence_ledger.read(path)
    assert ledger.wrote == lines[:2]
    assert ledger.looked == lines[2:3]
    assert (len(ledger.loosened), len(ledger.refused), len(ledger.stalls)) == (1, 1, 1)
