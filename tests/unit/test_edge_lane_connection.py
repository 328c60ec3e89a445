"""A connection with the fast lane: order, back-pressure, and every way in which it can end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from router.edge.lane import HELD_BYTES_MAX, KNOWN_MAX, OUT_BYTES_MAX, TESTED, LaneConnection, why_not
from router.edge.server import KEEPALIVE_S, REQUEST_S
from tests.support.lane_stand import Stand, parsed, settled
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

HOST = b"Host: here\r\n"
NOW = b"GET /now HTTP/1.1\r\n" + HOST + b"\r\n"
NEAR = b"GET /keys/near HTTP/1.1\r\n" + HOST + b"\r\n"
COLD = b"GET /cold HTTP/1.1\r\n" + HOST + b"\r\n"
LONG = b"GET /keys/near-long HTTP/1.1\r\n" + HOST + b"\r\n"


def gate(body: bytes) -> bytes:
    """A request whose answer waits for the gate; it has the body."""
    return b"POST /gate HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, len(body), body)


@pytest.fixture(name="stand", params=[False, True], ids=["task", "soon"])
async def fixture_stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    """One with the lane on, whose open answers have a task or do without."""
    stand = await Stand(fast_lane=True, soon=request.param).open()
    yield stand
    stand.open_gate()
    await stand.close()


def bodies(written: bytearray) -> list[bytes]:
    """Of all answers."""
    return [body for _, _, body in parsed(bytes(written))]


@pytest.mark.parametrize("behind", [NOW, COLD, NOW + COLD + NOW, COLD[:20]], ids=["hot", "cold", "mixed", "half"])
async def test_what_comes_behind_an_open_answer_waits(stand: Stand, behind: bytes) -> None:
    """Hot or cold, whole or not: nobody is answered before those who asked earlier."""
    connection = stand.connection()
    await connection.says(gate(b"first"), behind)
    assert connection.wire.written == b""
    assert len(stand.calls) == 1

    stand.open_gate()
    await connection.says()
    assert bodies(connection.wire.written)[0] == b"first"
    assert len(bodies(connection.wire.written)) == 1 + behind.count(b"\r\n\r\n")


async def test_what_comes_in_the_turn_of_a_look_waits_for_its_answer(stand: Stand) -> None:
    """Though a look is answered at the end of the turn, and this would be at once."""
    connection = stand.connection()
    away = b"POST /fails HTTP/1.1\r\n%bContent-Length: 4\r\n\r\naway" % HOST
    await connection.says(NOW, away, NOW, COLD, at_once=True)
    statuses = [status.split()[1] for status, _, _ in parsed(bytes(connection.wire.written))]
    assert statuses == [b"200", b"503", b"200", b"200"]


async def test_a_look_whose_client_goes_before_the_end_of_the_turn_is_left_out(stand: Stand) -> None:
    """Nobody is written to, and nobody complains."""
    connection = stand.connection()
    await settled()
    connection.protocol.data_received(NOW)
    connection.wire.close()
    await settled()
    assert connection.wire.written == b""


async def test_hot_behind_cold_waits_too(stand: Stand) -> None:
    """Then aiohttp answers both; the next one is the lane's again."""
    connection = stand.connection()
    await connection.says(COLD + NOW, at_once=True)
    await connection.says(NOW)
    assert len(bodies(connection.wire.written)) == 3
    assert stand.lane_answers == 1


async def test_a_flood_behind_an_open_answer_is_not_read(stand: Stand) -> None:
    """Beyond a bound the connection is not read; once the answer is out it goes on, and every request is answered."""
    connection = stand.connection()
    await connection.says(gate(b"first"))
    count = 0
    while connection.wire.reading:
        await connection.says(NOW * 100)
        count += 100
        assert count * len(NOW) <= HELD_BYTES_MAX + 100 * len(NOW)
    stand.open_gate()
    await connection.says()
    assert connection.wire.reading
    assert len(bodies(connection.wire.written)) == count + 1


async def test_answers_that_nobody_reads_hold_up_the_rest(stand: Stand) -> None:
    """What is asked meanwhile waits; when the client reads, everything is answered once and in order."""
    connection = stand.connection(room=50_000)
    await connection.says(*[LONG + NEAR] * 20, at_once=True)
    assert len(connection.wire.written) < 50_000 + OUT_BYTES_MAX + 41_000
    for _ in range(100):
        connection.wire.read_all()
        await settled()
    answers = bodies(connection.wire.written)
    assert [len(body) for body in answers] == [40_002, 14] * 20


