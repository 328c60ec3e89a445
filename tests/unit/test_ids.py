"""Ids: unique, sorted by time, and a delivery's tells its partition."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.ids import (
    ENTROPY_BYTES,
    MESSAGE_PREFIX,
    IdSource,
    delivery_prefix,
    derived_delivery_id,
    is_delivery_id,
    make_id,
    partition_of,
    partition_of_delivery,
)

MS = st.integers(0, 2**48 - 1)
ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
PARTITION = st.integers(0, 255)


def ticking(times: list[int]) -> Callable[[], int]:
    """A clock that shows these times one after the other."""
    return iter(times).__next__


def source(times: list[int], entropy: bytes = b"\xff" * ENTROPY_BYTES) -> IdSource:
    """A source with that clock and that chance."""
    return IdSource(ticking(times), lambda size: entropy[:size])


def uuid_of(an_id: str) -> UUID:
    """The UUID at an id's end."""
    return UUID(hex=an_id[-32:])


def time_of(uuid: UUID) -> int:
    """The Unix milliseconds in a UUID of version 7."""
    return uuid.int >> 80


@given(MS, ENTROPY)
def test_an_id_is_a_uuid_of_version_7(ms: int, entropy: bytes) -> None:
    """RFC 9562: 48 bits of time, version, 12 random bits, variant, 62 random bits."""
    made = make_id(MESSAGE_PREFIX, ms, entropy)
    uuid = uuid_of(made)
    assert made == f"msg_{uuid.hex}"
    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert time_of(uuid) == ms
    chance = int.from_bytes(entropy)
    assert (uuid.int >> 64) & 0xFFF == (chance >> 62) & 0xFFF
    assert uuid.int & (2**62 - 1) == chance & (2**62 - 1)


@given(MS, ENTROPY, MS, ENTROPY)
def test_ids_sort_by_time(ms: int, entropy: bytes, other_ms: int, other_entropy: bytes) -> None:
    """As text, so that a list of them is in order of creation."""
    one, other = make_id("msg_", ms, entropy), make_id("msg_", other_ms, other_entropy)
    if ms != other_ms:
        assert (one < other) == (ms < other_ms)


@given(PARTITION, MS, ENTROPY)
def test_a_delivery_id_tells_its_partition(partition: int, ms: int, entropy: bytes) -> None:
    """And holds no dot, nor anything else that would be escaped in a path or a header."""
    made = make_id(delivery_prefix(partition), ms, entropy)
    assert partition_of_delivery(made) == partition_of(made) == partition
    assert is_delivery_id(made)
    assert re.fullmatch(r"dlv_[0-9a-f]{34}", made)


@given(PARTITION, st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_derived_delivery_id_depends_on_its_seed_alone(partition: int, seed: str, other: str) -> None:
    """The same request again names the same delivery; another one never does."""
    made = derived_delivery_id(partition, seed)
    assert partition_of_delivery(made) == partition
    assert (made == derived_delivery_id(partition, other)) == (seed == other)


GOOD = "dlv_7f0192a7b3c4d5712389abcdef01234567"


NEARLY = [
    *("", "dlv_", GOOD[:-1], GOOD + "0", GOOD + "\n", " " + GOOD, GOOD.upper(), GOOD.replace("dlv_", "msg_")),
    *(
        GOOD.replace("d57", "d54"),
        GOOD.replace("2389a", "23c9a"),
        GOOD[:-1] + "g",
        GOOD[:-1] + "\u0663",
        GOOD[:-1] + ".",
    ),
]


@pytest.mark.parametrize("text", NEARLY)
def test_other_texts_are_no_delivery_ids(text: str) -> None:
    """Whatever arrives in a path: only what could have been made here is looked up."""
    assert is_delivery_id(GOOD)
    assert not is_delivery_id(text)
    assert partition_of_delivery(text) is None


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    """No text raises."""
    assert not is_delivery_id(text)


@given(st.lists(MS, min_size=1, max_size=50), ENTROPY)
def test_a_source_never_repeats_nor_goes_back(times: list[int], entropy: bytes) -> None:
    """Within a millisecond and when the clock goes back: each id sorts after the one before."""
    ids = source(times, entropy)
    made = [ids.message_id() for _ in times]
    assert made == sorted(set(made))
    for an_id, latest in zip(made, (max(times[: index + 1]) for index in range(len(times))), strict=True):
        uuid = uuid_of(an_id)
        assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
        assert time_of(uuid) == latest


@given(st.lists(PARTITION, min_size=1, max_size=30), ENTROPY)
def test_a_source_s_delivery_ids(partitions: list[int], entropy: bytes) -> None:
    """Each names its partition; within a partition they sort by creation; message ids between them change nothing."""
    ids = source([5] * (2 * len(partitions)), entropy)
    made: list[str] = []
    messages: list[str] = []
    for partition in partitions:
        made.append(ids.delivery_id(partition))
        messages.append(ids.message_id())
    assert [partition_of_delivery(an_id) for an_id in made] == partitions
    assert len({uuid_of(an_id) for an_id in made + messages}) == 2 * len(partitions)
    assert sorted(made, key=lambda an_id: an_id[:6]) == sorted(made)


def test_two_sources_differ() -> None:
    """Processes that start in the same millisecond don't make the same ids."""
    one, other = source([7], b"\x01" * ENTROPY_BYTES), source([7], b"\x02" * ENTROPY_BYTES)
    assert one.message_id() != other.message_id()


@pytest.mark.parametrize("partition", [256, 1000])
def test_there_is_no_other_partition(partition: int) -> None:
    """A number that is no partition makes no id."""
    with pytest.raises(IndexError):
        source([1]).delivery_id(partition)
    with pytest.raises(IndexError):
        delivery_prefix(partition)
