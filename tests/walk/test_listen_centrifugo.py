"""Listening with the Centrifugo protocol: each command's answer, and how a connection ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.listeners import Place, RawSocket, listening, place, talk, upgrade
from tests.support.until import until

PATH = "/connection/websocket"


@pytest.fixture(name="here")
async def fixture_here() -> AsyncIterator[Place]:
    """A running edge."""
    async with place() as opened:
        yield opened


@asynccontextmanager
async def connected(here: Place) -> AsyncIterator[RawSocket]:
    """A client that has said who it is."""
    async with listening(here.port, PATH) as ws:
        ws.say({"id": 1, "connect": {"name": "test", "subs": {"x": {"recover": True}}}})
        answer = await ws.hear()
        assert answer["id"] == 1
        assert len(answer["connect"]["client"]) == 32
        assert (answer["connect"]["ping"], answer["connect"]["pong"]) == (25, True)
        yield ws


async def test_subscribe_and_publish(here: Place) -> None:
    """Everybody who has subscribed gets a push, who published an answer."""
    async with connected(here) as ws, connected(here) as other:
        for each in (ws, other):
            each.say({"id": 2, "subscribe": {"channel": "a", "flag": 1}})
            assert await each.hear() == {
                "id": 2,
                "subscribe": {"recoverable": True, "positioned": True, "epoch": "e1", "offset": 0},
            }
        other.say(b'{"id":3,"publish":{"channel":"a","data":{"x":\r[1]}}}')
        push = {"push": {"channel": "a", "pub": {"data": {"x": [1]}, "offset": 1}}}
        assert await ws.hear() == push
        assert await other.hear() == push
        assert await other.hear() == {"id": 3, "publish": {}}


async def test_recovery(here: Place) -> None:
    """All that was missed is in the answer, whose offset is where that begins."""
    for number in range(3):
        here.service.say("a", b"%d" % number)
    async with connected(here) as ws:
        ws.say({"id": 2, "subscribe": {"channel": "a", "recover": True, "epoch": "e1", "offset": 1}})
        answer = (await ws.hear())["subscribe"]
        assert (answer["was_recovering"], answer["recovered"], answer["offset"]) == (True, True, 1)
        assert answer["publications"] == [{"data": 1, "offset": 2}, {"data": 2, "offset": 3}]
        ws.say({"id": 3, "subscribe": {"channel": "b", "recover": True, "epoch": "gone", "offset": 7}})
        answer = (await ws.hear())["subscribe"]
        assert answer["was_recovering"] is True
        assert "recovered" not in answer
        ws.say({"id": 4, "subscribe": {"channel": "c", "recover": True, "epoch": "gone", "offset": 7, "flag": 3}})
        assert (await ws.hear())["error"]["code"] == 112
        ws.say({"id": 5, "subscribe": {"channel": "c"}})
        assert "subscribe" in await ws.hear()


async def test_messages_that_nobody_can_bring_back(here: Place) -> None:
    """The client is told to subscribe again, and may."""
    async with connected(here) as ws:
        ws.say({"id": 2, "subscribe": {"channel": "a"}})
        await ws.hear()
        here.service.lose("a")
        assert (await ws.hear())["push"]["unsubscribe"] == {"code": 2500, "reason": "insufficient state"}
        assert here.service.seats == []
        ws.say({"id": 3, "subscribe": {"channel": "a", "recover": True, "epoch": "e1", "offset": 0}})
        assert (await ws.hear())["subscribe"]["epoch"] == "e1x"


async def test_unsubscribe(here: Place) -> None:
    """Also from what was only asked for, which has its answer then."""
    async with connected(here) as ws:
        here.service.hold = True
        ws.say({"id": 2, "subscribe": {"channel": "a"}})
        ws.say({"id": 3, "unsubscribe": {"channel": "a"}})
        error = await ws.hear()
        assert (error["id"], error["error"]["code"]) == (2, 100)
        assert await ws.hear() == {"id": 3, "unsubscribe": {}}
        ws.say({"id": 4, "unsubscribe": {"channel": "never"}})
        assert await ws.hear() == {"id": 4, "unsubscribe": {}}
        here.service.hold = False
        ws.say({"id": 5, "subscribe": {"channel": "a"}})
        assert (await ws.hear())["id"] == 5


async def test_history(here: Place) -> None:
    """Only where it stands, all, a page, and the newest first."""
    for number in range(1, 6):
        here.service.say("a", b"%d" % number)

    async def offsets(ws: RawSocket, **wanted: object) -> list[int]:
        ws.say({"id": 2, "history": {"channel": "a", **wanted}})
        answer = (await ws.hear())["history"]
        assert (answer["epoch"], answer["offset"]) == ("e1", 5)
        return [each["offset"] for each in answer["publications"]]

    async with connected(here) as ws:
        assert await offsets(ws) == []
        assert await offsets(ws, limit=-1) == [1, 2, 3, 4, 5]
        assert await offsets(ws, limit=2, since={"offset": 2, "epoch": "e1"}) == [3, 4]
        assert await offsets(ws, limit=2, reverse=True) == [5, 4]
        assert await offsets(ws, limit=2, reverse=True, since={"offset": 4, "epoch": "e1"}) == [3, 2]
        assert await offsets(ws, limit=9, reverse=True, since={"offset": 1, "epoch": "e1"}) == []
        ws.say({"id": 3, "history": {"channel": "a", "limit": 1, "since": {"offset": 2, "epoch": "gone"}}})
        assert (await ws.hear())["error"]["code"] == 112


async def test_presence_is_counted_not_listed(here: Place) -> None:
    """As the router does not tell users apart."""
    async with connected(here) as ws:
        ws.say(b'{"id":2,"subscribe":{"channel":"a"}}\n{"id":3,"presence_stats":{"channel":"a"}}')
        await ws.hear()
        assert await ws.hear() == {"id": 3, "presence_stats": {"num_clients": 1, "num_users": 1}}
        ws.say({"id": 4, "presence": {"channel": "a"}})
        assert (await ws.hear())["error"]["code"] == 108


async def test_the_store_is_away(here: Place) -> None:
    """Errors that a client may try again."""
    async with connected(here) as ws:
        here.service.away = True
        commands: list[dict[str, object]] = [
            {"subscribe": {"channel": "a"}},
            {"publish": {"channel": "a", "data": 1}},
            {"history": {"channel": "a", "limit": 1}},
        ]
        for number, command in enumerate(commands, 2):
            ws.say({"id": number, **command})
            answer = await ws.hear()
            assert (answer["id"], answer["error"]["code"], answer["error"]["temporary"]) == (number, 100, True)


MISTAKES: list[tuple[bytes, int, int]] = [
    (b"{", 0, 107),
    (b"\xff", 0, 107),
    (b'{"id":9,"publish":{"channel":"a","data":"\xff"}}', 9, 107),
    (b'{"publish":{"channel":"a","data":"\\ud800"},"id":9}', 9, 107),
    (b'{"subscribe":{"channel":"\\ud800"},"id":9}', 9, 107),
    (b'{"id":9,"publish":{"channel":"a","data":' + b"[" * 40 + b"]" * 40 + b"}}", 9, 107),
    (b'{"id":9,"subscribe":{"channel":"a","offset":18446744073709551615}}', 9, 107),
    (b"[" * 50_000, 0, 107),
    (b'{"id":-1}', 0, 107),
    (b'{"id":9}', 9, 107),
    (b'{"id":9,"subscribe":{}}', 9, 107),
    (b'{"id":9,"subscribe":{"channel":""}}', 9, 107),
    (b'{"id":9,"subscribe":{"channel":"buzon:x"}}', 9, 107),
    (b'{"id":9,"subscribe":{"channel":"there"}}', 9, 105),
    (b'{"id":9,"subscribe":{"channel":"a","recover":true,"offset":-1}}', 9, 107),
    (b'{"id":9,"subscribe":{"channel":"a","tf":{"key":"x"}}}', 9, 108),
    (b'{"id":9,"publish":{"channel":"$buffers","data":1}}', 9, 103),
    (b'{"id":9,"publish":{"channel":"buzon:x","data":1}}', 9, 107),
    (b'{"id":9,"publish":{"channel":"a"}}', 9, 107),
    (b'{"id":9,"publish":{"channel":"a","data":[99999999999999999999]}}', 9, 107),
    (b'{"id":9,"history":{"channel":"a","limit":-2}}', 9, 107),
    (b'{"id":9,"history":{"channel":"a","since":{"offset":-1}}}', 9, 107),
    (b'{"id":9,"presence_stats":{"channel":""}}', 9, 107),
    (b'{"id":9,"connect":{}}', 9, 107),
    (b'{"id":9,"rpc":{"data":1}}', 9, 108),
    (b'{"id":9,"refresh":{}}', 9, 108),
    (b'{"id":9,"publish":{"channel":"a","data":"' + b"x" * 65_536 + b'"}}', 9, 106),
]


@pytest.mark.parametrize(("mistake", "number", "code"), MISTAKES, ids=range(len(MISTAKES)))
async def test_a_mistake_is_an_error(here: Place, mistake: bytes, number: int, code: int) -> None:
    """With the command's id where it has one; the connection lives on."""
    async with connected(here) as ws:
        ws.say({"id": 2, "subscribe": {"channel": "there"}})
        await ws.hear()
        ws.say(mistake)
        answer = await ws.hear()
        assert (answer.get("id", 0), answer["error"]["code"]) == (number, code)
        assert answer["error"]["message"]
        ws.say({"id": 10, "ping": {}})
        assert await ws.hear() == {"id": 10, "ping": {}}


