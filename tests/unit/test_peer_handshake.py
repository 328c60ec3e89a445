"""The handshake of peers: who is let in, and what a stranger can learn or leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.adapters.peers.handshake import (
    HELLO_BYTES_MAX,
    MAGIC,
    NAME_BYTES_MAX,
    NONCE_BYTES,
    Hello,
    Session,
    Stranger,
    check,
    hello,
    parse_hello,
    session,
)

SECRET = b"0" * 64
NONCE = b"n" * NONCE_BYTES
LISTENER_NONCE = b"l" * NONCE_BYTES
NAMES = st.text(max_size=NAME_BYTES_MAX // 4)
NONCES = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


@given(NAMES, NAMES, NONCES, st.binary(max_size=100))
def test_a_hello_is_read_when_it_is_whole(dialler: str, listener: str, nonce: bytes, rest: bytes) -> None:
    """And not before, in whatever pieces it comes; what follows it is left alone."""
    written = hello(dialler, listener, nonce)
    assert len(written.said) <= HELLO_BYTES_MAX
    assert all(parse_hello(written.said[:size]) is None for size in range(len(written.said)))
    assert parse_hello(written.said + rest) == written


@given(st.one_of(st.binary(max_size=HELLO_BYTES_MAX), st.binary(max_size=HELLO_BYTES_MAX).map(lambda b: MAGIC + b)))
def test_whatever_a_stranger_says_comes_to_an_end(said: bytes) -> None:
    """It is no hello, or one, or the beginning of one that is short: nothing else is raised and no more is kept."""
    try:
        found = parse_hello(said)
    except Stranger:
        return
    assert found is not None or len(said) < HELLO_BYTES_MAX
    assert found is None or said.startswith(found.said)


def test_another_version_is_a_stranger() -> None:
    """At its first byte that differs."""
    for said in (b"G", b"GET / HTTP/1.1", b"BZN\x02", b"\x16\x03\x01"):
        with pytest.raises(Stranger):
            parse_hello(said)


def test_both_sides_arrive_at_the_same_and_no_two_things_are_alike() -> None:
    """Proofs and keys: what one side says cannot stand for what the other must say."""
    said = hello("a", "b", NONCE)
    heard = parse_hello(said.said)
    assert heard is not None
    one, other = session(SECRET, said, LISTENER_NONCE), session(SECRET, heard, LISTENER_NONCE)
    assert one == other
    assert len({one.listener_proof, one.dialler_proof, one.to_listener, one.to_dialler}) == 4
    check(one.listener_proof, other.listener_proof)


DIFFERENCES: dict[str, Callable[[], Session]] = {
    "secret": lambda: session(SECRET[:-1], hello("a", "b", NONCE), LISTENER_NONCE),
    "dialler": lambda: session(SECRET, hello("c", "b", NONCE), LISTENER_NONCE),
    "listener": lambda: session(SECRET, hello("a", "c", NONCE), LISTENER_NONCE),
    "names run together": lambda: session(SECRET, hello("ab", "", NONCE), LISTENER_NONCE),
    "dialler's nonce": lambda: session(SECRET, hello("a", "b", LISTENER_NONCE), LISTENER_NONCE),
    "listener's nonce": lambda: session(SECRET, hello("a", "b", NONCE), NONCE),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_whatever_differs_no_proof_fits(difference: str) -> None:
    """A proof is of one secret, one pair of names and one pair of nonces."""
    one, other = session(SECRET, hello("a", "b", NONCE), LISTENER_NONCE), DIFFERENCES[difference]()
    for mine, theirs in (
        (one.listener_proof, other.listener_proof),
        (one.dialler_proof, other.dialler_proof),
        (one.to_listener, other.to_listener),
        (one.to_dialler, other.to_dialler),
    ):
        with pytest.raises(Stranger):
            check(mine, theirs)


def test_a_node_without_the_secret_talks_to_nobody() -> None:
    """An empty one would be everybody's."""
    with pytest.raises(Stranger):
        session(b"", Hello("a", "b", b""), LISTENER_NONCE)


def test_a_session_does_not_show_itself() -> None:
    """Keys must not end in a log."""
    made = session(SECRET, hello("a", "b", NONCE), LISTENER_NONCE)
    assert repr(made) == str(made) == "Session(…)"
