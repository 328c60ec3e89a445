"""Actors and the dispatcher that gives them their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from actors.ports import Overloaded
from actors.runtime.actor import TURN_MESSAGES_MAX, Actor, Dispatcher
from tests.support.virtual_time import complaints_expected, in_virtual_time, ticks


class Poison(Exception):
    """What a crashing actor raises."""


class Recorder(Actor[Any]):
    """Keeps what it receives and then does what `does` says."""

    mailbox_max: ClassVar[int] = 8

    def __init__(self, does: Callable[[Recorder, Any], None] = lambda _actor, _message: None) -> None:
        super().__init__()
        self.does = does
        self.got: list[Any] = []

    def receive(self, message: Any) -> None:
        """Note it first: a crash must not hide that it came."""
        self.got.append(message)
        self.does(self, message)


Crash = tuple[Actor[Any], list[Any], Exception]


def dispatcher() -> tuple[Dispatcher, list[Crash]]:
    """A dispatcher and the crashes it reports."""
    crashes: list[Crash] = []
    return Dispatcher(lambda actor, messages, error: crashes.append((actor, messages, error))), crashes


def poisoned(_actor: Recorder, message: Any) -> None:
    """Crash at the message `poison`."""
    if message == "poison":
        raise Poison


@in_virtual_time
async def test_an_actor_with_nothing_else_to_do_receives_at_once() -> None:
    """No tick is lost, and nothing is kept afterwards."""
    post, _ = dispatcher()
    actor = Recorder()
    post.tell(actor, "a")
    assert actor.got == ["a"]
    assert post.waiting == 0
    assert actor._mail is None


@in_virtual_time
async def test_what_an_actor_tells_itself_waits_for_a_turn() -> None:
    """`receive` runs to its end before the next message, and the order is kept."""
    post, _ = dispatcher()
    seen_at_the_end: list[list[Any]] = []

    def tell_self(actor: Recorder, message: Any) -> None:
        if message == "start":
            post.tell(actor, "first")
            post.tell(actor, "second")
            seen_at_the_end.append(list(actor.got))

    actor = Recorder(tell_self)
    post.tell(actor, "start")
    assert seen_at_the_end == [["start"]]
    assert post.waiting == 2
    post.tell(actor, "third")
    await ticks()
    assert actor.got == ["start", "first", "second", "third"]
    assert post.waiting == 0


@in_virtual_time
async def test_an_actor_may_tell_another_while_it_receives() -> None:
    """The other receives at once; its answer waits until the first is done."""
    post, _ = dispatcher()
    log: list[str] = []

    def ask(actor: Recorder, message: Any) -> None:
        if message == "go":
            post.tell(other, actor)
            log.append("asked")
        else:
            log.append(f"got {message}")

    other = Recorder(lambda _self, sender: post.tell(sender, "answer"))
    post.tell(Recorder(ask), "go")
    await ticks()
    assert log == ["asked", "got answer"]


@in_virtual_time
async def test_a_full_mailbox_is_an_honest_answer() -> None:
    """One message more than `mailbox_max` is refused, not queued; those that wait still come."""
    post, _ = dispatcher()
    refused: list[str] = []

    def flood(actor: Recorder, message: Any) -> None:
        if message == "start":
            for number in range(Recorder.mailbox_max):
                post.tell(actor, number)
            with pytest.raises(Overloaded) as caught:
                post.tell(actor, "one more")
            refused.append(str(caught.value))

    actor = Recorder(flood)
    post.tell(actor, "start")
    assert refused == ["the mailbox is full"]
    assert post.waiting == Recorder.mailbox_max
    await ticks()
    assert actor.got == ["start", *range(Recorder.mailbox_max)]
    post.tell(actor, "room again")
    assert actor.got[-1] == "room again"


@in_virtual_time
async def test_a_turn_is_bounded() -> None:
    """Actors that are busy, however many, leave the loop its turns."""
    post, _ = dispatcher()
    rounds = TURN_MESSAGES_MAX

    def again(actor: Recorder, message: Any) -> None:
        if message < rounds:
            post.tell(actor, message + 1)

    actors = [Recorder(again) for _ in range(4)]
    for actor in actors:
        post.tell(actor, 0)
    received_at: list[int] = []
    for _ in range(6):
        received_at.append(sum(len(actor.got) for actor in actors))
        await asyncio.sleep(0)
    assert received_at[-1] == 4 * (rounds + 1)
    steps = [after - before for before, after in pairwise(received_at)]
    assert max(steps) == TURN_MESSAGES_MAX


@in_virtual_time
async def test_a_crash_is_the_supervisors() -> None:
    """It is told of the actor, of the message that it crashed at and of those that waited behind that one."""
    post, crashes = dispatcher()

    def fill(actor: Recorder, message: Any) -> None:
        if message == "start":
            for each in ("good", "poison", "behind", "behind too"):
                post.tell(actor, each)
        poisoned(actor, message)

    actor, neighbour = Recorder(fill), Recorder(fill)
    post.tell(actor, "start")
    neighbour.does = lambda self, message: post.tell(self, "mine") if message == "hello" else None
    post.tell(neighbour, "hello")
    await ticks()
    assert [(each, messages) for each, messages, _ in crashes] == [(actor, ["poison", "behind", "behind too"])]
    assert isinstance(crashes[0][2], Poison)
    assert actor.got == ["start", "good", "poison"]
    assert neighbour.got == ["hello", "mine"]
    assert post.waiting == 0


@in_virtual_time
async def test_a_crash_at_a_message_that_came_at_once() -> None:
    """The teller sees nothing of it; what the actor had told itself before is handed over."""
    post, crashes = dispatcher()

    def tell_then_crash(actor: Recorder, message: Any) -> None:
        if message == "poison":
            post.tell(actor, "left over")
            raise Poison

    actor = Recorder(tell_then_crash)
    post.tell(actor, "poison")
    assert [messages for _, messages, _ in crashes] == [["poison", "left over"]]
    assert post.waiting == 0
    await ticks()
    assert actor.got == ["poison"]
    post.tell(actor, "still there")
    assert actor.got == ["poison", "still there"]


@in_virtual_time
async def test_a_supervisor_that_crashes_itself_stops_nobody() -> None:
    """The error is logged by the loop; whoever has mail still gets a turn, now and later."""

    def hopeless(_actor: Actor[Any], _messages: list[Any], _error: Exception) -> None:
        raise RuntimeError("no idea what to do")

    post = Dispatcher(hopeless)

    def relay(actor: Recorder, message: Any) -> None:
        if message == "start":
            post.tell(actor, "poison")
        poisoned(actor, message)

    def forward(actor: Recorder, message: Any) -> None:
        if message == "start":
            post.tell(actor, "mine")

    crashing, neighbour = Recorder(relay), Recorder(forward)
    with complaints_expected() as complaints:
        post.tell(crashing, "start")
        post.tell(neighbour, "start")
        await ticks()
    assert [str(each["exception"]) for each in complaints] == ["no idea what to do"]
    assert neighbour.got == ["start", "mine"]
    post.tell(neighbour, "start")
    await ticks()
    assert neighbour.got == ["start", "mine", "start", "mine"]
    with pytest.raises(RuntimeError):
        post.tell(crashing, "poison")
    post.tell(crashing, "still there")
    assert crashing.got == ["start", "poison", "poison", "still there"]
    assert post.waiting == 0


class Errand(Struct, frozen=True):
    """A message that makes its receiver tell others to the actors named, and perhaps crash after that."""

    crash: bool
    then: tuple[tuple[int, Errand], ...]


ACTORS = 3
ERRANDS = st.recursive(
    st.builds(Errand, st.just(False), st.just(())),
    lambda inner: st.builds(
        Errand,
        st.integers(0, 9).map(lambda chance: chance == 0),
        st.lists(st.tuples(st.integers(0, ACTORS - 1), inner), max_size=6).map(tuple),
    ),
    max_leaves=40,
)


class Village:
    """Actors that run errands for each other; every telling has a number, in the order of telling."""

    def __init__(self) -> None:
        self.post, self.crashes = dispatcher()
        self.actors = [Recorder(self._run) for _ in range(ACTORS)]
        self.told: dict[int, tuple[Recorder | None, Recorder, Errand]] = {}
        self.refused: list[int] = []
        self.running: list[Recorder] = []

    def tell(self, teller: Recorder | None, to: int, errand: Errand) -> None:
        """Tell, and note who told what to whom."""
        number = len(self.told)
        self.told[number] = (teller, self.actors[to], errand)
        try:
            self.post.tell(self.actors[to], number)
        except Overloaded:
            self.refused.append(number)

    def _run(self, actor: Recorder, number: int) -> None:
        assert actor not in self.running, "receives a message while it receives another"
        assert len(actor._mail or ()) <= Recorder.mailbox_max
        errand = self.told[number][2]
        self.running.append(actor)
        for to, inner in errand.then:
            self.tell(actor, to, inner)
        self.running.pop()
        if errand.crash:
            raise Poison


@given(errands=st.lists(st.tuples(st.integers(0, ACTORS - 1), ERRANDS), max_size=8))
@in_virtual_time
async def test_every_message_comes_once_and_in_its_tellers_order(errands: list[tuple[int, Errand]]) -> None:
    """Whatever actors tell each other, with crashes in between: a message is received once, or refused, or handed to
    the supervisor behind the one that crashed; one teller's come in the order of telling; one at a time."""
    village = Village()
    for to, errand in errands:
        village.tell(None, to, errand)
    await ticks()
    assert village.post.waiting == 0
    handed = [number for _, numbers, _ in village.crashes for number in numbers[1:]]
    received = [number for actor in village.actors for number in actor.got]
    assert sorted([*received, *handed, *village.refused]) == list(village.told)
    for actor in village.actors:
        for teller in (None, *village.actors):
            from_one = [number for number in actor.got if village.told[number][0] is teller]
            assert from_one == sorted(from_one)
    crashed = [numbers[0] for _, numbers, _ in village.crashes]
    assert sorted(crashed) == [number for number in sorted(received) if village.told[number][2].crash]
    assert all(actor._mail is None for actor in village.actors)