async def test_aiohttp_s_room_is_no_reason_to_read_on(stand: Stand) -> None:
    """A body that it has whole makes it resume the connection; too much waits here all the same."""
    connection = stand.connection(room=30_000)
    body = b"POST /cold HTTP/1.1\r\n%bContent-Encoding: identity\r\nContent-Length: 4\r\n\r\nabcd" % HOST
    await connection.says(gate(b"first"), LONG + body, NOW * 2000)
    assert not connection.wire.reading
    stand.open_gate()
    await connection.says()
    assert not connection.wire.reading
    for _ in range(200):
        connection.wire.read_all()
        await settled()
    assert connection.wire.reading
    assert len(bodies(connection.wire.written)) == 2003


async def test_pipelined_requests_are_looked_at_once(stand: Stand) -> None:
    """However many wait behind one that takes its time: the work grows with them, not with their square."""
    count = 400
    connection = stand.connection()
    heads, seen = connection.protocol._heads, []
    parsed_by = heads._parsed

    def noted(raw: bytes) -> object:
        seen.append(raw)
        return parsed_by(raw)

    heads._parsed = noted
    requests = (b"GET /calls/7 HTTP/1.1\r\n%bX-Request-ID: %d\r\n\r\n" % (HOST, n) for n in range(count))
    await connection.says(b"".join(requests))
    assert len(bodies(connection.wire.written)) == count
    assert len(seen) == 2 * count, "once to see that all are whole, once to answer each"


@pytest.mark.parametrize("body", [b"stop", b"head"], ids=["cancelled", "an answer that cannot be written"])
async def test_a_request_without_an_answer_ends_the_connection(stand: Stand, body: bytes) -> None:
    """Nobody may take the next one's answer for its own."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    connection = stand.connection()
    await connection.says(b"POST /fails HTTP/1.1\r\n%bContent-Length: 4\r\n\r\n%b" % (HOST, body) + NOW)
    assert connection.wire.written == b""
    assert connection.wire.closed
    assert len(complaints) == (body == b"head")


async def test_a_client_that_goes_takes_its_request_not_along(stand: Stand) -> None:
    """It may have been stored: the use case comes to its end, nobody is written to, and what waited is forgotten."""
    connection = stand.connection()
    await connection.says(gate(b"first"), NOW)
    await connection.hangs_up()
    stand.open_gate()
    await settled()
    assert connection.wire.written == b""
    assert len(stand.calls) == 1
    assert stand.lane_answers == 1


async def test_a_write_to_a_transport_that_is_closing_is_left_out(stand: Stand) -> None:
    """Between its end and the news of it."""
    connection = stand.connection()
    await connection.says(gate(b"first"))
    stand.open_gate()
    connection.wire.close()
    await settled()
    assert connection.wire.written == b""


async def test_nothing_is_left_of_connections(stand: Stand) -> None:
    """However they end."""
    before = alive()
    connections = [stand.connection() for _ in range(50)]
    for number, connection in enumerate(connections):
        await connection.says(*([NOW, gate(b"x"), NOW] if number % 2 else [NOW, COLD, NEAR[:20]]))
        if number % 3:
            await connection.hangs_up()
    assert alive() >= before + len(connections) // 3
    stand.open_gate()
    await settled()
    for connection in connections:
        await connection.hangs_up()
    del connection, connections
    assert alive() <= before


async def test_an_idle_connection_keeps_nothing_of_what_was_asked() -> None:
    """Neither after an answer nor after a failure: a message may be long, and connections are many."""
    stand = await Stand(fast_lane=True, soon=True).open()
    connections = [stand.connection() for _ in range(3)]
    for connection, body in zip(connections, (b"{}", b"away", b"late"), strict=True):
        await connection.says(b"POST /fails HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, len(body), body))
        assert len(bodies(connection.wire.written)) == 1
    gc.collect()
    assert [each() for each in stand.asked_with] == [None] * 3
    await stand.close()


def alive() -> int:
    """Connections that something still refers to."""
    gc.collect()
    return sum(isinstance(each, LaneConnection) for each in gc.get_objects())


async def test_a_node_that_goes_says_so(stand: Stand) -> None:
    """The answer closes the connection, and what was sent behind it is left unanswered, as with aiohttp."""
    connection = stand.connection()
    stand.edge.draining = True
    await connection.says(NEAR + NOW)
    ((status, lines, _),) = parsed(bytes(connection.wire.written))
    assert status == b"HTTP/1.1 200 OK"
    assert b"connection: close" in lines
    assert connection.wire.closed


async def test_a_shutdown_waits_for_the_answer(stand: Stand) -> None:
    """It is sent, with the connection's end."""
    connection = stand.connection()
    await connection.says(gate(b"first"))
    stand.edge.draining = True
    closing = asyncio.ensure_future(stand.close())
    await settled()
    assert not closing.done()
    stand.open_gate()
    await closing
    ((status, lines, body),) = parsed(bytes(connection.wire.written))
    assert (status, body) == (b"HTTP/1.1 201 Created", b"first")
    assert b"connection: close" in lines


