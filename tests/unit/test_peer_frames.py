"""Frames between peers: what was sealed comes out, and nothing else ever does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.adapters.peers.frames import FRAME_BYTES_MAX, HEAD_BYTES, BadFrame, Opener, Sealer, in_frames

KEY = b"k" * 32
BODIES = st.lists(st.binary(max_size=200), max_size=8)


def sealed(bodies: Sequence[bytes]) -> list[bytes]:
    """The frames of a fresh direction."""
    sealer = Sealer(KEY)
    return [sealer.seal(body) for body in bodies]


def opened(pieces: Sequence[bytes], key: bytes = KEY) -> Iterator[bytes]:
    """What comes out, up to the first bad frame."""
    opener = Opener(key)
    for piece in pieces:
        yield from opener.feed(piece)


def until_bad(pieces: Sequence[bytes], key: bytes = KEY) -> tuple[list[bytes], bool]:
    """What comes out before the first bad frame, and whether there was one."""
    found: list[bytes] = []
    try:
        for body in opened(pieces, key):
            found.append(body)
    except BadFrame:
        return found, True
    return found, False


@given(BODIES, st.lists(st.integers(min_value=0, max_value=2000), max_size=10))
def test_what_was_sealed_comes_out(bodies: list[bytes], cuts: list[int]) -> None:
    """In order, in whatever pieces it arrives."""
    stream = b"".join(sealed(bodies))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert list(opened(pieces)) == bodies


@given(BODIES.filter(any), st.data())
def test_one_changed_bit_ends_it(bodies: list[bytes], data: st.DataObject) -> None:
    """What came before it is unharmed; of what comes from there on nothing is given out."""
    frames = sealed(bodies)
    stream = bytearray(b"".join(frames))
    at = data.draw(st.integers(min_value=0, max_value=len(stream) - 1))
    stream[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    untouched = 0
    while sum(map(len, frames[: untouched + 1])) <= at:
        untouched += 1
    found, bad = until_bad([bytes(stream)])
    assert found == bodies[:untouched]
    assert bad or int.from_bytes(stream[sum(map(len, frames[:untouched])) :][:4], "big") > len(bodies[untouched])


@pytest.mark.parametrize(
    ("order", "good"),
    [((0, 0), 1), ((1,), 0), ((0, 2), 1), ((1, 0), 0), ((0, 1, 2, 0), 3), ((0, 1, 1), 2)],
    ids=["played again", "first lost", "one lost", "swapped", "from the start", "the last again"],
)
def test_frames_are_good_once_and_in_their_order(order: tuple[int, ...], good: int) -> None:
    """Nothing can be played again, left out or moved."""
    frames = sealed([b"0", b"1", b"2"])
    found, bad = until_bad([frames[number] for number in order])
    assert (len(found), bad) == (good, True)


def test_another_key_opens_nothing() -> None:
    """Each direction has its own: a frame cannot be sent back."""
    assert until_bad(sealed([b"x"]), b"o" * 32) == ([], True)


def test_a_large_frame_is_taken_and_a_larger_one_refused_at_its_head() -> None:
    """Without waiting for the rest of it."""
    largest = b"x" * FRAME_BYTES_MAX
    frame = sealed([largest])[0]
    assert list(opened([frame[at : at + 65536] for at in range(0, len(frame), 65536)])) == [largest]
    head = (FRAME_BYTES_MAX + 1).to_bytes(4, "big")
    assert until_bad([head, b"\0" * (HEAD_BYTES - 4)]) == ([], True)


@given(st.binary(max_size=500))
def test_garbage_gives_nothing(garbage: bytes) -> None:
    """Whatever it is."""
    assert until_bad([garbage])[0] == []


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(min_value=50, max_value=200))
def test_messages_are_joined_as_they_fit(messages: list[bytes], bytes_max: int) -> None:
    """All of them, in order, within the bound, and no two neighbours that would have fitted together."""
    groups = list(in_frames(messages, bytes_max))
    assert [message for group in groups for message in group] == messages
    sizes = [sum(map(len, group)) for group in groups]
    assert all(groups)
    assert all(size <= bytes_max for size in sizes)
    assert all(size + len(after[0]) > bytes_max for size, after in zip(sizes, groups[1:], strict=False))
