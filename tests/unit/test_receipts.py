"""How far a sent message has come: forward only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.receipts import Receipt, forward, receipt_of
from tests.unit.test_foreign_json import JSON

ORDER: list[Receipt] = ["error", "server_ack", "delivered", "read"]


@pytest.mark.parametrize(
    ("status", "receipt"),
    [
        *(("SERVER_ACK", "server_ack"), ("DELIVERY_ACK", "delivered"), ("READ", "read"), ("PLAYED", "read")),
        *(("ERROR", "error"), ("PENDING", None), ("DELETED", None), ("read", None), ("", None)),
        *((0, "error"), (1, None), (2, "server_ack"), (3, "delivered"), (4, "read"), (5, "read"), (6, None)),
        *((True, None), (None, None), (3.0, None), ([], None), ({}, None)),
    ],
)
def test_what_a_status_means(status: object, receipt: Receipt | None) -> None:
    """WhatsApp's enumeration, by name or by number; DELETED is what two versions wrote for anything unknown."""
    assert receipt_of(status) == receipt


@given(st.permutations(["server_ack", "delivered", "read", "error"]), st.lists(st.sampled_from(ORDER), max_size=6))
def test_receipts_may_come_in_any_order_and_twice(first: list[Receipt], more: list[Receipt]) -> None:
    """The end is the same, and on the way nothing is taken back."""
    known: Receipt | None = None
    for told in [*first, *more]:
        later = forward(known, told)
        assert known is None or ORDER.index(later) >= ORDER.index(known)
        assert ORDER.index(later) >= ORDER.index(told)
        known = later
    assert known == "read"


@given(st.sampled_from(ORDER))
def test_the_first_receipt_counts(told: Receipt) -> None:
    """An error, too: nothing better is known."""
    assert forward(None, told) == told
    assert forward(told, told) == told


@given(JSON)
def test_any_status_is_survived(status: object) -> None:
    """Nothing raises."""
    assert receipt_of(status) in (None, *ORDER)
