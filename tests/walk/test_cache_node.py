"""The cache of a real node on a real store: with other programs beside it, and both APIs over one set of keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

import pytest
import redis

from actors.core.durations import parse_duration_ns
from actors.core.entity_tag import entity_tag
from tests.support.client import Answer, Client, is_problem, quoted
from tests.support.node import NodeProcess, http_client
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

V0, V1 = "/api/cache", "/api/v1/cache"
ODD = (
    "a/b",
    "a:b@c",
    "dos palabras",
    "ñandú/😀",
    "a\nb",
    "a\0b",
    "100%",
    "a%2Fb",
    "?#&=+",
    "..",
    "x" * 512,
    "keys/",
    " ",
)


@pytest.fixture(name="other")
def fixture_other(walk_store: ValkeyServer) -> Iterator[redis.Redis]:
    """Another program on the same database."""
    with walk_store.client() as client:
        yield client


async def read(client: Client, key: str) -> Answer:
    """A read by the v1 API; dots are encoded, else the client would take them for a way up."""
    return await client.call("GET", f"{V1}/{quote(key, safe='').replace('.', '%2E')}")


async def ttl_s(client: Client, key: str) -> float:
    """How long an entry stays, as the API says."""
    return parse_duration_ns((await client.call("GET", f"{V1}/{key}/ttl")).json["ttl"]) / 1e9


async def test_both_apis_and_other_programs_share_the_values(client: Client, other: redis.Redis, key: str) -> None:
    """What one writes the others read: as the bytes that were sent."""
    body = b'{"key":"%b","value":[{"id": 1, "n": 1.0}],"ttl":3600}' % key.encode()
    assert (await client.call("POST", f"{V0}/", body)).status == 201
    assert other.get(key) == '[{"id": 1, "n": 1.0}]'
    assert 3_599_000 < other.pttl(key) <= 3_600_000
    v1 = await read(client, key)
    assert v1.body.startswith(b'{"key":"%b","value":[{"id": 1, "n": 1.0}],"expires_at":"' % key.encode())
    shown = datetime.fromisoformat(v1.json["expires_at"]).timestamp()
    assert abs(shown - other.pexpiretime(key) / 1000) < 0.001

    written = b'{"theirs":true}'
    other.set(key, written)

    async def theirs() -> bool:
        return bool((await read(client, key)).json["value"] == {"theirs": True})

    await until(theirs, 1, what="the near cache heard of it")
    answer = await client.call("GET", f"{V0}/{key}")
    assert answer.json == {"key": key, "value": {"theirs": True}, "ttl": -1}
    assert answer.headers["ETag"] == f'"{entity_tag(written)}"'
    assert (await client.call("DELETE", f"{V0}/{key}")).status == 200
    assert other.exists(key) == 0


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
async def test_odd_keys(client: Client, other: redis.Redis, odd: str) -> None:
    """Whatever is in them they are the same key to everybody."""
    path = f"{V1}/{quote(odd, safe='').replace('.', '%2E')}"
    assert (await client.call("PUT", path, {"value": odd})).json["key"] == odd
    assert other.exists(odd) == 1
    assert (await read(client, odd)).json["value"] == odd
    assert (await client.call("POST", f"{V1}/batch/get", {"keys": [odd]})).json["count"] == 1
    assert (await client.call("DELETE", path)).status == 200
    assert other.exists(odd) == 0


@pytest.mark.parametrize(
    ("stored", "shown"), [(b"hola", "hola"), (b"", ""), (b"\xff\xfe", "��"), (b"{broken", "{broken"), (b" 1 ", 1)]
)
async def test_what_is_no_json_is_shown_as_a_string(
    client: Client, other: redis.Redis, key: str, stored: bytes, shown: object
) -> None:
    """Its ETag names the bytes that are stored."""
    other.set(key, stored)
    answer = await read(client, key)
    assert answer.json["value"] == shown
    assert answer.headers["ETag"] == f'"{entity_tag(stored)}"'


async def test_keys_of_other_types_are_left_alone(client: Client, other: redis.Redis, key: str) -> None:
    """Not read, not written, not listed, not flushed."""
    other.rpush(key, "1")
    try:
        for path in (f"{V0}/{key}", f"{V1}/{key}", f"{V1}/{key}/ttl"):
            assert is_problem(await client.call("GET", path), 404)
        assert (await client.call("GET", f"{V0}/exists/{key}")).json["exists"] is False
        for method, path, body in (
            *(("PUT", f"{V1}/{key}", {"value": 1}), ("DELETE", f"{V1}/{key}", None), ("DELETE", f"{V0}/{key}", None)),
            *(("PUT", f"{V1}/{key}/expire", {"ttl": 1}), ("POST", f"{V0}/", {"key": key, "value": 1})),
            ("POST", f"{V1}/batch", {"items": {f"{key}-2": {"value": 1}, key: {"value": 1}}}),
        ):
            answer = await client.call(method, path, body)
            assert is_problem(answer, 409)
            assert answer.json["key"] == key
        assert other.exists(f"{key}-2") == 0
        assert (await client.call("GET", f"{V1}/keys?pattern={key}*")).json["keys"] == []
        assert (await client.call("DELETE", f"{V0}/pattern/{key}*")).json["deleted_count"] == 0
        assert other.lrange(key, 0, -1) == ["1"]
    finally:
        other.delete(key)


async def test_the_routers_own_names_are_out_of_reach(client: Client, other: redis.Redis, key: str) -> None:
    """A flush leaves them where they are, lists don't show them, and the count leaves them out."""
    own = sorted(str(name) for name in other.keys("buzon:*"))
    assert own
    await client.call("PUT", f"{V1}/{key}", {"value": 1})
    for path in (f"{V1}/keys", f"{V0}/keys?pattern=buz*", f"{V1}/keys?limit=1000"):
        assert not [name for name in (await client.call("GET", path)).json["keys"] if name.startswith("buzon:")]
    for root in (V0, V1):
        assert is_problem(await client.call("GET", f"{root}/{quoted(own[0])}"), 400, pointer="key")
    assert (await client.call("DELETE", f"{V0}/pattern/buzon:*")).json["deleted_count"] == 0
    assert (await client.call("DELETE", f"{V1}/")).status == 200
    assert (await client.call("GET", f"{V1}/stats")).json["size"] == 0
    assert set(other.keys("buzon:*")) >= {name for name in own if other.type(name) == "hash"}


