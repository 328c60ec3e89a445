"""The sink itself: other suites believe what it says, so what it says is checked with a plain client."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.support.behaviours import OK, Drip, Hang, Reply, Reset, behaviour_of
from tests.support.child import Child
from tests.support.sink import Sink
from tests.support.until import NeverHappened, until


async def test_requests_are_written_down(http: aiohttp.ClientSession) -> None:
    """Order, path, headers, body, and the connection they came on."""
    async with Sink() as sink:
        for n in range(3):
            async with http.post(sink.url(f"/a?n={n}"), data=b"%d" % n, headers={"X-Mine": "1"}) as answer:
                assert (answer.status, await answer.json()) == (200, {"ok": True})
        received = await sink.wait_for_requests(3)
    assert [(one.path, one.body, one.headers["x-mine"]) for one in received] == [
        ("/a?n=0", b"0", "1"),
        ("/a?n=1", b"1", "1"),
        ("/a?n=2", b"2", "1"),
    ]
    assert {one.connection for one in received} == {1}


async def test_scripts(http: aiohttp.ClientSession) -> None:
    """`next` goes first, then the path's own script, whose last behaviour stays."""
    async with Sink() as sink:
        sink.on("/a", Reply(status=503), Reply(status=201))
        sink.next(Reply(status=418))
        statuses = []
        for path in ("/a", "/a?x", "/a", "/a", "/b"):
            async with http.post(sink.url(path)) as answer:
                statuses.append(answer.status)
    assert statuses == [418, 503, 201, 201, 200]


@pytest.mark.parametrize(
    ("path", "turn", "expected"),
    [
        ("/hook", 0, OK),
        ("/", 3, OK),
        ("/status/503?retry-after=3", 0, Reply(status=503, headers=(("Retry-After", "3"),))),
        ("/script/503,500,200/x", 0, Reply(status=503)),
        ("/script/503,500,200/x", 1, Reply(status=500)),
        ("/script/503,500,200/x", 9, Reply(status=200)),
        ("/delay/0.5", 0, Reply(delay_s=0.5)),
        ("/hang/x", 0, Hang()),
        ("/drip-head", 0, Drip(part="head")),
        ("/reset-answer", 0, Reset("answer")),
        ("/redirect?to=http://a/b", 0, Reply(status=302, headers=(("Location", "http://a/b"),))),
    ],
)
def test_the_language_of_paths(path: str, turn: int, expected: object) -> None:
    """How a sink in another process is told what to do."""
    assert behaviour_of(path, turn) == expected


async def test_waiting_says_what_was_seen() -> None:
    """A wait that runs out is a failure with the counts in it."""
    async with Sink() as sink:
        with pytest.raises(NeverHappened, match="seen: 0 requests on 0 connections"):
            await sink.wait_for_requests(1, 0.01)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """One that waits behind a slow one too, and repeated headers are joined."""
    async with Sink() as sink:
        sink.next(Reply(delay_s=0.02, status=202, body=b"1"), Reply(status=201, body=b"2", close=True))
        reader, writer = await asyncio.open_connection(*sink.address)
        writer.write(b"POST /a HTTP/1.1\r\nX: 1\r\nx: 2\r\nContent-Length: 3\r\n\r\nabcPOST /b HTTP/1.1\r\n\r\n")
        answers = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert [line for line in answers.split(b"\r\n") if line.startswith((b"HTTP", b"1", b"2"))] == [
        b"HTTP/1.1 202 Whatever",
        b"1HTTP/1.1 201 Whatever",
        b"2",
    ]
    assert [(one.path, one.body) for one in sink.requests] == [("/a", b"abc"), ("/b", b"")]
    assert sink.requests[0].headers["x"] == "1, 2"


async def test_as_a_process_of_its_own(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Prints its URL, keeps a line per request at once, ends at SIGTERM."""
    log = tmp_path / "received.jsonl"
    with Child([sys.executable, "-m", "tests.support.sink", "--log", log], tmp_path / "sink") as child:
        url = await until(lambda: child.stdout_path.read_text().strip(), what="the sink prints its URL")
        for path, expected in (("/x", 200), ("/script/503,200/a", 503), ("/script/503,200/a", 200)):
            async with http.post(url + path, data=b'{"n":"\xc3\xa9"}', headers={"webhook-id": "dlv_1"}) as answer:
                assert answer.status == expected
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        child.send_signal(signal.SIGTERM)
        assert await until(lambda: child.exit_code is not None)
        assert child.exit_code == 0
    assert [line["path"] for line in lines] == ["/x", "/script/503,200/a", "/script/503,200/a"]
    assert lines[0]["body"] == '{"n":"é"}'
    assert lines[0]["headers"]["webhook-id"] == "dlv_1"
    assert len({line["sha256"] for line in lines}) == 1


async def test_the_minimal_mode(http: aiohttp.ClientSession) -> None:
    """Counts and answers, keeps nothing."""
    async with Sink(minimal=True) as sink:
        for size in (0, 1, 300_000):
            async with http.post(sink.url(), data=b"x" * size) as answer:
                assert await answer.read() == b"{}"
        await sink.wait_for_requests(3)
        assert (sink.count, sink.requests, sink.connections) == (3, [], 1)
