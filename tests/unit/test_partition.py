"""Partitions: the names that stand for user bytes in the store."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.partition import KID_CHARACTERS, PARTITIONS, dedupe_id, locate

ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@pytest.mark.parametrize(
    ("key", "kid", "partition"),
    [
        ("user123@domain.net", "SSYZC6MDFhiM-s3EfU04qA", 73),
        ("", "yuZpQdnvvUBOTYh1jqZ2cA", 202),
        ("ñ{}*\r\n\x00😀", "x8occDBpjURHFjMlez7Bzg", 199),
    ],
)
def test_names_never_change(key: str, kid: str, partition: int) -> None:
    """Stored data is found again by the next version: these values are fixed for ever."""
    assert locate(key) == (kid, partition)


def test_a_message_id_keeps_its_name() -> None:
    """As above, for what deduplicates messages."""
    assert dedupe_id("A" * 22, "msg_1").hex() == "12a8a8e3c1a910abdf6155d2e3961768"


@given(ANY_TEXT)
def test_a_kid_is_safe_and_of_one_length(key: str) -> None:
    """Whatever the key holds, nothing of it reaches a store's key, and the partition is the hash's first byte."""
    kid, partition = locate(key)
    digest = urlsafe_b64decode(kid + "==")
    assert len(kid) == KID_CHARACTERS
    assert kid.isascii()
    assert digest == blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    assert partition == digest[0] < PARTITIONS


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_a_dedupe_id_stands_for_one_message_of_one_key(key: str, message: str, other_key: str, other: str) -> None:
    """Equal exactly when key and message id both are."""
    one, another = dedupe_id(locate(key)[0], message), dedupe_id(locate(other_key)[0], other)
    assert len(one) == 16
    assert (one == another) == ((key, message) == (other_key, other))


def test_keys_spread_over_all_partitions() -> None:
    """Ordinary keys load no partition much more than another."""
    load = Counter(locate(f"user{number}@example.com")[1] for number in range(25_600))
    assert len(load) == PARTITIONS
    assert max(load.values()) < 200