async def test_an_entry_ends_when_it_was_said(client: Client, key: str) -> None:
    """Also one that is near, and one whose time was changed; an overwritten one gets its own."""
    for ttl in ("150ms", 0.15):
        await client.call("PUT", f"{V1}/{key}", {"value": 1, "ttl": ttl})
        assert (await read(client, key)).status == 200

        async def gone() -> bool:
            return (await read(client, key)).status == 404

        await until(gone, 1, what="the entry ended")
    await client.call("PUT", f"{V1}/{key}", {"value": 1, "ttl": "none"})
    assert (await client.call("PUT", f"{V1}/{key}/expire", {"ttl": "2h"})).json["ttl"] == "2h0m0s"
    assert 7190 < await ttl_s(client, key) <= 7200
    await client.call("PUT", f"{V1}/{key}", {"value": 2})
    assert 3590 < await ttl_s(client, key) <= 3600


async def test_compare_and_set_loses_nothing(client: Client, key: str) -> None:
    """Sixteen count in one key at once, each trying again when somebody was quicker; then creating it once only."""

    async def count() -> None:
        for _ in range(4):
            while True:
                seen = await read(client, key)
                headers = {"If-Match": seen.headers["ETag"]}
                body = {"value": seen.json["value"] + 1}
                if (await client.call("PUT", f"{V1}/{key}", body, headers=headers)).status == 200:
                    break

    await client.call("PUT", f"{V1}/{key}", {"value": 0})
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(count())
    assert (await read(client, key)).json["value"] == 64

    create = {"If-None-Match": "*"}
    tried = await asyncio.gather(
        *(client.call("PUT", f"{V1}/{key}-new", {"value": n}, headers=create) for n in range(16))
    )
    assert sorted(answer.status for answer in tried) == [200, *[412] * 15]


async def test_a_write_is_read_by_its_writer(client: Client, key: str) -> None:
    """At once, always, with others reading beside it."""
    done = False

    async def reading() -> None:
        while not done:
            await read(client, key)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(reading())
        for number in range(100):
            await client.call("PUT", f"{V1}/{key}", {"value": number})
            assert (await read(client, key)).json["value"] == number
        done = True


