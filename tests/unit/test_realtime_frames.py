"""Frames and ids: the bytes that go to listeners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.channel_ports import Position
from router.realtime import frames
from router.realtime.codes import NO_PONG, Close
from router.realtime.event_ids import ID_CHARACTERS_MAX, BadEventId, event_id, positions


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_text_frame_says_how_long_it_is(size: int, head: bytes) -> None:
    """In the fewest bytes (RFC 6455, 5.2)."""
    assert frames.text(b"x" * size) == head + b"x" * size


def test_the_last_frame_has_a_code_and_a_reason() -> None:
    """Codes that must not be sent are not; a long reason is cut."""
    assert frames.close(NO_PONG) == b"\x88\x09" + (3012).to_bytes(2, "big") + b"no pong"
    assert frames.close(Close(1005, "")) == b"\x88\x00"
    assert len(frames.close(Close(1000, "x" * 500))) == 2 + 125


def test_line_ends_between_tokens_go_away() -> None:
    """They would end an event, or a command."""
    assert frames.one_line(b'{"a":\r\n1}') == b'{"a":  1}'
    assert frames.one_line(b'{"a":"\\n"}') == b'{"a":"\\n"}'


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
places = st.dictionaries(
    names, st.builds(Position, st.text("abcdef0123456789", min_size=1, max_size=20), st.integers(0, 2**53)), max_size=20
)


@given(places)
def test_an_id_comes_back_as_the_places_it_was_made_of(of: dict[str, Position]) -> None:
    """And says nothing of other channels."""
    text = event_id(of.items()).decode()
    assert positions(text, [*of, "another channel, not in the id"]) == {**of, "another channel, not in the id": None}


def test_the_id_of_as_many_channels_as_there_may_be_fits_a_header() -> None:
    """With epochs as long as the store's."""
    of = {f"channel-{number}" * 10: Position("1796486400000000" + "Ab_-Ab_-" + "1", 2**53) for number in range(128)}
    assert len(event_id(of.items())) < ID_CHARACTERS_MAX


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: event_id([]).decode() + raw.hex()))
def test_what_is_no_id_is_refused(text: str) -> None:
    """Whatever it is, with one exception only."""
    try:
        positions(text, ["a"])
    except BadEventId:
        return


@pytest.mark.parametrize("text", ["!", "kZPECA", "é", "x" * (ID_CHARACTERS_MAX + 1), "MTIz"])
def test_known_wrong_ids(text: str) -> None:
    """Not base64, cut short, not ASCII, too long, of another shape."""
    with pytest.raises(BadEventId):
        positions(text, ["a"])
