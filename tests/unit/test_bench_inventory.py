"""The benchmark of the inventory: all sides get the same requests, and only right answers count."""

from __future__ import annotations

import re

import msgspec
import pytest

from actors.core.ids import is_event_id
from tests.bench import inventory_lag, inventory_rebuild, inventory_speed
from tests.bench.baseline import (
    ADDED_ANSWER,
    LIST_ANSWER,
    MADE_ANSWER,
    ONE_ANSWER,
    decode_inventory,
    decode_line,
)
from tests.bench.figures import Turn
from tests.bench.inventory_history import FIRST_EVENT
from tests.bench.inventory_lag import LagResult
from tests.bench.inventory_requests import (
    CANTIDAD,
    MAKES_EVERY,
    PAGE,
    RANGE,
    READ,
    WRITTEN,
    InventoryKind,
    InventorySpec,
    builder,
    complaint,
    makes,
    sample_one,
    seeded,
)
from tests.bench.inventory_speed import COMMANDS, DO_NOTHING, FASTAPI, SHARES, TITLES
from tests.bench.load import LoadSpec
from tests.bench.request_kinds import good_status, is_sampled
from tests.bench.sink_fast import header_number

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
COMMAND = InventorySpec(kind="command")
READS: tuple[InventoryKind, ...] = ("list", "one", "after")


def turn(per_cpu_s: int) -> Turn:
    """A turn of two seconds."""
    return Turn(operations=2 * per_cpu_s, seconds=2.0, server_cpu_s=2.0, store_cpu_s=0.5)


@pytest.mark.parametrize("number", [0, 1, 5, 999, 1_000, 123_456_789])
def test_every_command_is_one_that_a_server_decodes(number: int) -> None:
    """Content-Length fits; one in five makes an inventory, the others grow one of those that may grow."""
    head, _, body = builder(COMMAND, 8000)(number).partition(b"\r\n\r\n")

    assert header_number(head, b"Content-Length: ", -1) == len(body)
    if makes(number):
        assert head.startswith(b"POST /inventario HTTP")
        assert decode_inventory(body).cliente == f"Cliente {number:09d}"
    else:
        grown = re.match(rb"POST /inventario/(\d+)/linea HTTP", head)
        assert grown is not None
        assert WRITTEN <= int(grown[1]) < WRITTEN + RANGE
        assert decode_line(body).cantidad == CANTIDAD


@pytest.mark.parametrize("kind", READS)
def test_what_is_read_is_never_written(kind: InventoryKind) -> None:
    """So every answer about it is known beforehand; all of it is asked for."""
    build = builder(InventorySpec(kind=kind, after=FIRST_EVENT), 8000)
    paths = {build(number).split(b" ")[1].partition(b"?")[0] for number in range(RANGE)}

    asked = {b"/inventario"} if kind == "list" else {b"/inventario/%d" % (READ + each) for each in range(RANGE)}
    assert paths == asked
    assert READ + RANGE <= WRITTEN


def test_the_event_that_reads_wait_for_has_an_id_of_ours() -> None:
    """The node refuses any other."""
    assert is_event_id(FIRST_EVENT)


@pytest.mark.parametrize(
    ("kind", "number", "answer"),
    [
        ("command", MAKES_EVERY * RANGE, MADE_ANSWER.replace(b"Cliente 000000000", b"Cliente 000005000")),
        ("command", 1, ADDED_ANSWER.replace(b":2000,", b":2001,")),
        ("list", 7, LIST_ANSWER),
        ("one", RANGE, ONE_ANSWER),
        ("after", 0, ONE_ANSWER),
    ],
)
def test_a_right_answer_is_right_and_another_is_not(kind: InventoryKind, number: int, answer: bytes) -> None:
    """What the handlers that do nothing answer is right for one request, and wrong for the next."""
    spec = InventorySpec(kind=kind, after=FIRST_EVENT)

    assert complaint(spec, number, HEAD + answer) == ""
    assert complaint(spec, number, HEAD + answer[:-1]) != ""
    assert complaint(spec, number, HEAD + answer.replace(b" 00", b" 01", 1)) != ""
    if kind != "list":
        assert complaint(spec, number + MAKES_EVERY, HEAD + answer) != ""
    assert complaint(msgspec.structs.replace(spec, constant=True), number + 1, HEAD + answer) == ""


def test_an_inventory_that_lacks_a_line_is_wrong() -> None:
    """However many items it says it has."""
    answer = msgspec.json.decode(sample_one())
    answer["lineas"].pop()

    assert complaint(InventorySpec(kind="one"), 0, HEAD + msgspec.json.encode(answer)) != ""


def test_a_page_begins_with_those_that_expire_last() -> None:
    """They are of the range that is read, so that commands never change the page."""
    expires = [seeded(READ + place).fecha_caducidad for place in range(PAGE)]

    assert expires == sorted(expires, key=str, reverse=True)


def test_the_generator_sends_them_and_keeps_a_sample() -> None:
    """A spec survives the command line with its kind."""
    spec = LoadSpec(port=1, message=InventorySpec(kind="after", after=FIRST_EVENT))

    assert msgspec.json.decode(msgspec.json.encode(spec), type=LoadSpec) == spec
    assert is_sampled(spec.message)
    assert (good_status(COMMAND), good_status(spec.message)) == (201, 200)


def test_all_shares_are_of_scenarios_that_have_titles() -> None:
    """By CPU-second of the server, turn by turn; nothing is asked of them."""
    taken = {COMMANDS: [turn(1600)], DO_NOTHING.format(COMMANDS): [turn(16_000)], FASTAPI.format(COMMANDS): [turn(400)]}

    shares = {each.name: each.measured for each in inventory_speed.figures(taken)}

    assert {name for ours, theirs, _ in SHARES for name in (ours, theirs)} == TITLES.keys()
    assert shares["inventory commands ÷ do-nothing inventory commands"] == "0.10 (0.10 … 0.10)"
    assert shares["inventory commands ÷ FastAPI's inventory commands"] == "4.00 (4.00 … 4.00)"


def test_the_lag_that_is_asked_is_that_of_99_commands_in_100() -> None:
    """One in a hundred may be late. Of commands that are read, what counts is how long the reader waited."""
    on_time = LagResult(lags_ms=[10.0] * 198 + [100.0, 500.0])
    late = LagResult(lags_ms=[10.0] * 198 + [101.0, 500.0])

    read_late = LagResult(lags_ms=on_time.lags_ms, reads_ms=late.lags_ms)

    assert [inventory_lag.figure(each, 300.0, 0.0).met for each in (on_time, late, read_late)] == [True, False, False]


def test_twenty_thousand_events_a_second_are_asked_of_a_rebuild() -> None:
    """The median of the turns counts."""
    assert inventory_rebuild.figure(100_000, [10_000, 20_000, 90_000], 1.0).met
    assert not inventory_rebuild.figure(100_000, [10_000, 19_999, 90_000], 1.0).met
