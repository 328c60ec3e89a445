"""Outcome: what is promised is told once, whoever comes first."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime.outcome import Promised
from tests.support.virtual_time import in_virtual_time, ticks


class Refused(Exception):
    """What may come of something."""


@pytest.mark.parametrize("outcome", [1, None, Refused("no")], ids=["something", "nothing", "a failure"])
@pytest.mark.parametrize("first", ["asked", "there"])
def test_what_is_promised_is_told_as_it_is(outcome: int | Refused | None, first: str) -> None:
    """Asked for before it is there or after."""
    promised: Promised[int | None] = Promised()
    heard: list[object] = []
    if first == "asked":
        promised.then(heard.append)
        assert heard == []
        promised.arrived(outcome)
    else:
        promised.arrived(outcome)
        promised.then(heard.append)
    assert heard == [outcome]


@in_virtual_time
async def test_what_is_promised_can_be_awaited() -> None:
    """A failure is raised; whoever goes away is no trouble to the one who keeps the promise."""
    kept, broken, left = Promised[int](), Promised[int](), Promised[int]()
    leaving = asyncio.ensure_future(_awaited(left))
    waiting = [asyncio.ensure_future(_awaited(each)) for each in (kept, broken)]
    await ticks()
    leaving.cancel()
    kept.arrived(1)
    broken.arrived(Refused("no"))
    left.arrived(Refused("nobody hears it"))
    assert await waiting[0] == 1
    with pytest.raises(Refused, match="no"):
        await waiting[1]
    assert await kept_already(2) == 2


async def kept_already(value: int) -> int:
    """What was there before anybody asked."""
    promised = Promised[int]()
    promised.arrived(value)
    return await promised


async def _awaited(promised: Promised[int]) -> int:
    return await promised
