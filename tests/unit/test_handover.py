"""Planned moves: when the cluster is stable, a few at a time, and never under a delivery that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.core.membership import BEAT_S, DEAD_AFTER_S, STABLE_S
from actors.core.partition import PARTITIONS
from actors.core.placement import MOVING_MAX
from actors.core.rendezvous import winners
from actors.handover import HELD_S_MAX, KEPT_S, PERIOD_S
from actors.node_ports import Look
from actors.ports import StoreAway
from tests.support.cluster_rig import ClusterRig, Member
from tests.support.doubles import Stage, observed, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

SHARE = MOVING_MAX // 2
"""What each of two nodes may move at once."""
SETTLED_S = 2.0
"""More than it takes to move everything when nothing is in the way."""


def misplaced(cluster: ClusterRig) -> set[int]:
    """What does not lie where it belongs, of the nodes that run."""
    winner = winners(frozenset(cluster.members_by_name))
    return {partition for partition, owner in enumerate(cluster.owners()) if owner != winner[partition]}


async def two(stage: Stage, *, stable: bool = True) -> tuple[ClusterRig, Member, Member]:
    """A node that has everything and one that came later; the first moves nothing by itself."""
    cluster = ClusterRig(stage)
    first, second = await cluster.started("a", "b")
    await passing(STABLE_S + BEAT_S if stable else BEAT_S + 0.1)
    return cluster, first, second


async def watched(for_s: float, look: Callable[[], None]) -> None:
    """Look every hundredth of a second."""
    for _ in range(round(for_s * 100)):
        look()
        await passing(0.01)


@in_virtual_time
async def test_nothing_moves_before_the_cluster_is_stable() -> None:
    """Somebody who came may go again; then everything comes to where it belongs, and rests."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        await cluster.started("a", "b", handover=True)
        came_at = stage.clock.boottime()
        while set(cluster.owners()) == {"a"}:
            await passing(0.01)
        assert stage.clock.boottime() - came_at >= STABLE_S
        await passing(SETTLED_S)
        assert misplaced(cluster) == set()
        owned = list(cluster.store.owned)
        await passing(30.0)
        assert cluster.store.owned == owned


@in_virtual_time
async def test_a_node_alone_moves_nothing() -> None:
    """Nor one whose partitions all lie where they belong."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(STABLE_S + 1.0)
        assert await node.handover.run_once() == 0
        assert node.lost == []


@in_virtual_time
async def test_one_move_is_its_share_and_is_over_when_the_other_has_come() -> None:
    """The other is rung, acquires under an epoch of its own, and is the only one that may act."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        before = [owner.epoch for owner in cluster.store.owned]
        assert await first.handover.run_once() == SHARE
        moved = set(second.ownership.held())
        assert len(moved) == SHARE
        assert set(first.lost) == moved
        assert set(first.ownership.held()) == set(range(PARTITIONS)) - moved
        assert all(second.ownership.epoch(partition) > before[partition] + 1 for partition in moved)
        assert first.rung == [("b", Look())]
        assert first.may_act() | second.may_act() == set(range(PARTITIONS))
        assert first.may_act() & second.may_act() == set()
        assert value(first.meters.handovers) == SHARE
        [took_s] = observed(first.meters.handover_seconds)
        assert took_s <= 0.2
        await passing(BEAT_S + 0.05)
        assert ("a", "handed over", "b", SHARE) in cluster.members.told()
        assert value(second.meters.takeovers) == 0


@in_virtual_time
async def test_an_eighth_is_on_its_way_at_the_most() -> None:
    """Of all nodes together, at every moment; and at no moment two may act in one partition."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        members = await cluster.started("a", "b", "c", "d", handover=True)
        least = PARTITIONS

        def look() -> None:
            nonlocal least
            acting = [partition for member in members for partition in member.may_act()]
            assert len(acting) == len(set(acting))
            least = min(least, len(acting))

        await watched(STABLE_S + SETTLED_S, look)
        assert misplaced(cluster) == set()
        assert PARTITIONS - MOVING_MAX <= least < PARTITIONS


@in_virtual_time
async def test_a_new_owner_that_does_not_come_holds_the_rest_up() -> None:
    """It was frozen just after it was named: nothing more is given to it, and what it was given is taken over."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        first.run(handover=True)
        await second.freeze()
        second.ownership.reclaim = lambda: None  # type: ignore[method-assign]  # a frozen node hears no bell
        least = PARTITIONS

        def look() -> None:
            nonlocal least
            least = min(least, len(first.ownership.held()))

        await watched(3 * DEAD_AFTER_S, look)
        assert least >= PARTITIONS - SHARE
        assert first.ownership.held() == list(range(PARTITIONS))
        assert set(cluster.owners()) == {"a"}


