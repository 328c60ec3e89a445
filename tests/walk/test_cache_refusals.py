"""Bad input to the cache is refused with a problem that names it, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.support.cache_api import RESERVED, CacheApi, cache_api
from tests.support.client import is_problem, quoted

V0, V1 = "/api/cache", "/api/v1/cache"
BATCH, BATCH_GET = f"{V1}/batch", f"{V1}/batch/get"
TTLS: list[object] = [
    *(0, -1, 0.0, 0.0009, -0.5, 1e18, 9_223_372_037, True, False, [], {}, [1]),
    *("", "0", "0s", "-1s", "999us", "3600", "1 h", "1d", "NONE", "never", "9999999h", "1s" * 40),
]
KEYS = ["", "x" * 513, "é" * 257, "buzon:x", f"{RESERVED}x"]
BROKEN = [
    b"",
    b"{",
    b"nul",
    b'{"key":"k","value":1,}',
    b'{"key":"k","value":NaN}',
    b'{"key":"k","value":Infinity}',
    b'{"key":"k","value":01}',
    b'{"key":"k","value":9223372036854775808}',
    b'{"key":"k","value":' + b"[" * 32 + b"]" * 32 + b"}",
    b'{"key":"k","value":"\xff"}',
    b'{"key":"k","value":1}x',
    b"[]",
    b'"k"',
    b"null",
]
LISTS = [",", "a", '"a', "'a'", 'w/"a"', '*, "a"', '"a" "b"']
HELD = {"k": b'{"old": 1}', "kept": b"2"}


@pytest.fixture(name="api")
async def fixture_api() -> AsyncIterator[CacheApi]:
    """A cache that holds something, all of which must be there unchanged at the end."""
    async with cache_api() as api:
        for key, value in HELD.items():
            api.server.set(key, value, 1000)
        before = {key: api.server.get(key) for key in HELD}
        yield api
        assert api.held() == HELD
        assert {key: api.server.get(key) for key in HELD} == before


async def refused(api: CacheApi, method: str, path: str, body: object, status: int = 400, pointer: str = "") -> Any:
    """Send it, see that it is refused, and give the problem."""
    answer = await api.client.call(method, path, body)
    assert is_problem(answer, status, pointer=pointer or None)
    return answer.json


@pytest.mark.parametrize("ttl", TTLS, ids=repr)
async def test_a_wrong_ttl(api: CacheApi, ttl: object) -> None:
    """Wherever one can be given; in a batch the item is named."""
    for method, path, body, pointer in (
        ("POST", f"{V0}/", {"key": "k", "value": 1, "ttl": ttl}, "$.ttl"),
        ("PUT", f"{V1}/k", {"value": 1, "ttl": ttl}, "$.ttl"),
        ("PUT", f"{V1}/k/expire", {"ttl": ttl}, "$.ttl"),
        ("POST", BATCH, {"items": {"kept": {"value": 1}, "k": {"value": 1, "ttl": ttl}}}, "$.items.k.ttl"),
    ):
        await refused(api, method, path, body, pointer=pointer)


async def test_expire_needs_a_ttl(api: CacheApi) -> None:
    """There is no default for it, and null is none."""
    await refused(api, "PUT", f"{V1}/k/expire", {}, pointer="$.ttl")
    await refused(api, "PUT", f"{V1}/k/expire", {"ttl": None}, pointer="$.ttl")


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:8])
async def test_a_wrong_key(api: CacheApi, key: str) -> None:
    """In a path, in a body, in a batch, to read as well as to write; a reserved one is repeated."""
    named = key if key.startswith(("buzon:", RESERVED)) else None
    bodies: list[tuple[str, str, object, str]] = [
        ("POST", f"{V0}/", {"key": key, "value": 1}, "$.key"),
        ("POST", BATCH_GET, {"keys": ["k", key]}, "$.keys[1]"),
        ("DELETE", BATCH, {"keys": ["k", key]}, "$.keys[1]"),
        ("POST", BATCH, {"items": {"k": {"value": 1}, key: {"value": 1}}}, ""),
    ]
    if key:
        path = quoted(key)
        bodies += [
            ("GET", f"{V0}/{path}", None, "key"),
            ("DELETE", f"{V0}/{path}", None, "key"),
            ("GET", f"{V0}/exists/{path}", None, "key"),
            ("GET", f"{V1}/{path}", None, "key"),
            ("PUT", f"{V1}/{path}", {"value": 1}, "key"),
            ("DELETE", f"{V1}/{path}", None, "key"),
            ("PUT", f"{V1}/{path}/expire", {"ttl": 1}, "key"),
            ("GET", f"{V1}/{path}/ttl", None, "key"),
        ]
    for method, where, body, pointer in bodies:
        problem = await refused(api, method, where, body, pointer=pointer)
        assert problem.get("key") == named, where
        assert len(problem["detail"]) < 600
        if where == BATCH and method == "POST":
            assert problem["pointer"].startswith("$.items"), problem


@pytest.mark.parametrize("path", ["%FF", "%C3", "a%", "%zz", "%ED%A0%80", "a%25%FF"])
async def test_a_path_that_is_no_utf_8(api: CacheApi, path: str) -> None:
    """It is not taken for the key that would be written %25FF."""
    for method, where in (("GET", V0), ("DELETE", V0), ("GET", V1), ("PUT", V1), ("GET", f"{V0}/exists")):
        await refused(api, method, f"{where}/{path}", {"value": 1} if method == "PUT" else None, pointer="key")
    await refused(api, "DELETE", f"{V0}/pattern/{path}", None, pointer="pattern")


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: body[:24].decode("latin-1"))
async def test_a_body_that_cannot_be_taken(api: CacheApi, body: bytes) -> None:
    """Every route that takes one."""
    for method, path in (
        *(("POST", f"{V0}/"), ("POST", f"{V0}/flush"), ("PUT", f"{V1}/k"), ("PUT", f"{V1}/k/expire")),
        *(("POST", BATCH), ("POST", BATCH_GET), ("DELETE", BATCH)),
    ):
        await refused(api, method, path, body)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "$.key"), ({"key": "k"}, "$.value"), ({"value": 1}, "$.key"), ({"ttl": 1, "key": "k"}, "$.value")],
)
async def test_fields_that_are_not_there(api: CacheApi, body: object, pointer: str) -> None:
    """The sentence that older clients know, and nothing before it."""
    for path in (V0, f"{V0}/"):
        answer = await api.client.call("POST", path, body)
        assert is_problem(answer, 400)
        problem = answer.json
        assert problem["detail"] == problem["error"] == problem["message"] == 'Se requieren los campos "key" y "value"'
        assert problem["pointer"] == pointer


@pytest.mark.parametrize(
    "body", [None, {}, {"confirm": False}, {"confirm": 1}, {"confirm": "true"}, {"confirm": None}, {"Confirm": True}]
)
async def test_a_flush_that_is_not_confirmed(api: CacheApi, body: object) -> None:
    """Only `true` is."""
    problem = await refused(api, "POST", f"{V0}/flush", body)
    assert problem["error"] == "Se requiere confirmación explícita"


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", f"{V0}/", {"key": 1, "value": 1}, "$.key"),
        ("POST", f"{V0}/", {"key": None, "value": 1}, "$.key"),
        ("PUT", f"{V1}/k", {}, "$.value"),
        ("PUT", f"{V1}/k", {"ttl": 1}, "$.value"),
        ("POST", BATCH, {}, "$.items"),
        ("POST", BATCH, {"items": []}, "$.items"),
        ("POST", BATCH, {"items": {"k": None}}, "$.items.k"),
        ("POST", BATCH, {"items": {"kept": {"value": 1}, "k": {}}}, "$.items.k.value"),
        ("POST", BATCH, {"items": {"kept": {"value": 1}, "a b": {"ttl": 1}}}, '$.items["a b"].value'),
        ("POST", BATCH, {"items": {"kept": {"value": 1}, "ñ\n": {"value": 1, "ttl": 0}}}, r'$.items["\u00f1\n"].ttl'),
        ("POST", BATCH, {"items": {f"k{n}": {"value": 1} for n in range(1001)}}, "$.items"),
        ("POST", BATCH_GET, {}, "$.keys"),
        ("POST", BATCH_GET, {"keys": "k"}, "$.keys"),
        ("POST", BATCH_GET, {"keys": [1]}, "$.keys[0]"),
        ("POST", BATCH_GET, {"keys": ["k"] * 1001}, "$.keys"),
        ("DELETE", BATCH, {"keys": None}, "$.keys"),
        ("DELETE", BATCH, {"keys": ["k", None]}, "$.keys[1]"),
        ("DELETE", BATCH, {"keys": ["k"] * 1001}, "$.keys"),
    ],
)
async def test_fields_of_the_wrong_kind(api: CacheApi, method: str, path: str, body: object, pointer: str) -> None:
    """Each is named."""
    answer = await api.client.call(method, path, body)
    assert answer.status == 400, answer
    pointed = answer.json["pointer"]
    assert pointed == pointer, pointed


async def test_bodies_that_are_not_json(api: CacheApi) -> None:
    """By their media type or coding."""
    body = msgspec.json.encode({"value": 1})
    for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
        assert is_problem(await api.client.call("PUT", f"{V1}/k", body, headers=headers), 415)
        assert is_problem(await api.client.call("POST", BATCH, body, headers=headers), 415)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("pattern=", "pattern"),
        (f"pattern={'x' * 513}", "pattern"),
        (f"pattern={'a*' * 17}", "pattern"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=%FF", "cursor"),
        ("limit=1&pattern=%C3", "pattern"),
        ("cursor=kwAA", "cursor"),
        ("cursor=k__8oA", "cursor"),
        (f"cursor={'A' * 2049}", "cursor"),
    ],
)
async def test_a_wrong_query(api: CacheApi, query: str, pointer: str) -> None:
    """Of either list."""
    for path in (f"{V0}/keys", f"{V1}/keys"):
        await refused(api, "GET", f"{path}?{query}", None, pointer=pointer)


@pytest.mark.parametrize("pattern", ["x" * 513, "a*" * 17])
async def test_a_wrong_pattern_to_delete(api: CacheApi, pattern: str) -> None:
    """Too long, or too many stars."""
    await refused(api, "DELETE", f"{V0}/pattern/{pattern}", None, pointer="pattern")


@pytest.mark.parametrize("text", LISTS)
@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
async def test_a_wrong_precondition(api: CacheApi, header: str, text: str) -> None:
    """A write that can't say what it depends on is none; nor is a read."""
    for method, path, body in (
        *(("PUT", f"{V1}/k", {"value": 1}), ("DELETE", f"{V1}/k", None), ("DELETE", f"{V0}/k", None)),
        *(("POST", f"{V0}/", {"key": "k", "value": 1}), ("GET", f"{V1}/k", None), ("GET", f"{V0}/k", None)),
    ):
        answer = await api.client.call(method, path, body, headers={header: text})
        assert is_problem(answer, 400, pointer=header), (method, path)


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", BATCH, {"items": {"k": {"value": 1}}}),
        ("DELETE", BATCH, {"keys": ["k"]}),
        ("DELETE", f"{V1}/", None),
        ("DELETE", f"{V0}/pattern/*", None),
        ("POST", f"{V0}/flush", {"confirm": True}),
    ],
)
async def test_a_precondition_on_many_keys(api: CacheApi, method: str, path: str, body: object, header: str) -> None:
    """Nobody could say which of them it was meant for."""
    answer = await api.client.call(method, path, body, headers={header: "*"})
    assert is_problem(answer, 400, pointer=header)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("PUT", f"{V1}/{name}") for name in ("keys", "stats", "batch", "batch/get")],
        *[("DELETE", f"{V1}/{name}") for name in ("keys", "stats", "batch/get")],
        *[("DELETE", f"{V0}/{name}") for name in ("keys", "flush", "exists/k")],
        *[("PUT", f"{V1}/k/ttl"), ("DELETE", f"{V1}/k/expire"), ("POST", f"{V1}/k"), ("PUT", f"{V0}/k")],
        *[("GET", f"{V0}/pattern/k"), ("PUT", f"{V1}/%6Beys"), ("GET", f"{V1}/k/expire"), ("GET", f"{V0}/flush")],
    ],
)
async def test_static_names_are_no_keys(api: CacheApi, method: str, path: str) -> None:
    """Asked in the wrong way they are refused, with the right ways, and not taken for a key."""
    answer = await api.client.call(method, path, {"value": 1})
    assert is_problem(answer, 405)
    assert method not in answer.headers["Allow"].split(",")


