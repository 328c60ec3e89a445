"""The benchmark's arithmetic and its bytes: wrong ones would make every printed figure a fairy tale."""

from __future__ import annotations

import msgspec
import pytest

from actors.core.policy import Message
from tests.bench import scaling
from tests.bench import spread as spread_on_paper
from tests.bench.baseline import ANSWER
from tests.bench.figures import Turn, at_least, at_most, percentile, ratios, spread
from tests.bench.lateness import WAITS, lateness
from tests.bench.memory import worst_lag
from tests.bench.messages import MessageSpec, builder, message_id, message_number
from tests.bench.report import markdown, speed_figures, table
from tests.bench.sink_fast import Received, header_number

MESSAGE = MessageSpec(sink="http://127.0.0.1:1/hook", tag="x", keys=20, max_size=7, waits=WAITS)


def turn(operations: int, cpu_s: float) -> Turn:
    """A turn of one second."""
    return Turn(operations=operations, seconds=1.0, server_cpu_s=cpu_s)


def received(numbers: list[int], at: float, reason: str = "timeout") -> Received:
    """What the sink logs for a batch of these messages."""
    messages = [{"message_id": message_id("x", number), "payload": {}} for number in numbers]
    return Received(at, b"", msgspec.json.encode({"key": "k", "reason": reason, "messages": messages}))


@pytest.mark.parametrize("number", [0, 1, 19, 20, 123_456_789])
def test_every_request_is_one_the_node_decodes(number: int) -> None:
    """Content-Length fits, key and wait follow from the number, and ids are told apart."""
    head, _, body = builder(MESSAGE, 8000)(number).partition(b"\r\n\r\n")
    message = msgspec.json.decode(body, type=Message)

    assert header_number(head, b"Content-Length: ", -1) == len(body)
    assert message.buffer.key == f"x-{number % 20:06d}@domain.net"
    assert message.buffer.wait_time == pytest.approx(1 + number % 20 % 10 / 10)
    assert message.message_id is not None
    assert message_number(message.message_id) == number


def test_requests_differ_in_nothing_but_key_and_ids() -> None:
    """Bytes of one length, so neither side gets cheaper requests."""
    build = builder(MESSAGE, 8000)

    assert len({len(build(number)) for number in range(500)}) == 1


def test_the_baseline_answers_what_the_contract_shows() -> None:
    """Its constant has the shape and the size of a real answer."""
    assert set(msgspec.json.decode(ANSWER)) == {"status", "message_id", "buffer_info", "duplicate", "flushed"}


def test_ratios_are_taken_turn_by_turn() -> None:
    """A machine that slows down for both does not change the ratio."""
    ours, theirs = [turn(70, 1.0), turn(35, 1.0), turn(7, 1.0)], [turn(100, 1.0), turn(50, 1.0), turn(10, 1.0)]

    found = ratios(ours, theirs)

    assert (found.low, found.middle, found.high) == pytest.approx((0.7, 0.7, 0.7))


def test_what_is_asked_is_met_by_the_median() -> None:
    """One bad turn neither fails nor saves a figure; amounts must stay at or below what is asked."""
    assert at_least("a", spread([0.5, 0.7, 0.9]), 0.7, "").met
    assert not at_least("a", spread([0.5, 0.69, 0.9]), 0.7, "").met
    assert at_most("a", 50.0, 50.0, "ms").met
    assert not at_most("a", 50.1, 50.0, "ms").met


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank; nothing measured is 0."""
    assert percentile([float(value) for value in range(100)], 0.99) == 99
    assert percentile([3.0], 0.5) == 3
    assert percentile([], 0.99) == 0


def test_lateness_counts_from_the_first_message_of_the_batch() -> None:
    """Message 3 waits 1.3 s: acknowledged at 10.01, it is 40 ms late at 11.35, and 50 ms after it was sent."""
    late, wrong, messages = lateness([received([3, 23], 11.35)], [(3, 10.0, 10.01), (23, 10.4, 10.41)])

    assert late[0] == pytest.approx((0.04, 0.05))
    assert len(late) == 1
    assert (wrong, messages) == (0, 2)


def test_early_batches_and_those_that_closed_otherwise_are_wrong() -> None:
    """Going out before the time is no success, however punctual it looks."""
    ledger = [(0, 10.0, 10.01), (1, 10.0, 10.01)]

    _, wrong, _ = lateness([received([0], 10.99), received([1], 11.2, "size")], ledger)

    assert wrong == 2


def test_the_worst_loop_lag_is_the_last_bucket_that_grew() -> None:
    """Read from the exposition text, labels or not."""
    text = (
        'buzon_loop_lag_seconds_bucket{le="0.005"} 7.0\n'
        'buzon_loop_lag_seconds_bucket{le="0.05"} 9.0\n'
        'buzon_loop_lag_seconds_bucket{le="+Inf"} 9.0\n'
    )

    assert worst_lag(text) == "≤ 50 ms"
    assert worst_lag(text.replace('+Inf"} 9', '+Inf"} 10')) == "> 50 ms"
    assert worst_lag("") == "not exposed"


def test_the_tables_show_what_was_measured_beside_what_was_asked() -> None:
    """Both forms have one line a figure, and say NO aloud."""
    turns = {"baseline": [turn(100, 1.0)], "accept": [turn(60, 1.0)]}
    figures = speed_figures(turns)

    assert [figure.met for figure in figures] == [None, None, False]
    assert "| accept ÷ baseline | 0.60 (0.60 … 0.60) | ≥ 2.00 | NO |" in markdown(figures)
    assert "NO" in table(figures)


def test_what_three_nodes_cost_is_a_multiple_of_one() -> None:
    """By the CPU of a message, turn by turn; asked of the default setting alone."""
    turns = {
        scaling.ONE: [turn(100, 1.0), turn(50, 1.0)],
        scaling.DIRECT: [turn(80, 1.0), turn(40, 1.0)],
        scaling.FORWARD: [turn(50, 1.0), turn(25, 1.0)],
    }

    direct, forward = scaling.figures(turns)[-2:]

    assert (direct.measured, direct.met) == ("1.25 (1.25 … 1.25)", True)
    assert (forward.measured, forward.met) == ("2.00 (2.00 … 2.00)", None)


def test_partitions_that_move_are_those_of_the_node_that_came_or_went() -> None:
    """The share is of all partitions; a simulated cluster has as many shares as partitions."""
    found = spread_on_paper.shares(4, 256, trials=2)

    assert spread_on_paper.moved(("a", "b", "b", "c"), ("a", "b", "d", "d")) == 0.5
    assert 1 <= found.busiest.low <= found.busiest.high < 2
    assert found.idle.high == 0
    assert 0.1 < found.joining < 0.3
    assert 0.15 < found.leaving < 0.35
    assert spread_on_paper.busiest_shard(1) == 1
