"""Which node a partition belongs to: everybody comes to the same answer, and little moves when a node comes or goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.partition import PARTITIONS
from actors.core.rendezvous import scores, winners

NAMES = st.text(min_size=1, max_size=12)
SIGMAS = 4.5
COST_S_MAX = 0.25
PRINTED = "from actors.core.rendezvous import winners; print(*winners(frozenset(f'node-{n}' for n in range(7))))"


def test_nobody_wins_where_nobody_is() -> None:
    """And a node that is alone wins everything."""
    assert winners(frozenset()) == ("",) * PARTITIONS
    assert winners(frozenset({"a"})) == ("a",) * PARTITIONS


@settings(deadline=None)
@given(nodes=st.frozensets(NAMES, max_size=12), other=NAMES)
def test_only_what_a_node_wins_moves_when_it_comes_and_only_that_when_it_goes(
    nodes: frozenset[str], other: str
) -> None:
    """All other partitions keep their node, whatever the names are."""
    before, after = winners(nodes - {other}), winners(nodes | {other})
    assert set(after) <= nodes | {other}
    assert all(new in (other, old) for old, new in zip(before, after, strict=True))
    assert [old for old, new in zip(before, after, strict=True) if new != other] == [
        new for new in after if new != other
    ]


@settings(deadline=None)
@given(nodes=st.frozensets(NAMES, min_size=2, max_size=6), partitions=st.integers(1, 40))
def test_the_number_of_partitions_is_the_callers(nodes: frozenset[str], partitions: int) -> None:
    """A partition's node does not depend on how many others there are."""
    assert winners(nodes, partitions) == winners(nodes)[:partitions]
    assert all(len(scores(node, partitions)) == partitions for node in nodes)


@pytest.mark.parametrize("family", ["node-{}", "{}", "worker-{:04}.rack.example", "n{}@10.0.0.{}", "ñandú-{}"])
@pytest.mark.parametrize("count", [2, 3, 4, 16, 100])
def test_the_partitions_are_spread(family: str, count: int) -> None:
    """As evenly as chance would: also where names differ in a digit only."""
    won = Counter(winners(frozenset(family.format(number, number) for number in range(count))))
    share = PARTITIONS / count
    off = SIGMAS * sqrt(share * (1 - 1 / count)) + 1
    assert sum(won.values()) == PARTITIONS
    assert all(share - off <= of <= share + off for of in won.values())


def test_the_second_best_are_spread_as_well() -> None:
    """When a node dies its partitions go to all the others, not to one."""
    nodes = frozenset(f"node-{number}" for number in range(8))
    before, after = winners(nodes), winners(nodes - {"node-3"})
    heirs = Counter(new for old, new in zip(before, after, strict=True) if old == "node-3")
    assert len(heirs) == 7
    assert max(heirs.values()) <= sum(heirs.values()) / 2


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_every_process_comes_to_the_same_answer(seed: str) -> None:
    """Nothing of Python's own hashing goes into it."""
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    run = [sys.executable, "-c", PRINTED]
    there = subprocess.run(  # noqa: S603  this interpreter, and a text of ours
        run, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert tuple(there) == winners(frozenset(f"node-{number}" for number in range(7)))


def test_the_answer_does_not_change_with_the_version() -> None:
    """Nodes of two versions run side by side while a cluster is updated: these values must stay for ever."""
    assert winners(frozenset({"node-1", "node-2", "node-3"}))[:12] == (
        *("node-1", "node-3", "node-1", "node-1", "node-2", "node-1"),
        *("node-3", "node-2", "node-1", "node-2", "node-2", "node-3"),
    )
    assert scores("node-1")[:2] == (12_313_440_497_565_821_805, 2_050_355_859_928_270_938)


def test_a_hundred_nodes_cost_little() -> None:
    """Names never seen before; who is asked again has it at once."""
    took_s = []
    for turn in range(3):
        nodes = frozenset(f"cost-{turn}-{number}" for number in range(100))
        began = time.process_time()
        winners(nodes)
        took_s.append(time.process_time() - began)
        assert winners(nodes) is winners(nodes)
    assert min(took_s) <= COST_S_MAX
