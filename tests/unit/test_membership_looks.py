"""When a node looks who owns what, and what it believes of nodes that are dead or leave."""

from __future__ import annotations

from actors.core.membership import BEAT_S, DEAD_AFTER_S
from actors.ports import Fenced, Owner
from tests.support.cluster_rig import ClusterRig, Member
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

AT_ONCE_S = 0.03
"""A few round trips."""


async def between_beats(member: Member) -> None:
    """Come to where a beat has just been answered, and the next is most of a beat away."""
    beats = member.members.faults.count("beat")
    while member.members.faults.count("beat") == beats:
        await passing(0.005)
    await passing(AT_ONCE_S)


@in_virtual_time
async def test_a_wish_to_look_does_not_wait_for_the_next_beat() -> None:
    """What the store forgot is this node's again after two round trips."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await between_beats(node)
        beats = node.members.faults.count("beat")
        cluster.store.owned[7] = Owner(0, "")
        node.ownership.fenced(7, Fenced(0, ""))
        await passing(AT_ONCE_S)
        assert node.ownership.epoch(7) == cluster.store.owned[7].epoch > 0
        assert node.members.faults.count("beat") == beats + 1


@in_virtual_time
async def test_a_wish_to_look_is_granted_when_all_seems_well() -> None:
    """As after another run of the store: nothing that this node knows is wrong, it only may be."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await between_beats(node)
        cluster.store.lose(7, "a")
        node.ownership.reclaim()
        await passing(AT_ONCE_S)
        assert node.ownership.epoch(7) == cluster.store.owned[7].epoch
        assert node.lost == [7]


@in_virtual_time
async def test_a_node_that_is_dead_has_no_address() -> None:
    """From the moment it is found dead, not only when its record is gone."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        first, second = await cluster.started("a", "b")
        await passing(2 * BEAT_S)
        assert first.membership.address_of("b") == "b.example:7000"
        await second.freeze()
        known = 0
        for _ in range(round(2 * DEAD_AFTER_S * 100)):
            await passing(0.01)
            assert bool(first.membership.address_of("b")) == ("b" in first.membership.alive())
            known += any(record.node == "b" for record, _ in first.membership.records())
        assert known
        assert first.membership.address_of("b") == ""


@in_virtual_time
async def test_a_node_that_leaves_does_not_take_what_it_is_given() -> None:
    """Who named it the next owner did not know yet; it is nobody's when the node has left."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        first, second = await cluster.started("a", "b")
        await passing(2 * BEAT_S)
        await second.membership.leave_soon()
        cluster.store.lose(7, "b")
        named = cluster.store.owned[7]
        await passing(2 * DEAD_AFTER_S)
        assert cluster.store.owned[7] == named
        await second.membership.leave()
        await passing(2 * BEAT_S)
        assert cluster.store.owned[7].node == "a"
        assert first.ownership.epoch(7) == cluster.store.owned[7].epoch
