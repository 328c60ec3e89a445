"""What the messages of one key have in common goes to the store in one piece, made once if it is short."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from actors.adapters.valkey.batches import PACKED_BYTES_MAX, ValkeyBatches
from actors.adapters.valkey.keys import PREFIXES
from tests.support.doubles import make_entry


@pytest.mark.parametrize(("size", "same"), [(PACKED_BYTES_MAX, True), (PACKED_BYTES_MAX + 1, False)])
def test_short_terms_are_made_once(size: int, *, same: bool) -> None:
    """Long ones each time: the memory is bounded in bytes too."""
    others = len(ValkeyBatches(cast(Any, None), 1)._pack(make_entry("k", policy=b"p" * size).terms)) - size
    policy = b"p" * (size - others)
    one, other = make_entry("k", "m1", policy=policy), make_entry("k", "m2", policy=policy, max_size=5)
    arguments = ValkeyBatches(cast(Any, None), 1)._append_arguments([one, other])
    first, second = arguments[1], arguments[7]
    assert (first is second) == same
    partition, kid = one.partition, one.terms.kid
    assert msgspec.msgpack.decode(first) == [
        PREFIXES[partition], kid, "k", policy.decode(), "a.example", 20_000, 0, 5, 1 << 20
    ]  # fmt: skip
    assert msgspec.msgpack.decode(second) == msgspec.msgpack.decode(first)
    assert arguments[2:7] == ["m1", one.dedupe, one.payload, "", one.batch_id]
