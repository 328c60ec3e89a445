"""Stream: what one node knows of one channel's stream, and how it follows it without a hole.

A node hears what is published (`Arrived`), in order, as long as it listens. Whatever it may have missed it asks the
store for, holds back what arrives meanwhile, and goes on where the answer ends. Invariants: publications are delivered
once and in order, each the successor of the one before; where that cannot be, `Lost` says so before anything that comes
after it; an answer to an earlier question changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

HELD_MAX = 256
"""Arrivals held back during a question; when there are more, another question is asked instead."""

Phase = Literal["deaf", "asking", "live"]


class Position(Struct, frozen=True, gc=False):
    """A place in a stream: everything up to `offset` of this epoch. Offset 0: nothing yet."""

    epoch: str
    offset: int


class Publication(Struct, frozen=True, gc=False):
    """One message of a stream. `data` is JSON text, as it is sent to listeners."""

    offset: int
    id: str
    data: bytes


class Recalled(Struct, frozen=True, gc=False):
    """Where the stream stands (`top`; epoch "" when it has never been used), and what it still has after `since`, if
    that is of the same epoch. `more`: bounds cut it short. `top_id` is the id of the newest message, "" when it is
    gone, or nobody asked with a mark."""

    top: Position
    publications: tuple[Publication, ...]
    more: bool
    top_id: str = ""


class Listening(Struct, frozen=True):
    """From now on everything is heard."""


class Deaf(Struct, frozen=True):
    """From now on something may be missed."""


class Arrived(Struct, frozen=True, gc=False):
    """A publication was heard."""

    epoch: str
    publication: Publication


class Answered(Struct, frozen=True, gc=False):
    """What the store says to question number `asked`."""

    asked: int
    recalled: Recalled


class Unanswered(Struct, frozen=True, gc=False):
    """Question number `asked` has no answer, and it is time to ask again."""

    asked: int


Inbox = Listening | Deaf | Arrived | Answered | Unanswered


class Stream(Struct, frozen=True, gc=False, kw_only=True):
    """What is known. `at` is how far it has been delivered (None: nobody has said yet where it stands), `last_id` the
    id of the publication there, "" when it is not known."""

    phase: Phase = "deaf"
    at: Position | None = None
    last_id: str = ""
    asked: int = 0
    held: tuple[Arrived, ...] = ()
    overfull: bool = False
    """More arrived during the question than is held back."""


class Ask(Struct, frozen=True, gc=False):
    """Ask the store for what comes after `since`."""

    asked: int
    since: Position | None
    last_id: str


class Deliver(Struct, frozen=True, gc=False):
    """Hand these on, in order."""

    epoch: str
    publications: tuple[Publication, ...]


class Lost(Struct, frozen=True, gc=False):
    """Tell everybody that the stream goes on after `position`, and that nobody can say what came before."""

    position: Position


class Settled(Struct, frozen=True):
    """The node follows the stream now."""


Effect = Ask | Deliver | Lost | Settled


def decide(stream: Stream, message: Inbox) -> tuple[Stream, tuple[Effect, ...]]:
    """Say what a message changes and what must be done about it, in this order."""
    match message:
        case Listening():
            return _ask(stream)
        case Deaf():
            return replace(stream, phase="deaf", held=()), ()
        case Arrived():
            return _arrived(stream, message)
        case Answered(asked, recalled):
            if stream.phase != "asking" or asked != stream.asked:
                return stream, ()
            return _answered(stream, recalled)
        case Unanswered(asked):
            return _ask(stream) if stream.phase == "asking" and asked == stream.asked else (stream, ())
        case _:
            assert_never(message)


def follows(offset: int, publications: Sequence[Publication]) -> bool:
    """Whether these are the successors of an offset, without a gap."""
    return all(each.offset == offset + place for place, each in enumerate(publications, 1))


def continues(since: Position, recalled: Recalled) -> bool:
    """Whether an answer has everything after a position, or the first part of it."""
    if since.epoch != recalled.top.epoch or not follows(since.offset, recalled.publications):
        return False
    reached = since.offset + len(recalled.publications)
    return reached == recalled.top.offset or (recalled.more and reached > since.offset)


def _ask(stream: Stream) -> tuple[Stream, tuple[Effect, ...]]:
    asking = replace(stream, phase="asking", asked=stream.asked + 1, held=(), overfull=False)
    return asking, (Ask(asking.asked, asking.at, asking.last_id),)


def _arrived(stream: Stream, message: Arrived) -> tuple[Stream, tuple[Effect, ...]]:
    if stream.phase == "deaf":
        return stream, ()
    if stream.phase == "asking":
        if len(stream.held) >= HELD_MAX:
            return replace(stream, overfull=True), ()
        return replace(stream, held=(*stream.held, message)), ()
    return _go_on(stream, (message,))


def _answered(stream: Stream, recalled: Recalled) -> tuple[Stream, tuple[Effect, ...]]:
    effects: tuple[Effect, ...] = ()
    at, last_id = stream.at, stream.last_id
    if at is None:
        at, last_id = recalled.top, recalled.top_id
    elif continues(at, recalled):
        if recalled.publications:
            effects = (Deliver(at.epoch, recalled.publications),)
            at, last_id = Position(at.epoch, recalled.publications[-1].offset), recalled.publications[-1].id
        if at.offset < recalled.top.offset:
            following, asks = _ask(replace(stream, at=at, last_id=last_id))
            return replace(following, held=stream.held, overfull=stream.overfull), effects + asks
    else:
        at, last_id = recalled.top, recalled.top_id
        effects = (Lost(at),)
    live = replace(stream, phase="live", at=at, last_id=last_id, held=(), overfull=False)
    following, rest = _go_on(live, stream.held)
    if following.phase == "live" and stream.overfull:
        following, asks = _ask(following)
        rest += asks
    settled: tuple[Effect, ...] = (Settled(),) if following.phase == "live" else ()
    return following, effects + rest + settled


def _go_on(stream: Stream, arrivals: Sequence[Arrived]) -> tuple[Stream, tuple[Effect, ...]]:
    """Deliver what comes next. What was delivered already is passed over; what leaves a gap, or is of another epoch, is
    asked for."""
    at = stream.at
    if at is None:
        return stream, ()
    fresh: list[Publication] = []
    offset = at.offset
    asks = False
    for arrival in arrivals:
        publication = arrival.publication
        if arrival.epoch != at.epoch or publication.offset > offset + 1:
            asks = True
            break
        if publication.offset == offset + 1:
            fresh.append(publication)
            offset += 1
    if not fresh:
        return _ask(stream) if asks else (stream, ())
    stream = replace(stream, at=Position(at.epoch, offset), last_id=fresh[-1].id)
    delivered: tuple[Effect, ...] = (Deliver(at.epoch, tuple(fresh)),)
    if not asks:
        return stream, delivered
    following, asked = _ask(stream)
    return following, delivered + asked
