"""Limits of listeners: how many, how slow, how heavy, and how they are sent home."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from contextlib import AsyncExitStack

import msgspec
import pytest
from aiohttp import web

from tests.bench.channel_idle import IdleResult, IdleSpec
from tests.support.listeners import CLOSE, Place, frame, listening, place, talk, upgrade
from tests.support.until import passing, until

IDLE = 1000
SEVERAL = 200
FEW = 5
IDLE_BYTES_MAX = 20_000
HELD_BYTES_MAX = 256 * 1024
EVENTS = b"GET /events?channels=a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def no_garbage() -> None:
    """What earlier tests left must not be weighed."""
    gc.collect()


@pytest.mark.parametrize("first", [upgrade("/ws?channels=a"), EVENTS], ids=["ws", "events"])
async def test_a_slow_reader_is_closed_and_hurts_nobody(first: bytes) -> None:
    """It holds no more than it may; who listens beside it hears everything."""
    async with place(held_bytes_max=HELD_BYTES_MAX, close_s=0.3) as here, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(talk(here.port, first, receive_bytes=4096))
        await slow.reader.readuntil(b"recovered")
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that also reads
        quick = await stack.enter_async_context(listening(here.port, "/ws?channels=a"))
        await quick.hear()
        (guest,) = [seat.guest for seat in here.service.seats][:1]
        message = b'"%b"' % (b"x" * 32_000)
        held = 0
        for number in range(1, 2000):
            here.service.say("a", message)
            assert (await quick.hear())["offset"] == number
            if guest.closed:
                break
            held = max(held, guest._transport.get_write_buffer_size())  # type: ignore[attr-defined]  # what it is about
        assert guest.closed
        assert held <= HELD_BYTES_MAX
        assert here.meters.channel_slow.value == 1  # type: ignore[attr-defined]  # a tally
        await until(lambda: len(here.service.seats) == 1, what="its seat is given up")
        await until(lambda: len(here.hall) == 1, what="its transport is gone")


async def test_a_slow_reader_that_reads_on_is_told_why() -> None:
    """3008, after all that was held for it."""
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(place(held_bytes_max=HELD_BYTES_MAX))
        slow = await stack.enter_async_context(listening(here.port, "/ws?channels=a", receive_bytes=4096))
        await slow.hear()
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that also reads
        guest = here.service.seats[0].guest
        while not guest.closed:
            here.service.say("a", b'"%b"' % (b"x" * 32_000))
            await asyncio.sleep(0)
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        assert await slow.closed() == (3008, "slow")
        slow.write(frame(CLOSE, (3008).to_bytes(2, "big")))
        assert await slow.reader.read() == b""


async def test_one_message_larger_than_a_reader_may_hold_is_no_fault_of_it() -> None:
    """It is read."""
    async with place(held_bytes_max=HELD_BYTES_MAX) as here, listening(here.port, "/ws?channels=a") as ws:
        await ws.hear()
        here.service.say("a", b'"%b"' % (b"x" * (16 << 20)))
        assert len((await ws.hear())["data"]) == 16 << 20


async def test_an_idle_listener_weighs_little() -> None:
    """A thousand of them, each with a channel, in another process: what the server's memory has grown by."""
    async with place() as here:
        spec = msgspec.json.encode(IdleSpec(port=here.port, pid=os.getpid(), connections=IDLE)).decode()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.channel_idle", spec), stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await child.communicate()
        assert child.returncode == 0
        weighed = msgspec.json.decode(answer, type=IdleResult)
    assert (weighed.after - weighed.before) / IDLE <= IDLE_BYTES_MAX


async def test_an_idle_listener_costs_no_task_and_no_timer() -> None:
    """What it had of both as an HTTP connection is gone."""
    async with place() as here, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(talk(here.port)) for _ in range(SEVERAL)]
        await until(lambda: _connections(here) == SEVERAL, what="all are connected")
        tasks = len(asyncio.all_tasks())
        for raw in sockets:
            raw.write(upgrade("/ws?channels=a"))
            await raw.reader.readuntil(b"recovered")
        await until(lambda: len(asyncio.all_tasks()) <= tasks - SEVERAL, what="aiohttp's tasks have ended")
        assert len(here.hall) == SEVERAL
        assert _connections(here) == 0
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # the loop's own
        assert len([timer for timer in scheduled if not timer.cancelled()]) <= FEW


async def test_room_for_so_many() -> None:
    """503 from a node, 429 for an address; again when somebody has gone."""
    for limit, status in (("connections_max", 503), ("connections_per_client_max", 429)):
        async with place(**{limit: 2}) as here, AsyncExitStack() as stack:
            first = await stack.enter_async_context(listening(here.port, "/ws"))
            await stack.enter_async_context(talk(here.port, EVENTS))
            await until(lambda: len(here.hall) == 2, what="both are there")
            for path in ("/ws", "/connection/websocket"):
                async with talk(here.port, upgrade(path)) as raw:
                    head = await raw.reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 %d " % status)
                    assert b"Retry-After: 1" in head
            first.write(frame(CLOSE, b""))
            await until(lambda: len(here.hall) == 1, what="one has gone")
            async with listening(here.port, "/ws"):
                assert len(here.hall) == 2


async def test_drained_in_stages() -> None:
    """All are told within the time, not all at once; who does not go is let go of; nobody comes in."""
    async with place() as here, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(listening(here.port, "/ws?channels=a")) for _ in range(20)]
        began = time.monotonic()
        drain = asyncio.create_task(here.hall.drain(0.4, 0.2))
        await passing(0.1)
        leaving = sum(seat.guest.closed for seat in here.service.seats)
        assert leaving < 20
        async with talk(here.port, upgrade("/ws")) as raw:
            assert (await raw.reader.readline()).startswith(b"HTTP/1.1 503 ")
        for ws in sockets[:10]:
            assert await ws.closed() == (3001, "shutdown")
            ws.write(frame(CLOSE, (3001).to_bytes(2, "big")))
        await drain
        assert 0.3 <= time.monotonic() - began <= 2.0
        await until(lambda: not len(here.hall), 1.0, what="all are gone")
        assert here.service.seats == []


def _connections(here: Place) -> int:
    """How many the HTTP server knows of."""
    assert here.server.runner is not None
    server = here.server.runner.server
    assert isinstance(server, web.Server)
    return len(server.connections)
