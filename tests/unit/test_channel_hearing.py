"""What two Redis channels say, put together: whose a message is, and that nobody's jokes do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.adapters.valkey.channel_hearing import Hearing, Nobody
from actors.channel_ports import Position
from tests.support.channel_store import Noted

NAME = "café"


def heard(*said: tuple[str, bytes], name: str = NAME) -> list[tuple[object, ...]]:
    """What is told of what was said: ("side" or "plain", message)."""
    noted = Noted()
    hearing = Hearing(name, noted)
    for where, message in said:
        (hearing.side if where == "side" else hearing.plain)(message)
    return noted.of(name)


def published(offset: int, data: bytes, message_id: str = "id") -> tuple[tuple[str, bytes], ...]:
    """As the script says it."""
    return ("side", b"p|e|%d|%d|%s" % (offset, len(data), message_id.encode())), ("plain", data)


def arrived(offset: int, data: bytes, message_id: str = "id") -> tuple[object, ...]:
    """As it is told."""
    return "arrived", Position("e", offset), message_id, data


def test_an_announced_message_has_its_offset_and_one_that_was_not_is_foreign() -> None:
    """Also when they read alike."""
    said = (("plain", b"1"), *published(4, b"1"), ("plain", b"1"))
    assert heard(*said) == [("foreign", b"1"), arrived(4, b"1"), ("foreign", b"1")]


def test_a_foreign_message_gets_its_offset_later() -> None:
    """Whatever is in it."""
    said = ("side", b"f|e|7|mark|3|id|a|b||")
    assert heard(said) == [("ingested", "mark", 3), arrived(7, b"a|b||")]


def test_ids_and_marks_may_hold_anything() -> None:
    """They come last."""
    assert heard(*published(1, b"x", "a|b|é"), ("side", b"m|a|b")) == [arrived(1, b"x", "a|b|é"), ("marked", "a|b")]


def test_of_the_routers_own_channels_nothing_foreign_is_heard() -> None:
    """The router alone publishes there."""
    said = (("plain", b"1"), *published(4, b"1"), ("plain", b"1"))
    assert heard(*said, name="$nodes") == [arrived(4, b"1")]


@pytest.mark.parametrize(
    ("following", "told"),
    [
        (published(2, b"two"), [arrived(2, b"two")]),
        ((("side", b"m|mark"),), [("marked", "mark")]),
        ((("side", b"f|e|2|mark|1|id|two"),), [("ingested", "mark", 1), arrived(2, b"two")]),
    ],
)
def test_an_announcement_without_its_message_is_a_gap(
    following: tuple[tuple[str, bytes], ...], told: list[tuple[object, ...]]
) -> None:
    """Whoever listens is told, before anything else."""
    assert heard(("side", b"p|e|1|3|id"), *following) == [("deaf",), ("listening",), *told]


def test_what_comes_between_is_foreign_when_it_is_not_as_long() -> None:
    """Two servers that both say something, while slots move, are not in step."""
    announced, plain = published(1, b"one")
    assert heard(announced, ("plain", b"other"), plain) == [("foreign", b"other"), arrived(1, b"one")]


JOKES = (
    b"",
    b"p",
    b"p|",
    b"p|e|1|3",
    b"p|e|x|3|id",
    b"p|e|-1|3|id",
    b"p|e|1|+3|id",
    b"p|e|" + b"9" * 5000 + b"|3|id",
    b"p|\xff|1|3|id",
    b"p|e|1|3|\xff",
    b"m|\xff",
    b"f|e|1|mark|1|id",
    b"f|e|1|mark||id|data",
    b"f|e|1|\xff|1|id|data",
    b"q|e|1|3|id",
    b"\x00" * 100,
)


@pytest.mark.parametrize("joke", JOKES)
def test_garbage_is_passed_over(joke: bytes) -> None:
    """Also between a message's two halves."""
    announced, plain = published(1, b"one")
    assert heard(("side", joke), announced, ("side", joke), plain) == [arrived(1, b"one")]


@given(st.lists(st.tuples(st.sampled_from(["side", "plain"]), st.binary(max_size=40))))
def test_nothing_that_anybody_says_raises(said: list[tuple[str, bytes]]) -> None:
    """And what is told is of this channel."""
    heard(*said)


ALMOST = st.builds(
    lambda kind, parts: b"|".join([kind, *parts]),
    st.sampled_from([b"p", b"m", b"f"]),
    st.lists(st.sampled_from([b"", b"e", b"1", b"2", b"x" * 20, b"\xff"]), max_size=7),
)


@given(st.lists(st.one_of(ALMOST.map(lambda said: ("side", said)), st.just(("plain", b"x")))))
def test_nothing_that_looks_right_raises(said: list[tuple[str, bytes]]) -> None:
    """Nor what begins as it should."""
    heard(*said)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ours"), st.binary(max_size=3)),
        st.tuples(st.just("foreign"), st.binary(max_size=3)),
        st.tuples(st.just("mark"), st.binary(max_size=3).map(lambda raw: raw.hex().encode())),
        st.tuples(st.just("ingested"), st.binary(max_size=3)),
    )
)


@given(STEPS)
def test_whatever_a_server_says_is_told_as_it_was(steps: list[tuple[str, bytes]]) -> None:
    """In order, each as what it is."""
    said: list[tuple[str, bytes]] = []
    told: list[tuple[object, ...]] = []
    for offset, (kind, data) in enumerate(steps, 1):
        if kind == "ours":
            said += published(offset, data)
            told.append(arrived(offset, data))
        elif kind == "foreign":
            said.append(("plain", data))
            told.append(("foreign", data))
        elif kind == "mark":
            said.append(("side", b"m|" + data))
            told.append(("marked", data.decode()))
        else:
            said.append(("side", b"f|e|%d|mark|1|id|%s" % (offset, data)))
            told += [("ingested", "mark", 1), arrived(offset, data)]
    assert heard(*said) == told


def test_nobody_hears_everything() -> None:
    """And says nothing."""
    nobody = Nobody()
    hearing = Hearing(NAME, nobody)
    hearing.plain(b"x")
    hearing.side(b"f|e|7|mark|3|id|a")
    hearing.side(b"m|x")
    nobody.deaf(())
    nobody.listening(())
    nobody.woken("$x")
    nobody.opened()
