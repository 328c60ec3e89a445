"""A node's heart: its beats, what it learns from them of the others, and what it does before it acts again."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from actors.core.membership import ACTS_S, BEAT_S, DEAD_AFTER_S
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.membership import AWAY_S, EVENTS_KEPT_MAX, LOOK_S
from actors.node_ports import NodeRecord, NodeReplaced
from actors.ports import Fenced, Owner, StoreAway
from tests.support.cluster_rig import ClusterRig, Member
from tests.support.doubles import Stage, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

T = DEAD_AFTER_S
TAKES_OVER_S = T + BEAT_S + 0.05
"""Until the dead's partitions are taken: a death just after a beat, a read just before its time is over."""


def shares(member: Member, *others: str) -> list[int]:
    """What `member` wins beside these."""
    alive = frozenset({member.name, *others})
    return [partition for partition, winner in enumerate(winners(alive)) if winner == member.name]


@in_virtual_time
async def test_the_first_node_takes_everything() -> None:
    """With its first beat; it says that it came and what it took."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node = cluster.make("a")
        assert not node.may_act()
        await node.membership.run_once()
        assert node.may_act() == set(range(PARTITIONS))
        assert node.membership.alive() == {"a"}
        assert value(node.meters.nodes_alive) == 1
        assert value(node.meters.takeovers) == 0
        await node.membership.run_once()
        assert cluster.members.told() == [("a", "joined", "", 0), ("a", "took", "", PARTITIONS)]
        assert [record.beat for record in node.members.faults.requests("beat")] == [1, 2]


@in_virtual_time
async def test_beats_come_six_times_in_the_time_of_a_death() -> None:
    """A few may be lost before anybody wonders; partitions are looked at now and then without need."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        beats, looks = node.members.faults.count("beat"), node.store.faults.count("owners")
        await passing(60.0)
        assert 60 / BEAT_S - 2 <= node.members.faults.count("beat") - beats <= 60 / BEAT_S + 2
        assert 60 / (LOOK_S + 2 * BEAT_S) <= node.store.faults.count("owners") - looks <= 60 / LOOK_S + 1
        assert node.may_act() == set(range(PARTITIONS))
        assert cluster.store.faults.count("acquire") == 0


@in_virtual_time
async def test_a_node_that_comes_takes_nothing_from_the_living() -> None:
    """It is given its share by them; until then it knows who they are."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        first, second = await cluster.started("a", "b")
        await passing(1.0)
        assert first.membership.alive() == second.membership.alive() == {"a", "b"}
        assert set(cluster.owners()) == {"a"}
        assert second.ownership.owner_of(7) == "a"
        assert second.membership.address_of("a") == "a.example:7000"
        assert second.membership.address_of("c") == ""
        assert {record.node for record, _ in second.membership.records()} == {"a", "b"}


@in_virtual_time
async def test_nodes_that_start_at_once_take_nothing_from_each_other() -> None:
    """One of them is slow: between its reading who lives and its reading who owns what the others came."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        slow, quick = cluster.make("a"), cluster.make("b")
        slow.store.faults.latency_s = 0.05
        slow.run()
        quick.run()
        for _ in range(100):
            await passing(0.01)
            assert not slow.may_act() & quick.may_act()
        assert value(slow.meters.takeovers) == value(quick.meters.takeovers) == 0
        assert quick.lost == []
        assert cluster.held() == list(range(PARTITIONS))


