"""Line ends, escapes and secrets: whatever a field holds, no header, log line or page is made or broken by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.support.behaviours import Raw, Reply
from tests.support.client import BUFFERS, DELIVERIES, MESSAGE, Answer, Client, message, quoted, raw_exchange
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.walk.test_bad_input import planted

EVIL = "x\r\nX-Evil: 1\r\n\r\n\x1b[31mred\x00\u2028\u202e\u0085"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
CONTROL = re.compile("[\x00-\x1f\x7f]")
"""What no JSON may hold raw; line separators and marks of direction are data in it like any other."""
FIELDS = (
    "$.webhook.url",
    "$.webhook.method",
    "$.webhook.headers",
    "$.webhook.headers.X-Mine",
    f"$.webhook.headers.{EVIL}",
    "$.webhook.secret",
    f"$.webhook.{EVIL}",
    "$.buffer.key",
    "$.buffer.mode",
    "$.buffer.separator",
    "$.buffer.aggregate",
    "$.buffer.aggregate_field",
    "$.buffer.format",
    f"$.buffer.{EVIL}",
    "$.message_id",
    "$.payload.q",
    f"$.payload.{EVIL}",
    f"$.{EVIL}",
)
SENT = {"x-mine", "host", "accept", "accept-encoding", "content-length", "content-type", "user-agent"}
SENT |= {"webhook-id", "webhook-timestamp", "webhook-signature", "traceparent"}
SENT |= {"x-buffer-key", "x-buffer-size", "x-buffer-reason", "x-attempt"}
CANARY = "c4n4ry"
SECRET = f"whsec_{CANARY}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
HEADERS = {"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY, "apikey": CANARY}


def logged(node: NodeProcess) -> str:
    """All that the node has written to its log."""
    return Path(node.child.stderr_path).read_text()


def lines_of(text: str) -> list[dict[str, Any]]:
    """Every line as the JSON object that it must be."""
    lines = text.split("\n")
    assert lines[-1] == ""
    return [json.loads(line) for line in lines[:-1]]


async def test_no_field_makes_a_header(client: Client, node: NodeProcess, sink: Sink, key: str) -> None:
    """It is refused or travels as data; nothing of it is a header, at the webhook or in our answers."""
    before = len(logged(node))
    webhook = {"headers": {"X-Mine": "1"}, "secret": SECRET, "max_retries": 0}
    taken = 0
    for pointer in FIELDS:
        good = message(sink.url(), key, {"q": "x"}, max_size=1, aggregate="last", webhook=webhook)
        answer = await client.call("POST", MESSAGE, planted(good, pointer, EVIL))
        assert answer.status in (200, 400), (pointer, answer)
        taken += answer.status == 200
        assert "X-Evil" not in answer.headers
        assert not CONTROL.search(answer.body.decode()), pointer

    for request in await sink.wait_for_requests(taken):
        assert {name.lower() for name, _ in request.raw_headers} <= SENT
        assert all(value.isascii() and value.isprintable() for _, value in request.raw_headers)
    assert taken >= 5
    text = logged(node)[before:]
    assert not UNSAFE.search(text)
    assert len(lines_of(text)) >= len(FIELDS)


async def test_no_request_breaks_a_log_line(client: Client, node: NodeProcess, sink: Sink, key: str) -> None:
    """Paths, queries, request ids, traces, agents, methods: one JSON object a line, without a raw control character."""
    before = len(logged(node))
    odd = quoted(EVIL)
    for method, path in (
        ("GET", f"/{odd}"),
        ("GET", f"{BUFFERS}/{odd}"),
        ("POST", f"{BUFFERS}/{odd}/flush"),
        ("DELETE", f"{BUFFERS}/{odd}"),
        ("GET", f"{BUFFERS}?cursor={odd}&{odd}={odd}"),
        ("GET", f"{DELIVERIES}/{odd}"),
        ("GET", f"{DELIVERIES}?status={odd}"),
        ("GET", f"{DELIVERIES}?key={odd}"),
        ("POST", f"{DELIVERIES}/{odd}/retry"),
    ):
        answer = await client.call(method, path)
        assert answer.status in (200, 400, 404, 405), (path, answer)
        assert not CONTROL.search(answer.body.decode())
        assert "X-Evil" not in answer.headers
    for head in (
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\x1b[31m\x85\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nUser-Agent: \x1b]0;x\x07\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\ntraceparent: \xe2\x80\xa8\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\ry: z\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n",
        b"\x1b[31m / HTTP/1.1\r\nHost: x\r\n",
    ):
        answer_bytes = await raw_exchange(node.port, head + b"Connection: close\r\n\r\n")
        assert b"\x1b" not in answer_bytes
        assert b"\x85" not in answer_bytes
    text = logged(node)[before:]
    assert not UNSAFE.search(text)
    assert lines_of(text)


async def test_no_answer_of_a_webhook_breaks_anything(client: Client, node: NodeProcess, sink: Sink, key: str) -> None:
    """Its body is an excerpt of printable text, its reason phrase and headers are nobody's business."""
    before = len(logged(node))
    sink.next(
        Reply(status=500, body=EVIL.encode() * 100),
        Raw(b"HTTP/1.1 500 \x1b[31mred\r\nRetry-After: \x1b[31m\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x1b"),
        Raw(b"\x1b[31m\x00" * 100),
    )
    await client.send(sink.url(), key, {}, max_size=1, webhook={"max_retries": 2})
    (row,) = await client.until_status(key, "dead")

    excerpts = [attempt.get("response_excerpt", "") + attempt.get("error", "") for attempt in row["attempts"]]
    assert all(text.isprintable() and len(text.encode()) <= 1024 for text in excerpts)
    text = logged(node)[before:]
    assert not UNSAFE.search(text)
    assert lines_of(text)


