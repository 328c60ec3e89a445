"""Near cache: what is fresh, what may be shown as stale, what leaves for want of room, and what an entry weighs."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from actors.cache_ports import NEVER, Proof
from actors.near_cache import ENTRY_BYTES, SHARE_MAX, Entry, NearCache

NOW = 1000.0
MANY = 5000


def entry(value: bytes | None = b"1", *, until: float = NOW + 0.9, deadline: float = float("inf")) -> Entry:
    """An entry that is proved until then and ends at its deadline."""
    return Entry(
        value=value, stored=value, expires_ms=NEVER, deadline=deadline, fresh_until=deadline, proof=Proof(until)
    )


def test_an_entry_is_fresh_until_its_proof_its_deadline_or_its_age_ends() -> None:
    """Each by itself ends it, at that very moment."""
    near = NearCache(1 << 20, 60)
    near.put("proved", entry(until=NOW + 1))
    near.put("short", entry(deadline=NOW + 0.5))
    assert near.get("proved", NOW + 0.999) is not None
    assert near.get("proved", NOW + 1) is None
    assert near.get("short", NOW + 0.499) is not None
    assert near.get("short", NOW + 0.5) is None
    assert near.get("unknown", NOW) is None


def test_a_proof_that_ends_ends_every_entry_it_carries() -> None:
    """One number is moved, however many entries there are; a proof that goes on revives them."""
    near = NearCache(1 << 20, 60)
    proof = Proof(NOW + 0.9)
    for name in "ab":
        near.put(name, Entry(value=b"1", stored=b"1", expires_ms=NEVER, deadline=2e9, fresh_until=2e9, proof=proof))
    proof.until = NOW
    assert near.get_many("ab", NOW) == ({}, ["a", "b"])
    proof.until = NOW + 1.2
    assert set(near.get_many("aba", NOW)[0]) == {"a", "b"}


def test_stale_is_what_was_proved_a_while_ago_and_has_not_expired() -> None:
    """`stale_s` after the proof it is over, and an expired entry is never shown."""
    near = NearCache(1 << 20, stale_s=60)
    near.put("k", entry(until=NOW))
    near.put("short", entry(until=NOW, deadline=NOW + 5))
    assert near.get("k", NOW) is None
    assert near.stale("k", NOW + 59.9) is not None
    assert near.stale("k", NOW + 60) is None
    assert near.stale("short", NOW + 4.9) is not None
    assert near.stale("short", NOW + 5) is None
    assert near.stale("unknown", NOW) is None


def test_the_least_recently_used_leaves_first() -> None:
    """Reading counts as use; the room is never exceeded."""
    size = ENTRY_BYTES + 1 + 100
    near = NearCache(size * 10, 60)
    for name in "abcdefghij":
        near.put(name, entry(b"x" * 100))
    assert near.bytes == size * 10
    near.get("a", NOW)
    near.get_many(["b"], NOW)
    near.put("k", entry(b"x" * 100))
    near.put("l", entry(b"x" * 100))
    assert [name for name in "abcdefghijkl" if near.get(name, NOW) is None] == ["c", "d"]
    assert near.evicted == 2
    assert near.bytes == size * 10


def test_what_takes_too_large_a_share_is_not_kept() -> None:
    """Nor does what was there under its key before stay."""
    near = NearCache(80_000, 60)
    near.put("k", entry(b"small"))
    near.put("k", entry(b"x" * (80_000 // SHARE_MAX)))
    assert near.get("k", NOW) is None
    assert (len(near), near.bytes) == (0, 0)


def test_no_room_keeps_nothing() -> None:
    """CACHE_NEAR_BYTES=0."""
    near = NearCache(0, 60)
    near.put("k", entry())
    assert len(near) == 0


def test_what_is_put_again_forgotten_and_emptied_is_weighed_right() -> None:
    """The weight comes back to nothing."""
    near = NearCache(1 << 20, 60)
    near.put("k", entry(b"x" * 10))
    near.put("k", entry(b"x" * 300))
    assert near.bytes == ENTRY_BYTES + 1 + 300
    near.put("absent", entry(None))
    near.forget("k")
    near.forget("never there")
    assert near.bytes == ENTRY_BYTES + len("absent")
    near.empty()
    assert (len(near), near.bytes) == (0, 0)


def test_tidying_drops_only_what_can_never_be_shown_again() -> None:
    """Expired, or unproved for too long."""
    near = NearCache(1 << 20, stale_s=60)
    near.put("fresh", entry(until=NOW + 0.9))
    near.put("stale", entry(until=NOW - 59))
    near.put("over", entry(until=NOW - 60))
    near.put("expired", entry(until=NOW + 0.9, deadline=NOW))
    near.tidy([*near.keys(), "gone meanwhile"], NOW)
    assert near.keys() == ["fresh", "stale"]


@pytest.mark.parametrize("value_bytes", [20, 200, 2000])
def test_an_entry_weighs_what_it_takes(value_bytes: int) -> None:
    """The estimate is within a tenth above, and never more than a tenth below, what the allocator says."""
    near = NearCache(1 << 30, 60)
    proof = Proof(NOW)
    gc.collect()
    tracemalloc.start()
    for number in range(MANY):
        near.put(
            f"inventarios:producto:{number:08}",
            Entry(
                value=(value := bytes(value_bytes)),
                stored=value,
                expires_ms=1_700_000_000_000 + number,
                deadline=NOW + number / 3,
                fresh_until=NOW + number / 7,
                proof=proof,
                tag=f"{number:040}",
                expires_at=b"2026-01-01T00:00:00.%03dZ" % (number % 1000),
            ),
        )
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.9 <= taken / near.bytes <= 1.1, f"{taken / MANY:.0f} bytes an entry"