@in_virtual_time
async def test_what_a_dead_node_had_is_taken_over_and_not_before_its_time() -> None:
    """By its winners, each its own; soon after T, and after the dead one itself has stopped to act."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        dead, second, third = await cluster.started("a", "b", "c")
        await passing(1.0)
        await dead.freeze()
        died_at = stage.clock.boottime()
        while set(cluster.owners()) & {"a"}:
            assert cluster.owners().count("a") == PARTITIONS or not dead.may_act()
            assert stage.clock.boottime() <= died_at + TAKES_OVER_S
            await passing(0.01)
        assert stage.clock.boottime() >= died_at + T - BEAT_S
        await passing(1.0)
        assert second.ownership.held() == shares(second, "c")
        assert third.ownership.held() == shares(third, "b")
        assert value(second.meters.takeovers) + value(third.meters.takeovers) == PARTITIONS
        assert cluster.members.nodes.keys() == {"b", "c"}, "its record is taken away"
        told = [line[:3] for line in cluster.members.told()]
        assert told.count(("b", "found dead", "a")) == told.count(("c", "found dead", "a")) == 1
        assert told.count(("b", "took over", "a")) == told.count(("c", "took over", "a")) == 1


@in_virtual_time
async def test_a_node_that_overslept_looks_before_it_acts_again() -> None:
    """It beats, finds that all was taken from it, and lets go: at no moment two may act in one partition."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        sleeper, other = await cluster.started("a", "b")
        await passing(1.0)
        await sleeper.freeze()
        await passing(3 * T)
        assert set(cluster.owners()) == {"b"}
        assert len(sleeper.ownership.held()) == PARTITIONS, "it does not know yet"
        assert not sleeper.may_act()
        gate = sleeper.store.faults.gates["owners"] = asyncio.Event()
        sleeper.run()
        await passing(1.0)
        assert not sleeper.may_act(), "it has beaten, and not looked"
        gate.set()
        await passing(1.0)
        assert sleeper.ownership.held() == []
        assert sleeper.lost == list(range(PARTITIONS))
        assert len(other.may_act()) == PARTITIONS
        assert ("a", "joined", "", 0) in cluster.members.told()


@in_virtual_time
async def test_a_node_that_wakes_just_when_another_takes_over_acts_after_a_second_look() -> None:
    """The other found it dead and has not acquired yet: the first look of the one that woke shows its own name."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        sleeper, other = await cluster.started("a", "b")
        await passing(1.0)
        await sleeper.freeze()
        gate = other.store.faults.gates["acquire"] = asyncio.Event()
        await passing(T + BEAT_S + 0.1)
        assert other.store.faults.count("acquire") == 1
        sleeper.run()
        sleeper.ownership.reclaim()
        await passing(0.1)
        assert len(sleeper.ownership.held()) == PARTITIONS
        sleeper.ownership.reclaim()
        await passing(0.05)
        assert not sleeper.may_act(), "a wish to look does not shorten it"
        gate.set()
        for _ in range(100):
            await passing(0.01)
            assert not sleeper.may_act() & other.may_act()
        assert len(other.may_act()) == PARTITIONS


@in_virtual_time
async def test_a_node_that_overslept_beside_another_and_lost_nothing_acts_after_two_beats() -> None:
    """Each time anew. The store was away for both, so neither can have been taken for dead; it costs a third of a
    second."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        members = await cluster.started("a", "b")
        await passing(1.0)
        for _ in range(2):
            for member in members:
                member.cut()
            await passing(600.0)
            for member in members:
                member.cut(away=False)
            await passing(AWAY_S + 0.05)
            assert members[0].may_act() == set()
            await passing(BEAT_S)
            assert len(members[0].may_act()) == PARTITIONS
        assert members[0].lost == []


@in_virtual_time
async def test_a_node_that_overslept_and_lost_nothing_goes_on() -> None:
    """It was alone: nobody can have taken anything, so it acts at once."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        epochs = [node.ownership.epoch(partition) for partition in range(PARTITIONS)]
        await node.freeze()
        await passing(10 * T)
        assert not node.may_act()
        node.run()
        await passing(0.05)
        assert len(node.may_act()) == PARTITIONS
        assert [node.ownership.epoch(partition) for partition in range(PARTITIONS)] == epochs
        assert node.lost == []


@in_virtual_time
async def test_frozen_while_its_beat_was_under_way() -> None:
    """The answer is as old as the sleep was long: it allows nothing, and the next beat looks first."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        sleeper, other = await cluster.started("a", "b")
        await passing(1.0)
        answered = sleeper.members.faults.answers["beat"] = asyncio.Event()
        await passing(3 * T)
        assert set(cluster.owners()) == {"b"}
        answered.set()
        for _ in range(100):
            await passing(0.01)
            assert not sleeper.may_act() & other.may_act()
        assert sleeper.ownership.held() == []


