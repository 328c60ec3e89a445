"""What peers say to each other: it comes out as it went in, and nothing else is ever taken for it."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from actors.adapters.peers.age import DRIFT, Age
from actors.adapters.peers.messages import (
    Answer,
    Garbled,
    Question,
    decode_answers,
    decode_questions,
    encode_answer,
    encode_question,
    join_answers,
    join_questions,
)
from actors.core.policy import Terms
from actors.node_ports import (
    NotOwner,
    PeerAppend,
    PeerDiscard,
    PeerDrop,
    PeerFlush,
    PeerRequest,
    PeerRetry,
)
from actors.ports import (
    Appended,
    ClosedBatch,
    Entry,
    Fenced,
    Next,
    NothingOpen,
    Overloaded,
    Ready,
    StoreAway,
    WrongState,
)
from tests.support.doubles import make_entry

CLOSED = ClosedBatch("dlv_1", 3, "a.example", "size", True)
APPENDED = Appended(3, 600, 1500, 1_800_000_000_000, False, None)
CLOSING = Appended(5, 900, 0, 1_800_000_000_000, False, CLOSED)
MINE = msgspec.structs.replace(make_entry("k2"), dedupe="msg_1")
REQUESTS: list[PeerRequest] = [
    PeerAppend([]),
    PeerAppend([make_entry("ké", "m1", b'{"a":1}', trace="00-1"), MINE]),
    PeerFlush("k\n/", "dlv_1"),
    PeerDrop(""),
    PeerRetry("dlv_2"),
    PeerDiscard("dlv_3"),
]
PLAIN_ANSWERS: list[Answer] = [
    [],
    [APPENDED, CLOSING],
    0,
    7,
    CLOSED,
    Next(None),
    Next(Ready(7, "dlv_2", "a.example", 0)),
    NothingOpen(),
    WrongState("delivered"),
    Fenced(9, "node-2"),
    NotOwner(9, ""),
]


def test_questions_come_out_as_they_went_in() -> None:
    """Many in one body, with the time they were sent."""
    body = join_questions(
        12.5, [encode_question(number, 50 + number, request) for number, request in enumerate(REQUESTS)]
    )
    sent, questions = decode_questions(body)
    assert sent == 12.5
    assert [each.id for each in questions] == list(range(len(REQUESTS)))
    assert [each.within_ms for each in questions] == [50 + number for number in range(len(REQUESTS))]
    assert [plain(each) for each in questions] == [msgspec.to_builtins(request) for request in REQUESTS]


def plain(question: Question) -> object:
    """A question's request without the kinds of its parts, which may be narrower than what was sent."""
    request = question.request
    if isinstance(request, PeerAppend):
        assert all(isinstance(entry, Entry) for entry in request.entries)
        request = PeerAppend(
            [
                Entry(**{**asdict(entry), "terms": Terms(**asdict(entry.terms))})  # neither is an array here
                for entry in request.entries
            ]
        )
    return msgspec.to_builtins(request)


def test_both_kinds_of_message_id_keep_their_kind() -> None:
    """Text and bytes name different messages."""
    body = join_questions(0.0, [encode_question(1, 1, REQUESTS[1])])
    request = decode_questions(body)[1][0].request
    assert isinstance(request, PeerAppend)
    assert [entry.dedupe for entry in request.entries] == [make_entry("ké", "m1").dedupe, "msg_1"]


def test_answers_come_out_as_they_went_in() -> None:
    """Many in one body."""
    body = join_answers([encode_answer(number, answer) for number, answer in enumerate(PLAIN_ANSWERS)])
    assert decode_answers(body) == list(enumerate(PLAIN_ANSWERS))


@pytest.mark.parametrize("kind", [StoreAway, Overloaded])
def test_trouble_comes_out_as_trouble(kind: type[StoreAway | Overloaded]) -> None:
    """With its text."""
    [(id_, answer)] = decode_answers(join_answers([encode_answer(7, kind("no room"))]))
    assert (id_, type(answer), str(answer)) == (7, kind, "no room")


def test_an_answer_for_each_entry_keeps_their_order() -> None:
    """Whatever became of each."""
    mixed: list[Appended | NotOwner | StoreAway] = [APPENDED, NotOwner(3, "b"), StoreAway("gone"), CLOSING]
    [(_, answer)] = decode_answers(join_answers([encode_answer(1, mixed)]))
    assert isinstance(answer, list)
    assert answer[:2] + answer[3:] == [APPENDED, NotOwner(3, "b"), CLOSING]
    assert (type(answer[2]), str(answer[2])) == (StoreAway, "gone")


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"\0" * 8 + b"\xdd\0\0\0\1" + tail)))
def test_garbage_is_garbled(garbage: bytes) -> None:
    """Nothing else is raised, and what is taken is questions or answers."""
    for decode in (decode_questions, decode_answers):
        try:
            decode(garbage)
        except Garbled:
            continue


GARBLED_QUESTIONS = [
    (-1, 1, ("drop", "k")),
    (2**32, 1, ("drop", "k")),
    (1, -1, ("drop", "k")),
    (1, 10**9, ("drop", "k")),
    (1, 1, ("drop", 7)),
    (1, 1, ("open", "k")),
    (1, 1, ("append", [[1, 2, 3]])),
    (1, 1),
    "drop",
]


@pytest.mark.parametrize("question", GARBLED_QUESTIONS, ids=str)
def test_what_no_node_asks_is_garbled(question: object) -> None:
    """Ids, times and shapes have their bounds."""
    with pytest.raises(Garbled):
        decode_questions(join_questions(0.0, [msgspec.msgpack.encode(question)]))


GARBLED_OUTCOMES = [{}, {"each": [{}]}, {"each": [{"count": 1}]}, {"one": None}, {"count": "x"}]


@pytest.mark.parametrize("outcome", GARBLED_OUTCOMES, ids=str)
def test_what_no_node_answers_is_garbled(outcome: object) -> None:
    """An answer is exactly one thing."""
    with pytest.raises(Garbled):
        decode_answers(join_answers([msgspec.msgpack.encode((1, outcome))]))


def test_age_is_what_is_late_beyond_the_quickest() -> None:
    """The clocks have nothing in common."""
    age = Age()
    assert age.of(sent=5.0, received=1005.25) == 0  # a quarter of a second on the way, or clocks that differ by it
    assert age.of(sent=6.0, received=1006.0) == 0
    assert math.isclose(age.of(sent=7.0, received=1010.0), 3.0, abs_tol=2 * DRIFT)
    assert age.of(sent=8.0, received=1008.0) == 0


@given(
    st.floats(min_value=1 - DRIFT / 2.1, max_value=1 + DRIFT / 2.1),
    st.lists(st.floats(min_value=0, max_value=3600), min_size=1, max_size=50),
    st.floats(min_value=-1e6, max_value=1e6),
)
def test_clocks_that_drift_make_nothing_old(rate: float, pauses: list[float], apart: float) -> None:
    """As fast or slow as NTP ever makes them, over days."""
    age, sent = Age(), 100.0
    for pause in pauses:
        sent += pause
        assert age.of(sent, apart + sent * rate) <= 1e-6


def test_what_waited_in_a_frozen_process_is_old_whatever_was_before() -> None:
    """After an hour of silence, too: give or take what the clocks may have drifted."""
    age = Age()
    age.of(sent=0.0, received=50.0)
    assert age.of(sent=3600.0, received=50.0 + 3600.0 + 10.0) >= 10.0 - 3600 * DRIFT - 1e-6
