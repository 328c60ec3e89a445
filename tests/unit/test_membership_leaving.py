"""A node that stops by plan: it is no death, and nobody takes what it still works on."""

from __future__ import annotations

from actors.core.membership import BEAT_S
from actors.core.partition import PARTITIONS
from tests.support.cluster_rig import ClusterRig
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_membership import TAKES_OVER_S, T


@in_virtual_time
async def test_a_node_that_leaves_keeps_what_it_has_until_it_gives_it_back() -> None:
    """The others see that it leaves; they take what it gave back, and leave it what it still works on."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, other = await cluster.started("a", "b")
        await passing(1.0)
        await node.membership.leave_soon()
        await passing(3 * T)
        assert other.membership.alive() == {"b"}
        assert set(cluster.owners()) == {"a"}
        assert len(node.may_act()) == PARTITIONS, "its beats go on"
        await node.ownership.resign(range(100))
        other.ownership.reclaim()
        await passing(0.05)
        assert cluster.owners() == ["b"] * 100 + ["a"] * 156
        await node.membership.leave()
        await passing(BEAT_S + 0.1)
        assert set(cluster.owners()) == {"b"}
        assert not other.membership.address_of("a")


@in_virtual_time
async def test_a_node_that_leaves_takes_nothing_more() -> None:
    """Neither what it wins nor what is its by name."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(1.0)
        await node.membership.leave_soon()
        await node.ownership.resign(range(PARTITIONS))
        node.ownership.reclaim()
        beats = node.members.faults.count("beat")
        await passing(3.0)
        assert set(cluster.owners()) == {""}
        assert node.ownership.held() == []
        assert node.members.faults.count("beat") - beats <= 3.0 / BEAT_S + 2, "it does not spin either"


@in_virtual_time
async def test_a_node_that_has_left_leaves_no_record() -> None:
    """Also when a beat was due or under way just then: nobody would ever take it away."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, other = await cluster.started("a", "b")
        await passing(1.0)
        await node.membership.leave_soon()
        await node.membership.leave()
        assert cluster.members.nodes.keys() == {"b"}
        await passing(2.0)
        assert cluster.members.nodes.keys() == {"b"}
        assert cluster.members.told()[-2][:2] == ("a", "left")
        assert stage.crashes == []
        assert other.membership.alive() == {"b"}


@in_virtual_time
async def test_a_node_that_dies_while_it_leaves_is_taken_for_dead() -> None:
    """What it had is taken over, and its record goes."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, _ = await cluster.started("a", "b")
        await passing(1.0)
        await node.membership.leave_soon()
        await node.freeze()
        await passing(TAKES_OVER_S)
        assert set(cluster.owners()) == {"b"}
        await passing(2 * BEAT_S)
        assert cluster.members.nodes.keys() == {"b"}


@in_virtual_time
async def test_a_node_that_oversleeps_while_it_leaves_is_through() -> None:
    """It does not look any more, so it cannot know what it lost: it begins nothing, and gives back what it holds."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, other = await cluster.started("a", "b")
        await passing(1.0)
        await node.membership.leave_soon()
        await node.freeze()
        await passing(TAKES_OVER_S)
        assert len(other.may_act()) == PARTITIONS
        node.run()
        for _ in range(100):
            await passing(0.01)
            assert not node.may_act()
        await node.ownership.resign(node.ownership.held())
        await node.membership.leave()
        assert len(other.may_act()) == PARTITIONS
        assert set(cluster.owners()) == {"b"}
