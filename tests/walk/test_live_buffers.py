"""Open batches: list them, look at one, send one off now, drop one; under keys of any characters."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import datetime
from uuid import uuid4

import msgspec
import pytest

from actors.core.partition import locate
from tests.support.client import BUFFERS, Client, is_problem, quoted, raw_exchange
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.until import steady

ODD_KEYS = (
    "a/b",
    "a%2Fb",
    "a b",
    "ñandú@example.com",
    "😀👩‍👩‍👧",
    "a+b",
    "a?b#c&d=e",
    "%",
    "%25",
    "a//b",
    "/a/",
    "..",
    "a/../b",
    ".",
    "a\r\nb",
    "a\x00b",
    "{a}*",
    "flush",
    "a/flush",
    "retry",
    "\u202eabc\u2028",
    "5215512345678@s.whatsapp.net:1",
)


async def test_one_batch_can_be_looked_at(client: Client, sink: Sink, key: str) -> None:
    """Size, bytes, time left, its owner, and its messages in order of acceptance; looking changes nothing."""
    await client.send(sink.url(), key, {"n": 1}, wait_time=60, max_size=9, message_id="a")
    await client.send(sink.url(), key, {"n": [2.50, "ñ"]}, wait_time=60, max_size=9)

    for _ in range(2):
        answer = await client.buffer(key)
        found = answer.json
        assert answer.status == 200
        assert set(found) == {"key", "size", "bytes", "time_remaining", "owner", "messages"}
        assert (found["key"], found["size"], found["owner"]) == (key, 2, "walked")
        assert found["bytes"] == len(b'{"n":1}') + len('{"n":[2.5,"ñ"]}'.encode())
        assert 55 < found["time_remaining"] <= 60
        first, second = found["messages"]
        assert (first["message_id"], first["payload"]) == ("a", {"n": 1})
        assert second["payload"] == {"n": [2.5, "ñ"]}
        assert datetime.fromisoformat(first["received_at"]) <= datetime.fromisoformat(second["received_at"])


async def test_flushing_sends_a_batch_off_now(client: Client, sink: Sink, key: str) -> None:
    """With its delivery's id and size in the answer; the key then has no open batch."""
    for number in range(3):
        await client.send(sink.url(), key, {"n": number}, wait_time=60, max_size=9)

    answer = await client.flush(key)
    (request,) = await sink.wait_for_requests(1, 1)

    assert (answer.status, answer.json) == (200, {"delivery_id": request.headers["webhook-id"], "size": 3})
    assert (request.headers["x-buffer-reason"], request.headers["x-buffer-size"]) == ("manual", "3")
    assert msgspec.json.decode(request.body)["reason"] == "manual"
    assert is_problem(await client.buffer(key), 404)
    assert is_problem(await client.flush(key), 404)


async def test_dropping_forgets_a_batch(client: Client, sink: Sink, key: str) -> None:
    """How many were dropped; nothing is sent, then or at its deadline, and the key starts afresh."""
    for _ in range(2):
        await client.send(sink.url(), key, {}, wait_time=0.3, max_size=9)

    answer = await client.drop(key)

    assert (answer.status, answer.json) == (200, {"dropped": 2})
    assert is_problem(await client.drop(key), 404)
    await steady(lambda: sink.count == 0, 0.6, what="nothing is sent")
    fresh = await client.send(sink.url(), key, {}, wait_time=0.05)
    assert fresh["buffer_info"]["current_size"] == 1
    (request,) = await sink.wait_for_requests(1)
    assert request.headers["x-buffer-size"] == "1"


@pytest.mark.parametrize("method_and_end", [("GET", ""), ("POST", "/flush"), ("DELETE", "")])
async def test_nothing_open_is_a_404(client: Client, key: str, method_and_end: tuple[str, str]) -> None:
    """Look, flush and drop alike."""
    method, end = method_and_end

    assert is_problem(await client.call(method, f"{BUFFERS}/{key}{end}"), 404)


@pytest.mark.parametrize("odd", ODD_KEYS)
async def test_keys_of_any_characters_are_reached_by_their_path(client: Client, sink: Sink, odd: str) -> None:
    """Percent-encoded they are looked at, dropped and flushed, and never mistaken for each other."""
    key = f"{odd}{uuid4().hex[:6]}" if odd not in {"..", ".", "flush", "retry", "a/flush"} else odd
    for change in (client.drop, client.flush):
        await client.send(sink.url(), key, {}, wait_time=60)

        assert (await client.buffer(key)).json["key"] == key
        assert (await client.buffer(f"{key} ")).status == 404
        assert (await change(key)).status == 200
        assert (await client.buffer(key)).status == 404

    (request,) = await sink.wait_for_requests(1)
    assert msgspec.json.decode(request.body)["key"] == key


async def test_a_slash_in_a_path_may_be_plain(node: NodeProcess, client: Client, sink: Sink, key: str) -> None:
    """`a/b` and `a%2Fb` are the same key, with nothing tidied up between them."""
    await client.send(sink.url(), f"{key}/x//y", {}, wait_time=60)

    for path in (f"{key}/x//y", f"{key}%2Fx%2f%2Fy", f"{key}/x%2F/y"):
        answer = await client.call("GET", f"{BUFFERS}/{path}")
        assert answer.status == 200, path
    tidied = f"GET {BUFFERS}/{key}/z/../x//y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert b" 404 " in (await raw_exchange(node.port, tidied.encode())).splitlines()[0]


