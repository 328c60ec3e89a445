"""Messages: the bodies of frames: what is asked and answered, many at a time, as msgpack.

A body is a list of messages that were written one by one. Questions carry their time of sending, because a number of
milliseconds says nothing to a node that was frozen while they waited in its socket. Pure; raises Garbled for whatever
does not fit. Invariant: what is decoded is what was encoded, up to the kind of sequence.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from actors.core.policy import Terms
from actors.node_ports import (
    NotOwner,
    PeerAnswer,
    PeerAppend,
    PeerDiscard,
    PeerDrop,
    PeerFlush,
    PeerRequest,
    PeerRetry,
)
from actors.ports import Appended, ClosedBatch, Entry, Fenced, Next, NothingOpen, Overloaded, StoreAway, WrongState

WITHIN_MS_MAX = 60_000
Id = Annotated[int, Meta(ge=0, lt=2**32)]
Milliseconds = Annotated[int, Meta(ge=0, le=WITHIN_MS_MAX)]


class Garbled(Exception):
    """A body that no node of this version writes."""


class _Terms(Terms, frozen=True, gc=False, kw_only=True, cache_hash=True, array_like=True):
    """The same without the names of its fields."""


class _Entry(Entry, frozen=True, gc=False, kw_only=True, array_like=True):
    """An entry whose message id may be either kind: msgspec will not tell them apart by the type alone."""

    terms: _Terms
    dedupe: Any


class _Append(Struct, frozen=True, array_like=True, tag="append"):
    entries: list[_Entry]


class _Flush(Struct, frozen=True, array_like=True, tag="flush"):
    key: str
    batch_id: str


class _Drop(Struct, frozen=True, array_like=True, tag="drop"):
    key: str


class _Retry(Struct, frozen=True, array_like=True, tag="retry"):
    delivery_id: str


class _Discard(Struct, frozen=True, array_like=True, tag="discard"):
    delivery_id: str


class _Asked(Struct, frozen=True, array_like=True):
    id: Id
    within_ms: Milliseconds
    request: _Append | _Flush | _Drop | _Retry | _Discard


class Question(Struct, frozen=True):
    """What a peer asks, and for how long it waits for the answer."""

    id: int
    within_ms: int
    request: PeerRequest


class _Outcome(Struct, frozen=True, omit_defaults=True):
    """One of these."""

    appended: list[Appended] | None = None
    each: list[_Outcome] | None = None
    one: Appended | None = None
    count: int | None = None
    closed: ClosedBatch | None = None
    next: Next | None = None
    nothing: NothingOpen | None = None
    state: WrongState | None = None
    fenced: Fenced | None = None
    not_owner: NotOwner | None = None
    away: str | None = None
    overloaded: str | None = None


class _Answered(Struct, frozen=True, array_like=True):
    id: Id
    outcome: _Outcome


Answer = PeerAnswer | StoreAway | Overloaded

_FIELD_OF: dict[type, str] = {
    Appended: "one",
    int: "count",
    ClosedBatch: "closed",
    Next: "next",
    NothingOpen: "nothing",
    WrongState: "state",
    Fenced: "fenced",
    NotOwner: "not_owner",
}
_PLAIN_FIELDS = tuple(_FIELD_OF.values())
_MANY = struct.Struct(">BI")
_MANY_CODE = 0xDD
"""How a msgpack array of 32 bits of length begins."""
_SENT = struct.Struct(">d")
_encode = msgspec.msgpack.Encoder().encode
_decode_asked = msgspec.msgpack.Decoder(list[_Asked]).decode
_decode_answered = msgspec.msgpack.Decoder(list[_Answered]).decode
_as_tuple = msgspec.structs.astuple


def encode_question(id_: int, within_ms: int, request: PeerRequest) -> bytes:
    """One question, to be joined with others."""
    match request:
        case PeerAppend(entries):
            # As tuples: without the names of its fields an entry is half as long.
            return _encode((id_, within_ms, ("append", [_as_tuples(entry) for entry in entries])))
        case PeerFlush(key, batch_id):
            return _encode((id_, within_ms, ("flush", key, batch_id)))
        case PeerDrop(key):
            return _encode((id_, within_ms, ("drop", key)))
        case PeerRetry(delivery_id):
            return _encode((id_, within_ms, ("retry", delivery_id)))
        case PeerDiscard(delivery_id):
            return _encode((id_, within_ms, ("discard", delivery_id)))


def _as_tuples(entry: Entry) -> tuple[Any, ...]:
    terms, *others = _as_tuple(entry)
    return (_as_tuple(terms), *others)


def join_questions(sent: float, questions: Sequence[bytes]) -> bytes:
    """The body of a frame; `sent` is the asker's boot time."""
    return b"".join((_SENT.pack(sent), _MANY.pack(_MANY_CODE, len(questions)), *questions))


def decode_questions(body: bytes) -> tuple[float, list[Question]]:
    """When they were sent, by the asker's clock, and what is asked. Raises Garbled."""
    try:
        (sent,) = _SENT.unpack_from(body)
        asked = _decode_asked(memoryview(body)[_SENT.size :])
        return sent, [Question(each.id, each.within_ms, _request(each.request)) for each in asked]
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Garbled("no questions") from error


def _request(asked: _Append | _Flush | _Drop | _Retry | _Discard) -> PeerRequest:
    match asked:
        case _Append(entries):
            return PeerAppend(entries)
        case _Flush(key, batch_id):
            return PeerFlush(key, batch_id)
        case _Drop(key):
            return PeerDrop(key)
        case _Retry(delivery_id):
            return PeerRetry(delivery_id)
        case _Discard(delivery_id):
            return PeerDiscard(delivery_id)


def encode_answer(id_: int, answer: Answer) -> bytes:
    """One answer, to be joined with others."""
    return _encode(_Answered(id_, _outcome(answer)))


def join_answers(answers: Sequence[bytes]) -> bytes:
    """The body of a frame."""
    return b"".join((_MANY.pack(_MANY_CODE, len(answers)), *answers))


def decode_answers(body: bytes) -> list[tuple[int, Answer]]:
    """Which questions are answered, and how. Raises Garbled."""
    try:
        return [(each.id, _answer(each.outcome)) for each in _decode_answered(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Garbled("no answers") from error


def _outcome(answer: Answer | Appended) -> _Outcome:
    if isinstance(answer, StoreAway):
        return _Outcome(away=str(answer))
    if isinstance(answer, Overloaded):
        return _Outcome(overloaded=str(answer))
    if not isinstance(answer, Sequence):
        value: dict[str, Any] = {_FIELD_OF[type(answer)]: answer}
        return _Outcome(**value)
    appended = [each for each in answer if isinstance(each, Appended)]
    if len(appended) == len(answer):
        return _Outcome(appended=appended)
    return _Outcome(each=[_outcome(each) for each in answer])


def _answer(outcome: _Outcome) -> Answer:
    if outcome.appended is not None:
        return outcome.appended
    if outcome.each is not None:
        return [_one_of_many(each) for each in outcome.each]
    if outcome.away is not None:
        return StoreAway(outcome.away)
    if outcome.overloaded is not None:
        return Overloaded(outcome.overloaded)
    for field in _PLAIN_FIELDS:
        value: Any = getattr(outcome, field)
        if value is not None and field != "one":
            answer: PeerAnswer = value
            return answer
    raise Garbled("no answer")


def _one_of_many(outcome: _Outcome) -> Appended | NotOwner | StoreAway:
    found = outcome.one or outcome.not_owner
    if found is not None:
        return found
    if outcome.away is not None:
        return StoreAway(outcome.away)
    raise Garbled("no answer")
