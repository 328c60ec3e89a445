"""The cache benchmark's bytes and checks: a wrong answer that passes for a right one would be a speed of nothing."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from tests.bench.baseline import READ_ANSWER, decode_cache
from tests.bench.cache_costs import Costs, figures
from tests.bench.cache_requests import (
    BATCH,
    BATCH_KEYS,
    KEYS,
    READ_KEY,
    VALUE_BYTES,
    WRITTEN,
    CacheKind,
    CacheSpec,
    batch_keys,
    builder,
    complaint,
    is_hit,
    value_of,
)
from tests.bench.cache_speed import SHARES, TITLES
from tests.bench.figures import Turn
from tests.bench.load import LoadSpec
from tests.bench.report import speed_figures
from tests.bench.sink_fast import header_number

KINDS: tuple[CacheKind, ...] = get_args(CacheKind)
HEAD = b"HTTP/1.1 200 OK\r\nCache-Status: buzon; hit\r\n\r\n"


def item(number: int) -> bytes:
    """An answer's part about one key."""
    return b'{"value":%b,"expires_at":null,"remaining_ttl":"none"}' % value_of(number)


def right(kind: CacheKind, number: int) -> bytes:
    """A right answer to request `number`."""
    keys = batch_keys(number)
    match kind:
        case "get" | "get_v0":
            return item(number % KEYS)
        case "put" | "post_v0":
            return b'{"message":"m","key":"%b","ttl":1}' % (WRITTEN[kind] % (number % KEYS)).encode()
        case "batch_get":
            items = b",".join(b'"%b":%b' % ((READ_KEY % key).encode(), item(key)) for key in keys)
            return b'{"items":{%b},"count":%d}' % (items, len(keys))
        case _:
            answers = {
                "webdis_get": {"GET": value_of(number % KEYS).decode()},
                "webdis_set": {"SET": [True, "OK"]},
                "webdis_mget": {"MGET": [value_of(key).decode() for key in keys]},
            }
            return msgspec.json.encode(answers[kind])


@pytest.mark.parametrize("number", [0, 9, 999, 1_000, 123_456])
def test_values_are_json_of_one_length(number: int) -> None:
    """Each says which key and which write it is of."""
    value = value_of(number % KEYS, number)

    assert len(value) == VALUE_BYTES
    assert msgspec.json.decode(value)["sku"] == f"item-{number % KEYS:06d}"
    assert msgspec.json.decode(value)["version"] == f"{number:010d}"


@pytest.mark.parametrize("kind", KINDS)
def test_requests_of_a_kind_are_of_one_length(kind: CacheKind) -> None:
    """Content-Length fits, and no request is cheaper than another."""
    build = builder(CacheSpec(kind=kind), 8000)
    requests = [build(number) for number in (*range(KEYS), 123_456)]

    assert len({len(request) for request in requests}) == 1
    head, _, body = requests[-1].partition(b"\r\n\r\n")
    assert header_number(head, b"Content-Length: ", 0) == len(body)


def test_every_batch_asks_for_a_hundred_keys_and_all_batches_for_all() -> None:
    """So a near cache that held only some of them would show."""
    assert {len(batch_keys(number)) for number in range(KEYS)} == {BATCH}
    assert {key for number in range(BATCH_KEYS // BATCH) for key in batch_keys(number)} == set(range(BATCH_KEYS))


def test_batches_under_way_together_have_no_key_in_common() -> None:
    """Else one load would serve several, and a cold figure would be a warm one."""
    connections = LoadSpec(port=0, message=CacheSpec(kind="batch_get")).connections

    together = [key for number in range(connections) for key in batch_keys(1_000 + number)]

    assert len(set(together)) == len(together)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_is_right_and_that_of_another_key_is_not(kind: CacheKind) -> None:
    """What is looked at is the whole value."""
    spec = CacheSpec(kind=kind)

    assert complaint(spec, 1_017, HEAD + right(kind, 1_017)) == ""
    assert complaint(spec, 1_017, HEAD + b'{"GET":') != ""
    if kind != "webdis_set":
        assert complaint(spec, 1_017, HEAD + right(kind, 1_018)) != ""


@pytest.mark.parametrize(
    ("status", "hit"),
    [("buzon; hit; ttl=59", True), ("buzon; hit", True), ("buzon; hit; stale", False), ("buzon; fwd=miss", False)],
)
def test_only_a_fresh_answer_from_near_is_a_hit(status: str, hit: bool) -> None:
    """A hot figure is of such answers."""
    assert is_hit(b"HTTP/1.1 200 OK\r\nCache-Status: %b\r\n\r\n{}" % status.encode()) is hit


def test_a_batch_that_lacks_a_key_is_wrong() -> None:
    """However the answer counts."""
    answer = right("batch_get", 0).replace((READ_KEY % 0).encode(), b"other")

    assert complaint(CacheSpec(kind="batch_get"), 0, HEAD + answer) != ""


def test_the_handlers_that_do_nothing_take_and_give_what_the_node_does() -> None:
    """The same bytes, and an answer of the contract's shape."""
    body = builder(CacheSpec(kind="post_v0"), 8000)(1_005).partition(b"\r\n\r\n")[2]

    assert bytes(decode_cache(body).value) == value_of(5, 1_005)
    assert set(msgspec.json.decode(READ_ANSWER)) == {"key", "value", "expires_at", "remaining_ttl"}


def test_shares_of_which_nothing_is_asked_are_neither_met_nor_missed() -> None:
    """They are printed, however they come out; those whose other side did not run are not."""
    turn = Turn(operations=10, seconds=1.0, server_cpu_s=1.0)
    turns = {name: [turn] for name in TITLES if "webdis" not in name}
    turns["hot GET"] = [Turn(operations=40, seconds=1.0, server_cpu_s=1.0)]

    found = {figure.name: figure for figure in speed_figures(turns, TITLES, SHARES)}

    assert found["hot GET ÷ do-nothing GET"].met
    assert found["PUT ÷ do-nothing POST"].met is False
    assert found["cold GET ÷ do-nothing GET"].met is None
    assert not [name for name in found if "webdis" in name]


def test_what_is_asked_of_the_parts_is_judged_by_the_median() -> None:
    """The near cache's get, and a set among many callers."""
    costs = Costs(near_get=[0.9, 0.9, 9.0], read_now=[1.0], sets={256: [13.0], 1: [90.0]}, loads={64: [5.0]})

    assert [figure.met for figure in figures(costs)] == [True, None, False, None, None]
