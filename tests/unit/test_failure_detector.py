"""Who lives: a sign of life that stands still long enough on the reader's own clock is a death, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from actors.core.membership import ACTS_S, BEAT_S, DEAD_AFTER_S, GAP_S, View, next_look_in, observe
from actors.node_ports import NodeRecord

T = DEAD_AFTER_S
A = NodeRecord(node="a", incarnation="one", beat=1)
B = NodeRecord(node="b", incarnation="two", beat=7)
ROUND_S = 0.01
"""A read's way there and back."""


class Reader:
    """Reads as a node does. `clock` is its own."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.view: View[NodeRecord] = View()

    def read(self, *records: NodeRecord, after: float = BEAT_S, took: float = ROUND_S) -> frozenset[str]:
        """Read so long after the last answer; gives who lives."""
        self.clock += after
        sent = self.clock
        self.clock += took
        self.view = observe(self.view, records, sent, self.clock)
        return self.view.alive

    def until_dead(self, *records: NodeRecord, node: str, step: float = BEAT_S) -> float:
        """Read the same again and again; gives how long the node went on living."""
        began = self.clock
        while node in self.read(*records, after=step):
            assert self.clock < began + 10 * T
        return self.clock - began


def beating(record: NodeRecord, number: int) -> NodeRecord:
    """The record some beats later."""
    return replace(record, beat=record.beat + number)


def test_whoever_has_a_record_lives_until_it_is_known_better() -> None:
    """Nothing is known of a node that is seen for the first time."""
    reader = Reader()
    assert reader.view.alive == frozenset()
    assert reader.read(A, B) == {"a", "b"}
    assert reader.view.dead == []


@pytest.mark.parametrize("step", [0.01, BEAT_S, GAP_S - 0.001])
def test_a_sign_that_stands_still_for_t_is_a_death(step: float) -> None:
    """Not before; and after it as soon as a read can know."""
    reader = Reader()
    reader.read(A, B)
    lived_s = reader.until_dead(A, B, node="b", step=step)
    assert T <= lived_s <= T + step + 2 * ROUND_S
    assert reader.view.dead == [A, B]


def test_a_sign_that_changes_is_life() -> None:
    """Whichever of the two parts of it changed, and in whichever direction."""
    signs = (beating(B, 1), beating(B, -3), replace(B, incarnation="three"), replace(B, incarnation="x", beat=1))
    for changed in signs:
        reader = Reader()
        reader.read(B)
        for _ in range(5):
            reader.read(B)
        assert reader.read(changed) == {"b"}
        assert reader.until_dead(changed, node="b") >= T


def test_what_else_a_record_says_is_no_sign_of_life() -> None:
    """Numbers for people may change in the store in other ways."""
    reader = Reader()
    reader.read(B)
    for number in range(10):
        reader.read(replace(B, partitions=number, address=f"host:{number}"))
    assert reader.view.alive == frozenset()
    assert reader.view.seen["b"].record.partitions == 9


def test_the_dead_come_back_with_a_sign() -> None:
    """A node that was frozen beats again."""
    reader = Reader()
    reader.read(A, B)
    for number in range(1, 12):
        reader.read(beating(A, number), B)
    assert reader.view.alive == {"a"}
    assert reader.read(beating(A, 12), beating(B, 1)) == {"a", "b"}


def test_a_record_that_is_gone_is_a_node_that_is_gone() -> None:
    """At once: it was taken away by the node itself, or by somebody who had found it dead."""
    reader = Reader()
    reader.read(A, B)
    assert reader.read(A) == {"a"}
    assert reader.view.dead == []
    assert reader.read(A, B) == {"a", "b"}, "it is new again"


def test_a_node_that_leaves_is_not_among_the_living() -> None:
    """It says so itself, and nobody needs to bury it while it does."""
    reader = Reader()
    reader.read(A, B)
    assert reader.read(A, replace(B, leaving=True)) == {"a"}
    assert reader.view.dead == []


def test_a_node_that_dies_while_it_leaves_is_buried() -> None:
    """Else its record would stay for ever: nobody else takes it away."""
    reader = Reader()
    going = replace(B, leaving=True)
    reader.read(A, going)
    for number in range(1, 12):
        reader.read(beating(A, number), going)
    assert reader.view.dead == [going]


@pytest.mark.parametrize("pause", [GAP_S + 0.001, T, 100 * T])
def test_a_pause_between_reads_makes_nobody_look_dead(pause: float) -> None:
    """The store was away, or this node was frozen: what happened meanwhile nobody knows, so all begins anew."""
    reader = Reader()
    reader.read(A, B)
    for _ in range(5):
        reader.read(A, B)
    assert reader.read(A, B, after=pause) == {"a", "b"}
    lived_s = reader.until_dead(A, B, node="b")
    assert T <= lived_s <= T + BEAT_S + 2 * ROUND_S


def test_pauses_again_and_again_make_nobody_look_dead() -> None:
    """However long it goes on."""
    reader = Reader()
    for _ in range(50):
        assert reader.read(A, B, after=GAP_S + 0.001) == {"a", "b"}


def test_a_read_that_took_long_counts_the_slow_way() -> None:
    """A change is taken to have come at the end of it, a stillness to have been seen at its beginning; one that took
    longer than a gap may be, because the reader was frozen in it, tells of long ago: observation begins anew."""
    reader = Reader()
    reader.read(B)
    reader.read(beating(B, 1), took=0.9)
    changed_at = reader.clock
    assert reader.view.seen["b"].since == changed_at
    reader.read(beating(B, 1), after=0.5, took=0.1)
    assert reader.read(beating(B, 1), after=0.5, took=1.0) == {"b"}, "sent 1.1 s after the change"
    assert reader.read(beating(B, 1), after=0.5, took=5.0) == {"b"}, "this reader was frozen"
    assert reader.read(beating(B, 1), after=0.5, took=0.1) == {"b"}
    reader.read(beating(B, 1), after=0.9, took=0.1)
    assert reader.read(beating(B, 1), after=0.9, took=0.1) == frozenset()


def test_when_somebody_came_or_went_is_known() -> None:
    """Not when merely signs changed."""
    reader = Reader()
    reader.read(A, B)
    first = reader.view.changed_at
    assert first == reader.clock
    reader.read(beating(A, 1), beating(B, 1))
    assert reader.view.changed_at == first
    reader.read(beating(A, 2))
    second = reader.view.changed_at
    assert second == reader.clock
    reader.read(beating(A, 3), replace(B, incarnation="three"))
    assert reader.view.changed_at == reader.clock > second


def test_the_next_look_is_a_beat_away_or_sooner() -> None:
    """Sooner when somebody's time is over before that: a death is noticed at once."""
    reader = Reader()
    assert next_look_in(reader.view, reader.clock) == BEAT_S
    reader.read(A, B)
    began = reader.clock
    assert next_look_in(reader.view, began) == BEAT_S
    assert BEAT_S / 2 <= next_look_in(reader.view, began + T - BEAT_S / 2) <= BEAT_S / 2 + 0.005
    assert next_look_in(reader.view, began + T - BEAT_S - 0.001) == BEAT_S


