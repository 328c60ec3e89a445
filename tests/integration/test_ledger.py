"""The ledger notices what the other tests rely on it to notice: planted loss, duplicates, reordering and mutation."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.ledger import Ledger
from tests.support.sink import Received


def request(batch: str, *ids: str, key: str = "k", stamp: str = "1", attempt: int = 1) -> Received:
    """A delivery as a sink writes it down."""
    body = {"key": key, "stamp": stamp, "messages": [{"message_id": name, "payload": {}} for name in ids]}
    return Received(
        at=0.0,
        method="POST",
        path="/hook",
        headers={"webhook-id": batch, "x-attempt": str(attempt)},
        raw_headers=[],
        body=msgspec.json.encode(body),
        connection=1,
    )


@pytest.fixture
def ledger() -> Ledger:
    """Four messages of one key that were promised, and one that was sent and refused."""
    ledger = Ledger()
    for name in ("a", "b", "c", "d"):
        ledger.note("k", name, acknowledged=True)
    ledger.note("k", "refused", acknowledged=False)
    return ledger


def test_nothing_is_found_where_all_is_well(ledger: Ledger) -> None:
    """All that was promised, once, in order; what was not promised may arrive or not."""
    assert ledger.reconcile([request("1", "a", "b"), request("2", "c", "d")]).clean
    assert ledger.reconcile([request("1", "a", "b", "refused"), request("2", "c", "d")]).clean


def test_a_lost_message_is_noticed_unless_it_is_dead(ledger: Ledger) -> None:
    """A dead letter is a kept promise; a request that was not taken is none."""
    without_b = [request("1", "a"), request("2", "c", "d")]

    assert ledger.reconcile(without_b).lost == {"b"}
    assert ledger.reconcile(without_b, dead={"b"}).clean
    refused = [*without_b, request("3", "b")]
    assert ledger.reconcile(refused, taken=lambda each: each.headers["webhook-id"] != "3").lost == {"b"}


def test_a_message_nobody_sent_is_noticed(ledger: Ledger) -> None:
    """Something made it up."""
    assert ledger.reconcile([request("1", "a", "b", "c", "d", "x")]).phantom == {"x"}


def test_a_message_in_two_batches_is_noticed(ledger: Ledger) -> None:
    """Under two webhook-ids no receiver could tell."""
    assert ledger.reconcile([request("1", "a", "b"), request("2", "b", "c", "d")]).twice == {"b"}


def test_a_repeated_delivery_is_counted(ledger: Ledger) -> None:
    """It is allowed after a crash and after a failure, never otherwise: the test says how many there may be."""
    again = [request("1", "a", "b"), request("1", "a", "b", attempt=2), request("2", "c", "d")]

    assert ledger.reconcile(again).repeated == {"1": 1}
    assert ledger.reconcile(again).sound
    assert not ledger.reconcile(again).clean
    assert ledger.reconcile(again, taken=lambda each: each.headers["x-attempt"] == "2" or "c" in str(each.body)).clean


def test_a_body_that_changed_is_noticed(ledger: Ledger) -> None:
    """Also when only one of the two was taken: whoever saw the first compares."""
    changed = [request("1", "a", "b", "c", "d", attempt=1), request("1", "a", "b", "c", "d", stamp="2", attempt=2)]

    assert ledger.reconcile(changed).mutated == {"1"}
    assert ledger.reconcile(changed, taken=lambda each: each.headers["x-attempt"] == "2").mutated == {"1"}


def test_another_order_is_noticed(ledger: Ledger) -> None:
    """Within a batch and between batches; a repetition of an earlier batch is no reordering."""
    assert ledger.reconcile([request("1", "b", "a", "c", "d")]).disordered == {"k"}
    assert ledger.reconcile([request("2", "c", "d"), request("1", "a", "b")]).disordered == {"k"}
    repeated = [request("1", "a", "b"), request("2", "c", "d"), request("1", "a", "b")]
    assert ledger.reconcile(repeated).disordered == frozenset()


def test_a_message_that_is_sent_again_is_one_promise(ledger: Ledger) -> None:
    """A client that resends after a 503 keeps the id: refused, then acknowledged."""
    ledger.note("k", "refused", acknowledged=True)
    ledger.note("k", "a", acknowledged=True)

    assert ledger.acknowledged == {"a", "b", "c", "d", "refused"}
    assert ledger.reconcile([request("1", "a", "b", "c", "d", "refused")]).clean
