"""What the channels' turns come to: speeds, shares, latencies, and what one stalled reader does to the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.bench.channel_speed import BARE, MANY, NCHAN, NODE, ONE, PACED, READS, STALLS, FanOut
from tests.bench.figures import Figure, Spread, Turn, ratios, spread
from tests.bench.report import cost

ASKED = {ONE: 100_000.0, MANY: 500_000.0}
"""Deliveries per CPU-second, one message a tick and several."""
P99_ASKED_MS = 20.0
STALL_ASKED = 1.10
FULL = 0.95
MIB = 1024 * 1024

Turns = Mapping[str, Sequence[Turn]]


def speeds(turns: Turns) -> Iterator[Figure]:
    """Deliveries per CPU-second of whoever was measured, then the node's shares in theirs."""
    for pattern, asked in ASKED.items():
        for name in (NODE, BARE, NCHAN):
            if taken := turns.get(pattern.format(name)):
                yield speed(pattern.format(name), taken, asked if name == NODE else None)
    for pattern in ASKED:
        for other in (BARE, NCHAN):
            ours, theirs = turns.get(pattern.format(NODE)), turns.get(pattern.format(other))
            if ours and theirs:
                name = pattern.format(f"{NODE} ÷ {other}")
                yield Figure(name=name, measured=ratios(ours, theirs).of(".2f"), detail=f"{len(ours)} turns each")


def speed(name: str, turns: Sequence[Turn], asked: float | None) -> Figure:
    """One of them. A subscribers' core that was full kept the server waiting, which its CPU does not tell."""
    busy = spread([turn.generator_busy + turn.store_cpu_s / turn.seconds for turn in turns]).middle
    taken = spread([turn.per_cpu_s for turn in turns])
    return judged(
        f"{name}: deliveries per CPU-second",
        taken.of(",.0f"),
        None if asked is None else (taken.middle >= asked, f"≥ {asked:,.0f}"),
        cost(turns) + ("; the subscribers' core was full" if busy > FULL else ""),
    )


def latencies(turns: Turns, loops: Mapping[str, FanOut], rate: float) -> Iterator[Figure]:
    """Publish → receive at the same pace for everyone."""
    for name in (NODE, BARE, NCHAN):
        key = PACED.format(name)
        if taken := turns.get(key):
            p99 = spread([turn.p99_ms for turn in taken])
            results = loops[key].results
            worst = max(result.max_ms for result in results)
            others = spread(loops[key].of_others).middle
            waited = spread([result.waited for result in results]).middle
            detail = (
                f"{rate:,.0f} messages/s; {cost(taken)}, max {worst:.1f} ms; {others:.0%} of its core went to others, "
                f"and {waited:.0%} of the time its subscribers stood ready without one"
            )
            asked = (p99.middle <= P99_ASKED_MS, f"≤ {P99_ASKED_MS:.0f} ms") if name == NODE else None
            yield judged(f"{name}: publish → receive, p99", f"{p99.of('.1f')} ms", asked, detail)


def stall(turns: Turns, loops: Mapping[str, FanOut]) -> Iterator[Figure]:
    """The others' p99 beside one that stalls ÷ beside one that reads, by the medians of the turns; what it weighs."""
    without, beside = (spread([turn.p99_ms for turn in turns[name]]) for name in (READS, STALLS))
    moved = beside.middle / without.middle if without.middle else 0.0
    ended = ", ".join(sorted({result.ended or "not closed" for result in loops[STALLS].results}))
    yield judged(
        "one subscriber stalls: the others' p99 ÷ without",
        f"{moved:.2f}",
        (moved <= STALL_ASKED, f"≤ {STALL_ASKED:.2f}"),
        f"{len(turns[READS])} turns each; p99 without {without.of('.1f')} ms, with {beside.of('.1f')} ms; "
        f"it was closed: {ended}",
    )
    grown = {name: growth(loops[name]) for name in (READS, STALLS)}
    yield Figure(
        name="growth of the node meanwhile",
        measured=f"{grown[STALLS].of('.1f')} MiB",
        detail=f"beside one that reads {grown[READS].of('.1f')} MiB",
    )


def growth(loop: FanOut) -> Spread:
    """By how much the server was heavier at most than at the start of each turn."""
    return spread([(most - before) / MIB for before, most in (result.resident for result in loop.results)])


def judged(name: str, measured: str, asked: tuple[bool, str] | None, detail: str) -> Figure:
    """A figure of which something may be asked."""
    if asked is None:
        return Figure(name=name, measured=measured, detail=detail)
    return Figure(name=name, measured=measured, asked=asked[1], met=asked[0], detail=detail)
