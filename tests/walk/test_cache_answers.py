"""The cache's answers, shape by shape: both APIs, validators, Cache-Status, and what a client hears in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.cache_ports import Loaded, TooLong
from actors.core.entity_tag import entity_tag
from tests.support.cache_api import CacheApi, cache_api
from tests.support.client import is_problem, quoted, raw_exchange
from tests.support.until import until

V0, V1 = "/api/cache", "/api/v1/cache"
VALUES = [
    b"null",
    b"true",
    b"0",
    b"-1.50e3",
    b'""',
    b'"\xc3\xb1 \\u00f1"',
    b"[ 1,\n 2 ]",
    b'{"b":1, "a":{"c":[]}}',
    b"1" * 18,
]


@pytest.fixture(name="api")
async def fixture_api() -> AsyncIterator[CacheApi]:
    """An empty cache."""
    async with cache_api() as api:
        yield api


def tag(value: bytes) -> str:
    """The ETag of a value."""
    return f'"{entity_tag(value)}"'


@pytest.mark.parametrize("value", VALUES)
async def test_a_value_comes_back_as_it_was_sent(api: CacheApi, value: bytes) -> None:
    """Byte by byte, by either API, whichever took it; null is a value."""
    for number, (method, path) in enumerate((("POST", f"{V0}/"), ("PUT", f"{V1}/k"))):
        body = b'{ "key":"k" ,"value": %b , "ttl":%d}' % (value, number + 5)
        assert (await api.client.call(method, path, body)).status in (200, 201)
        assert api.held() == {"k": value}
        for root in (V0, V1):
            answer = await api.client.call("GET", f"{root}/k")
            assert answer.body.startswith(b'{"key":"k","value":%b,"' % value)
            assert answer.headers["ETag"] == tag(value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=60).filter(lambda key: key not in ("keys", "stats", "batch", "flush")))
async def test_any_key_can_be_in_a_path(key: str) -> None:
    """And is the one that it would be in a body."""
    async with cache_api() as api:
        path = f"{V1}/{quoted(key).replace('.', '%2E')}"
        put = await api.client.call("PUT", path, {"value": key})
        assert put.status == 200, put
        assert put.json["key"] == key
        assert list(api.held()) == [key]
        assert (await api.client.call("GET", path)).json["value"] == key
        batch = await api.client.call("POST", f"{V1}/batch/get", {"keys": [key]})
        assert batch.json["items"][key]["value"] == key
        assert (await api.client.call("DELETE", path)).status == 200
        assert api.held() == {}


async def test_static_names_are_keys_in_batches(api: CacheApi) -> None:
    """And nowhere else."""
    names = ["keys", "stats", "batch", "exists", "pattern", "flush", "batch/get", "k/ttl"]
    await api.client.call("POST", f"{V1}/batch", {"items": {name: {"value": name} for name in names}})
    got = await api.client.call("POST", f"{V1}/batch/get", {"keys": names})
    assert {name: item["value"] for name, item in got.json["items"].items()} == dict(zip(names, names, strict=True))
    assert (await api.client.call("GET", f"{V1}/k%2Fttl")).json["value"] == "k/ttl"
    assert (await api.client.call("DELETE", f"{V1}/batch", {"keys": names})).json["count"] == len(names)


async def test_times_to_live_in_both_tongues(api: CacheApi) -> None:
    """Seconds and durations, for ever and the default."""
    echoes: list[tuple[dict[str, object], float, str]] = [
        ({"ttl": 3600}, 3600, "1h0m0s"),
        ({"ttl": "1h30m"}, 5400, "1h30m0s"),
        ({"ttl": 1.5}, 1.5, "1.5s"),
        ({"ttl": "100ms"}, 0.1, "100ms"),
        ({"ttl": "none"}, -1, "none"),
        ({"ttl": None}, 3600, "1h0m0s"),
        ({}, 3600, "1h0m0s"),
    ]
    for ttl, seconds, duration in echoes:
        assert (await api.client.call("POST", V0, {"key": "k", "value": 1, **ttl})).json["ttl"] == seconds
        assert (await api.client.call("PUT", f"{V1}/k", {"value": 1, **ttl})).json["ttl"] == duration
    await api.client.call("PUT", f"{V1}/k", {"value": 1, "ttl": 90})
    shown = (await api.client.call("GET", f"{V1}/k")).json
    assert shown["remaining_ttl"].startswith("1m")
    assert datetime.fromisoformat(shown["expires_at"]).tzinfo is not None
    assert (await api.client.call("GET", f"{V0}/k")).json["ttl"] == 90
    assert (await api.client.call("PUT", f"{V1}/k/expire", {"ttl": "none"})).json["ttl"] == "none"
    assert (await api.client.call("GET", f"{V1}/k/ttl")).json == {"key": "k", "ttl": "none"}
    forever = (await api.client.call("GET", f"{V1}/k")).json
    assert (forever["expires_at"], forever["remaining_ttl"]) == (None, "none")
    assert (await api.client.call("GET", f"{V0}/k")).json["ttl"] == -1
    assert is_problem(await api.client.call("PUT", f"{V1}/nothing/expire", {"ttl": 1}), 404)
    assert is_problem(await api.client.call("GET", f"{V1}/nothing/ttl"), 404)


async def test_instants_that_no_calendar_has(api: CacheApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may let a key live for a million years."""
    left_ms = 86_400_000 * 365 * 1_000_000
    monkeypatch.setattr(
        api.wire, "_loaded", lambda _key, asked_at, proof: Loaded(b"1", left_ms, left_ms, asked_at, proof)
    )
    assert (await api.client.call("GET", f"{V1}/k")).json["expires_at"] == "9999-12-31T23:59:59.999Z"


