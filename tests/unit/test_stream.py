"""How a node follows a stream: each decision as a table, and all of them together against a store that loses things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.core import stream as streams
from actors.core.stream import (
    HELD_MAX,
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
    continues,
    decide,
    follows,
)
from tests.support.channel_doubles import publications

E = "e1"


def heard(offset: int, epoch: str = E) -> Arrived:
    """A publication arrives."""
    return Arrived(epoch, publications(offset, offset)[0])


def says(first: int, last: int, top: int | None = None, epoch: str = E, *, more: bool = False) -> Recalled:
    """The store has these; without more words, up to its top."""
    return Recalled(Position(epoch, last if top is None else top), publications(first, last), more, f"m{last}")


def live(offset: int, asked: int = 1) -> Stream:
    """Followed up to there."""
    return Stream(phase="live", at=Position(E, offset), last_id=f"m{offset}", asked=asked)


def asking(offset: int | None, *held: Arrived, overfull: bool = False) -> Stream:
    """Question 1 is under way."""
    at, last_id = (None, "") if offset is None else (Position(E, offset), f"m{offset}")
    return Stream(phase="asking", at=at, last_id=last_id, asked=1, held=held, overfull=overfull)


def delivered(first: int, last: int) -> Deliver:
    """These are handed on."""
    return Deliver(E, publications(first, last))


def asks(offset: int, asked: int = 2) -> Ask:
    """What comes after an offset is asked for."""
    return Ask(asked, Position(E, offset), f"m{offset}")


def lost(offset: int, epoch: str = E) -> Lost:
    """The stream goes on from there."""
    return Lost(Position(epoch, offset))


@pytest.mark.parametrize(
    ("stream", "ask"),
    [
        (Stream(), Ask(1, None, "")),
        (replace(live(3), phase="deaf"), asks(3)),
        (live(3), asks(3)),
        (asking(3, heard(4), overfull=True), asks(3)),
    ],
)
def test_who_begins_to_listen_asks(stream: Stream, ask: Ask) -> None:
    """Whatever was known, also in the middle of another question; what was held back is part of the new answer."""
    following, effects = decide(stream, Listening())
    assert effects == (ask,)
    assert following == replace(stream, phase="asking", asked=ask.asked, held=(), overfull=False)


@pytest.mark.parametrize("stream", [Stream(), live(3), asking(None), asking(3, heard(4))])
def test_the_deaf_believe_nothing(stream: Stream) -> None:
    """What is known stays; arrivals, answers and their absence change nothing until somebody listens."""
    deaf, effects = decide(stream, Deaf())
    assert effects == ()
    assert deaf == replace(stream, phase="deaf", held=())
    for message in (heard(4), Answered(1, says(4, 4)), Unanswered(1), Deaf()):
        assert decide(deaf, message) == (deaf, ())


@pytest.mark.parametrize(
    ("message", "at", "effects"),
    [
        (heard(4), 4, (delivered(4, 4),)),
        (heard(3), 3, ()),
        (heard(1), 3, ()),
        (heard(5), 3, (asks(3),)),
        (heard(4, "e2"), 3, (asks(3),)),
        (heard(3, "e2"), 3, (asks(3),)),
        (Answered(1, says(4, 4)), 3, ()),
        (Unanswered(1), 3, ()),
    ],
)
def test_who_follows_goes_on_with_the_successor_alone(message: Inbox, at: int, effects: tuple[Effect, ...]) -> None:
    """What was delivered is passed over; a gap, or another epoch, is asked for."""
    following, found = decide(live(3), message)
    assert found == effects
    assert following.at == Position(E, at)
    assert following.last_id == f"m{at}"
    assert following.phase == ("asking" if any(isinstance(effect, Ask) for effect in effects) else "live")


def test_what_arrives_during_a_question_is_held_back() -> None:
    """In order, and no more than HELD_MAX: what is too much is not remembered, but that there was more."""
    stream = asking(0)
    for offset in range(1, HELD_MAX + 1):
        stream, effects = decide(stream, heard(offset))
        assert effects == ()
    assert not stream.overfull
    full, effects = decide(stream, heard(HELD_MAX + 1))
    assert effects == ()
    assert full == replace(stream, overfull=True)
    assert [each.publication.offset for each in full.held] == list(range(1, HELD_MAX + 1))


@pytest.mark.parametrize(
    ("stream", "recalled", "at", "effects"),
    [
        pytest.param(asking(None), says(1, 0, 7), Position(E, 7), (Settled(),), id="the first answer"),
        pytest.param(asking(None), says(1, 0, 0), Position(E, 0), (Settled(),), id="an empty stream"),
        pytest.param(
            asking(None, heard(7), heard(8)),
            says(1, 0, 7),
            Position(E, 8),
            (delivered(8, 8), Settled()),
            id="held back before the first answer",
        ),
        pytest.param(asking(3), says(4, 3), Position(E, 3), (Settled(),), id="nothing was missed"),
        pytest.param(asking(3), says(4, 6), Position(E, 6), (delivered(4, 6), Settled()), id="all that was missed"),
        pytest.param(
            asking(3, heard(5), heard(6), heard(7)),
            says(4, 6),
            Position(E, 7),
            (delivered(4, 6), delivered(7, 7), Settled()),
            id="what was held back comes after",
        ),
        pytest.param(asking(3), says(5, 6), Position(E, 6), (lost(6), Settled()), id="the beginning is gone"),
        pytest.param(asking(3), says(1, 0, 6), Position(E, 6), (lost(6), Settled()), id="all of it is gone"),
        pytest.param(asking(3), says(1, 0, 2), Position(E, 2), (lost(2), Settled()), id="the store came back older"),
        pytest.param(asking(3), says(1, 0, 3, "e2"), Position("e2", 3), (lost(3, "e2"), Settled()), id="another epoch"),
        pytest.param(
            asking(3), says(4, 5, 5, "e2"), Position("e2", 5), (lost(5, "e2"), Settled()), id="successors of another"
        ),
        pytest.param(
            asking(3, heard(6), heard(7)),
            says(5, 6),
            Position(E, 7),
            (lost(6), delivered(7, 7), Settled()),
            id="held back after a loss",
        ),
    ],
)
def test_an_answer_settles(stream: Stream, recalled: Recalled, at: Position, effects: tuple[Effect, ...]) -> None:
    """What was missed is delivered before what was held back; a loss is told before anything that comes after it."""
    following, found = decide(stream, Answered(1, recalled))
    assert found == effects
    assert following == Stream(phase="live", at=at, last_id=following.last_id, asked=1)


@pytest.mark.parametrize(
    ("stream", "recalled", "effects", "held"),
    [
        pytest.param(
            asking(3, heard(9)), says(4, 5, 9, more=True), (delivered(4, 5), asks(5)), (heard(9),), id="a part"
        ),
        pytest.param(asking(3, heard(6)), says(4, 4), (delivered(4, 4), asks(4)), (), id="a gap behind it"),
        pytest.param(
            asking(3, heard(5), heard(7)),
            says(4, 4),
            (delivered(4, 4), delivered(5, 5), asks(5)),
            (),
            id="a gap in what was held back",
        ),
        pytest.param(asking(3, heard(1, "e2")), says(4, 4), (delivered(4, 4), asks(4)), (), id="a newer epoch"),
        pytest.param(
            asking(3, heard(4), overfull=True), says(4, 3), (delivered(4, 4), asks(4)), (), id="more than is held back"
        ),
    ],
)
def test_an_answer_that_is_not_enough_is_followed_by_a_question(
    stream: Stream, recalled: Recalled, effects: tuple[Effect, ...], held: tuple[Arrived, ...]
) -> None:
    """For the rest, from where it was delivered to. Nobody is told yet that the stream is followed."""
    following, found = decide(stream, Answered(1, recalled))
    assert found == effects
    assert (following.phase, following.asked, following.held, following.overfull) == ("asking", 2, held, False)


def test_what_was_too_much_is_not_forgotten_between_the_parts_of_an_answer() -> None:
    """Nor when the last part comes."""
    stream, _ = decide(asking(3, heard(7), overfull=True), Answered(1, says(4, 5, 7, more=True)))
    assert stream.overfull
    stream, effects = decide(stream, Answered(2, says(6, 7)))
    assert effects == (delivered(6, 7), asks(7, 3))


@pytest.mark.parametrize("asked", [0, 2])
def test_an_answer_to_another_question_changes_nothing(asked: int) -> None:
    """Nor its absence."""
    stream = asking(3, heard(4))
    assert decide(stream, Answered(asked, says(4, 5))) == (stream, ())
    assert decide(stream, Unanswered(asked)) == (stream, ())


def test_a_question_without_an_answer_is_asked_again() -> None:
    """Under a new number: the old answer may still come."""
    stream, effects = decide(asking(3, heard(4)), Unanswered(1))
    assert effects == (asks(3),)
    assert stream == replace(asking(3), asked=2)
    assert decide(stream, Answered(1, says(4, 4))) == (stream, ())


def test_the_id_of_the_newest_is_known() -> None:
    """From the answer, from what was missed, from what arrived; not of a place without one."""
    stream, _ = decide(asking(None), Answered(1, Recalled(Position(E, 7), (), False, "newest")))
    assert stream.last_id == "newest"
    stream, _ = decide(asking(3), Answered(1, Recalled(Position("e2", 7), (), False, "other")))
    assert stream.last_id == "other"
    stream, _ = decide(asking(3), Answered(1, Recalled(Position("e2", 0), (), False)))
    assert stream.last_id == ""
    stream, _ = decide(asking(3, heard(5)), Answered(1, says(4, 4)))
    assert stream.last_id == "m5"


OFFSETS = st.lists(st.integers(0, 6), max_size=5)


@given(offset=st.integers(0, 5), offsets=OFFSETS)
def test_successors_are_counted_one_by_one(offset: int, offsets: list[int]) -> None:
    """From an offset, without a gap, a repeat, or another order."""
    found = [Publication(each, "m", b"1") for each in offsets]
    assert follows(offset, found) is (offsets == list(range(offset + 1, offset + 1 + len(offsets))))


@given(
    since=st.integers(0, 5),
    epoch=st.sampled_from([E, "e2"]),
    top=st.integers(0, 8),
    offsets=OFFSETS,
    more=st.booleans(),
)
def test_an_answer_continues_when_nothing_is_missing(
    since: int, epoch: str, top: int, offsets: list[int], *, more: bool
) -> None:
    """It is of the same epoch, begins with the successor, has no gap, and ends at the top, unless it was cut short."""
    recalled = Recalled(Position(epoch, top), tuple(Publication(each, "m", b"1") for each in offsets), more)
    last = since + len(offsets)
    whole = offsets == list(range(since + 1, last + 1)) and (last == top or (more and bool(offsets)))
    assert continues(Position(E, since), recalled) is (epoch == E and whole)


def test_the_bound_of_what_is_held_back_may_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine of `test_stream_model` relies on."""
    monkeypatch.setattr(streams, "HELD_MAX", 1)
    stream, _ = decide(asking(3, heard(4)), heard(5))
    assert stream.overfull
