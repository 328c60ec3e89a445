"""Listening on `/ws`: what a client says and hears, and what its mistakes are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.listeners import CLOSE, PING, PONG, TEXT, Place, frame, listening, place, talk, upgrade
from tests.support.until import until


@pytest.fixture(name="here")
async def fixture_here() -> AsyncIterator[Place]:
    """A running edge."""
    async with place() as opened:
        yield opened


def subscribed(channel: str, offset: int = 0, *, recovered: bool = False, epoch: str = "e1") -> dict[str, object]:
    """The frame that says so."""
    return {"type": "subscribed", "channel": channel, "epoch": epoch, "offset": offset, "recovered": recovered}


def said(channel: str, offset: int, data: object) -> dict[str, object]:
    """The frame of a message."""
    return {"type": "message", "channel": channel, "id": f"msg_{channel}_{offset}", "offset": offset, "data": data}


async def test_the_channels_of_the_query_come_first(here: Place) -> None:
    """One frame each, then what is said there; a comma may be in a name of its own parameter."""
    async with listening(here.port, "/ws?channels=a,b&channel=c%2Cd") as ws:
        assert [await ws.hear() for _ in range(3)] == [subscribed("a"), subscribed("b"), subscribed("c,d")]
        here.service.say("b", b'{"x":\n1}')
        here.service.say("a", b"2")
        here.service.say("other", b"3")
        here.service.say("c,d", b'"\xc3\xa9"')
        assert [await ws.hear() for _ in range(3)] == [said("b", 1, {"x": 1}), said("a", 1, 2), said("c,d", 1, "é")]


async def test_subscribe_from_a_position(here: Place) -> None:
    """First where it goes on from, then all that was missed, then what is said."""
    for number in range(1, 6):
        here.service.say("a", b"%d" % number)
    async with listening(here.port, "/ws") as ws:
        ws.say({"action": "subscribe", "channel": "a", "since": {"epoch": "e1", "offset": 2}})
        assert await ws.hear() == subscribed("a", 2, recovered=True)
        assert [(await ws.hear())["offset"] for _ in range(3)] == [3, 4, 5]
        here.service.say("a", b"6")
        assert await ws.hear() == said("a", 6, 6)


async def test_a_position_that_cannot_be_gone_on_from(here: Place) -> None:
    """Is said, with where the channel stands."""
    here.service.say("a", b"1")
    async with listening(here.port, "/ws") as ws:
        ws.say({"action": "subscribe", "channel": "a", "since": {"epoch": "gone", "offset": 0}})
        assert await ws.hear() == subscribed("a", 1)


async def test_unsubscribe(here: Place) -> None:
    """Nothing more of that channel; the seat is given up, also one that was only asked for."""
    async with listening(here.port, "/ws?channels=a") as ws:
        await ws.hear()
        ws.say({"action": "unsubscribe", "channel": "a"})
        assert await ws.hear() == {"type": "unsubscribed", "channel": "a"}
        assert here.service.seats == []
        here.service.hold = True
        ws.say({"action": "subscribe", "channel": "b"})
        ws.say({"action": "unsubscribe", "channel": "b"})
        assert await ws.hear() == {"type": "unsubscribed", "channel": "b"}
        here.service.let_in()
        ws.say({"action": "ping"})
        assert await ws.hear() == {"type": "pong"}


async def test_messages_that_nobody_can_bring_back(here: Place) -> None:
    """The channel goes on from another position, and its listener is told."""
    async with listening(here.port, "/ws?channels=a") as ws:
        await ws.hear()
        here.service.lose("a")
        assert await ws.hear() == subscribed("a", epoch="e1x")
        here.service.say("a", b"1")
        assert await ws.hear() == said("a", 1, 1)


async def test_the_store_is_away(here: Place) -> None:
    """To be tried later, which works."""
    here.service.away = True
    async with listening(here.port, "/ws?channels=a") as ws:
        error = await ws.hear()
        assert (error["type"], error["code"], error["temporary"], error["channel"]) == ("error", 100, True, "a")
        here.service.away = False
        ws.say({"action": "subscribe", "channel": "a"})
        assert await ws.hear() == subscribed("a")


MISTAKES: list[tuple[object, int, dict[str, object]]] = [
    (b"", 107, {}),
    (b"{", 107, {}),
    (b"\xff\xfe", 107, {}),
    (b'{"action":"ping","x":"\xff"}', 107, {}),
    (b"[" * 60_000, 107, {}),
    (b"[]", 107, {}),
    (b'{"action":1}', 107, {}),
    (b'{"action":"ping","n":99999999999999999999}', 107, {}),
    ({}, 107, {}),
    ({"action": "fly"}, 107, {}),
    ({"action": "subscribe"}, 107, {"action": "subscribe"}),
    ({"action": "subscribe", "channel": ""}, 107, {"action": "subscribe"}),
    ({"action": "subscribe", "channel": "buzon:x"}, 107, {"action": "subscribe"}),
    ({"action": "subscribe", "channel": "é" * 128}, 107, {"action": "subscribe"}),
    ({"action": "subscribe", "channel": "a", "since": {"epoch": "e", "offset": -1}}, 107, {"channel": "a"}),
    ({"action": "subscribe", "channel": "a", "since": "x"}, 107, {"channel": "a"}),
    ({"action": "subscribe", "channel": "there"}, 105, {"channel": "there"}),
    ({"action": "unsubscribe", "channel": "a"}, 107, {"action": "unsubscribe", "channel": "a"}),
    (b" " * 65_537, 106, {}),
]


@pytest.mark.parametrize(("mistake", "code", "about"), MISTAKES, ids=range(len(MISTAKES)))
async def test_a_mistake_is_an_error_frame(here: Place, mistake: object, code: int, about: dict[str, object]) -> None:
    """With a code, and what it is about; the connection lives on."""
    async with listening(here.port, "/ws?channels=there") as ws:
        await ws.hear()
        ws.say(mistake)
        error = await ws.hear()
        assert (error["type"], error["code"]) == ("error", code)
        assert error["error"]
        assert about.items() <= error.items()
        ws.say({"action": "ping"})
        assert await ws.hear() == {"type": "pong"}


async def test_too_many_channels() -> None:
    """An error in a frame, a 400 in a query."""
    async with place(channels_max=2) as here:
        async with listening(here.port, "/ws?channels=a,b") as ws:
            assert [await ws.hear(), await ws.hear()] == [subscribed("a"), subscribed("b")]
            ws.say({"action": "subscribe", "channel": "c"})
            assert (await ws.hear())["code"] == 106
        async with talk(here.port, upgrade("/ws?channels=a,b,c")) as raw:
            assert (await raw.reader.readline()).startswith(b"HTTP/1.1 400 ")


async def test_too_many_mistakes() -> None:
    """Closed for good."""
    async with place(errors_max=3) as here, listening(here.port, "/ws") as ws:
        for _ in range(3):
            ws.say(b"nonsense")
        assert [(await ws.hear())["type"] for _ in range(3)] == ["error"] * 3
        assert await ws.closed() == (3509, "too many errors")


async def test_a_flood_is_closed() -> None:
    """After a burst, and with what was asked before answered."""
    async with place(messages_per_s=10.0, burst_s=0.5) as here, listening(here.port, "/ws") as ws:
        for _ in range(8):
            ws.say({"action": "ping"})
        assert [await ws.hear() for _ in range(5)] == [{"type": "pong"}] * 5
        assert await ws.closed() == (3013, "too many requests")


HANDSHAKES: list[tuple[bytes, int]] = [
    (b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 426),
    (upgrade("/ws").replace(b"websocket", b"h2c"), 426),
    (upgrade("/ws").replace(b"HTTP/1.1", b"HTTP/1.0"), 426),
    (upgrade("/ws").replace(b"Version: 13", b"Version: 8"), 426),
    (upgrade("/ws").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
    (upgrade("/ws").replace(b"GET", b"HEAD"), 405),
    (upgrade("/ws?channels=buzon:x"), 400),
    (upgrade("/ws?channels=%FF"), 400),
    (upgrade("/ws", "Content-Length: 5"), 400),
    (upgrade("/ws", "Transfer-Encoding: chunked"), 400),
]


@pytest.mark.parametrize(("request_bytes", "status"), HANDSHAKES, ids=range(len(HANDSHAKES)))
async def test_what_is_no_handshake_is_a_problem(here: Place, request_bytes: bytes, status: int) -> None:
    """Like on every other route."""
    async with talk(here.port, request_bytes) as raw:
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"%d" % status
        assert b"application/problem+json" in head
        if status == 426:
            assert b"Upgrade: websocket" in head or b"Sec-WebSocket-Version: 13" in head


async def test_aiohttps_own_client(here: Place) -> None:
    """Gets no compression though it asks for it, and both sides can close."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{here.port}/ws?channels=a"
        async with session.ws_connect(url, compress=15) as ws:
            assert ws.compress == 0
            assert await ws.receive_json() == subscribed("a")
            await ws.ping(b"hello")
            await ws.send_json({"action": "ping"})
            assert await ws.receive_json() == {"type": "pong"}
            await ws.close(code=4001)
            assert ws.close_code == 4001
        async with session.ws_connect(url) as ws:
            await ws.receive_json()
            await here.hall.drain(0.0)
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
            assert ws.close_code == 3001
    await until(lambda: not len(here.hall) and not here.service.seats, what="nothing is left of them")


