"""What the sends' turns come to: deliveries a second of either side, and how many times as many ours are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.bench.figures import Figure, Turn, at_least, ratios, spread
from tests.bench.sends import CELERY, NODE, TWO, WAITING, WAYS

ASKED = 5.0
"""How many times Celery's deliveries: asked from end to end."""


def figures(turns: Mapping[str, Sequence[Turn]]) -> Iterator[Figure]:
    """Each side's speed, then the ratios, for one way of measuring after the other."""
    for way in (each for each in WAYS if each.format(CELERY) in turns):
        for name in (CELERY, NODE, TWO):
            yield speed(f"sends: {way.format(name)}, deliveries/s", turns[way.format(name)])
        theirs = turns[way.format(CELERY)]
        for name in (NODE, TWO):
            title, detail = f"sends: {way.format(f'{name} ÷ {CELERY}')}", f"{len(theirs)} turns each"
            ratio = ratios(turns[way.format(name)], theirs, per_s)
            plain = Figure(name=title, measured=ratio.of(".2f"), detail=detail)
            yield plain if way == WAITING else at_least(title, ratio, ASKED, detail)


def speed(name: str, turns: Sequence[Turn]) -> Figure:
    """Deliveries a second, and what each cost."""
    server, store = (
        spread([getattr(turn, field) / max(1, turn.operations) * 1e6 for turn in turns]).middle
        for field in ("server_cpu_s", "store_cpu_s")
    )
    tasks = spread([turn.operations for turn in turns]).middle
    detail = f"{tasks:,.0f} a turn; CPU of all its processes {server:,.0f} µs each, of its store {store:,.0f} µs"
    return Figure(name=name, measured=spread([turn.per_s for turn in turns]).of(",.0f"), detail=detail)


def per_s(turn: Turn) -> float:
    """What the ratios are taken of."""
    return turn.per_s
