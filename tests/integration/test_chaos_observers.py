"""The chaos suite's observers see what is there: writes in the store, processes behind sockets, requests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from actors.adapters.valkey.scripts import load
from tests.chaos.control import Refused, Remote
from tests.chaos.evidence import posts_in
from tests.chaos.monitor import Monitor
from tests.chaos.remotes import Webhook
from tests.chaos.rows import all_rows, chosen
from tests.chaos.sockets import Kernel, socket_count
from tests.support.child import Child
from tests.support.client import Client, message
from tests.support.node import http_client
from tests.support.until import until
from tests.support.valkey import ValkeyServer, served

CALL_AND_WAIT = "import socket, sys, time; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.recv(1)"


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    """A store with a port, so that its clients have one."""
    yield from served(ValkeyServer(tcp=True))


async def test_the_monitor_sees_what_scripts_write_and_who_called_them(store: ValkeyServer) -> None:
    """Reads are no writes; a script that refuses writes nothing; a plain command has no script."""
    script = load("resign")
    with redis.Redis(port=store.port) as client:
        async with Monitor(store.socket_path) as monitor:
            client.script_load(script.source)
            client.hset("buzon:{00}:own", mapping={"ep": "7", "node": "a"})
            client.evalsha(script.sha, 1, "buzon:{00}:own", "buzon:{00}:", "6")
            refused = len(monitor.writes)
            client.evalsha(script.sha, 1, "buzon:{00}:own", "buzon:{00}:", "7")
            client.eval("return redis.call('SET', KEYS[1], redis.call('GET', KEYS[1]) or 'x')", 1, "other")
            client.get("other")
            await until(lambda: any(write.key == "other" for write in monitor.writes), what="the last write is seen")
        pool = client.connection_pool.get_connection()
        port = pool._sock.getsockname()[1]
        client.connection_pool.release(pool)

    assert refused <= 1
    seen = [(write.script, write.command, write.key) for write in monitor.writes]
    assert seen == [("", "hset", "buzon:{00}:own"), ("resign", "hset", "buzon:{00}:own"), ("?", "set", "other")]
    assert {write.port for write in monitor.writes} == {port}


async def test_a_socket_leads_to_its_process(tmp_path: Path) -> None:
    """By the port at its other end; processes that are not asked about stay unknown."""
    ports: list[int] = []

    async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    kernel = Kernel()
    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    here = server.sockets[0].getsockname()[1]
    argv = [sys.executable, "-c", CALL_AND_WAIT, str(here)]
    with Child(argv, tmp_path / "first") as first, Child(argv, tmp_path / "second") as second:
        await until(lambda: len(ports) == 2, what="both have called")
        one = [kernel.owner_of(port, here, {first.pid: "first", os.getpid(): "us"}) for port in ports]
        assert sorted(one) == ["", "first"]
        both = [kernel.owner_of(port, here, {first.pid: "first", second.pid: "second"}) for port in ports]
        assert sorted(both) == ["first", "second"]
        assert kernel.owner_of(here, here, {first.pid: "first"}) == ""
        assert socket_count(first.pid) == 1
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    assert socket_count(first.pid) == 0
    kernel.close()
    server.close()
    await server.wait_closed()


async def test_the_sink_writes_down_requests_and_answers(tmp_path: Path) -> None:
    """Who sent it, what was in it, what came of it, and what was never answered; scripted while it runs."""
    path = tmp_path / "s.sock"
    with Child([sys.executable, "-m", "tests.chaos.sink", str(path)], tmp_path / "sink") as child:
        await until(path.exists, 10, what="the sink listens")
        remote = Remote(child.output)
        await remote.connect(path)
        sink = Webhook(remote, await remote.ask("open"))
        await sink.begin(tmp_path / "log")
        await sink.pids({os.getpid(): "us"})
        await sink.on("/hook", "/status/503", "/hang")
        body = {"key": "k", "messages": [{"message_id": "m1"}, {"message_id": "m2"}]}
        headers = {"webhook-id": "b1", "x-buffer-key": "k%20%C3%B1", "x-buffer-reason": "size", "x-attempt": "1"}
        async with http_client() as http:
            client = Client(http, sink.urls[0])
            assert (await client.call("POST", "/hook", body, headers=headers)).status == 503
            hanging = asyncio.ensure_future(client.call("POST", "/hook", body, headers=headers))
            assert (await Client(http, sink.urls[1]).call("POST", "/hook", message("u", "k", {}))).status == 200
            await until(lambda: len(posts_in(tmp_path / "log")) == 3, what="all are written down")
            assert await sink.seen() == 2
            with pytest.raises(Refused, match="KeyError"):
                await remote.ask("on", path="/x", behave=["/redirect"], sink=0)
            hanging.cancel()
            await asyncio.gather(hanging, return_exceptions=True)
        remote.hang_up()
        await until(lambda: child.exit_code is not None, what="the sink ends with the harness")

    posts = posts_in(tmp_path / "log")
    first = posts[0].begun
    assert (first.node, first.webhook_id, first.key, first.reason) == ("us", "b1", "k ñ", "size")
    assert first.ids == ("m1", "m2")
    assert sorted(post.status for post in posts) == [0, 200, 503]
    assert [post.whole for post in posts if post.taken] == [True]


def test_rows_are_chosen_by_number() -> None:
    """All variants of a number, or one; a number that is none is an error. Numbers are given once."""
    rows = all_rows()

    assert [row.name for row in chosen(rows, ["1"])] == ["1", "1w"]
    assert len({number for row in rows for number in row.numbers}) == sum(len(row.numbers) for row in rows)
    with pytest.raises(ValueError, match="no such row: 99"):
        chosen(rows, ["1", "99"])