async def test_cache_status(api: CacheApi) -> None:
    """How each answer was come by; also for what is not there."""
    api.server.set("k", b"1", 99.5)
    await until(lambda: api.cache.stats().invalidations == 1)

    async def status(path: str, method: str = "GET") -> str:
        return (await api.client.call(method, path)).headers["Cache-Status"]

    assert await status(f"{V1}/k") == "buzon; fwd=miss"
    assert (await status(f"{V1}/k")).startswith("buzon; hit; ttl=9")
    assert (await status(f"{V0}/k", "HEAD")).startswith("buzon; hit; ttl=9")
    assert [await status(f"{V0}/nothing") for _ in range(2)] == ["buzon; fwd=miss", "buzon; hit"]
    assert await status(f"{V1}/nothing", "HEAD") == "buzon; hit"
    answers = await asyncio.gather(*(status(f"{V1}/other") for _ in range(8)))
    assert set(answers) <= {"buzon; fwd=miss", "buzon; fwd=miss; collapsed", "buzon; hit"}
    assert api.server.loads.count(["other"]) == 1


async def test_the_store_is_away(api: CacheApi) -> None:
    """What is near is shown as stale, all else is 503 with Retry-After."""
    api.server.set("k", b"1", 100)
    await until(lambda: api.cache.stats().invalidations == 1)
    assert (await api.client.call("GET", f"{V1}/k")).status == 200
    api.wire.proof.until = api.wire._clock.boottime()
    api.wire.away = True
    stale = await api.client.call("GET", f"{V1}/k")
    assert (stale.status, stale.headers["Cache-Status"]) == (200, "buzon; hit; stale")
    assert stale.headers["ETag"] == tag(b"1")
    batch = await api.client.call("POST", f"{V1}/batch/get", {"keys": ["k"]})
    assert (batch.status, batch.headers["Cache-Status"]) == (200, "buzon; hit; stale")
    for method, path, body in (
        *(("GET", f"{V1}/other", None), ("HEAD", f"{V1}/other", None), ("PUT", f"{V1}/k", {"value": 2})),
        *(("DELETE", f"{V0}/k", None), ("POST", f"{V0}/", {"key": "k", "value": 1}), ("GET", f"{V0}/keys", None)),
        *(("POST", f"{V1}/batch", {"items": {"k": {"value": 1}}}), ("DELETE", f"{V1}/batch", {"keys": ["k"]})),
        *(("POST", f"{V1}/batch/get", {"keys": ["other"]}), ("GET", f"{V1}/stats", None), ("DELETE", f"{V1}/", None)),
    ):
        answer = await api.client.call(method, path, body)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), (method, path)


