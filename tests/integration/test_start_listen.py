"""`buzon listen`: the receiver that people try the first example with."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.support.child import Child
from tests.support.until import until


@asynccontextmanager
async def receiver(folder: Path, *options: str) -> AsyncIterator[tuple[Child, str]]:
    """The command, and the URL that it says it listens on."""
    argv = [sys.executable, "-m", "router", "listen", "--port", "0", *options]
    with Child(argv, folder / "listen") as child:
        said = await until(lambda: re.search(r"listening on (http://\S+)", child.stderr_path.read_text()))
        assert said is not None
        yield child, said[1]


async def post(url: str, body: bytes, **headers: str) -> int:
    """Send a request like a delivery's, and give the status of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.post(url, data=BytesIO(body), headers=named) as answer:
        return answer.status


async def test_it_prints_what_arrives(tmp_path: Path) -> None:
    """Method, path, the headers that matter and the body, readable; others are left out."""
    async with receiver(tmp_path) as (child, url):
        status = await post(
            f"{url}/a%20b?c=d",
            '{"text":"¿qué tal?","n":[1,2]}'.encode(),
            webhook_id="msg_1",
            X_Buffer_Size="3",
            Authorization="Bearer canary",
        )
        printed = child.stdout_path.read_text()

    assert status == 200
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3}  POST /a%20b\?c=d  \(answered 200\)\n", printed)
    assert "\n  webhook-id: msg_1\n" in printed
    assert "\n  X-Buffer-Size: 3\n" in printed
    assert '\n    "text": "¿qué tal?",\n' in printed
    assert "canary" not in printed


async def test_one_line_of_json_per_request(tmp_path: Path) -> None:
    """For scripts: everything that arrived, and what it was answered with."""
    async with receiver(tmp_path, "--json", "--fail", "1", "--status", "204") as (child, url):
        statuses = [await post(url, body) for body in (b'{"a":1}', b"no json", b"")]
        lines = [json.loads(line) for line in child.stdout_path.read_text().splitlines()]

    assert statuses == [500, 204, 204]
    assert [line["status"] for line in lines] == statuses
    assert [line["body"] for line in lines] == [{"a": 1}, "no json", ""]
    assert lines[0]["method"] == "POST"
    assert lines[0]["path"] == "/"
    assert lines[0]["headers"]["Content-Length"] == "7"


async def test_it_can_be_slow(tmp_path: Path) -> None:
    """The request is printed when it arrives, not when it is answered."""
    async with receiver(tmp_path, "--delay", "0.3") as (child, url):
        asked_at = monotonic()
        assert await post(url, b"{}") == 200
        assert monotonic() - asked_at >= 0.3
        assert "answered 200" in child.stdout_path.read_text()


async def test_nothing_that_arrives_can_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters are written out as escapes."""
    async with receiver(tmp_path) as (child, url):
        await post(url, b"\x1b[2J\x9b31m\xe2\x80\xae")
        await post(url, '{"a":"\u202e\u009b"}'.encode())
        printed = child.stdout_path.read_text()

    assert all(letter == "\n" or letter.isprintable() for letter in printed)
    assert "\\x1b[2J" in printed


async def test_a_large_batch_is_received(tmp_path: Path) -> None:
    """A batch may hold 16 MiB."""
    async with receiver(tmp_path, "--json") as (_, url):
        assert await post(url, b'"' + b"x" * (17 * 1024 * 1024) + b'"') == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_quietly(tmp_path: Path, number: signal.Signals) -> None:
    """With exit code 0."""
    async with receiver(tmp_path) as (child, _):
        child.send_signal(number)
        assert child.wait(5) == 0
        assert child.stderr_path.read_text().count("\n") == 1


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    """As for the node."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with Child([sys.executable, "-m", "router", "listen", "--port", port], tmp_path / "listen") as child:
            assert child.wait(5) == 1
            assert child.stderr_path.read_text().startswith(f"buzon: PORT: port {port} on 127.0.0.1 is taken")
