"""The load generator and the sink tell the truth: each answer counts once, and trouble is never taken for success."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.bench import store_costs
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.messages import MessageSpec
from tests.bench.rig import Rig, as_json
from tests.bench.sink_fast import header_number
from tests.support.child import Child
from tests.support.until import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
MESSAGE = MessageSpec(sink="http://127.0.0.1:9/", tag="x", keys=3, max_size=5)
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """A server that calls `answer` with the running number of each request; yields its port."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(header_number(head, b"Content-Length: ", 0))
                seen += 1
                await answer(seen, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def load(spec: LoadSpec, tmp_path: Path) -> LoadResult:
    """Run the generator as the benchmark does."""
    with Child([sys.executable, "-m", "tests.bench.load", as_json(spec)], tmp_path / "load") as child:
        await until(lambda: child.exit_code is not None, 20, what="the generator ends")
        assert child.exit_code == 0, child.output()
        return msgspec.json.decode(child.stdout_path.read_bytes(), type=LoadResult)


async def test_answers_in_pieces_are_one_answer(tmp_path: Path) -> None:
    """An answer counts when its last byte is there, however it came."""

    async def in_pieces(_: int, writer: asyncio.StreamWriter) -> None:
        for piece in (OK[:20], OK[20:-1], OK[-1:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with answering(in_pieces) as port:
        result = await load(LoadSpec(port=port, message=MESSAGE, count=100, connections=4, ledger=True), tmp_path)

    assert (result.ok, result.sent, result.errors, len(result.ledger)) == (100, 100, 0, 100)


async def test_anything_but_200_is_an_error(tmp_path: Path) -> None:
    """A 503 in between is counted and shown, and the rest goes on."""

    async def sometimes(number: int, writer: asyncio.StreamWriter) -> None:
        refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
        writer.write(refusal if number == 5 else OK)

    async with answering(sometimes) as port:
        result = await load(LoadSpec(port=port, message=MESSAGE, count=50, connections=4), tmp_path)

    assert (result.ok, result.errors) == (49, 1)
    assert "503" in result.error_samples[0]


async def test_a_closed_connection_is_an_error_and_is_not_used_again(tmp_path: Path) -> None:
    """The request that was out on it is lost to the count, never sent twice."""

    async def hang_up(number: int, writer: asyncio.StreamWriter) -> None:
        writer.close() if number == 5 else writer.write(OK)

    async with answering(hang_up) as port:
        result = await load(LoadSpec(port=port, message=MESSAGE, count=50, connections=4), tmp_path)

    assert (result.ok, result.sent, result.errors) == (49, 50, 1)


async def test_connections_are_dealt_out_to_all_ports(tmp_path: Path) -> None:
    """Each of several servers gets its share of the same run, and every message is sent once."""
    came = [0, 0, 0]

    def counting(number: int) -> Answer:
        async def fine(_: int, writer: asyncio.StreamWriter) -> None:
            came[number] += 1
            writer.write(OK)

        return fine

    async with answering(counting(0)) as one, answering(counting(1)) as two, answering(counting(2)) as three:
        spec = LoadSpec(port=one, more_ports=(two, three), message=MESSAGE, count=90, connections=6)
        result = await load(spec, tmp_path)

    assert (result.ok, sum(came)) == (90, 90)
    assert min(came) > 0


async def test_the_pace_is_kept(tmp_path: Path) -> None:
    """An open loop sends rate × seconds requests, spread over that time."""

    async def fine(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with answering(fine) as port:
        spec = LoadSpec(port=port, message=MESSAGE, seconds=0.5, rate=200, connections=8, ledger=True)
        result = await load(spec, tmp_path)

    times = [sent for _, sent, _ in result.ledger]
    assert result.ok == pytest.approx(100, abs=1)
    assert 0.4 < times[-1] - times[0] < 1


async def test_the_sink_counts_holds_and_lets_go() -> None:
    """Held requests are counted as arrived and answered only after the release; steering is not counted."""
    async with Rig() as rig:
        sink = await rig.sink()
        await sink.hold()
        posts = [
            asyncio.ensure_future(rig.http.post(sink.url, data=b"{}", headers={"X-Buffer-Size": "3"})) for _ in range(2)
        ]

        assert await sink.arrived(6, 5)
        assert await sink.held() == 2
        assert not any(post.done() for post in posts)
        await sink.release()
        answers = await asyncio.gather(*posts)

        assert [answer.status for answer in answers] == [200, 200]
        assert await sink.messages() == 6
        assert not await sink.arrived(7, 0.05)
        for answer in answers:
            answer.release()


async def test_the_unit_costs_are_those_of_a_store_that_did_the_work() -> None:
    """A small run on a real store: every figure is there and none is absurd."""
    costs = await store_costs.measure(open_batches=300, messages=640, rounds=2)

    assert 300 < costs.open_batch_bytes < 4000
    assert 20 < costs.dedupe_bytes < 500
    assert costs.further_message_bytes < costs.open_batch_bytes < 2 * costs.waiting_bytes
    assert 5 < costs.message_commands < 30
    assert min(costs.beat_us, costs.look_us, costs.sweep_us, costs.node_beat_us, costs.delivered_bytes) > 0