async def test_a_value_that_is_too_long(api: CacheApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """413 to whoever reads it; it is there all the same."""
    monkeypatch.setattr(api.wire, "_loaded", lambda *_: TooLong(99_000_000))
    for method, path, body in (
        *(("GET", f"{V0}/k", None), ("GET", f"{V1}/k", None), ("GET", f"{V1}/k/ttl", None)),
        ("POST", f"{V1}/batch/get", {"keys": ["k"]}),
    ):
        answer = await api.client.call(method, path, body)
        assert is_problem(answer, 413)
        assert answer.json["key"] == "k"
    assert (await api.client.call("GET", f"{V0}/exists/k")).json == {"key": "k", "exists": True}


@pytest.mark.parametrize("root", [V0, V1])
async def test_reads_with_conditions(api: CacheApi, root: str) -> None:
    """304 for what the caller has, by weak comparison; 412 when it wants another one."""
    api.server.set("k", b"1")
    path, mine = f"{root}/k", tag(b"1")
    for method in ("GET", "HEAD"):
        for header in (mine, f"W/{mine}", f'"x", {mine}', "*"):
            answer = await api.client.call(method, path, headers={"If-None-Match": header})
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", mine), header
            assert "Content-Type" not in answer.headers
        for name, header in (
            ("If-None-Match", '"x"'),
            ("If-None-Match", mine.upper()),
            ("If-Match", mine),
            ("If-Match", "*"),
        ):
            assert (await api.client.call(method, path, headers={name: header})).status == 200, (name, header)
        for header in ('"x"', f"W/{mine}"):
            assert (await api.client.call(method, path, headers={"If-Match": header})).status == 412
    assert (await api.client.call("GET", f"{root}/nothing", headers={"If-None-Match": "*"})).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", f"{V1}/k", {"value": 2}), ("POST", f"{V0}/", {"key": "k", "value": 2}), ("DELETE", f"{V1}/k", None)],
)
async def test_writes_with_conditions(api: CacheApi, method: str, path: str, body: object) -> None:
    """Done if they hold, else 412 and nothing is changed."""
    mine = tag(b"1")
    bad = [("If-Match", '"x"'), ("If-Match", f"W/{mine}"), ("If-Match", f'"{"0" * 40}"'), ("If-None-Match", "*")]
    bad += [("If-None-Match", mine), ("If-None-Match", f"W/{mine}"), ("If-None-Match", f'"x", {mine}')]
    good = [("If-Match", mine), ("If-Match", f'"x",{mine}'), ("If-Match", "*"), ("If-None-Match", '"x"')]
    for name, header in bad:
        api.server.set("k", b"1")
        answer = await api.client.call(method, path, body, headers={name: header})
        assert is_problem(answer, 412), (name, header)
        assert answer.json["key"] == "k"
        assert api.held() == {"k": b"1"}
    for name, header in good:
        api.server.set("k", b"1")
        answer = await api.client.call(method, path, body, headers={name: header})
        assert answer.status in (200, 201), (name, header)
        assert api.held() != {"k": b"1"}
    api.server.delete("k")
    assert (await api.client.call(method, path, body, headers={"If-Match": "*"})).status == 412
    assert api.held() == {}


