"""Owners: who owns what once nothing is on its way. A planned move names the new owner before that one takes it."""

from __future__ import annotations

from tests.chaos.chaos import Chaos
from tests.support.until import until

Owners = dict[int, tuple[str, int]]
"""Node and epoch of each partition."""
STILL_S = 0.4
"""Longer than a beat: by then a new owner has looked."""


async def settled_owners(chaos: Chaos, within_s: float = 5.0) -> Owners:
    """The owners as soon as two looks find the same. NeverHappened when that takes too long."""

    async def same() -> Owners | None:
        before = await chaos.owners()
        await chaos.passing(STILL_S)
        return before if await chaos.owners() == before else None

    found = await until(same, within_s, what="no partition moves")
    assert found is not None
    return found
