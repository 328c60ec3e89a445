"""The edge over real sockets: ids, problems, limits, metrics and the drain, whatever arrives."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web

from actors.core import trace
from actors.ports import StoreAway
from router.edge.body import JsonBody
from router.edge.errors import NotFound
from router.edge.handlers import body_endpoint, endpoint
from router.edge.openapi import Operation
from router.edge.usecase import Call, Reply, RequestHeaders
from tests.support.edge import BODY_BYTES_MAX, EdgeServer

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-03"


class Echo(msgspec.Struct):
    """A body."""

    text: str


ECHO = JsonBody(Echo)


def operation(name: str) -> Operation:
    """Any description."""
    return Operation(summary=name, tag="operations", operation_id=name, responses={200: None})


async def echo(body: bytes, headers: RequestHeaders) -> Reply:
    """Answer what was decoded, and the headers it came with."""
    decoded = ECHO.decode(body, headers)
    return Reply(200, msgspec.json.encode({"text": decoded.text, "headers": msgspec.to_builtins(headers)}))


async def show(call: Call) -> Reply:
    """Answer path, query and the body's size."""
    answer = {"params": dict(call.params), "query": dict(call.query), "bytes": len(call.body)}
    return Reply(201, msgspec.json.encode(answer), {"Location": "/here"})


def failing(failure: Exception) -> Callable[[Call], Coroutine[Any, Any, Reply]]:
    """A use case that raises."""

    async def fail(_call: Call) -> Reply:
        raise failure

    return fail


def add_routes(app: web.Application) -> None:
    """A route of each behaviour."""
    app.router.add_post("/echo", body_endpoint(operation("echo")(echo)))
    app.router.add_route("POST", "/show/{key:.+}", endpoint(operation("show")(show)))
    for name, failure in {
        "bug": KeyError("canary"),
        "away": StoreAway("canary"),
        "late": TimeoutError("canary"),
        "gone": NotFound("no such thing", extra={"message": "Clave no encontrada", "key": "k"}),
        "moved": web.HTTPFound("/elsewhere"),
    }.items():
        app.router.add_get(f"/{name}", endpoint(operation(name)(failing(failure))))

    async def plain(_call: Call) -> Reply:
        return Reply(200, b'{"status":"alive"}')

    app.router.add_get("/plain", endpoint(operation("plain")(plain)))

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"sent")
        return response

    app.router.add_get("/stream", operation("stream")(stream))

    async def broken(request: web.Request) -> web.StreamResponse:
        await stream(request)
        raise StoreAway

    app.router.add_get("/broken", operation("broken")(broken))


@pytest.fixture(name="server")
async def fixture_server() -> AsyncIterator[EdgeServer]:
    """A running server."""
    async with EdgeServer(add_routes) as server:
        yield server


@pytest.fixture(name="client")
async def fixture_client(server: EdgeServer) -> AsyncIterator[ClientSession]:
    """A client of it."""
    async with ClientSession(server.make_url("/"), auto_decompress=False) as client:
        yield client


async def raw(server: EdgeServer, request: bytes) -> bytes:
    """Send bytes as they are and give everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def problem_in(answer: bytes) -> dict[str, Any]:
    """The problem in a raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded


async def test_a_request_id_is_kept_or_made(client: ClientSession) -> None:
    """Printable ASCII up to 128 comes back, on errors too; anything else is replaced."""
    for path in ("/livez", "/nope"):
        async with client.get(path, headers={"X-Request-ID": "id of mine: 1"}) as response:
            assert response.headers["X-Request-ID"] == "id of mine: 1"
    for bad in ("", "x" * 129, "ñ"):
        async with client.get("/livez", headers={"X-Request-ID": bad}) as response:
            assert response.headers["X-Request-ID"].startswith("req_")
    async with client.get("/livez") as one, client.get("/livez") as other:
        assert one.headers["X-Request-ID"] != other.headers["X-Request-ID"]


async def test_the_routers_own_errors_are_problems(client: ClientSession) -> None:
    """404, and 405 with `Allow`."""
    async with client.get("/nope", headers={"X-Request-ID": "r1"}) as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")
        problem = await response.json(content_type=None)
    assert problem["instance"] == "/nope"
    assert problem["request_id"] == "r1"
    assert problem["error"] == problem["detail"]
    async with client.delete("/echo") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert (await response.json(content_type=None))["status"] == 405