async def test_idempotency_keys(api: CacheApi) -> None:
    """The first answer again, even if something else is there by now; another body is a conflict."""
    for path, body, other in (
        (f"{V0}/", {"key": "k", "value": 1}, {"key": "k", "value": 2}),
        (f"{V1}/batch", {"items": {"k": {"value": 1}}}, {"items": {"k": {"value": 2}}}),
    ):
        headers = {"Idempotency-Key": "once"}
        first = await api.client.call("POST", path, body, headers=headers)
        api.server.set("k", b'"later"')
        again = await api.client.call("POST", path, body, headers=headers)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert is_problem(await api.client.call("POST", path, other, headers=headers), 409)
        assert api.held() == {"k": b'"later"'}


async def test_a_resend_is_not_done_over_what_came_after(api: CacheApi) -> None:
    """The first answer was lost on its way from the store; what somebody else was told is stored stays, and an entry
    that this very request created is no reason to refuse it."""
    for path, body in (
        (f"{V0}/", {"key": "k", "value": 1}),
        (f"{V1}/batch", {"items": {"k": {"value": 1}}}),
    ):
        api.server.delete("k")
        headers = {"Idempotency-Key": "lost", **({"If-None-Match": "*"} if path.startswith(f"{V0}/") else {})}
        api.wire.outcome_lost = True
        assert is_problem(await api.client.call("POST", path, body, headers=headers), 503)
        api.wire.outcome_lost = False
        assert api.held() == {"k": b"1"}
        assert (await api.client.call("PUT", f"{V1}/k", {"value": 2})).status == 200
        again = await api.client.call("POST", path, body, headers=headers)
        assert again.status == (201 if path.startswith(f"{V0}/") else 200)
        assert api.held() == {"k": b"2"}


async def test_a_slash_at_the_end_makes_no_other_request(api: CacheApi) -> None:
    """One idempotency key, with and without it."""
    headers = {"Idempotency-Key": "slash"}
    assert (await api.client.call("POST", f"{V0}/", {"key": "k", "value": 1}, headers=headers)).status == 201
    api.server.set("k", b'"later"')
    again = await api.client.call("POST", V0, {"key": "k", "value": 1}, headers=headers)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert api.held() == {"k": b'"later"'}


async def test_keys_that_are_named_as_the_ends_of_paths(api: CacheApi) -> None:
    """Alone they are keys like any other, and have ends of their own."""
    for name in ("ttl", "expire", "%2Fttl", "ttl%2Fexpire"):
        path = f"{V1}/{name}"
        assert is_problem(await api.client.call("GET", path), 404)
        assert (await api.client.call("DELETE", path)).status == 200
        assert (await api.client.call("PUT", path, {"value": name})).status == 200
        assert (await api.client.call("GET", path)).json["value"] == name
        assert (await api.client.call("PUT", f"{path}/expire", {"ttl": "1h"})).status == 200
        assert (await api.client.call("GET", f"{path}/ttl")).json["ttl"].startswith(("1h", "59m59"))
        assert (await api.client.call("DELETE", path)).status == 200
        assert api.held() == {}


@pytest.mark.parametrize(
    ("request_line", "has_body"), [("GET {} HTTP/1.0", True), ("HEAD {} HTTP/1.0", False), ("HEAD {} HTTP/1.1", False)]
)
async def test_the_unusual_ways_have_the_same_head(api: CacheApi, request_line: str, has_body: bool) -> None:
    """HTTP/1.0 and HEAD: the length and tag of the body, and only GET gets one."""
    api.server.set("k", b"1")
    port = int(api.client.url.rpartition(":")[2])
    line = request_line.format(f"{V1}/k")
    head, _, body = (await raw_exchange(port, f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())).partition(
        b"\r\n\r\n"
    )
    expected = b'{"key":"k","value":1,"expires_at":null,"remaining_ttl":"none"}'
    lines = {name.lower(): value for name, _, value in (each.partition(b": ") for each in head.split(b"\r\n")[1:])}
    assert lines[b"content-length"] == str(len(expected)).encode()
    assert lines[b"etag"] == tag(b"1").encode()
    assert lines[b"content-type"] == b"application/json"
    assert lines[b"cache-status"].startswith(b"buzon; ")
    assert body == (expected if has_body else b"")


