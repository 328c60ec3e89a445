"""What counts as a success, how often and how soon a failed delivery is tried again, and that every try is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime
from email.utils import formatdate
from itertools import pairwise

import pytest

from tests.support.behaviours import Behaviour, GzipBomb, Hang, Raw, Reply, Reset, redirect
from tests.support.client import Client
from tests.support.sink import Sink
from tests.support.until import steady
from tests.walk.conftest import MAX_RETRIES, RETRY_DELAY_S, WEBHOOK_TIMEOUT_S

LATE_S = 0.35
"""Generous: the machine is shared."""


SUCCESSES = (200, 201, 202, 204, 299)
FAILURES = (199, 300, 304, 307, 400, 401, 404, 409, 422, 429, 500, 502, 503, 599)
REDIRECTS = (301, 302, 303, 307, 308)


async def to_each(client: Client, sink: Sink, key: str, names: Iterable[object], **webhook: object) -> None:
    """One message, at the same time, to a path of the sink for each name, under a key of its own."""
    sends = (client.send(sink.url(f"/{name}"), f"{key}-{name}", {}, max_size=1, webhook=webhook) for name in names)
    await asyncio.gather(*sends)


async def test_any_2xx_is_a_success(client: Client, sink: Sink, key: str) -> None:
    """One try."""
    for status in SUCCESSES:
        sink.on(f"/{status}", Reply(status=status))
    await to_each(client, sink, key, SUCCESSES)

    for status in SUCCESSES:
        (row,) = await client.until_status(f"{key}-{status}", "delivered")
        assert [attempt["status_code"] for attempt in row["attempts"]] == [status]


async def test_anything_else_is_a_failure_and_tried_again(client: Client, sink: Sink, key: str) -> None:
    """Also what a client did wrong by its own account: it may be mended meanwhile."""
    for status in FAILURES:
        sink.on(f"/{status}", Raw(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status), Reply())
    await to_each(client, sink, key, FAILURES)

    for status in FAILURES:
        (row,) = await client.until_status(f"{key}-{status}", "delivered")
        codes = [attempt.get("status_code") for attempt in row["attempts"]]
        assert codes == ([status, 200] if status != 199 else [None, 200])  # a 1xx is no answer yet


async def test_redirects_are_not_followed(client: Client, sink: Sink, key: str) -> None:
    """They are failures: the webhook they point at never hears of us."""
    async with Sink() as elsewhere:
        for status in REDIRECTS:
            sink.on(f"/{status}", redirect(elsewhere.url("/inside"), status))
        await to_each(client, sink, key, REDIRECTS, max_retries=1)

        for status in REDIRECTS:
            (row,) = await client.until_status(f"{key}-{status}", "dead")
            assert [attempt["status_code"] for attempt in row["attempts"]] == [status, status]
        assert elsewhere.connections == 0
        assert {request.path for request in sink.requests} == {f"/{status}" for status in REDIRECTS}


async def test_a_gone_webhook_ends_it_at_once(client: Client, sink: Sink, key: str) -> None:
    """410: dead after one try."""
    sink.on("/hook", Reply(status=410))
    await client.send(sink.url(), key, {}, max_size=1)

    (row,) = await client.until_status(key, "dead")

    assert len(row["attempts"]) == 1
    await steady(lambda: sink.count == 1, 0.3, what="it is not tried again")


async def test_waits_double_and_the_tries_run_out(client: Client, sink: Sink, key: str) -> None:
    """MAX_RETRIES after the first, RETRY_DELAY × 2ⁿ ± 20 % apart, same bytes under the same id; then it is dead."""
    sink.on("/hook", Reply(status=500))
    await client.send(sink.url(), key, {"n": 1}, max_size=1)

    (row,) = await client.until_status(key, "dead")
    await steady(lambda: sink.count == 1 + MAX_RETRIES, RETRY_DELAY_S * 2**MAX_RETRIES, what="nothing more comes")

    assert len(row["attempts"]) == sink.count
    assert [request.headers["x-attempt"] for request in sink.requests] == ["1", "2", "3", "4"]
    assert {request.headers["webhook-id"] for request in sink.requests} == {row["id"]}
    assert len({request.body for request in sink.requests}) == 1
    stamps = [int(request.headers["webhook-timestamp"]) for request in sink.requests]
    assert all(abs(stamp - request.at) <= 1.5 for stamp, request in zip(stamps, sink.requests, strict=True))
    waits = [later.at - earlier.at for earlier, later in pairwise(sink.requests)]
    for n, wait_s in enumerate(waits):
        assert RETRY_DELAY_S * 2**n * 0.8 <= wait_s <= RETRY_DELAY_S * 2**n * 1.2 + LATE_S


async def test_a_webhook_may_name_its_own_number_of_retries(client: Client, sink: Sink, key: str) -> None:
    """None at all, fewer or more than the setting says."""
    sink.on("/hook", Reply(status=500))
    for retries in (0, 1, 4):
        await client.send(sink.url(), f"{key}-{retries}", {}, max_size=1, webhook={"max_retries": retries})

    for retries in (0, 1, 4):
        (row,) = await client.until_status(f"{key}-{retries}", "dead")
        assert len(row["attempts"]) == 1 + retries


async def test_retry_after_is_obeyed(client: Client, sink: Sink, key: str) -> None:
    """Seconds or a date; what is no time of the future is as if it were not there."""
    usual = (RETRY_DELAY_S * 0.8, RETRY_DELAY_S * 1.2)
    date = formatdate(time.time() + 2, usegmt=True)
    asked = {"1": (1.0, 1.0), date: (1.0, 2.0), "-1": usual, "soon": usual, "": usual}
    for number, value in enumerate(asked):
        sink.on(f"/{number}", Reply(status=500, headers=(("Retry-After", value),)), Reply())
    await to_each(client, sink, key, range(len(asked)))

    await sink.wait_for_requests(2 * len(asked))

    for number, (value, (at_least_s, at_most_s)) in enumerate(asked.items()):
        first, second = (request.at for request in sink.requests if request.path == f"/{number}")
        assert at_least_s <= second - first <= at_most_s + LATE_S, value


async def test_retry_after_is_obeyed_up_to_an_hour(client: Client, sink: Sink, key: str) -> None:
    """1e9 seconds would be a delivery that never comes."""
    sink.next(Reply(status=429, headers=(("Retry-After", "1000000000"),)))
    await client.send(sink.url(), key, {}, max_size=1)

    (row,) = await client.until_status(key, "retrying")
    await client.call("DELETE", f"/api/v1/deliveries/{row['id']}")

    assert 3590 < datetime.fromisoformat(row["next_attempt_at"]).timestamp() - time.time() <= 3600


@pytest.mark.parametrize("timeout_s", [None, 0.3])
async def test_a_try_has_a_timeout(client: Client, sink: Sink, key: str, timeout_s: float | None) -> None:
    """WEBHOOK_TIMEOUT, or the webhook's own."""
    sink.next(Hang())
    webhook = {} if timeout_s is None else {"timeout": timeout_s}
    await client.send(sink.url(), key, {}, max_size=1, webhook=webhook)

    (row,) = await client.until_status(key, "delivered")

    first = row["attempts"][0]
    assert first["error"] == "timeout"
    wanted_ms = 1000 * (timeout_s or WEBHOOK_TIMEOUT_S)
    assert wanted_ms - 5 <= first["latency_ms"] <= wanted_ms + 1000 * LATE_S


