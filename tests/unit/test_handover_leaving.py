"""Planned moves and a node that leaves slowly: it gives everything back in its own way."""

from __future__ import annotations

from actors.core.membership import BEAT_S, STABLE_S
from actors.core.partition import PARTITIONS
from actors.handover import HELD_S_MAX
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_handover import SHARE, _moved, two


@in_virtual_time
async def test_a_node_that_leaves_for_long_moves_nothing_by_plan() -> None:
    """Also when the others have been as they are for a while, and it wins nothing any more."""
    async with Stage() as stage:
        cluster, first, _ = await two(stage)
        await first.membership.leave_soon()
        await passing(STABLE_S + 2 * BEAT_S)
        assert first.membership.stable_s() >= STABLE_S
        assert await first.handover.run_once() == 0
        assert first.lost == []
        assert set(cluster.owners()) == {"a"}


@in_virtual_time
async def test_what_was_held_back_and_kept_is_given_back_too() -> None:
    """The stop came in the middle of a move that was given up because its deliveries took too long."""
    async with Stage() as stage:
        cluster, first, _ = await two(stage)
        first.busy = set(range(PARTITIONS))
        moving = stage.supervisor.spawn("move", _moved(first))
        await passing(0.5 * HELD_S_MAX)
        assert len(first.ownership.held()) == PARTITIONS - SHARE
        leaving = stage.supervisor.spawn("leave", first.handover.leave())
        await passing(HELD_S_MAX)
        assert moving.done()
        assert set(cluster.owners()) == {"a"}
        first.busy = set()
        await leaving
        assert first.ownership.held() == []
        await passing(0.2)
        assert set(cluster.owners()) == {"b"}