@in_virtual_time
async def test_what_is_busy_is_waited_for() -> None:
    """Nothing is begun there meanwhile, and nothing is cut off."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        first.busy = set(range(PARTITIONS))
        moving = stage.supervisor.spawn("move", _moved(first))
        await passing(0.5 * HELD_S_MAX)
        assert set(cluster.owners()) == {"a"}
        assert len(first.may_act()) == PARTITIONS - SHARE
        first.busy = set()
        await moving
        assert len(second.ownership.held()) == SHARE


@in_virtual_time
async def test_what_stays_busy_is_kept() -> None:
    """Under its old epoch, so what is under way may end; the others move. It is left in peace for a while then, or a
    slow webhook would make its partition stand still most of the time."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        wrong = sorted(misplaced(cluster))
        first.busy = set(wrong[:3])
        epochs = {partition: first.ownership.epoch(partition) for partition in first.busy}
        assert await first.handover.run_once() == SHARE - 3
        assert first.busy <= first.may_act()
        assert {partition: first.ownership.epoch(partition) for partition in first.busy} == epochs
        assert first.taken == 2, "what has come due meanwhile is looked for"
        stage.supervisor.service("moves", first.handover.run)
        stood_still: list[int] = []
        await watched(KEPT_S - 1.0, lambda: stood_still.append(len(first.busy - first.may_act())))
        assert set(stood_still) == {0}
        assert misplaced(cluster) == first.busy
        first.busy = set()
        await passing(HELD_S_MAX + 2.0)
        assert misplaced(cluster) == set()
        assert set(second.ownership.held()) == set(wrong)


@in_virtual_time
async def test_what_stays_busy_does_not_hold_the_rest_up() -> None:
    """However many there are of them at the front: the others get their turn."""
    async with Stage() as stage:
        cluster, first, _ = await two(stage)
        wrong = sorted(misplaced(cluster))
        first.busy = set(wrong[: 2 * SHARE])
        first.run(handover=True)
        await passing(2 * (HELD_S_MAX + PERIOD_S) + SETTLED_S)
        assert misplaced(cluster) == first.busy


@pytest.mark.parametrize("written", [True, False], ids=["handed over", "not handed over"])
@in_virtual_time
async def test_a_store_that_is_away_in_the_middle(written: bool) -> None:
    """Nobody knows what was written. No two ever act in one partition, and in the end all lies where it belongs."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        (first.store.faults.after if written else first.store.faults.before)["hand_over"] = 1
        with pytest.raises(StoreAway):
            await first.handover.run_once()
        assert len(first.may_act()) <= PARTITIONS - SHARE

        def look() -> None:
            assert not first.may_act() & second.may_act()

        stage.supervisor.service("moves", first.handover.run)
        await watched(SETTLED_S + 2.0, look)
        assert misplaced(cluster) == set()
        assert cluster.held() == list(range(PARTITIONS))
        assert stage.crashes == []


@in_virtual_time
async def test_a_store_that_is_away_while_it_waits_for_the_other() -> None:
    """The moves go on when it is back."""
    async with Stage() as stage:
        cluster, first, _ = await two(stage)
        first.store.faults.before["owners"] = 3
        stage.supervisor.service("moves", first.handover.run)
        await passing(SETTLED_S + 2.0)
        assert misplaced(cluster) == set()
        assert stage.crashes == []


@in_virtual_time
async def test_what_was_lost_while_it_was_held_back_is_not_handed_over() -> None:
    """Another took it: the fence says so, and it stays the other's."""
    async with Stage() as stage:
        cluster, first, second = await two(stage)
        wrong = sorted(misplaced(cluster))[0]
        first.busy = {wrong}
        moving = stage.supervisor.spawn("move", _moved(first))
        await passing(0.3)
        cluster.store.lose(wrong, "b")
        first.busy = set()
        await moving
        assert first.ownership.epoch(wrong) == 0
        assert cluster.owners()[wrong] == "b"
        second.ownership.reclaim()
        await passing(0.1)
        assert second.ownership.epoch(wrong) == cluster.store.owned[wrong].epoch