async def test_patterns_are_globs(client: Client, key: str) -> None:
    """Stars, question marks and sets, encoded in a path."""
    names = [f"{key}:{name}" for name in ("a1", "a2", "b1", "b/1")]
    await client.call("POST", f"{V1}/batch", {"items": {name: {"value": 1} for name in names}})
    for glob, found in (("*", names), (":a?", names[:2]), (":[ab]1", [names[0], names[2]]), (r":b/\1", [names[3]])):
        listed = (await client.call("GET", f"{V0}/keys?pattern={quoted(key + glob)}")).json
        assert sorted(listed["keys"]) == sorted(found), glob
        assert listed["count"] == len(found)
    assert (await client.call("DELETE", f"{V0}/pattern/{quoted(key + ':b/*')}")).json["deleted_count"] == 1
    assert (await client.call("DELETE", f"{V0}/pattern/{key}:a*")).json["deleted_count"] == 2
    assert (await client.call("GET", f"{V1}/keys?pattern={key}*")).json["keys"] == [names[2]]


async def test_a_list_of_many_pages(client: Client, key: str) -> None:
    """Every key once at least, whatever the size of a page."""
    names = {f"{key}:{number:04}" for number in range(600)}
    await client.call("POST", f"{V1}/batch", {"items": {name: {"value": 1} for name in names}})
    for limit in (7, 100, 1000):
        found: list[str] = []
        cursor = ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = (await client.call("GET", f"{V1}/keys?pattern={key}*&limit={limit}{more}")).json
            assert page["count"] == len(page["keys"]) <= limit
            found += page["keys"]
            cursor = page["cursor"]
        assert set(found) == names
    assert set((await client.call("GET", f"{V1}/keys?pattern={key}*")).json["keys"]) == names
    assert (await client.call("DELETE", f"{V0}/pattern/{key}:*")).json["deleted_count"] == 600


@pytest.mark.parametrize("cursor", ["kwUAoA", "k80AyACg", "kwDPoP__________", "kwAAomhp", "k8z_zP-g"])
async def test_a_cursor_that_nobody_gave_out(client: Client, cursor: str) -> None:
    """Is refused, or leads to some page or to none: never to a crash."""
    answer = await client.call("GET", f"{V1}/keys?cursor={cursor}&limit=10")
    assert answer.status in (200, 400), answer


async def test_idempotency_over_the_real_records(client: Client, key: str) -> None:
    """The first answer again."""
    headers = {"Idempotency-Key": key}
    body = {"key": key, "value": 1}
    first = await client.call("POST", f"{V0}/", body, headers=headers)
    await client.call("DELETE", f"{V0}/{key}")
    again = await client.call("POST", f"{V0}/", body, headers=headers)
    assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (201, first.body, "true")
    assert (await client.call("GET", f"{V0}/{key}")).status == 404
    assert is_problem(await client.call("POST", f"{V0}/", {"key": key, "value": 2}, headers=headers), 409)


async def test_server_stats(client: Client, other: redis.Redis) -> None:
    """What the server says of itself, in the names that the older service gave it."""
    stats = (await client.call("GET", "/stats")).json
    info = other.info()
    assert stats["status"] == "connected"
    assert stats["redis_version"] == info["redis_version"]
    assert stats["used_memory_human"]
    assert 0 < stats["total_commands_processed"] <= info["total_commands_processed"]
    assert stats["connected_clients"] > 0
    assert "db0" in stats["keyspace"]


@pytest.mark.parametrize("reset", [True, False])
async def test_a_caller_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    node: NodeProcess, *, reset: bool
) -> None:
    """It counts as a bad request, and nothing is logged."""
    before = await _refused_puts(node)
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    head = f"PUT {V1}/half HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
    writer.write(head.encode() + b'{"valu')
    await writer.drain()
    await passing(0.1)
    if reset:
        writer.transport.abort()
    else:
        writer.close()

    async def counted() -> bool:
        return (await _refused_puts(node))["4xx"] == before["4xx"] + 1

    await until(counted, what="the request is counted")
    assert (await _refused_puts(node))["5xx"] == before["5xx"]


async def _refused_puts(node: NodeProcess) -> dict[str, float]:
    """How many PUTs of a key were answered with an error, by the metrics."""
    found = {"4xx": 0.0, "5xx": 0.0}
    async with http_client() as http, http.get(f"http://127.0.0.1:{node.port}/metrics") as response:
        for line in (await response.text()).splitlines():
            for status in found:
                if (
                    line.startswith("buzon_http_requests_total")
                    and f'"PUT",route="{V1}/{{key}}",status="{status}"' in line
                ):
                    found[status] = float(line.rpartition(" ")[2])
    return found
