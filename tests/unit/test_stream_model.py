"""A node follows a stream whose store loses things: it never has a hole, a repeat or a wrong message without saying so.

The store numbers, evicts, expires, and comes back older under a new epoch; the ear is in order and may be cut; answers
are bounded and come late, out of date, or never. Mistakes that are planted into the decision must be found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct
from msgspec.structs import replace

from actors.core import stream as streams
from actors.core.stream import (
    Answered,
    Arrived,
    Ask,
    Deaf,
    Deliver,
    Effect,
    Inbox,
    Listening,
    Lost,
    Position,
    Publication,
    Recalled,
    Settled,
    Stream,
    Unanswered,
)

HELD_MAX = 2
LIMIT = 2
"""Messages of one answer."""
KEPT = 8
TROUBLES = ("evicted", "forgotten", "older", "cut", "unanswered", "questions lost")
STEPS = 60
WALKS = 1000
ROUNDS_MAX = 60
"""More than a quiet phase may need: a few for each message that can be missing."""


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound so small that it is met."""
    monkeypatch.setattr(streams, "HELD_MAX", HELD_MAX)


class Answer(Struct, frozen=True):
    """What the store said to a question; `whole`: it still had all that came after the position of it."""

    message: Answered
    whole: bool


class Store:
    """One stream. `said` is every message there ever was, by its place."""

    def __init__(self) -> None:
        self.epochs = 0
        self.top = 0
        self.kept: deque[Publication] = deque()
        self.said: dict[Position, Publication] = {}
        self._ids = 0
        self.begin()

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(f"e{self.epochs}", self.top)

    def begin(self) -> None:
        """Another epoch."""
        self.epochs += 1
        self.top = 0
        self.kept.clear()

    def add(self) -> Arrived:
        """One more message."""
        self._ids += 1
        self.top += 1
        publication = Publication(self.top, f"m{self._ids}", b"%d" % self._ids)
        self.said[self.position] = publication
        self.kept.append(publication)
        while len(self.kept) > KEPT:
            self.kept.popleft()
        return Arrived(self.position.epoch, publication)

    def evict(self, count: int) -> None:
        """The history becomes shorter, or expires."""
        for _ in range(min(count, len(self.kept))):
            self.kept.popleft()

    def lose(self, count: int) -> None:
        """It comes back older by so many; the messages were there, and are not."""
        for _ in range(min(count, self.top)):
            del self.said[self.position]
            self.top -= 1
            if self.kept:
                self.kept.pop()

    def read(self, ask: Ask) -> Answer:
        """What it says now."""
        since = ask.since
        if since is None or since.epoch != self.position.epoch:
            return Answer(Answered(ask.asked, Recalled(self.position, (), False)), since is None)
        after = [each for each in self.kept if each.offset > since.offset]
        recalled = Recalled(self.position, tuple(after[:LIMIT]), len(after) > LIMIT)
        return Answer(Answered(ask.asked, recalled), since.offset + len(after) == self.top)