async def test_a_problem_of_a_route_keeps_its_extra_members(client: ClientSession) -> None:
    """What an older client reads is beside what a newer one does."""
    async with client.get("/gone") as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["message"], problem["key"]) == (404, "Clave no encontrada", "k")


async def test_a_crash_is_a_500_that_tells_nothing(server: EdgeServer, client: ClientSession) -> None:
    """The log has the reason under the same request id, once."""
    async with client.get("/bug", headers={"X-Request-ID": "r2"}) as response:
        assert (response.status, response.content_type) == (500, "application/problem+json")
        assert b"canary" not in await response.read()
    (event,) = [event for event in server.events() if event["level"] == "error"]
    assert (event["request_id"], event["route"], event["status"]) == ("r2", "/bug", 500)
    assert "KeyError" in event["exception"]
    assert server.sample("buzon_http_requests_total", method="GET", route="/bug", status="5xx") == 1


async def test_trouble_that_passes_is_a_503(server: EdgeServer, client: ClientSession) -> None:
    """With `Retry-After`; a flood of them is one log line a second."""
    for _ in range(5):
        for path in ("/away", "/late"):
            async with client.get(path) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert b"canary" not in await response.read()
    events = [event for event in server.events() if event["event"] == "requests put off"]
    assert 1 <= len(events) <= 3


