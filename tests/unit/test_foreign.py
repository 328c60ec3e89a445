"""What other Redis clients publish: how it is numbered, asked for, bounded, and made JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.channel_ports import Ingest
from actors.foreign import (
    INGEST_BYTES_MAX,
    INGEST_MAX,
    MESSAGE_BYTES_MAX,
    PENDING_BYTES_MAX,
    PENDING_MAX,
    Foreign,
    as_json,
)
from tests.support.channel_doubles import channel


class Rig:
    """A node that hears; `asked` are its questions."""

    def __init__(self) -> None:
        self.asked: list[Ingest] = []
        self._ids = 0
        self.foreign = Foreign(channel(), self._id, self.asked.append)

    def _id(self) -> str:
        self._ids += 1
        return f"m{self._ids}"

    def hear(self, *messages: bytes) -> None:
        """In order."""
        for message in messages:
            self.foreign.heard(message)

    def answer(self, *, done: bool = True) -> None:
        """The last question has its answer."""
        self.foreign.answered(self.asked[-1], done)

    def questions(self) -> list[tuple[str, int, list[bytes]]]:
        """What was asked: mark, number, messages."""
        return [(each.mark, each.number, [data for _, data in each.messages]) for each in self.asked]


def json_of(size_bytes: int) -> bytes:
    """JSON of that size."""
    return b'"%b"' % (b"x" * (size_bytes - 2))


def test_what_is_heard_is_numbered_from_the_mark() -> None:
    """The first after it is 1; another mark begins anew."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"1", b"2")
    rig.answer()
    rig.answer()
    rig.foreign.marked("k2")
    rig.hear(b"3")
    assert rig.questions() == [("k1", 1, [b"1"]), ("k1", 2, [b"2"]), ("k2", 1, [b"3"])]


def test_what_comes_before_a_mark_is_not_counted() -> None:
    """Nobody knows what number it has: another node does, or nobody heard it between two marks."""
    rig = Rig()
    rig.hear(b"1")
    rig.foreign.marked("k1")
    rig.foreign.unheard()
    rig.hear(b"2")
    assert rig.asked == []
    assert len(rig.foreign) == 0
    rig.foreign.marked("k2")
    rig.hear(b"3")
    assert rig.questions() == [("k2", 1, [b"3"])]


def test_one_question_at_a_time() -> None:
    """What comes meanwhile is asked for together in the next one."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"1", b"2", b"3")
    rig.foreign.go_on()
    assert len(rig.asked) == 1
    rig.answer()
    assert rig.questions()[1:] == [("k1", 2, [b"2", b"3"])]
    rig.answer()
    assert len(rig.asked) == 2
    assert len(rig.foreign) == 0


def test_a_question_without_an_answer_is_asked_again_with_the_same_numbers_and_ids() -> None:
    """So that what was done in secret is not done twice. Only when it is time: nothing is asked at once."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"1")
    rig.answer(done=False)
    assert len(rig.asked) == 1
    rig.hear(b"2")
    assert rig.questions()[1] == ("k1", 1, [b"1", b"2"])
    assert rig.asked[1].messages[0] == rig.asked[0].messages[0]


def test_what_has_an_offset_through_others_is_not_asked_for() -> None:
    """All up to that number, of that mark alone."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"1", b"2")
    rig.foreign.marked("k2")
    rig.hear(b"3", b"4", b"5")
    rig.foreign.has_offset("k2", 2)
    assert len(rig.foreign) == 3
    rig.foreign.has_offset("k1", 2)
    rig.answer()
    assert rig.questions()[1:] == [("k2", 3, [b"5"])]


def test_an_answer_to_no_question_of_now_changes_nothing() -> None:
    """Neither one that is over, nor an equal one of another topic of that name."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"1")
    first = rig.asked[0]
    rig.answer()
    rig.hear(b"2")
    rig.foreign.answered(first, True)
    copy = rig.asked[1]
    rig.foreign.answered(Ingest(copy.channel, copy.mark, copy.number, copy.messages), True)
    assert len(rig.foreign) == 1
    assert len(rig.asked) == 2