async def test_a_304_leaves_the_connection_fit_for_more(api: CacheApi) -> None:
    """Two requests in one go: the first answer has neither body nor length."""
    api.server.set("k", b"1")
    port = int(api.client.url.rpartition(":")[2])
    one = f"GET {V1}/k HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n"
    came = await raw_exchange(port, f"{one}\r\n{one}Connection: close\r\n\r\n".encode())
    first, second, rest = came.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 304 Not Modified\r\nETag: ")
    assert second.startswith(b"HTTP/1.1 304 Not Modified\r\nETag: ")
    assert b"content-length" not in came.lower()
    assert rest == b""


async def test_lists_go_on_where_they_stopped(api: CacheApi) -> None:
    """Page by page, none twice; the pattern is repeated."""
    names = sorted(f"a:{number:03}" for number in range(25))
    for name in (*names, "b"):
        api.server.set(name, b"1")
    for root in (V0, V1):
        found: list[str] = []
        query = "pattern=a:*&limit=10"
        while query:
            page = (await api.client.call("GET", f"{root}/keys?{query}")).json
            assert (page["pattern"], page["count"]) == ("a:*", len(page["keys"]))
            found += page["keys"]
            query = f"pattern=a:*&limit=10&cursor={page['cursor']}" if page["cursor"] else ""
        assert sorted(found) == names
        assert (await api.client.call("GET", f"{root}/keys?pattern=a:*")).json["keys"] == names


async def test_deleting_by_pattern_and_everything(api: CacheApi) -> None:
    """Both flushes and the pattern say how many; the size is 0 after it."""
    for name in ("a:1", "a:2", "b"):
        api.server.set(name, b"1")
    gone = await api.client.call("DELETE", f"{V0}/pattern/a:*")
    assert gone.json == {"message": "Claves eliminadas", "pattern": "a:*", "deleted_count": 2}
    assert (await api.client.call("GET", f"{V1}/stats")).json["size"] == 1
    assert (await api.client.call("POST", f"{V0}/flush", {"confirm": True})).json == {
        "message": "Cache limpiado",
        "deleted_count": 1,
    }
    for path in (f"{V1}/", V1):
        api.server.set("c", b"1")
        assert (await api.client.call("DELETE", path)).status == 200
        assert (await api.client.call("GET", f"{V1}/stats")).json["size"] == 0


async def test_stats_of_the_cache_and_of_the_server(api: CacheApi) -> None:
    """The names that the contract gives them."""
    api.server.set("k", b"1")
    await until(lambda: api.cache.stats().invalidations == 1)
    for _ in range(3):
        await api.client.call("GET", f"{V1}/k")
    info = (await api.client.call("GET", f"{V1}/stats")).json["info"]
    assert (info["hits"], info["misses"], info["near_entries"]) == (2, 1, 1)
    server = (await api.client.call("GET", "/stats")).json
    assert server["status"] == "connected"
    assert server.keys() >= {
        *("redis_version", "uptime_in_seconds", "connected_clients", "used_memory_human"),
        *("total_commands_processed", "keyspace", "pubsub_channels"),
    }


async def test_empty_batches_do_nothing(api: CacheApi) -> None:
    """And that is fine."""
    assert (await api.client.call("POST", f"{V1}/batch", {"items": {}})).json["count"] == 0
    assert (await api.client.call("DELETE", f"{V1}/batch", {"keys": []})).json["count"] == 0
    assert (await api.client.call("POST", f"{V1}/batch/get", {"keys": []})).json == {"items": {}, "count": 0}