@in_virtual_time
async def test_a_look_in_the_middle_of_a_move_does_not_hold_it_up() -> None:
    """The old owner learns in another way that the new one has come."""
    async with Stage() as stage:
        _, first, _ = await two(stage)
        answered = first.store.faults.answers["owners"] = asyncio.Event()
        moving = stage.supervisor.spawn("move", _moved(first))
        await passing(0.05)
        stage.supervisor.spawn("look", _looked(first))
        await passing(0.05)
        del first.store.faults.answers["owners"]
        answered.set()
        await moving
        [took_s] = observed(first.meters.handover_seconds)
        assert took_s <= 0.2


@in_virtual_time
async def test_a_stop_gives_back_what_is_idle_and_waits_for_the_rest() -> None:
    """The others are rung and have it at once; what is under way ends under its own epoch."""
    async with Stage() as stage:
        cluster, first, second = await two(stage, stable=False)
        first.busy = {3, 4}
        epochs = first.ownership.epoch(3), first.ownership.epoch(4)
        leaving = stage.supervisor.spawn("leave", first.handover.leave())
        await passing(0.1)
        assert len(second.may_act()) == PARTITIONS - 2
        assert first.may_act() == {3, 4}
        assert ("b", Look()) in first.rung
        await passing(2 * DEAD_AFTER_S)
        assert (cluster.store.owned[3].epoch, cluster.store.owned[4].epoch) == epochs
        first.busy = {4}
        await passing(0.1)
        assert len(second.may_act()) == PARTITIONS - 1
        assert not leaving.done()
        first.busy = set()
        await leaving
        await passing(0.1)
        assert len(second.may_act()) == PARTITIONS
        assert first.ownership.held() == []
        assert value(second.meters.takeovers) == 0


@in_virtual_time
async def test_a_stop_in_the_middle_of_a_move_gives_back_what_was_held_back() -> None:
    """It is in nobody's list of what is held; nobody should have to wait for this node's end."""
    async with Stage() as stage:
        cluster, first, _ = await two(stage)
        first.busy = set(range(PARTITIONS))
        moving = stage.supervisor.spawn("move", _moved(first))
        await passing(0.5 * HELD_S_MAX)
        leaving = stage.supervisor.spawn("leave", first.handover.leave())
        await passing(0.1)
        first.busy = set()
        await moving
        await leaving
        await passing(0.2)
        assert first.ownership.held() == []
        assert set(cluster.owners()) == {"b"}


@in_virtual_time
async def test_a_stop_while_the_store_is_away_says_so() -> None:
    """Nothing is begun in what could not be given back: others take it when this node's time is over."""
    async with Stage() as stage:
        cluster, first, second = await two(stage, stable=False)
        first.store.faults.before["resign"] = 1
        with pytest.raises(StoreAway):
            await first.handover.leave()
        assert first.may_act() == set()
        await first.membership.leave()
        await passing(BEAT_S + 0.1)
        assert len(second.may_act()) == PARTITIONS
        assert set(cluster.owners()) == {"b"}


@in_virtual_time
async def test_a_node_that_leaves_moves_nothing_by_plan() -> None:
    """It gives everything back anyway."""
    async with Stage() as stage:
        _, first, _ = await two(stage)
        await first.membership.leave_soon()
        assert await first.handover.run_once() == 0
        assert first.lost == []


async def _moved(member: Member) -> None:
    await member.handover.run_once()


async def _looked(member: Member) -> None:
    await member.ownership.look(member.membership.alive())