@pytest.mark.parametrize("written", [True, False], ids=["stored", "not stored"])
@in_virtual_time
async def test_a_beat_whose_answer_was_lost_is_no_licence(written: bool) -> None:
    """The beat after it must be a new sign of life for all who saw the lost one: else they count from that, and this
    node from its own."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, other = await cluster.started("a", "b")
        await passing(1.0)
        (node.members.faults.after if written else node.members.faults.before)["beat"] = 1
        lost = node.members.faults.count("beat")
        while node.members.faults.count("beat") == lost:
            await passing(0.001)
        await passing(0.01)
        node.cut()
        await passing(1.2)
        node.cut(away=False)
        while not node.may_act():
            await passing(0.001)
        await node.freeze()
        for _ in range(400):
            await passing(0.01)
            assert not node.may_act() & other.may_act()
        assert len(other.may_act()) == PARTITIONS
        beats = [record.beat for record in node.members.faults.requests("beat")]
        assert len(set(beats)) == len(beats)


@in_virtual_time
async def test_a_first_beat_whose_answer_was_lost_takes_the_name_over_all_the_same() -> None:
    """Another process had the name before. Until the sign has changed once nothing may be done on its strength."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        cluster.members.nodes["a"] = NodeRecord(node="a", incarnation="before", beat=400)
        node = cluster.make("a")
        node.members.faults.before["beat"] = 1
        node.members.faults.after["beat"] = 1
        for _ in range(2):
            with pytest.raises(StoreAway):
                await node.membership.run_once()
        await node.membership.run_once()
        assert not node.may_act()
        await node.membership.run_once()
        assert len(node.may_act()) == PARTITIONS
        assert [record.beat for record in node.members.faults.requests("beat")] == [1, 1, 1, 4]
        assert [line[:2] for line in cluster.members.told()].count(("a", "joined")) <= 2


@in_virtual_time
async def test_a_store_that_is_away_is_asked_ten_times_a_second() -> None:
    """Refused without a turn of the loop, and with a look wanted: it must not spin, the loop has other things to do."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        node.ownership.reclaim()
        node.cut()
        beats = node.members.faults.count("beat")
        await passing(10.0)
        assert 10 / AWAY_S - 5 <= node.members.faults.count("beat") - beats <= 10 / AWAY_S + 1
        assert not node.may_act()
        node.cut(away=False)
        await passing(AWAY_S + 0.02)
        assert len(node.may_act()) == PARTITIONS
        assert stage.crashes == []


@in_virtual_time
async def test_a_store_that_was_away_for_all_kills_nobody() -> None:
    """Everybody's signs stood still, and nobody could read them: nothing changes hands."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        members = await cluster.started("a", "b", "c")
        await passing(1.0)
        for away_s in (0.5, T, 30.0):
            for member in members:
                member.cut()
            await passing(away_s)
            for member in members:
                member.cut(away=False)
            await passing(3 * T)
        assert set(cluster.owners()) == {"a"}
        assert all(value(member.meters.takeovers) == 0 for member in members)
        assert "found dead" not in [what for _, what, _, _ in cluster.members.told()]


@in_virtual_time
async def test_a_node_that_is_cut_off_stops_and_another_takes_over() -> None:
    """In this order."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node, other = await cluster.started("a", "b")
        await passing(1.0)
        node.cut()
        for _ in range(400):
            await passing(0.01)
            assert not node.may_act() & other.may_act()
        assert len(other.may_act()) == PARTITIONS
        node.cut(away=False)
        for _ in range(100):
            await passing(0.01)
            assert not node.may_act() & other.may_act()
        assert node.ownership.held() == []


@pytest.mark.parametrize("call", ["owners", "acquire"])
@in_virtual_time
async def test_a_look_that_fails_is_tried_again_before_it_acts(call: str) -> None:
    """The beat was stored, but it is not known who owns what."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node = cluster.make("a")
        node.store.faults.before[call] = 3
        node.run()
        await passing(2.5 * AWAY_S)
        assert not node.may_act()
        await passing(1.0)
        assert len(node.may_act()) == PARTITIONS
        assert node.store.faults.count(call) >= 4


@in_virtual_time
async def test_a_wish_to_look_is_granted_at_once() -> None:
    """Not at the next beat."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(1.0)
        cluster.store.owned[7] = Owner(0, "")
        node.ownership.fenced(7, Fenced(0, ""))
        await passing(0.02)
        assert node.ownership.epoch(7) == cluster.store.owned[7].epoch > 0
        beats = node.members.faults.count("beat")
        await passing(1.0)
        assert node.members.faults.count("beat") - beats <= 4


@in_virtual_time
async def test_who_is_replaced_ends() -> None:
    """Another process beats under this node's name: said once, in one line, and no beat more."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [old] = await cluster.started("a")
        await passing(1.0)
        [new] = await cluster.started("a")
        await passing(1.0)
        assert old.replaced == ["another process uses the name a"]
        assert new.replaced == []
        beats = old.members.faults.count("beat")
        await passing(5.0)
        assert old.members.faults.count("beat") == beats
        assert len(new.may_act()) == PARTITIONS
        assert not old.may_act()
        with pytest.raises(NodeReplaced):
            await old.membership.run_once()


