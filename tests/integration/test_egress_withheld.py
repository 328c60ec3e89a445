"""The egress asks once more before the first byte: nothing of a request that may not start reaches the webhook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from actors.adapters.http.egress import HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered
from actors.egress_ports import OutboundRequest, Withheld
from tests.support.sink import Sink


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A receiver for one test."""
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as egress:
        await egress.start()
        yield egress


def never() -> bool:
    """What a node says that has lost the partition."""
    return False


@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
async def test_a_request_that_may_not_start_is_not_written(egress: HttpEgress, sink: Sink, warm: bool) -> None:
    """On either kind of connection; the next request is sent as if nothing had been."""
    request = OutboundRequest(method="POST", url=sink.url("/hook"), headers={}, body=b"{}", timeout_s=5.0)
    if warm:
        assert isinstance(await egress.send(request), Answered)

    assert await egress.send(msgspec.structs.replace(request, may_start=never)) == Withheld()

    assert isinstance(await egress.send(request), Answered)
    assert len(sink.requests) == 1 + warm


class Wire:
    """Takes connections, keeps the bytes that come, and answers nothing."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.ended = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep everything until the other side closes."""
        try:
            self.taken.append(await reader.read())
        except ConnectionResetError:
            self.taken.append(b"")
        writer.close()
        self.ended.set()


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
async def test_not_one_byte_is_on_the_wire(egress: HttpEgress, size: int) -> None:
    """Neither of the head nor of the body, however large that is; and the connection does not stay."""
    wire = Wire()
    async with await asyncio.start_server(wire.take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        request = OutboundRequest(
            method="POST", url=url, headers={"X": "1"}, body=bytes(size), timeout_s=5.0, may_start=never
        )

        assert await egress.send(request) == Withheld()

        async with asyncio.timeout(5.0):
            await wire.ended.wait()
    assert wire.taken == [b""]


async def test_the_node_loses_its_right_while_the_name_is_looked_up(sink: Sink) -> None:
    """It connects all the same, and asks then."""
    may_start = True

    def lookup(_host: str) -> list[str]:
        nonlocal may_start
        may_start = False
        return ["127.0.0.1"]

    async with aclosing(HttpEgress(Guard(loopback_allowed=True), lookup=lookup)) as egress:
        await egress.start()
        url = sink.url("/hook").replace("127.0.0.1", "webhook.example")
        request = OutboundRequest(
            method="POST", url=url, headers={}, body=b"{}", timeout_s=5.0, may_start=lambda: may_start
        )
        assert await egress.send(request) == Withheld()
        await sink.wait_for_connections(1)
        await sink.wait_until_idle()
        may_start = True
        assert isinstance(await egress.send(request), Answered)
    assert len(sink.requests) == 1


async def test_requests_side_by_side_are_asked_each_for_itself(egress: HttpEgress, sink: Sink) -> None:
    """Each has its own partition, which may be lost while another's is not."""
    allowed = OutboundRequest(method="POST", url=sink.url("/hook"), headers={}, body=b"{}", timeout_s=5.0)
    refused = msgspec.structs.replace(allowed, body=b"no", may_start=never)

    outcomes = await asyncio.gather(*(egress.send(refused if number % 2 else allowed) for number in range(20)))

    assert [isinstance(outcome, Withheld) for outcome in outcomes] == [bool(number % 2) for number in range(20)]
    assert [request.body for request in sink.requests] == [b"{}"] * 10