async def test_control_frames(here: Place) -> None:
    """A ping comes back as a pong with what it carried; a close frame is answered, then the connection is closed."""
    async with listening(here.port, "/ws") as ws:
        ws.write(frame(PING, b"12345"))
        assert await ws.read() == (PONG, b"12345")
        ws.write(frame(PONG, b"unasked"))
        ws.write(frame(CLOSE, (4000).to_bytes(2, "big") + b"bye"))
        assert await ws.read() == (CLOSE, (4000).to_bytes(2, "big"))
        assert await ws.reader.read() == b""
    async with listening(here.port, "/ws") as ws:
        ws.write(frame(CLOSE, b""))
        assert await ws.read() == (CLOSE, b"")
        assert await ws.reader.read() == b""


async def test_a_message_in_parts_with_a_ping_between(here: Place) -> None:
    """As one message."""
    async with listening(here.port, "/ws") as ws:
        ws.write(frame(TEXT, b'{"action"', fin=False) + frame(PING, b"") + frame(0, b':"ping"}'))
        assert await ws.read() == (PONG, b"")
        assert await ws.hear() == {"type": "pong"}


async def test_frames_glued_to_the_handshake_and_split_byte_by_byte(here: Place) -> None:
    """Nothing is lost between HTTP and frames, wherever the bytes are cut."""
    whole = upgrade("/ws?channels=a") + frame(TEXT, b'{"action":"ping"}')
    async with talk(here.port, whole) as raw:
        await raw.reader.readuntil(b"\r\n\r\n")
        assert [await raw.hear(), await raw.hear()] == [subscribed("a"), {"type": "pong"}]
    async with talk(here.port) as raw:
        for at in range(len(whole)):
            raw.write(whole[at : at + 1])
            await raw.writer.drain()
        await raw.reader.readuntil(b"\r\n\r\n")
        assert [await raw.hear(), await raw.hear()] == [subscribed("a"), {"type": "pong"}]