@pytest.mark.parametrize("path", [f"{V1}/exists", f"{V1}/flush", f"{V1}/pattern", f"{V1}/keys/", f"{V0}/exists/"])
async def test_static_names_of_the_other_api_are_no_keys_either(api: CacheApi, path: str) -> None:
    """So a key means the same to both."""
    assert is_problem(await api.client.call("GET", path), 404)
    assert is_problem(await api.client.call("PUT", path, {"value": 1}), 404)


async def test_keys_of_other_types(api: CacheApi) -> None:
    """404 to read, 409 to write, and a batch that meets one writes nothing and names it."""
    api.server.others.add("list")
    for method, path in (("GET", f"{V0}/list"), ("GET", f"{V1}/list"), ("GET", f"{V1}/list/ttl")):
        problem = await refused(api, method, path, None, 404)
        assert (problem["message"], problem["key"]) == ("Clave no encontrada", "list")
    for method, path, body in (
        *(("POST", f"{V0}/", {"key": "list", "value": 1}), ("DELETE", f"{V0}/list", None)),
        *(
            ("PUT", f"{V1}/list", {"value": 1}),
            ("DELETE", f"{V1}/list", None),
            ("PUT", f"{V1}/list/expire", {"ttl": 1}),
        ),
        *(("POST", BATCH, {"items": {"k": {"value": 1}, "list": {"value": 1}}}),),
        *(("DELETE", BATCH, {"keys": ["k", "list"]}),),
    ):
        assert (await refused(api, method, path, body, 409))["key"] == "list"
