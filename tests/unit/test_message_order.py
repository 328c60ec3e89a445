"""The order of a conversation: by WhatsApp's time, then as it arrived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_events import TIMESTAMP_S_MAX
from actors.core.message_order import dedupe, in_order, message_id
from actors.core.policy import MESSAGE_ID_CHARACTERS_MAX

AT_S = 1_717_689_097
AT_MS = AT_S * 1000

Stored = tuple[str, int, bytes]


def written(key_id: str, sent_s: int, received_ms: int = AT_MS) -> Stored:
    """A message of WhatsApp's."""
    return message_id("ventas", key_id, sent_s), received_ms, key_id.encode()


def test_the_time_is_part_of_the_id() -> None:
    """Eleven digits, so that ids sort as their times do; then what tells the message from every other."""
    name = message_id("ventas", "3EB0A1", AT_S)
    assert name.startswith("wa_01717689097_")
    assert name != message_id("soporte", "3EB0A1", AT_S)
    assert name != message_id("ventas", "3EB0A2", AT_S)
    assert message_id("ventas", "3EB0A1", 0).startswith("wa_00000000000_")
    assert len(message_id("ñ" * 100, "x" * 128, TIMESTAMP_S_MAX)) <= MESSAGE_ID_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("arrived", "said"),
    [
        ("a1 b2 c3", "abc"),
        ("c3 a1 b2", "abc"),
        ("b1 a1", "ba"),  # one second: nobody knows better than the arrival
        ("b2 d2 a1 c2", "abdc"),
    ],
)
def test_they_are_put_in_the_order_in_which_they_were_sent(arrived: str, said: str) -> None:
    """However they overtook each other."""
    messages = [written(each[0], AT_S + int(each[1])) for each in arrived.split()]
    assert b"".join(payload for _, _, payload in in_order(messages)).decode() == said


def test_who_has_no_time_was_sent_when_it_came() -> None:
    """A message that a program put under the same key stands where it arrived."""
    early, late = written("a", AT_S - 9, AT_MS + 3000), written("c", AT_S + 2, AT_MS)
    foreign = ("msg_0", AT_MS + 1999, b"b")
    lookalike = ("wa_123_x", AT_MS + 1000, b"B")
    assert in_order([late, foreign, lookalike, early]) == [early, foreign, lookalike, late]


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 9), st.integers(0, 9_000)), max_size=12))
def test_nothing_is_lost_and_twice_is_once(rows: list[tuple[str, int, int]]) -> None:
    """Every message is there, and the second time changes nothing."""
    messages = [written(name, sent_s, received_ms) for name, sent_s, received_ms in rows]
    ordered = in_order(messages)
    assert sorted(ordered) == sorted(messages)
    assert in_order(ordered) == ordered
    assert [name[:14] for name, _, _ in ordered] == sorted(name[:14] for name, _, _ in messages)


def test_a_message_is_the_same_whenever_it_was_sent() -> None:
    """A repetition may lack its time; another instance's message of that id is another one."""
    assert len(dedupe("ventas", "3EB0A1")) == 16
    assert len({dedupe(*each) for each in (("ventas", "3EB0A1"), ("ventas", "3EB0A2"), ("soporte", "3EB0A1"))}) == 3