class Follower(RuleBasedStateMachine):
    """A node, its ear and its lane. `place` is where those who listen are, as they were told."""

    @initialize()
    def begin(self) -> None:
        """Nobody knows anything."""
        self.store = Store()
        self.stream = Stream()
        self.place: Position | None = None
        self.ear: deque[Listening | Arrived] = deque()
        self.subscribed = False
        self.questions: list[Ask] = []
        self.answers: list[Answer] = []

    # What happens at the store.

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        """Somebody publishes; the ear will hear it, if it listens."""
        for _ in range(count):
            arrived = self.store.add()
            if self.subscribed:
                self.ear.append(arrived)

    # What happens to the ear.

    @precondition(lambda self: not self.subscribed)
    @rule()
    def subscribe(self) -> None:
        """From this moment of the store's on everything is heard."""
        self.subscribed = True
        self.ear.append(Listening())

    @precondition(lambda self: self.ear)
    @rule(count=st.integers(1, 4))
    def hear(self, count: int) -> None:
        """What is on its way arrives."""
        for _ in range(min(count, len(self.ear))):
            self.feed(self.ear.popleft())

    # What happens to questions.

    @precondition(lambda self: self.questions)
    @rule(which=st.integers(0, 5))
    def read(self, which: int) -> None:
        """The store sees a question. The answer is on its way."""
        self.answers.append(self.store.read(self.questions.pop(which % len(self.questions))))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 5), again=st.booleans())
    def answer(self, which: int, *, again: bool) -> None:
        """An answer comes, also one to an earlier question; perhaps it will once more."""
        answer = self.answers[which % len(self.answers)]
        if not again:
            self.answers.remove(answer)
        self.feed(answer.message, needless=answer.whole)

    # What breaks.

    @rule(trouble=st.sampled_from(TROUBLES), count=st.integers(1, 6))
    def suffer(self, trouble: str, count: int) -> None:
        """One thing at a time; in one rule, so that there is time for something to happen in between."""
        match trouble:
            case "evicted":
                self.store.evict(count)
            case "forgotten":
                self.store.begin()
            case "older":
                self.restart(count)
            case "cut":
                self.cut()
            case "unanswered":
                self.feed(Unanswered(self.stream.asked - count // 5))
            case _:
                self.questions.clear()
                self.feed(Unanswered(self.stream.asked))

    def restart(self, count: int) -> None:
        """The store comes back older. It begins a new epoch if the node had something of what is gone; else what comes
        next takes the places of what nobody has seen."""
        self.cut()
        had = self.place
        self.store.lose(count)
        if had is not None and had.epoch == self.store.position.epoch and had.offset > self.store.top:
            self.store.begin()

    def cut(self) -> None:
        """What is on its way to the ear is lost."""
        self.subscribed = False
        self.ear.clear()
        self.feed(Deaf())

    @rule()
    def quiet(self) -> None:
        """Nothing breaks for a while: the node follows, and stands where the store does."""
        if not self.subscribed:
            self.subscribe()
        for _ in range(ROUNDS_MAX):
            while self.ear:
                self.feed(self.ear.popleft())
            if self.stream.phase == "asking" and not self.questions and not self.answers:
                self.feed(Unanswered(self.stream.asked))  # it was lost before
            while self.questions:
                self.answers.append(self.store.read(self.questions.pop(0)))
            if not self.answers:
                break
            answer = self.answers.pop(0)
            self.feed(answer.message, needless=answer.whole)
        assert self.stream.phase == "live"
        unheard = self.store.top == 0  # a stream that began anew is heard of with its first message
        assert unheard or self.place == self.store.position

    # The judge.

    def feed(self, message: Inbox, *, needless: bool = False) -> None:
        """Tell the stream, and see what it does. `needless`: there is no reason to lose anything."""
        before = self.stream
        self.stream, effects = streams.decide(before, message)
        asked = [effect for effect in effects if isinstance(effect, Ask)]
        assert [ask.asked for ask in asked] == list(range(before.asked + 1, self.stream.asked + 1))
        assert len(asked) <= 1
        if before.at is None and isinstance(message, Answered) and self.stream.at is not None:
            self.place = message.recalled.top
        for effect in effects:
            assert not (needless and isinstance(effect, Lost)), "lost what the store had"
            self.told(effect)
        settled = Settled() in effects
        assert settled == (self.stream.phase == "live" and before.phase != "live")

    def told(self, effect: Effect) -> None:
        """Those who listen are told something, or the store is asked."""
        match effect:
            case Deliver(epoch, found):
                assert found
                for publication in found:
                    assert self.place is not None
                    after = Position(self.place.epoch, self.place.offset + 1)
                    assert Position(epoch, publication.offset) == after, "a hole or a repeat"
                    assert self.store.said.get(after) == publication, "another message"
                    self.place = after
            case Lost(position):
                self.place = position
            case Ask():
                assert effect.since == self.place
                self.questions.append(effect)
            case _:
                assert effect == Settled()

    @invariant()
    def it_knows_where_its_listeners_are(self) -> None:
        """What it asks from, and judges by, is what was delivered."""
        assert self.stream.at == self.place

    @invariant()
    def what_it_holds_is_bounded(self) -> None:
        """And nothing is held outside of a question."""
        assert len(self.stream.held) <= HELD_MAX
        assert self.stream.phase == "asking" or not (
            self.stream.held or (self.stream.phase == "live" and self.stream.overfull)
        )

    @invariant()
    def it_can_go_on(self) -> None:
        """Who follows knows where it stands; who asks has a question that somebody can answer or miss."""
        assert self.stream.phase != "live" or self.stream.at is not None
        assert self.stream.phase != "asking" or self.stream.asked


TestFollower = Follower.TestCase
TestFollower.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

Decide = Callable[[Stream, Inbox], tuple[Stream, tuple[Effect, ...]]]
right: Decide = streams.decide


def _takes_any_answer(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """Whatever question it belongs to."""
    if isinstance(message, Answered):
        message = replace(message, asked=stream.asked)
    return right(stream, message)


def _forgets_what_it_held(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """As soon as an answer comes."""
    if isinstance(message, Answered):
        stream = replace(stream, held=(), overfull=False)
    return right(stream, message)


def _forgets_that_there_was_more(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """Than it could hold."""
    return right(replace(stream, overfull=False), message)


def _hears_any_epoch(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """An arrival is taken for one of the epoch that is known."""
    if isinstance(message, Arrived) and stream.at is not None:
        message = replace(message, epoch=stream.at.epoch)
    return right(stream, message)


def _believes_any_epoch(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """An answer is taken for one of the epoch that is known."""
    if isinstance(message, Answered) and stream.at is not None:
        top = Position(stream.at.epoch, message.recalled.top.offset)
        message = Answered(message.asked, replace(message.recalled, top=top))
    return right(stream, message)


def _leaps(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """Over a gap between what it has and what arrives."""
    if isinstance(message, Arrived) and stream.phase == "live" and stream.at is not None:
        return _delivered(stream, message) if message.publication.offset > stream.at.offset else (stream, ())
    return right(stream, message)


def _repeats(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """What was delivered already and arrives only now."""
    if isinstance(message, Arrived) and stream.phase == "live" and stream.at is not None:
        late = message.epoch == stream.at.epoch and message.publication.offset <= stream.at.offset
        return _delivered(stream, message) if late else right(stream, message)
    return right(stream, message)


def _delivered(stream: Stream, message: Arrived) -> tuple[Stream, tuple[Effect, ...]]:
    at = Position(message.epoch, message.publication.offset)
    return replace(stream, at=at), (Deliver(message.epoch, (message.publication,)),)


def _trusts_the_gap(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """It goes on after it was deaf as if nothing had been missed."""
    if isinstance(message, Listening) and stream.at is not None:
        return replace(stream, phase="live"), () if stream.phase == "live" else (Settled(),)
    return right(stream, message)


def _is_lost_at_once(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """Says that all is lost, where a part of an answer is missing."""
    if isinstance(message, Answered) and message.recalled.more:
        message = Answered(message.asked, replace(message.recalled, publications=()))
    return right(stream, message)


def _never_says_lost(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """It goes on from the store's top, silently."""
    following, effects = right(stream, message)
    return following, tuple(effect for effect in effects if not isinstance(effect, Lost))


def _believes_any_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(streams, "continues", lambda since, recalled: since.epoch == recalled.top.epoch)


def _instead(decide: Decide) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(streams, "decide", decide)


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "answers are not judged": _believes_any_answer,
    "gaps in answers are not seen": lambda patch: patch.setattr(streams, "follows", lambda _offset, _found: True),
    "an old answer is taken": _instead(_takes_any_answer),
    "what was held back is forgotten": _instead(_forgets_what_it_held),
    "that there was more is forgotten": _instead(_forgets_that_there_was_more),
    "arrivals are of any epoch": _instead(_hears_any_epoch),
    "answers are of any epoch": _instead(_believes_any_epoch),
    "gaps are leapt over": _instead(_leaps),
    "what was delivered is repeated": _instead(_repeats),
    "deafness is forgotten": _instead(_trusts_the_gap),
    "parts are losses": _instead(_is_lost_at_once),
    "losses are not told": _instead(_never_says_lost),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine notices each of these mistakes."""
    PLANTED[planted](monkeypatch)
    with pytest.raises(AssertionError):
        _walks(WALKS)


def test_nothing_is_found_where_nothing_is_planted() -> None:
    """On the same walks."""
    _walks(WALKS)


def _walks(count: int) -> None:
    """Play with the machine at random: a hundred times faster than hypothesis, which is for what can be made short."""
    for seed in range(count):
        random = Random(seed)  # noqa: S311  a game, no secrets
        machine = Follower()
        machine.begin()
        for _ in range(STEPS):
            _step(machine, random)
            machine.it_knows_where_its_listeners_are()
            machine.what_it_holds_is_bounded()
            machine.it_can_go_on()


def _step(machine: Follower, random: Random) -> None:
    match random.randrange(10):
        case 0 | 1 | 2:
            machine.publish(random.randint(1, 3))
        case 3:
            if not machine.subscribed:
                machine.subscribe()
        case 4:
            if machine.ear:
                machine.hear(random.randint(1, 4))
        case 5 | 6:
            if machine.questions:
                machine.read(random.randrange(6))
        case 7:
            if machine.answers:
                machine.answer(random.randrange(6), again=random.random() < 0.3)
        case 8:
            machine.quiet()
        case _:
            machine.suffer(random.choice(TROUBLES), random.randint(1, 6))