def test_a_question_holds_successors_under_one_mark() -> None:
    """What follows another mark goes by itself, and so does what comes after a gap."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"0", b"1", b"2")
    rig.foreign.marked("k2")
    rig.hear(b"3", b"4", b"5", b"6")
    rig.foreign.has_offset("k2", 3)
    rig.answer()
    assert rig.questions()[1] == ("k1", 2, [b"1", b"2"])
    rig.answer()
    assert rig.questions()[2] == ("k2", 4, [b"6"])


def test_a_gap_in_the_numbers_ends_a_question() -> None:
    """Messages of two marks by turns: what was not heard in between is asked for by others."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(b"0")
    rig.foreign.marked("k2")
    rig.hear(b"1", b"2")
    rig.foreign.marked("k1")
    rig.hear(b"3")
    rig.answer()
    assert [question[:2] for question in rig.questions()[1:]] == [("k2", 1)]


@pytest.mark.parametrize("size_bytes", [2, 100, 5000, INGEST_BYTES_MAX + 100])
def test_questions_are_bounded(size_bytes: int) -> None:
    """In number and in bytes; one message is always asked for, however large."""
    rig = Rig()
    rig.foreign.marked("k1")
    count = min(300, PENDING_BYTES_MAX // size_bytes)
    rig.hear(b"0", *[json_of(size_bytes)] * count)
    while len(rig.foreign):
        rig.answer()
    assert sum(len(each.messages) for each in rig.asked) == count + 1
    for each in rig.asked:
        assert 1 <= len(each.messages) <= INGEST_MAX
        assert len(each.messages) == 1 or sum(len(data) for _, data in each.messages) <= INGEST_BYTES_MAX


def test_what_waits_is_bounded_in_number() -> None:
    """The oldest are given up, and the next question says so, once."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(*[b"1"] * (PENDING_MAX + 10))
    assert len(rig.foreign) == PENDING_MAX
    rig.answer()
    rig.answer()
    assert [(each.number, each.gone) for each in rig.asked[:2]] == [(1, None), (11, ("k1", 10))]
    assert rig.asked[2].gone is None


def test_what_was_given_up_is_told_until_the_store_knows() -> None:
    """However often nobody can know what came of a question, and under whatever mark the next one is."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(*[b"1"] * (PENDING_MAX + 1))
    rig.foreign.marked("k2")
    rig.hear(*[b"2"] * PENDING_MAX)
    for _ in range(2):
        rig.answer(done=False)
        rig.foreign.go_on()
        assert (rig.asked[-1].mark, rig.asked[-1].gone) == ("k2", ("k1", PENDING_MAX + 1))
    rig.answer()
    assert rig.asked[-1].gone is None


def test_another_node_had_what_was_given_up() -> None:
    """Then nothing is lost, and nothing is told."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(*[b"1"] * (PENDING_MAX + 10))
    rig.foreign.has_offset("k1", 9)
    assert rig.foreign.gone == ("k1", 10)
    rig.foreign.has_offset("k2", 10)
    assert rig.foreign.gone == ("k1", 10)
    rig.foreign.has_offset("k1", 10)
    assert rig.foreign.gone is None


def test_what_waits_is_bounded_in_bytes() -> None:
    """What has an offset makes room again."""
    rig = Rig()
    rig.foreign.marked("k1")
    large, fits = json_of(MESSAGE_BYTES_MAX), PENDING_BYTES_MAX // MESSAGE_BYTES_MAX
    rig.hear(*[large] * (fits + 2))
    assert (len(rig.foreign), rig.foreign.gone) == (fits, ("k1", 2))
    rig.foreign.has_offset("k1", fits + 2)
    rig.hear(*[large] * fits)
    assert (len(rig.foreign), rig.foreign.gone) == (fits, None)


def test_a_message_too_large_for_a_reader_has_no_number() -> None:
    """For no node: those after it are numbered as if it had not been."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(json_of(MESSAGE_BYTES_MAX + 1), json_of(MESSAGE_BYTES_MAX))
    rig.answer()
    rig.hear(b"2")
    assert [(each.number, len(each.messages[0][1])) for each in rig.asked] == [(1, MESSAGE_BYTES_MAX), (2, 1)]


@pytest.mark.parametrize("message", [b"\x00" * (MESSAGE_BYTES_MAX // 2), b"\xff" * (MESSAGE_BYTES_MAX // 2)])
def test_a_message_that_is_too_large_as_json_is_too_large(message: bytes) -> None:
    """A reader gets the JSON: one byte may have become six."""
    rig = Rig()
    rig.foreign.marked("k1")
    rig.hear(message, b"2")
    assert rig.questions() == [("k1", 1, [b"2"])]


@given(messages=st.lists(st.binary(max_size=8), max_size=12), answers=st.lists(st.booleans(), max_size=12))
def test_all_that_is_heard_is_asked_for_in_order_until_it_has_an_offset(
    messages: Sequence[bytes], answers: Sequence[bool]
) -> None:
    """Whatever has no answer in between."""
    rig = Rig()
    rig.foreign.marked("k1")
    left = list(answers)
    got: dict[int, bytes] = {}

    def answer(*, done: bool) -> None:
        asked = rig.asked[-1]
        if done:
            got.update(enumerate((data for _, data in asked.messages), asked.number))
        rig.foreign.answered(asked, done)

    for message in messages:
        rig.hear(message)
        if left:
            answer(done=left.pop())
    while len(rig.foreign):
        rig.foreign.go_on()
        answer(done=True)
    assert got == {number: as_json(message) for number, message in enumerate(messages, 1)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("message", [b"1e999", b"9" * 5000])
def test_numbers_that_nobody_can_hold_are_strings(message: bytes) -> None:
    """Most readers would take them for infinite, or refuse the whole frame."""
    assert msgspec.json.decode(as_json(message)) == message.decode()


@given(value=JSON, indent=st.none() | st.integers(0, 2), ascii_only=st.booleans())
def test_json_is_left_alone(value: object, indent: int | None, *, ascii_only: bool) -> None:
    """To the byte, also its spaces; whatever another program's encoder wrote."""
    message = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert as_json(message) == message


@given(message=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(message=b"")
@example(message=b"\xff\xfe")
@example(message=b'"\\ud800"')
@example(message=b'"\xff"')
@example(message=b"NaN")
@example(message=b"\xef\xbb\xbf1")
@example(message=b"[" * 100_000)
@example(message=b"[" * 100_000 + b"]" * 100_000)
def test_whatever_it_was_it_is_json(message: bytes) -> None:
    """Also for a strict reader: itself, or a string with what could be read of it."""
    data = as_json(message)
    value = msgspec.json.decode(data)
    json.loads(data.decode())
    assert data == message or value == message.decode("utf-8", "replace")


def test_what_has_an_offset_is_let_go_wherever_it_stands() -> None:
    """At the head of the line, and behind what another mark still waits for."""
    rig = Rig()
    for mark in ("k1", "k2"):
        rig.foreign.marked(mark)
        rig.hear(*(b"%d" % number for number in range(4)))
    rig.foreign.has_offset("k2", 3)
    assert len(rig.foreign) == 5
    rig.foreign.has_offset("k1", 3)
    assert len(rig.foreign) == 2
    rig.answer(done=False)
    rig.foreign.go_on()
    assert rig.questions()[-1] == ("k1", 4, [b"3"])
    rig.answer()
    assert rig.questions()[-1] == ("k2", 4, [b"3"])
    rig.answer()
    assert len(rig.foreign) == 0