async def test_a_stream_that_breaks_off_is_only_cut(server: EdgeServer) -> None:
    """No second answer is written into the first one; the client sees it end too early."""
    answer = await raw(server, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"sent" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert [event["event"] for event in server.events()] == ["requests put off"]


async def test_a_redirect_stays_a_redirect(client: ClientSession) -> None:
    """Only errors become problems."""
    async with client.get("/moved", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"canary\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\ncanary : 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: canary\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_too(server: EdgeServer, request_bytes: bytes) -> None:
    """400, the connection closes, nothing of the bytes comes back, and the log stays quiet."""
    answer = await raw(server, request_bytes)
    assert problem_in(answer)["status"] == 400
    assert b"canary" not in answer
    assert b"aiohttp" not in answer
    assert [event for event in server.events() if event["level"] in ("warning", "error")] == []


async def test_what_aiohttp_refuses_by_itself_is_a_problem_too(server: EdgeServer) -> None:
    """An unknown `Expect` never reaches a handler."""
    answer = await raw(server, b"GET /livez HTTP/1.1\r\nHost: x\r\nExpect: canary\r\nConnection: close\r\n\r\n")
    assert problem_in(answer)["status"] == 417
    assert b"canary" not in answer


async def test_a_use_case_gets_its_body_and_headers(client: ClientSession) -> None:
    """The trace is continued: same trace, same flags, a position of ours."""
    headers = {"traceparent": TRACEPARENT, "Idempotency-Key": "k", "X-Request-ID": "r", "Content-Type": "text/json"}
    headers |= {"If-Match": "*", "If-None-Match": '"a", W/"b"'}
    async with client.post("/echo?secret=1", data='{"text":"ñ"}'.encode(), headers=headers) as response:
        answer = await response.json()
    continued = trace.parse(answer["headers"].pop("trace"))
    assert continued is not None
    assert (continued.trace_id, continued.flags) == (TRACE_ID, 3)
    assert continued.span_id != "b7ad6b7169203331"
    assert answer == {
        "text": "ñ",
        "headers": {
            "path": "/echo",
            "request_id": "r",
            "content_type": "text/json",
            "content_encoding": "",
            "idempotency_key": "k",
            "if_match": "*",
            "if_none_match": '"a", W/"b"',
        },
    }


async def test_a_bad_traceparent_is_no_error(client: ClientSession) -> None:
    """The request goes on without a trace to continue."""
    async with client.post(
        "/echo", data=b'{"text":""}', headers={"traceparent": "00-zz", "Content-Type": ""}
    ) as response:
        assert (response.status, (await response.json())["headers"]["trace"]) == (200, "")


async def test_path_and_query_are_percent_decoded(client: ClientSession, server: EdgeServer) -> None:
    """Keys may hold anything; of a repeated parameter the first counts."""
    target = b"/show/a%2Fb%20%C3%B1:@%25?x=1%2B1&x=2&empty="
    answer = await raw(
        server, b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201")
    assert b"Location: /here" in head
    assert msgspec.json.decode(body) == {
        "params": {"key": "a/b ñ:@%"},
        "query": {"x": "1+1", "empty": ""},
        "bytes": 0,
    }


async def test_an_ambiguous_idempotency_key_is_refused(server: EdgeServer) -> None:
    """Two headers, or an empty one: 400 naming it."""
    for keys in (b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", b"Idempotency-Key:\r\n"):
        request = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n" + keys + b"\r\n"
        problem = problem_in(await raw(server, request))
        assert (problem["status"], problem["pointer"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(client: ClientSession, chunked: bool) -> None:
    """Whether its length was announced or not; one of exactly the limit is read."""

    async def parts(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b" " * 1024

    for size, status in ((BODY_BYTES_MAX, 400), (BODY_BYTES_MAX + 1024, 413)):
        data: Any = parts(size) if chunked else b" " * size
        async with client.post("/echo", data=data, headers={"Content-Type": "application/json"}) as response:
            assert response.status == status
            assert (await response.json(content_type=None))["status"] == status


async def test_a_huge_announced_body_is_refused_without_reading_it(server: EdgeServer) -> None:
    """The answer does not wait for the bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


async def test_other_media_types_and_compressed_bodies_are_a_415(client: ClientSession) -> None:
    """A bomb is never inflated: it is refused by its header."""
    bomb = gzip.compress(b'{"text":"' + b"x" * 10_000_000 + b'"}')
    for data, headers in (
        (b"text=1", {"Content-Type": "application/x-www-form-urlencoded"}),
        (bomb, {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    ):
        async with client.post("/echo", data=data, headers=headers) as response:
            assert response.status == 415
            assert (await response.json(content_type=None))["type"] == "urn:buzon:problem:not-json"


async def test_a_body_that_breaks_off_is_a_400(server: EdgeServer) -> None:
    """Chunks that are no chunks."""
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 400 " in (await raw(server, head + b"5\r\n{}\r\nzz\r\n")).splitlines()[0]


async def test_metrics_are_by_route_template(server: EdgeServer, client: ClientSession) -> None:
    """What a caller makes up never becomes a label."""
    for key in ("a", "b", "c"):
        async with client.post(f"/show/{key}") as response:
            assert response.status == 201
    for number in range(3):
        async with client.get(f"/made/up/{number}") as response:
            assert response.status == 404
    async with client.get("/stream") as response:
        assert await response.read() == b"sent"
    sample = server.sample
    assert sample("buzon_http_requests_total", method="POST", route="/show/{key}", status="2xx") == 3
    assert sample("buzon_http_request_seconds_count", method="POST", route="/show/{key}") == 3
    assert sample("buzon_http_requests_total", method="GET", route="unmatched", status="4xx") == 3
    assert sample("buzon_http_requests_total", method="GET", route="/stream", status="2xx") == 1
    assert sample("buzon_http_request_seconds_count", method="GET", route="/stream") == 0


@pytest.mark.parametrize("line", [b"GET /livez HTTP/1.1", b"GET /plain HTTP/1.1", b"HEAD /plain HTTP/1.1"])
async def test_a_draining_server_closes_its_connections(server: EdgeServer, line: bytes) -> None:
    """The answer is complete and says so, whichever way it is written."""
    server.edge.draining = True
    answer = await raw(server, line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"\r\n\r\n" if line.startswith(b"HEAD") else b'{"status":"alive"}')


async def test_the_server_does_not_name_its_parts(client: ClientSession) -> None:
    """No library and no version in any answer."""
    for path in ("/livez", "/nope", "/bug", "/moved"):
        async with client.get(path, allow_redirects=False) as response:
            assert "aiohttp" not in response.headers.get("Server", "")


async def test_requests_are_logged_at_debug_only_when_asked_for(client: ClientSession, server: EdgeServer) -> None:
    """A success leaves no line; with the access log on it leaves one, without path or query."""
    async with client.post("/show/canary?token=canary") as response:
        assert response.status == 201
    assert server.events() == []
    async with EdgeServer(add_routes, access_log=True) as logging_server:
        url = logging_server.make_url("/show/canary?token=canary")
        async with ClientSession() as other, other.post(url) as response:
            assert response.status == 201
        (event,) = logging_server.events()
    assert (event["event"], event["level"], event["route"]) == ("request answered", "debug", "/show/{key}")
    assert "canary" not in str(event)
