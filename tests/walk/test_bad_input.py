"""Bad input is refused with a problem that names the field, and changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.client import BUFFERS, DELIVERIES, MESSAGE, Client, is_problem, message
from tests.support.sink import Sink

BODY_BYTES_MAX = 1024 * 1024


def planted(body: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    """The body with one field set, or taken away by `...`."""
    changed: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    *parents, name = pointer.removeprefix("$.").split(".")
    at = changed
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[name]
    else:
        at[name] = value
    return changed


BAD: list[tuple[str, object]] = [
    ("$.webhook", ...),
    ("$.webhook", "http://example.com"),
    ("$.webhook.url", ...),
    ("$.webhook.url", 1),
    ("$.webhook.url", None),
    ("$.webhook.method", "GET"),
    ("$.webhook.method", "post"),
    ("$.webhook.headers", []),
    ("$.webhook.headers", {"X": 1}),
    ("$.webhook.headers", {"X Y": "1"}),
    ("$.webhook.headers", {"": "1"}),
    ("$.webhook.headers", {f"X-{n}": "1" for n in range(65)}),
    ("$.webhook.headers", {"X": "y" * 9000}),
    ("$.webhook.timeout", 0),
    ("$.webhook.timeout", -1),
    ("$.webhook.timeout", 121),
    ("$.webhook.timeout", "10"),
    ("$.webhook.max_retries", -1),
    ("$.webhook.max_retries", 21),
    ("$.webhook.max_retries", 1.5),
    ("$.webhook.max_retries", True),
    ("$.webhook.secret", ""),
    ("$.webhook.secret", "not base64!"),
    ("$.webhook.secret", "whsec_"),
    ("$.buffer", ...),
    ("$.buffer", []),
    ("$.buffer.key", ...),
    ("$.buffer.key", ""),
    ("$.buffer.key", "x" * 257),
    ("$.buffer.key", "😀" * 129),
    ("$.buffer.key", 1),
    ("$.buffer.wait_time", 0.049),
    ("$.buffer.wait_time", 0),
    ("$.buffer.wait_time", -1),
    ("$.buffer.wait_time", 86400.1),
    ("$.buffer.wait_time", "20"),
    ("$.buffer.wait_time", True),
    ("$.buffer.max_size", 0),
    ("$.buffer.max_size", 1001),
    ("$.buffer.max_size", 2.5),
    ("$.buffer.max_size", "5"),
    ("$.buffer.max_size", 2**62),
    ("$.buffer.mode", "tumbling"),
    ("$.buffer.max_bytes", 0),
    ("$.buffer.separator", 1),
    ("$.buffer.separator", "x" * 65),
    ("$.buffer.aggregate", "sum"),
    ("$.buffer.format", "json"),
    ("$.buffer.aggregate_field", ""),
    ("$.buffer.aggregate_field", 1),
    ("$.payload", ...),
    ("$.payload", None),
    ("$.payload", []),
    ("$.payload", "text"),
    ("$.payload", 1),
    ("$.message_id", 1),
]


async def test_every_field_has_its_bounds(client: Client, sink: Sink, key: str) -> None:
    """Type, range, presence: the answer names the field, and no batch is opened."""
    good = message(sink.url(), key, {"q": "x"}, max_size=2)
    wrong: list[str] = []
    for pointer, value in BAD:
        answer = await client.call("POST", MESSAGE, planted(good, pointer, value))
        if answer.status != 400 or not str(answer.json.get("pointer")).startswith(pointer):
            wrong.append(f"{pointer}={value!r:.40}: {answer.status} {answer.body!r:.200}")
        elif not is_problem(answer, 400):
            wrong.append(pointer)

    assert not wrong, "\n".join(wrong)
    assert (await client.buffer(key)).status == 404
    assert await client.deliveries(key=key) == []


async def test_the_bounds_themselves_are_fine(client: Client, sink: Sink, key: str) -> None:
    """The largest and smallest of everything."""
    for number, (pointer, value) in enumerate(
        [
            ("$.buffer.wait_time", 0.05),
            ("$.buffer.wait_time", 86400),
            ("$.buffer.max_size", 1000),
            ("$.buffer.separator", "x" * 64),
            ("$.webhook.timeout", 120),
            ("$.webhook.max_retries", 20),
            ("$.buffer.max_wait", 86400),
            ("$.message_id", "x" * 128),
        ]
    ):
        body = message(sink.url(), f"{key}-{number}", {}, wait_time=1)
        answer = await client.call("POST", MESSAGE, planted(body, pointer, value))
        assert answer.status == 200, (pointer, answer)
        await client.drop(f"{key}-{number}")


async def test_a_debounces_cap_is_not_below_its_wait(client: Client, sink: Sink, key: str) -> None:
    """`max_wait` below `wait_time` cannot be meant."""
    body = message(sink.url(), key, {}, mode="debounce", wait_time=2, max_wait=1)

    assert is_problem(await client.call("POST", MESSAGE, body), 400, pointer="$.buffer.max_wait")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", MESSAGE, {"POST"}),
        ("PUT", MESSAGE, {"POST"}),
        ("DELETE", BUFFERS, {"GET", "HEAD"}),
        ("PATCH", f"{BUFFERS}/k", {"GET", "HEAD", "DELETE"}),
        ("POST", DELIVERIES, {"GET", "HEAD"}),
        ("PUT", f"{DELIVERIES}/x", {"GET", "HEAD", "DELETE"}),
        ("POST", "/readyz", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_is_not_there_is_a_405(client: Client, method: str, path: str, allowed: set[str]) -> None:
    """With what is, in `Allow`."""
    answer = await client.call(method, path)

    assert is_problem(answer, 405)
    assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed


@pytest.mark.parametrize(
    "path", ["/nope", "/api/v1", "/api/v1/messages", "/api/v1/buffers/", "//", "/%00", "/%C3%A9", "/%FF"]
)
async def test_a_path_that_is_not_there_is_a_404(client: Client, path: str) -> None:
    """In the same shape as every error."""
    assert is_problem(await client.call("GET", path), 404)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "x"],
)
async def test_a_body_that_is_not_json_is_a_415(client: Client, sink: Sink, key: str, content_type: str) -> None:
    """By its own account."""
    body = msgspec.json.encode(message(sink.url(), key, {}, max_size=1))

    answer = await client.call("POST", MESSAGE, body, headers={"Content-Type": content_type})

    assert is_problem(answer, 415)
    assert sink.count == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "APPLICATION/JSON", "application/x+json"])
async def test_json_may_be_announced_in_other_words(client: Client, sink: Sink, key: str, content_type: str) -> None:
    """Charset, case, structured suffix."""
    body = msgspec.json.encode(message(sink.url(), key, {}, max_size=1))

    assert (await client.call("POST", MESSAGE, body, headers={"Content-Type": content_type})).status == 200


async def test_a_body_over_the_limit_is_a_413(client: Client, sink: Sink, key: str) -> None:
    """MAX_BODY_BYTES; one of exactly that size is taken."""
    empty = msgspec.json.encode(message(sink.url(), key, {"x": ""}, max_size=1))
    for spare, status in ((1, 413), (0, 200)):
        body = empty.replace(b'"x":""', b'"x":"' + b"y" * (BODY_BYTES_MAX - len(empty) + spare) + b'"')
        answer = await client.call("POST", MESSAGE, body)
        assert answer.status == status
        if status == 413:
            assert is_problem(answer, 413)
            assert await client.deliveries(key=key) == []
    await sink.wait_for_requests(1)