async def test_no_secret_is_ever_shown(client: Client, node: NodeProcess, sink: Sink, key: str) -> None:
    """Neither a webhook's secret nor a header of it, whatever becomes of the message: not in an answer, not in a log
    line, not in a metric."""
    webhook = {"headers": HEADERS, "secret": SECRET, "max_retries": 1}
    sink.on("/failing", Reply(status=500), Raw(b"no http"), Reply())
    answers: list[Answer] = []
    good = message(sink.url("/failing"), key, {}, max_size=1, webhook=webhook)
    for body in (
        good,
        planted(good, "$.webhook.secret", f"{CANARY} no base64"),
        planted(good, "$.webhook.headers.Host", CANARY),
        planted(good, "$.webhook.headers.X-Api-Key", f"{CANARY}\r\n"),
        planted(good, "$.webhook.headers.apikey", [CANARY]),
        planted(good, "$.buffer.max_size", 0),
        planted(good, "$.buffer.max_size", 9),
    ):
        idempotent = {"Idempotency-Key": key + str(len(answers)), "Authorization": f"Bearer {CANARY}"}
        answers += [await client.call("POST", MESSAGE, body, headers=idempotent) for _ in range(2)]
    answers.append(await client.buffer(key))
    answers.append(await client.call("GET", BUFFERS))
    await client.flush(key)
    await client.until_status(key, "dead", "delivered")
    (dead,) = await client.deliveries(key=key, status="dead")
    answers.append(await client.call("GET", f"{DELIVERIES}/{dead['id']}"))
    answers.append(await client.call("GET", f"{DELIVERIES}?key={key}"))
    answers.append(await client.call("POST", f"{DELIVERIES}/{dead['id']}/retry"))
    answers += [await client.call("GET", path) for path in ("/metrics", "/openapi.json", "/health", "/readyz?verbose")]

    assert sink.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    for answer in answers:
        assert CANARY.encode() not in answer.body, answer
        assert CANARY not in str(answer.headers)
    assert CANARY not in logged(node)
    assert CANARY not in Path(node.child.stdout_path).read_text()


async def test_metrics_know_routes_and_no_values(client: Client, sink: Sink, key: str) -> None:
    """Keys, ids and paths never become labels: the number of series is bounded."""
    await client.send(sink.url(), key, {}, max_size=1, message_id=f"{key}-id")
    await client.until_status(key, "delivered")
    await client.call("GET", f"/{key}")

    text = (await client.call("GET", "/metrics")).body.decode()

    assert key not in text
    assert sink.requests[0].headers["webhook-id"] not in text
    assert str(sink.address[1]) not in text
    assert 'route="/api/v1/message"' in text