@pytest.mark.parametrize("length", [256, 257])
async def test_a_key_in_a_path_has_a_bound(client: Client, sink: Sink, length: int) -> None:
    """256 characters as everywhere; beyond that 400."""
    key = uuid4().hex.ljust(length, "x")
    if length == 256:
        await client.send(sink.url(), key, {}, wait_time=60)
        assert (await client.drop(key)).status == 200
    else:
        assert is_problem(await client.buffer(key), 400, pointer="key")


async def test_all_open_batches_are_listed_page_by_page(client: Client, sink: Sink, key: str) -> None:
    """Each once, whatever the size of the page, and none that was closed."""
    keys = [f"{key}-{number}" for number in range(12)]
    for each in keys:
        await client.send(sink.url(), each, {}, wait_time=60)
    await client.flush(keys[0])

    for limit in (1, 5, 1000):
        rows = [row for row in await client.buffers(limit=limit) if row["key"].startswith(key)]
        assert sorted(row["key"] for row in rows) == sorted(keys[1:])
        assert {(row["size"], row["bytes"], row["owner"]) for row in rows} == {(1, 2, "walked")}
        assert all(50 < row["time_remaining"] <= 60 and "messages" not in row for row in rows)


async def test_batches_of_one_partition_are_paged_too(client: Client, sink: Sink, key: str) -> None:
    """Also when they fall due at the same millisecond: a page ends in the middle of them."""
    partition = locate(key)[1]
    candidates = (f"{key}.{number}" for number in range(100_000))
    keys = [each for each in candidates if locate(each)[1] == partition][:5]
    for each in keys:
        await client.send(sink.url(), each, {}, wait_time=60)

    rows = [row["key"] for row in await client.buffers(limit=1)]

    assert sorted(each for each in rows if each.startswith(key)) == sorted(keys)


async def test_a_page_holds_at_most_its_limit_and_the_last_has_no_cursor(client: Client, sink: Sink, key: str) -> None:
    """The cursor is opaque and can be used again."""
    for number in range(3):
        await client.send(sink.url(), f"{key}-{number}", {}, wait_time=60)

    first = (await client.call("GET", f"{BUFFERS}?limit=2")).json
    again = [(await client.call("GET", f"{BUFFERS}?limit=2&cursor={first['cursor']}")).json for _ in range(2)]
    everything = (await client.call("GET", f"{BUFFERS}?limit=1000")).json

    assert len(first["buffers"]) == 2
    assert [row["key"] for row in again[0]["buffers"]] == [row["key"] for row in again[1]["buffers"]]
    assert everything["cursor"] is None


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=9223372036854775808", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 3000, "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/buffers", "/api/v1/deliveries"])
async def test_a_bad_page_is_a_400(client: Client, path: str, query: str, pointer: str) -> None:
    """Naming the parameter."""
    assert is_problem(await client.call("GET", f"{path}?{query}"), 400, pointer=pointer)


MADE_UP = {
    "partition-too-high": [0, 256, "", ""],
    "partition-huge": [0, 2**62, "", ""],
    "partition-negative": [0, -300, "", ""],
    "stage-too-high": [9, 0, "", ""],
    "stage-negative": [-9, 0, "", ""],
    "score-is-no-number": [0, 0, "x", ""],
    "score-is-a-range": [0, 0, "(1", ""],
    "score-without-end": [0, 0, "1e999", "x"],
    "long-name": [0, 0, "1", "x" * 1000],
    "too-many-parts": [0, 0, "", "", 1],
    "other-types": ["", None],
    "no-list": {"stage": 0},
}


@pytest.mark.parametrize("name", MADE_UP)
@pytest.mark.parametrize("path", ["/api/v1/buffers", "/api/v1/deliveries"])
async def test_a_cursor_somebody_made_up_harms_nothing(client: Client, path: str, name: str) -> None:
    """It is refused or reads what could have been read anyway; it is never a 5xx."""
    forged = urlsafe_b64encode(msgspec.msgpack.encode(MADE_UP[name])).rstrip(b"=").decode()

    answer = await client.call("GET", f"{path}?cursor={forged}")

    if answer.status != 200:
        assert is_problem(answer, 400, pointer="cursor")


async def test_a_list_walks_past_what_is_closed_meanwhile(client: Client, sink: Sink, key: str) -> None:
    """A page that was begun goes on after a batch that has gone."""
    keys = [f"{key}-{number}" for number in range(4)]
    for each in keys:
        await client.send(sink.url(), each, {}, wait_time=60)
    page = (await client.call("GET", f"{BUFFERS}?limit=1")).json
    await client.drop(page["buffers"][0]["key"])
    seen = [row["key"] for row in page["buffers"]]

    while page["cursor"] is not None:
        page = (await client.call("GET", f"{BUFFERS}?limit=1&cursor={quoted(page['cursor'])}")).json
        seen += [row["key"] for row in page["buffers"]]

    assert sorted(each for each in seen if each.startswith(key)) == sorted(keys)