def test_who_should_be_dead_by_now_is_looked_at_at_once() -> None:
    """The last read was sent a moment before the time was over, and answered after; a beat would pass otherwise."""
    reader = Reader()
    reader.read(B)
    reader.read(B, after=0.9, took=0.1)
    assert reader.read(B, after=0.99, took=0.1) == {"b"}
    assert next_look_in(reader.view, reader.clock) == 0.0
    assert reader.read(B, after=0.0) == frozenset()
    assert next_look_in(reader.view, reader.clock) == BEAT_S, "the dead hurry nobody"


def test_a_timer_that_fires_a_little_early_is_no_lost_beat() -> None:
    """As uvloop's do: a read sent just before the time is over would see the node alive."""
    reader = Reader()
    reader.read(B)
    for _ in range(20):
        pause = next_look_in(reader.view, reader.clock)
        if not reader.read(B, after=max(pause - 0.0005, 0.0), took=0.0005):
            break
    assert T <= reader.clock - 1000.0 - BEAT_S - ROUND_S <= T + 0.01


DEEDS = st.sampled_from(["beat", "beat", "restart", "leave", "go"])
Step = st.tuples(
    st.lists(st.tuples(st.sampled_from("bcd"), DEEDS), max_size=3),
    st.sampled_from([0.0, 0.05, BEAT_S, BEAT_S, BEAT_S, 0.9, GAP_S, GAP_S + 0.01, 3.0]),
    st.sampled_from([0.0, 0.01, 0.01, 0.3, 0.99, 2.5]),
    st.floats(0, 1),
)


class Answer(Struct, frozen=True):
    """What a read was answered."""

    sent: float
    received: float
    records: Mapping[str, NodeRecord]


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(Step, min_size=1, max_size=40))
def test_nobody_is_called_dead_too_early_nor_too_late(
    steps: list[tuple[list[tuple[str, str]], float, float, float]],
) -> None:
    """Nodes beat, start anew, leave and go while reads take their time and pause. Held against the whole history, read
    from its end; and against what the nodes themselves may do, of which the reader knows nothing."""
    world: dict[str, NodeRecord] = {}
    acts_until: dict[str, float] = {}
    history: list[Answer] = []
    view: View[NodeRecord] = View()
    clock = 0.0
    for deeds, pause, took, looked_at in steps:
        clock += pause
        sent, stored_at, received = clock, clock + took * looked_at, clock + took
        for number, (name, deed) in enumerate(deeds):
            _do(world, name, deed, f"process {len(history)} {number}")
            if deed in ("beat", "restart"):
                acts_until[name] = sent + ACTS_S
        records = dict(world)
        history.append(Answer(sent, received, records))
        view = observe(view, list(records.values()), sent, received)
        clock = received
        assert view.alive == {name for name in records if _lives(history, name)}
        for name in records.keys() - view.alive:
            assert records[name].leaving or acts_until.get(name, 0.0) < sent <= stored_at


def _do(world: dict[str, NodeRecord], name: str, deed: str, incarnation: str) -> None:
    fresh = NodeRecord(node=name, incarnation=incarnation, beat=1)
    if deed == "go":
        world.pop(name, None)
    elif deed == "restart" or name not in world:
        world[name] = fresh
    else:
        world[name] = replace(world[name], beat=world[name].beat + 1, leaving=deed == "leave")


def _lives(history: Sequence[Answer], name: str) -> bool:
    """The rule, without memory: how far back does the same sign go without a pause, and is that less than T?"""
    last = history[-1]
    record = last.records[name]
    since, later = last.received, last
    for answer in reversed(history[:-1]):
        there = answer.records.get(name)
        same = there is not None and (there.incarnation, there.beat) == (record.incarnation, record.beat)
        if not same or later.sent - answer.received > GAP_S or later.received - later.sent > GAP_S:
            break
        since, later = answer.received, answer
    return not record.leaving and last.sent - since < T