@pytest.mark.parametrize(
    "trouble",
    [Reset(), Raw(b""), Raw(b"SSH-2.0-x\r\n"), Raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")],
    ids=["reset", "closed", "no-http", "bad-http"],
)
async def test_no_answer_is_a_failure(client: Client, sink: Sink, key: str, trouble: Behaviour) -> None:
    """And is tried again like any other."""
    sink.next(trouble)
    await client.send(sink.url(), key, {}, max_size=1)

    (row,) = await client.until_status(key, "delivered")

    assert len(row["attempts"]) == 2
    assert row["attempts"][0]["error"]


async def test_a_success_is_one_however_its_answer_goes_on(client: Client, sink: Sink, key: str) -> None:
    """After the status line nothing can make it a failure: to send again would be to send twice."""
    paths = ("/drip", "/flood", "/gzip", "/reset-answer")
    sink.on("/gzip", GzipBomb(4 * 1024 * 1024))  # the default takes so long to make that the others would time out
    await asyncio.gather(
        *(client.send(sink.url(path), key + path, {}, max_size=1, webhook={"timeout": 0.5}) for path in paths)
    )

    for path in paths:
        (row,) = await client.until_status(key + path, "delivered")
        assert [attempt["status_code"] for attempt in row["attempts"]] == [200], path
    assert sink.count == len(paths)