async def test_more_commands_than_may_wait(here: Place) -> None:
    """Are to be tried later; the others are done, in their order."""
    async with place(jobs_max=3) as small, connected(small) as ws:
        commands = (b'{"id":%d,"publish":{"channel":"a","data":%d}}' % (number, number) for number in range(2, 7))
        ws.say(b"\n".join(commands))
        answers = [await ws.hear() for _ in range(5)]
        assert sorted(answer["id"] for answer in answers if "error" in answer) == [5, 6]
        assert {answer["error"]["code"] for answer in answers if "error" in answer} == {111}
        assert [each.data for each in small.service.streams["a"]] == [b"2", b"3", b"4"]


async def test_what_is_published_after_subscribing_is_heard(here: Place) -> None:
    """By who does both in one breath; to other channels nothing waits, and beyond a bound it is to be tried later."""
    async with place(jobs_max=2) as small, connected(small) as ws:
        small.service.hold = True
        ws.say({"id": 2, "subscribe": {"channel": "a"}})
        for number in range(3, 6):
            ws.say({"id": number, "publish": {"channel": "a", "data": number}})
        answer = await ws.hear()
        assert (answer["id"], answer["error"]["code"]) == (5, 111)
        ws.say({"id": 6, "publish": {"channel": "b", "data": 6}})
        assert await ws.hear() == {"id": 6, "publish": {}}
        assert "a" not in small.service.streams
        small.service.let_in()
        heard = [await ws.hear() for _ in range(5)]
        assert heard[0]["id"] == 2
        assert heard[0]["subscribe"]["offset"] == 0
        assert [each["push"]["pub"] for each in heard if "push" in each] == [
            {"data": 3, "offset": 1},
            {"data": 4, "offset": 2},
        ]
        assert [each["id"] for each in heard if "id" in each] == [2, 3, 4]


