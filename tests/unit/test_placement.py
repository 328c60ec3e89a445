"""Which partitions a node takes and gives away: every one has one taker, and a stable cluster comes to rest."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.partition import PARTITIONS
from actors.core.placement import MOVING_MAX, to_give, to_take
from actors.core.rendezvous import winners
from actors.ports import Owner

ALL = frozenset({"a", "b", "c", "d"})
NOBODY: frozenset[str] = frozenset()
NOTHING = [0] * PARTITIONS
NODES = st.sampled_from(["", "a", "b", "c", "d", "gone"])


def owned(node: str, epoch: int = 5) -> list[Owner]:
    """Every partition is one node's."""
    return [Owner(epoch, node)] * PARTITIONS


def won_by(node: str, alive: frozenset[str] = ALL) -> list[int]:
    """The partitions it wins."""
    return [partition for partition, winner in enumerate(winners(alive)) if winner == node]


def taken(node: str, owners: list[Owner], held: list[int] = NOTHING, leaving: frozenset[str] = NOBODY) -> list[int]:
    """What `node` takes of these."""
    return [partition for partition, _ in to_take(node, ALL - leaving, leaving, owners, held)]


@pytest.mark.parametrize("former", ["", "gone"])
def test_what_nobody_living_owns_is_taken_by_its_winner(former: str) -> None:
    """At once, however much it is; and by nobody else."""
    assert [taken(node, owned(former)) for node in sorted(ALL)] == [won_by(node) for node in sorted(ALL)]


def test_what_a_living_node_owns_is_left_to_it() -> None:
    """Even where another would win it: that is for the owner to give."""
    assert taken("a", owned("b")) == []


def test_what_a_leaving_node_owns_is_left_to_it_until_it_gives_it_back() -> None:
    """It still waits for answers of webhooks; what it gave back is nobody's and taken at once."""
    leaving = frozenset({"b"})
    owners = [Owner(5, "b" if partition % 2 else "") for partition in range(PARTITIONS)]
    assert taken("a", owners, leaving=leaving) == [at for at in won_by("a", ALL - leaving) if at % 2 == 0]


def test_what_is_the_nodes_by_name_only_is_taken() -> None:
    """It was given to it, or it is its own past; whoever wins it. What it holds under that epoch is as it should be."""
    held = [5 if partition < 100 else 4 for partition in range(PARTITIONS)]
    assert to_take("a", ALL, NOBODY, owned("a"), held) == [(at, Owner(5, "a")) for at in range(100, PARTITIONS)]
    assert taken("a", owned("a", 0)) == []


def test_a_node_that_does_not_know_itself_among_the_living_takes_only_its_own() -> None:
    """It wins nothing then."""
    assert to_take("x", ALL, NOBODY, owned(""), NOTHING) == []


@settings(deadline=None)
@given(owners=st.lists(NODES, min_size=PARTITIONS, max_size=PARTITIONS), alive=st.frozensets(st.sampled_from("abcd")))
def test_every_partition_without_an_owner_has_one_taker(owners: list[str], alive: frozenset[str]) -> None:
    """Nodes that see the same never reach for the same, and leave none over."""
    stored = [Owner(5, node) for node in owners]
    gains = ((node, gain) for node in alive for gain in to_take(node, alive, NOBODY, stored, NOTHING))
    reached = [at for node, (at, owner) in gains if owner.node != node]
    assert sorted(reached) == [at for at, node in enumerate(owners) if alive and node not in alive]


def test_what_others_win_is_given_to_them() -> None:
    """Never more than the node's share of what may move."""
    gifts = to_give("a", ALL, range(PARTITIONS))
    assert len(gifts) == MOVING_MAX // 4
    assert all(winners(ALL)[partition] == node != "a" for partition, node in gifts)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 32])
def test_an_eighth_moves_at_once_at_the_most(count: int) -> None:
    """Of all partitions, when every node gives as much as it may."""
    alive = frozenset(f"node-{number}" for number in range(count))
    ring = sorted(alive)
    held = {node: won_by(ring[(number + 1) % count], alive) for number, node in enumerate(ring)}
    moving = sum(len(to_give(node, alive, held[node])) for node in ring)
    assert moving <= MOVING_MAX == PARTITIONS // 8
    assert count == 1 or moving >= count


def test_who_has_its_own_gives_nothing() -> None:
    """Nor does one that is alone, or does not know who lives."""
    assert to_give("a", ALL, won_by("a")) == []
    assert to_give("a", frozenset({"a"}), range(PARTITIONS)) == []
    assert to_give("a", frozenset(), range(PARTITIONS)) == []


@settings(deadline=None)
@given(nodes=st.frozensets(st.sampled_from("abcdefgh"), min_size=1), chance=st.randoms(use_true_random=False))
def test_a_stable_cluster_comes_to_rest(nodes: frozenset[str], chance: Random) -> None:
    """From any placement: after some moves everything lies where it belongs, and nothing moves any more."""
    holders = [chance.choice(sorted(nodes)) for _ in range(PARTITIONS)]

    def moves(node: str) -> list[tuple[int, str]]:
        return to_give(node, nodes, [at for at, holder in enumerate(holders) if holder == node])

    for _ in range(PARTITIONS):
        for node in sorted(nodes):
            for partition, target in moves(node):
                holders[partition] = target
    assert tuple(holders) == winners(nodes)
    assert all(moves(node) == [] for node in nodes)
