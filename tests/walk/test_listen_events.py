"""Listening on `/events`: what is sent, and going on from the id of an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest

from router.edge.detached import Detached
from router.realtime.event_ids import CHANNELS_MAX
from tests.support.listeners import Place, RawSocket, place, talk
from tests.support.until import until


class Event(NamedTuple):
    """What was in a chunk. A retry and a comment are events here too."""

    kind: str
    id: str
    data: Any


class Stream:
    """A listener of events."""

    def __init__(self, raw: RawSocket) -> None:
        self._raw = raw
        self.head = b""

    async def event(self) -> Event | None:
        """The next one; None at the end of the body."""
        size = int(await self._raw.reader.readline(), 16)
        chunk = await self._raw.reader.readexactly(size)
        assert await self._raw.reader.readexactly(2) == b"\r\n"
        if not size:
            return None
        assert chunk.endswith(b"\n\n")
        fields: dict[str, str] = {}
        for line in chunk.decode()[:-2].split("\n"):
            name, _, value = line.partition(":")
            assert name not in fields
            fields[name] = value
        if "data" in fields:
            data = msgspec.json.decode(fields["data"])
            return Event(fields.get("event", "message"), fields.get("id", ""), data)
        return Event(*fields.popitem(), None)

    async def ends(self) -> None:
        """It is at its end."""
        assert await self.event() is None
        assert await self._raw.reader.read() == b""


@asynccontextmanager
async def listening(here: Place, query: str, *lines: str) -> AsyncIterator[Stream]:
    """A stream of events that has begun."""
    request = "\r\n".join((f"GET /events?{query} HTTP/1.1", "Host: x", *lines, "", ""))
    async with talk(here.port, request.encode()) as raw:
        stream = Stream(raw)
        stream.head = await raw.reader.readuntil(b"\r\n\r\n")
        assert stream.head.startswith(b"HTTP/1.1 200 "), stream.head
        assert await stream.event() == Event("retry", "1500", None)
        yield stream


@pytest.fixture(name="here")
async def fixture_here() -> AsyncIterator[Place]:
    """A running edge."""
    async with place() as opened:
        yield opened


async def test_what_is_said_is_an_event(here: Place) -> None:
    """First where each channel stands, then the messages, as on `/ws`."""
    async with listening(here, "channels=a,b") as stream:
        for header in (b"Content-Type: text/event-stream", b"Cache-Control: no-store", b"X-Accel-Buffering: no"):
            assert header in stream.head
        for name in ("a", "b"):
            event = await stream.event()
            assert event is not None
            assert event.kind == "subscribed"
            assert event.data == {"type": "subscribed", "channel": name, "epoch": "e1", "offset": 0, "recovered": False}
        here.service.say("b", b'{"x":\n1}')
        event = await stream.event()
        assert event is not None
        assert event.kind == "message"
        assert event.data == {"type": "message", "channel": "b", "id": "msg_b_1", "offset": 1, "data": {"x": 1}}


async def test_whoever_comes_back_misses_nothing(here: Place) -> None:
    """In none of the channels, by header or by query, in whatever order they are named."""
    async with listening(here, "channels=a,b") as stream:
        for _ in range(2):
            await stream.event()
        here.service.say("a", b"1")
        here.service.say("b", b"2")
        await stream.event()
        last = await stream.event()
        assert last is not None
    for number in range(3):
        here.service.say("a", b"%d" % number)
        here.service.say("b", b"%d" % number)
    header = (("channels=b,a",), (f"Last-Event-ID: {last.id}",))
    query = ((f"channels=a,b,new&last_event_id={last.id}",), ())
    for (asked,), lines in (header, query):
        async with listening(here, asked, *lines) as stream:
            told = [await stream.event() for _ in range(8 if lines else 9)]
            starts = {each.data["channel"]: each.data for each in told if each and each.kind == "subscribed"}
            assert {name: each["offset"] for name, each in starts.items() if name != "new"} == {"a": 1, "b": 1}
            assert starts["a"]["recovered"] is starts["b"]["recovered"] is True
            assert starts.get("new", {"recovered": False})["recovered"] is False
            missed = [(each.data["channel"], each.data["offset"]) for each in told if each and each.kind == "message"]
            assert sorted(missed) == [("a", 2), ("a", 3), ("a", 4), ("b", 2), ("b", 3), ("b", 4)]
            middle = told[-3]
            assert middle is not None
        async with listening(here, "channels=a,b", f"Last-Event-ID: {middle.id}") as stream:
            rest = [await stream.event() for _ in range(4)]
            assert [each.data["offset"] for each in rest[2:] if each] == [3, 4]


async def test_messages_that_nobody_can_bring_back(here: Place) -> None:
    """The channel is told anew, and its id is one to go on from."""
    async with listening(here, "channels=a,b") as stream:
        for _ in range(2):
            await stream.event()
        here.service.lose("a")
        event = await stream.event()
        assert event is not None
        assert (event.kind, event.data["epoch"], event.data["recovered"]) == ("subscribed", "e1x", False)
    here.service.say("a", b"1")
    async with listening(here, "channels=a,b", f"Last-Event-ID: {event.id}") as stream:
        first = await stream.event()
        assert first is not None
        assert first.data["recovered"] is True


async def test_the_store_is_away(here: Place) -> None:
    """The stream says so and ends; the client comes back by itself."""
    here.service.away = True
    async with listening(here, "channels=a") as stream:
        assert await stream.event() == Event("retry", "1500", None)
        event = await stream.event()
        assert event is not None
        assert (event.kind, event.data["code"]) == ("refused", 100)
        while await stream.event():
            pass
    await until(lambda: not len(here.hall), what="nothing is left of it")


async def test_heartbeats() -> None:
    """Comments, however quiet it is."""
    async with place(heartbeat_s=0.05) as here, listening(here, "channels=a") as stream:
        await stream.event()
        assert [await stream.event() for _ in range(3)] == [Event("", "", None)] * 3


async def test_drained(here: Place) -> None:
    """Told to come back, and the body is complete."""
    async with listening(here, "channels=a") as stream:
        await stream.event()
        await here.hall.drain(0.0)
        assert await stream.event() == Event("retry", "1500", None)
        await stream.ends()


REFUSED: list[tuple[str, int]] = [
    ("GET /events HTTP/1.1", 400),
    ("GET /events?channels=, HTTP/1.1", 400),
    ("GET /events?channels=buzon:x HTTP/1.1", 400),
    ("GET /events?channels=a&last_event_id=!! HTTP/1.1", 400),
    ("GET /events?channels=a HTTP/1.0", 426),
    ("GET /events?channels=%FF HTTP/1.1", 400),
    ("GET /events?channels=a&channel=%ED%A0%80 HTTP/1.1", 400),
    ("HEAD /events?channels=a HTTP/1.1", 405),
]


@pytest.mark.parametrize(("line", "status"), REFUSED)
async def test_what_is_refused(here: Place, line: str, status: int) -> None:
    """Is a problem like on every other route."""
    async with talk(here.port, f"{line}\r\nHost: x\r\n\r\n".encode()) as raw:
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"%d" % status
        assert b"application/problem+json" in head


async def test_an_id_fits_the_header_it_comes_back_in() -> None:
    """Of as many channels as there may be, however many a connection may have otherwise."""
    names = [f"channel-{number}" for number in range(CHANNELS_MAX)]
    async with place(channels_max=1000) as here:
        for name in names:
            here.service.epochs[name] = "1796486400000000Ab_-Ab_-1"
            here.service.say(name, b"1")
        async with listening(here, f"channels={','.join(names)}") as stream:
            told = [await stream.event() for _ in names]
            last = told[-1]
            assert last is not None
        async with listening(here, f"channels={','.join(names)}", f"Last-Event-ID: {last.id}") as stream:
            told = [await stream.event() for _ in names]
            assert all(each and each.data["recovered"] for each in told)
        many = ",".join(f"c{number}" for number in range(CHANNELS_MAX + 1))
        async with talk(here.port, f"GET /events?channels={many} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as raw:
            assert (await raw.reader.readline()).split(b" ")[1] == b"400"


async def test_what_a_listener_sends_is_not_read(here: Place) -> None:
    """A second request on the same connection, for example."""
    request = b"GET /events?channels=a HTTP/1.1\r\nHost: x\r\n\r\n"
    async with talk(here.port, request + request) as raw:
        await raw.reader.readuntil(b"recovered")
        raw.write(request)
        here.service.say("a", b"1")
        assert await raw.reader.readuntil(b'"data":1')
        assert len(here.hall) == 1


def test_a_detached_answer_is_one_that_was_sent() -> None:
    """Neither the edge nor aiohttp writes anything more."""
    assert Detached(101).prepared
