"""Planted faults: a part that does one thing wrong is found out, and by the invariant that is about it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.run import Wish, run

SEEDS_MAX = 100


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    """Within so many seeds."""
    plant = PLANTED[name]
    wish = Wish(mutation=plant.mutation, only=plant.only)
    with (plant.within or nullcontext)():
        found = any(
            violation.startswith(plant.breaks) for seed in range(SEEDS_MAX) for violation in run(seed, wish).violations
        )
    assert found
