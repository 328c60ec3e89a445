"""Remembered places: asked a second time a path leads where aiohttp would lead it, whatever was asked before."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from router.edge.places import RECENT_LENGTH_MAX, RECENT_MAX, Places
from tests.support.cache_api import CacheApi, cache_api
from tests.support.doubles import Stage

METHODS = ("GET", "HEAD", "PUT", "DELETE", "POST")
SEGMENTS = (
    *(
        "a",
        "a:b",
        "keys",
        "stats",
        "batch",
        "exists",
        "pattern",
        "flush",
        "get",
        "ttl",
        "expire",
        "",
        ".",
        "..",
        "keys2",
    ),
    *("a b", "ñ", "\n", "a/b", "%2F", "%FF", "%6Beys", "a%25b", "a+b", "a~b", "a@b", "x?y=1", "x#y", "keys?x=1", "%3F"),
)
PREFIXES = ("/api/v1/cache", "/api/cache", "/api/cache/exists", "/api/v1/cache/batch", "", "/api", "//api/cache")

paths = st.tuples(st.sampled_from(PREFIXES), st.lists(st.sampled_from(SEGMENTS), max_size=3)).map(
    lambda parts: "/".join([parts[0], *(quote(each, safe="%?#+~@:=") for each in parts[1])]) or "/"
)
Found = tuple[object, dict[str, str]] | None


async def resolved(app: web.Application, method: str, path: str) -> web.UrlMappingMatchInfo:
    """What aiohttp finds, as its application leaves it."""
    request = make_mocked_request(method, "/")
    # Read as aiohttp's parser does: a mocked request would take what follows two slashes for a host.
    before, _, fragment = path.partition("#")
    plain, _, query = before.partition("?")
    request._rel_url = URL.build(path=plain, query_string=query, fragment=fragment, encoded=True)
    match = await app.router.resolve(request)
    match.add_app(app)
    match.freeze()
    return match


def known(match: web.UrlMappingMatchInfo | None) -> Found:
    """Where a match leads."""
    return None if match is None or match.http_exception is not None else (match.route, dict(match))


async def check(app: web.Application, asked: list[tuple[str, str]]) -> None:
    """Ask all of it one after the other: whatever the memory gives is what aiohttp gives."""
    places = Places()
    for method, path in asked:
        match = await resolved(app, method, path)
        remembered = places.find(method, path)
        if remembered is not None:
            assert known(remembered) == known(match), (method, path)
            assert remembered.apps == match.apps
            assert remembered.current_app is app
        if known(match) is not None:
            places.learn(method, path, match)


def application() -> web.Application:
    """One with the cache's routes."""
    app = web.Application()
    CacheApi(Stage()).register(app)
    return app


@given(st.lists(st.tuples(st.sampled_from(METHODS), paths), max_size=12))
@example([("GET", "//a:b"), ("GET", "//api/cache/a")])
async def test_what_is_remembered_is_what_would_be_found(asked: list[tuple[str, str]]) -> None:
    """In any order of any requests."""
    await check(application(), [*asked, *asked])


async def test_each_pair_of_requests() -> None:
    """A key first and then every other name at the same prefix."""
    app = application()
    for prefix in PREFIXES:
        every = [(method, f"{prefix}/{quote(name, safe='%?#+~@:=')}") for method in METHODS for name in SEGMENTS]
        await check(app, [*((method, f"{prefix}/first") for method in METHODS), *every])


async def test_keys_are_remembered_by_their_prefix() -> None:
    """One key is enough for all of them; names with something to decode are always asked for."""
    app, places = application(), Places()
    places.learn("GET", "/api/v1/cache/a", await resolved(app, "GET", "/api/v1/cache/a"))
    found = places.find("GET", "/api/v1/cache/other:1")
    assert found is not None
    assert dict(found) == {"key": "other:1"}
    for other in ("a%20b", "a/b", "keys", "", "a?b", "batch"):
        assert places.find("GET", f"/api/v1/cache/{other}") is None
    assert places.find("PUT", "/api/v1/cache/other:1") is None


async def test_what_callers_make_up_takes_no_more_room_than_this() -> None:
    """However many keys are asked for, and however long they are."""
    app = web.Application()
    app.router.add_get("/x/{key}", _nothing)
    places = Places()
    places.learn("GET", "/x/a", await resolved(app, "GET", "/x/a"))
    for number in range(2 * RECENT_MAX):
        assert known(places.find("GET", f"/x/{number}")) == known(await resolved(app, "GET", f"/x/{number}"))
        assert len(places._recent) <= RECENT_MAX
    long = "/x/" + "k" * RECENT_LENGTH_MAX
    assert places.find("GET", long) is not None
    assert ("GET", long) not in places._recent


async def _nothing(_request: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.parametrize(
    "routes",
    [
        ("/x/{a:[0-9]+}", "/x/{key}"),
        ("/x/{key}", "/x/{a:[0-9]+}"),
        ("/x/{key}", "/x/1"),
        ("/x/{key:[0-9]+}", "/x/{rest:.+}"),
        ("/x/a{key}", "/x/{key}"),
        ("/x/{key}/", "/x/{key}"),
        ("/{key}", "/x/{key}"),
        ("/x/{a}/{b}", "/x/{b:.*}"),
    ],
)
async def test_routes_that_overlap(routes: tuple[str, ...]) -> None:
    """Where the memory can't be sure it leaves it to aiohttp."""
    app = web.Application()
    for route in routes:
        app.router.add_get(route, _nothing)
    names = ("/x/1", "/x/a", "/x/ab", "/x/12", "/x/", "/x", "/x/1/2", "/1", "/x/a/")
    await check(app, [("GET", name) for _ in range(2) for name in names])


async def test_answers_are_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, body and the metrics' route, over a socket."""
    requests = [(method, f"/api/v1/cache/{name}") for method in ("GET", "PUT") for name in ("k", "l", "keys", "k")]

    async def answers() -> list[tuple[int, bytes]]:
        async with cache_api() as api:
            api.server.set("k", b"1")
            got = [await api.client.call(method, path, {"value": 2}) for method, path in requests]
            return [(each.status, each.body if each.status < 400 else b"") for each in got]

    with_memory = await answers()
    monkeypatch.setattr(Places, "find", lambda *_: None)
    assert await answers() == with_memory