BROKEN: list[tuple[bytes, int]] = [
    (b"\x83\x80\0\0\0\0", 1002),
    (b"\xc1\x80\0\0\0\0", 1002),
    (frame(0, b"x"), 1002),
    (b"\x81\xff" + (2**20).to_bytes(8, "big"), 1009),
    (b"\x81\xff" + b"\xff" * 8, 1009),
    (frame(CLOSE, b"x"), 1002),
    (frame(CLOSE, b"\xff\xff"), 1002),
    (frame(PING, b"x" * 126), 1002),
]


@pytest.mark.parametrize(("broken", "code"), BROKEN, ids=range(len(BROKEN)))
async def test_bytes_that_are_no_frames_close(here: Place, broken: bytes, code: int) -> None:
    """With the code that RFC 6455 has for it."""
    async with listening(here.port, "/ws") as ws:
        ws.write(broken)
        assert (await ws.closed())[0] == code


async def test_who_says_nothing_is_closed() -> None:
    """After a ping that nothing followed; whatever comes counts as an answer."""
    async with place(ping_s=0.2, pong_s=0.1) as here, listening(here.port, "/ws") as ws:
        assert await ws.read() == (PING, b"")
        ws.write(frame(PONG, b""))
        assert await ws.read() == (PING, b"")
        assert await ws.closed() == (3012, "no pong")


async def test_a_closed_connection_is_let_go_of_whatever_the_other_side_does() -> None:
    """It does not answer the close frame, and goes on sending."""
    async with place(errors_max=1, close_s=0.2) as here, listening(here.port, "/ws?channels=a") as ws:
        await ws.hear()
        ws.say(b"nonsense")
        assert await ws.closed() == (3509, "too many errors")
        ws.say({"action": "subscribe", "channel": "b"})
        await until(lambda: not here.service.seats, what="its seats are given up at once")
        assert len(here.hall) == 1
        await until(lambda: not len(here.hall), what="its transport is gone")