@in_virtual_time
async def test_a_process_that_comes_back_at_once_takes_its_own_past() -> None:
    """Nobody has to wait for T; nobody else notices."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        old, other = await cluster.started("a", "b")
        await passing(1.0)
        await old.freeze()
        [new] = await cluster.started("a")
        assert len(new.may_act()) == PARTITIONS
        await passing(3 * T)
        assert set(cluster.owners()) == {"a"}
        assert value(other.meters.takeovers) == 0


@in_virtual_time
async def test_lines_for_the_log_wait_while_the_store_is_away() -> None:
    """In their order; those that tell the same are one; the oldest go when there are too many."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(0.5)
        cluster.members.log.clear()
        node.cut()
        node.membership.note("fenced", "b", 1)
        node.membership.note("fenced", "b", 2)
        node.membership.note("fenced", "c", 5)
        await passing(1.0)
        node.membership.note("handed over", "b", 1)
        await passing(1.0)
        node.cut(away=False)
        await passing(1.0)
        assert cluster.members.told() == [
            ("a", "fenced", "b", 3),
            ("a", "fenced", "c", 5),
            ("a", "handed over", "b", 1),
        ]
        cluster.members.log.clear()
        node.cut()
        for number in range(EVENTS_KEPT_MAX + 10):
            node.membership.note("fenced", f"n{number}", 1)
            await passing(0.01)
        node.cut(away=False)
        await passing(1.0)
        assert [other for _, _, other, _ in cluster.members.told()] == [
            f"n{number}" for number in range(10, EVENTS_KEPT_MAX + 10)
        ]


@in_virtual_time
async def test_lines_that_come_while_a_beat_fails_come_after_those_it_carried() -> None:
    """And when there are too many, it is the oldest that go."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(0.5)
        for number in range(EVENTS_KEPT_MAX):
            node.membership.note("fenced", f"old {number}")
        gate = node.members.faults.gates["beat"] = asyncio.Event()
        node.members.faults.before["beat"] = 1
        await passing(BEAT_S)
        node.membership.note("fenced", "new")
        gate.set()
        await passing(1.0)
        carried = [other for _, what, other, _ in cluster.members.told() if what == "fenced"]
        assert carried[-1] == "new"
        assert carried[0] == "old 1"


@in_virtual_time
async def test_a_record_says_what_people_want_to_know() -> None:
    """As it is at the beat."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        node = cluster.make("a")
        node.membership.describe = lambda record: replace(record, partitions=len(node.ownership.held()))
        await node.membership.run_once()
        await node.membership.run_once()
        assert cluster.members.nodes["a"].partitions == PARTITIONS
        [(record, still_s)] = node.membership.records()
        assert (record.beat, record.partitions) == (2, PARTITIONS)
        await passing(0.5)
        assert node.membership.records()[0][1] == pytest.approx(still_s + 0.5)


@in_virtual_time
async def test_since_when_nobody_came_or_went() -> None:
    """The longer, the better a moment to move things."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        [node] = await cluster.started("a")
        await passing(5.0)
        assert node.membership.stable_s() >= 5.0
        await cluster.started("b")
        await passing(BEAT_S + 0.1)
        assert node.membership.stable_s() <= BEAT_S + 0.1
        await passing(5.0)
        assert node.membership.stable_s() >= 5.0


@in_virtual_time
async def test_a_store_that_went_back_changes_nothing_in_the_end() -> None:
    """Records and owners of some time ago: beats go on, epochs go up, everything is held once."""
    async with Stage() as stage:
        cluster = ClusterRig(stage)
        members = await cluster.started("a", "b", handover=True)
        before = dict(cluster.members.nodes), list(cluster.store.owned)
        await passing(30.0)
        assert len(set(cluster.owners())) == 2
        cluster.members.nodes.clear()
        cluster.members.nodes.update(before[0])
        cluster.store.owned[:] = before[1]
        for member in members:
            member.ownership.reclaim()
        await passing(30.0)
        assert cluster.held() == list(range(PARTITIONS))
        assert all(cluster.owners()[at] == member.name for member in members for at in member.ownership.held())
        assert [member.may_act() for member in members] == [set(member.ownership.held()) for member in members]
        assert ACTS_S < T