def in_virtual_time_with_a_stand(test: Callable[[Stand], Awaitable[None]]) -> Callable[[], None]:
    """Such a test."""

    @in_virtual_time
    async def run() -> None:
        stand = await Stand(fast_lane=True).open()
        try:
            await test(stand)
        finally:
            stand.open_gate()
            await stand.close()

    return run


@in_virtual_time_with_a_stand
async def test_an_idle_connection_ends_and_a_busy_one_does_not(stand: Stand) -> None:
    """75 s after its last answer, whoever gave that; the time for a first request ends with the first request."""
    connection = stand.connection()
    await connection.says(NOW)
    for _ in range(4):
        await passing(KEEPALIVE_S - 1)
        assert not connection.wire.closed
        await connection.says(NEAR)
    await connection.says(gate(b"slow"))
    await passing(KEEPALIVE_S - 1)
    assert not connection.wire.closed
    stand.open_gate()
    await settled()
    await passing(KEEPALIVE_S - 1)
    assert not connection.wire.closed
    await passing(2)
    assert connection.wire.closed


@in_virtual_time_with_a_stand
async def test_a_connection_that_waits_or_reads_slowly_is_not_idle(stand: Stand) -> None:
    """Neither for an answer that takes its time nor with one that has not been read; afterwards it is."""
    slow, unread = stand.connection(), stand.connection(room=30_000)
    await slow.says(gate(b"slow"), NOW)
    await unread.says(LONG, NOW)
    await passing(2.5 * KEEPALIVE_S)
    assert not slow.wire.closed
    assert not unread.wire.closed
    stand.open_gate()
    unread.wire.read_all()
    await settled()
    assert len(bodies(slow.wire.written)) == len(bodies(unread.wire.written)) == 2
    await passing(KEEPALIVE_S - 1)
    assert not slow.wire.closed
    assert not unread.wire.closed
    await passing(2)
    assert slow.wire.closed
    assert unread.wire.closed


@in_virtual_time_with_a_stand
async def test_a_connection_that_asks_nothing_ends(stand: Stand) -> None:
    """With the lane as without it; half a request is nothing."""
    silent, half = stand.connection(), stand.connection()
    await half.says(NOW[:-2])
    await passing(REQUEST_S + 1)
    assert silent.wire.closed
    assert half.wire.closed


async def test_what_a_head_says_is_prepared_once() -> None:
    """For all requests with it, whoever sends them; with an id of its own it is another one."""
    stand = await Stand(fast_lane=True, soon=True).open()
    request = b"POST /fails HTTP/1.1\r\n%b%bContent-Length: 2\r\n\r\n{}"
    for own, prepared in ((b"", 1), (b"", 1), (b"X-Request-ID: 1\r\n", 2), (b"", 2), (b"X-Request-ID: 1\r\n", 3)):
        connection = stand.connection()
        await connection.says(request % (HOST, own))
        assert len(bodies(connection.wire.written)) == 1
        assert stand.prepared == prepared


async def test_made_up_heads_take_no_room(stand: Stand) -> None:
    """Each is another one."""
    for number in range(3 * KNOWN_MAX):
        await stand.connection().says(b"GET /now HTTP/1.1\r\n%bX-Number: %d\r\n\r\n" % (HOST, number))
    known = stand.connection().protocol._heads.known
    assert len(known) + len(known._old) <= 2 * KNOWN_MAX


async def test_once_it_is_not_known_where_a_request_ends_aiohttp_has_it(stand: Stand) -> None:
    """A transfer coding, half a head: from then on the lane leaves the connection alone."""
    chunked = b"POST /body HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for first in ([chunked], [NOW[:20], NOW[20:]]):
        connection = stand.connection()
        stand.forget()
        await connection.says(*first, NOW, NEAR)
        assert len(bodies(connection.wire.written)) == 3
        assert stand.lane_answers == 0


async def test_a_body_that_comes_in_pieces_is_aiohttp_s_and_the_next_request_is_not(stand: Stand) -> None:
    """The lane counts where it ends."""
    connection = stand.connection()
    await connection.says(b"POST /body HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\n", b"abc", b"def", NOW)
    assert bodies(connection.wire.written) == [b'{"got":6}', b'{"gone":false}']
    assert stand.lane_answers == 1


def test_the_lane_is_off_with_an_aiohttp_that_it_was_not_tested_with() -> None:
    """It says so; with this one it is on."""
    assert why_not() == ""
    assert aiohttp.__version__ in TESTED
    assert why_not("3.99.0") == f"aiohttp 3.99.0 is not one that it was tested with ({', '.join(sorted(TESTED))})"
