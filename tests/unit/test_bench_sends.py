"""The benchmark of sends: either side gets the same requests, and nothing but a send of ours counts as one."""

from __future__ import annotations

import msgspec
import pytest

from actors.core.evolution_answers import Sent, judge
from actors.core.evolution_server import Answer, Server, read_state, read_welcome
from tests.bench import send_accept, send_figures
from tests.bench.baseline import TASK_ANSWER
from tests.bench.evolution_fast import KEY, Evolution
from tests.bench.figures import Turn
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.request_kinds import good_status
from tests.bench.sends import CELERY, NODE, TWO, WAYS, turn_of
from tests.bench.sink_fast import header_number
from tests.bench.task_requests import Body, TaskSpec, builder, document, number_of

TASKS = TaskSpec(contacts=20, instances=8)
HEAD = f"POST /message/sendText/bench-3 HTTP/1.1\r\nHost: x\r\napikey: {KEY}\r\nContent-Length: 0".encode()


def read(reply: bytes) -> Answer:
    """An answer as the node has it once it is read."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert header_number(head, b"Content-Length: ", -1) == len(body)
    return Answer(int(head.split(b" ", 2)[1]), body)


def send(number: int, **more: str) -> bytes:
    """The body of a send of task `number`."""
    return msgspec.json.encode({"number": "520000000001", "text": document("", f"{number}", "")["message"], **more})


def turn(per_s: int) -> Turn:
    """A turn of two seconds."""
    return Turn(operations=2 * per_s, seconds=2.0, server_cpu_s=1.0, store_cpu_s=0.5)


@pytest.mark.parametrize("number", [0, 7, 19, 20, 123_456_789])
def test_every_task_is_one_that_a_server_decodes(number: int) -> None:
    """Content-Length fits; contact and instance follow from the number, which the text ends with."""
    head, _, body = builder(TASKS, 8000)(number).partition(b"\r\n\r\n")
    task = msgspec.json.decode(body, type=Body)

    assert header_number(head, b"Content-Length: ", -1) == len(body)
    assert task.phone == f"+52{number % 20:010d}"
    assert task.instance_name == f"bench-{number % 8}"
    assert number_of(task.message) == number


def test_tasks_are_of_one_length_and_answered_202() -> None:
    """Neither side gets cheaper requests, and anything but a 202 is an error."""
    build = builder(TASKS, 8000)

    assert len({len(build(number)) for number in range(500)}) == 1
    assert good_status(TASKS) == 202
    assert set(msgspec.json.decode(TASK_ANSWER)) == {"success", "message", "task_id"}


def test_the_stand_in_s_answers_are_evolution_s() -> None:
    """A send is sent, with an id of its own or the one it asked for; the version and the instance can be read."""
    evolution = Evolution()

    outcomes = [judge(read(evolution.reply(HEAD, send(number))), "v2") for number in (1, 2)]
    chosen = judge(read(evolution.reply(HEAD, send(3, messageId="3EB0ABC"))), "v2")

    sent = [outcome for outcome in outcomes if isinstance(outcome, Sent)]
    assert [outcome.remote_jid for outcome in sent] == ["520000000001@s.whatsapp.net"] * 2
    assert sent[0].key_id != sent[1].key_id
    assert chosen == Sent("3EB0ABC", "520000000001@s.whatsapp.net")
    server = read_welcome(read(evolution.page(b"GET / HTTP/1.1")))
    assert isinstance(server, Server)
    assert server.honours_message_id
    assert read_state(read(evolution.page(b"GET /instance/connectionState/i HTTP/1.1"))) == "open"


def test_the_stand_in_counts_a_message_once() -> None:
    """A second request for the same message is no second message; one without the key, or elsewhere, is none at all."""
    evolution = Evolution()

    for number in (5, 6, 5):
        evolution.reply(HEAD, send(number))
    without = evolution.reply(HEAD.replace(KEY.encode(), b"other"), send(7))
    elsewhere = evolution.reply(HEAD.replace(b"sendText", b"sendMedia"), send(8))

    assert evolution.counts.messages == 2
    assert [read(reply).status for reply in (without, elsewhere)] == [401, 404]


def test_the_generator_sends_tasks() -> None:
    """A spec survives the command line with its kind."""
    spec = LoadSpec(port=1, message=TASKS)

    assert msgspec.json.decode(msgspec.json.encode(spec), type=LoadSpec) == spec


def test_five_times_as_many_deliveries_are_asked() -> None:
    """By deliveries a second, turn by turn, end to end; of what waits nothing is asked."""
    speeds = {CELERY: 300, NODE: 1200, TWO: 1500}
    turns = {way.format(name): [turn(per_s)] * 3 for way in WAYS for name, per_s in speeds.items()}

    found = {figure.name: figure for figure in send_figures.figures(turns)}

    assert {name: (figure.measured, figure.met) for name, figure in found.items() if figure.asked == "≥ 5.00"} == {
        "sends: 1 node ÷ Celery, 1 instance": ("4.00 (4.00 … 4.00)", False),
        "sends: 2 workers ÷ Celery, 1 instance": ("5.00 (5.00 … 5.00)", True),
        "sends: 1 node ÷ Celery, 8 instances": ("4.00 (4.00 … 4.00)", False),
        "sends: 2 workers ÷ Celery, 8 instances": ("5.00 (5.00 … 5.00)", True),
    }
    assert found["sends: Celery, 8 instances, deliveries/s"].measured == "300 (300 … 300)"
    assert "1,667 µs each, of its store 833 µs" in found["sends: Celery, 8 instances, deliveries/s"].detail


def test_a_turn_that_did_not_end_has_no_deliveries() -> None:
    """What did not arrive in time is a trouble, and no speed."""
    taken = turn_of(LoadResult(), 0, 30.0, (1.0, 1.0), (2.0, 2.0))

    assert taken.per_s == 0
    assert taken.troubles


def test_accepting_is_compared_by_cpu() -> None:
    """The share that is asked, under the names that the turns are taken under."""
    taken = {send_accept.BASE: [turn(1000)], send_accept.ACCEPT: [turn(1600)]}

    share = send_accept.figures(taken)[-1]

    assert (share.measured, share.asked, share.met) == ("1.60 (1.60 … 1.60)", "≥ 1.50", True)