async def test_what_waits_for_a_channel_is_published_also_when_it_is_not_joined(here: Place) -> None:
    """Whether the client gives the channel up, or goes."""
    async with connected(here) as ws:
        here.service.hold = True
        ws.say({"id": 2, "subscribe": {"channel": "a"}})
        ws.say({"id": 3, "publish": {"channel": "a", "data": 1}})
        ws.say({"id": 4, "unsubscribe": {"channel": "a"}})
        assert {(await ws.hear())["id"] for _ in range(3)} == {2, 3, 4}
        ws.say({"id": 5, "subscribe": {"channel": "a"}})
        ws.say({"id": 6, "publish": {"channel": "a", "data": 2}})
    await until(lambda: [each.data for each in here.service.streams["a"]] == [b"1", b"2"], what="both")


async def test_nothing_before_connect(here: Place) -> None:
    """A client that does not begin with it will not be taken back."""
    async with listening(here.port, PATH) as ws:
        ws.say({"id": 1, "subscribe": {"channel": "a"}})
        assert await ws.closed() == (3501, "bad request")


async def test_a_client_that_never_connects() -> None:
    """Is stale."""
    async with place(connect_s=0.1) as here, listening(here.port, PATH) as ws:
        assert await ws.closed() == (3502, "stale")


async def test_pings() -> None:
    """Empty commands both ways; without an answer the connection ends."""
    async with place(ping_s=0.2, pong_s=0.1) as here, listening(here.port, PATH) as ws:
        ws.say({"id": 1, "connect": {}})
        await ws.hear()
        assert await ws.hear() == {}
        ws.say({})
        assert await ws.hear() == {}
        assert await ws.closed() == (3012, "no pong")


async def test_protobuf_is_not_spoken(here: Place) -> None:
    """And the client is told so in a way that it understands."""
    async with listening(here.port, PATH, "Sec-WebSocket-Protocol: centrifuge-protobuf") as ws:
        assert b"Sec-WebSocket-Protocol: centrifuge-protobuf" in ws.head
        assert await ws.closed() == (3506, "inappropriate protocol")


async def test_the_handshake_is_that_of_ws(here: Place) -> None:
    """A plain request is a problem."""
    async with talk(here.port, upgrade(PATH).replace(b"Upgrade: websocket\r\n", b"")) as raw:
        assert (await raw.reader.readline()).startswith(b"HTTP/1.1 426 ")
