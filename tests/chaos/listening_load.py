"""The listeners of a row, one process: `python -m tests.chaos.listening_load SOCKET`.

People who listen to `/ws` of all nodes, come back elsewhere with the positions they had, and go when they like;
publishers through all nodes, and a foreign client of the store. What they are told is judged as it comes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import aiohttp
import msgspec
import redis.asyncio as redis
import uvloop
from msgspec import Struct
from redis.exceptions import RedisError

from tests.chaos.control import serve
from tests.chaos.listening_checker import Book, Ledger
from tests.support.node import http_client
from tests.support.until import passing

SOON_S = (0.05, 0.3)
ANSWER_S = 2.0
OPEN_S = 3.0
QUIET_S = 12.0
NARROW_BYTES = 4096
LATE_KEPT_MAX = 200_000


class Begin(Struct, frozen=True, kw_only=True):
    """A load. `store` is the server's Unix socket; rates are a second; listeners stay for about `stays_s`. `stalled` of
    them stop reading when they are told to; only that many listen to the channel that `padding` bytes go to."""

    nodes: dict[str, int]
    store: str
    prefix: str
    seed: str
    channels: int = 6
    listeners: int = 60
    per_listener: int = 2
    publishes_per_s: float = 200.0
    foreign_per_s: float = 40.0
    stays_s: float = 6.0
    padding: int = 0


class Listener:
    """One who listens to some channels, one connection after the other."""

    def __init__(self, load: ListeningLoad, channels: list[str]) -> None:
        self._load = load
        self._books = {channel: Book() for channel in channels}
        self.stalled = False
        self.settled = False
        """Every channel has said where it stands on this connection."""

    async def run(self) -> None:
        """Listen until the load stops."""
        load = self._load
        while not load.stopping:
            node = load.random.choice(list(load.begin.nodes.values()))
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(OPEN_S):
                    connection = await load.http.ws_connect(f"http://127.0.0.1:{node}/ws", max_msg_size=0)
                try:
                    await self._listen(connection)
                finally:
                    self.settled = False
                    with suppress(TimeoutError):
                        async with asyncio.timeout(OPEN_S):
                            await connection.close()
            await passing(load.random.uniform(*SOON_S))

    async def _listen(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        load = self._load
        live: set[str] = set()
        for channel in self._books:
            await self._subscribe(connection, channel)
        leaves_at = monotonic() + load.random.expovariate(1 / load.begin.stays_s)
        while monotonic() < leaves_at or load.closing:
            if self.stalled:
                _narrow(connection)
                await passing(0.05)
                continue
            try:
                async with asyncio.timeout(0.5):
                    message = await connection.receive()
            except TimeoutError:
                continue
            if message.type is not aiohttp.WSMsgType.TEXT:
                code = connection.close_code or 0
                load.ledger.closed[code] = load.ledger.closed.get(code, 0) + 1
                return
            await self._take(connection, msgspec.json.decode(message.data), live)
            self.settled = len(live) == len(self._books)

    async def _take(self, connection: aiohttp.ClientWebSocketResponse, frame: dict[str, Any], live: set[str]) -> None:
        ledger, channel = self._load.ledger, frame.get("channel", "")
        match frame["type"]:
            case "subscribed":
                place = frame["epoch"], frame["offset"]
                ledger.came_back(
                    self._books[channel], channel, place, recovered=frame["recovered"], live=channel in live
                )
                live.add(channel)
            case "message":
                data = frame["data"]
                ledger.heard(self._books[channel], channel, frame["offset"], data["token"])
                self._load.was_late(monotonic() - data["at"])
            case "error":
                await passing(self._load.random.uniform(*SOON_S))
                await self._subscribe(connection, channel)

    async def _subscribe(self, connection: aiohttp.ClientWebSocketResponse, channel: str) -> None:
        frame: dict[str, Any] = {"action": "subscribe", "channel": channel}
        at = self._books[channel].at
        if at is not None:
            frame["since"] = {"epoch": at[0], "offset": at[1]}
        await connection.send_str(msgspec.json.encode(frame).decode())

    def stands(self) -> dict[str, tuple[str, int] | None]:
        """Where it stands."""
        return {channel: book.at for channel, book in self._books.items()}


def _narrow(connection: aiohttp.ClientWebSocketResponse) -> None:
    """Let the kernel take little of what is not read."""
    opened = connection.get_extra_info("socket")
    if opened is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)


class ListeningLoad:
    """One row's listeners and publishers."""

    def __init__(self, begin: Begin, http: aiohttp.ClientSession) -> None:
        self.begin = begin
        self.http = http
        self.random = Random(begin.seed)  # noqa: S311  a repeatable run, no secret
        self.ledger = Ledger()
        self.stopping = self.closing = False
        self.late: list[float] = []
        self.channels = [f"{begin.prefix}-{number}" for number in range(begin.channels)]
        self.listeners = [
            Listener(self, self.random.sample(self.channels, begin.per_listener)) for _ in range(begin.listeners)
        ]
        self._number = 0
        self._foreign = redis.Redis(unix_socket_path=begin.store)
        self._publishers: list[asyncio.Task[None]] = []
        self._people: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Set everybody going."""
        self._people = [asyncio.ensure_future(listener.run()) for listener in self.listeners]
        nodes = list(self.begin.nodes.values())
        each_s = len(nodes) / self.begin.publishes_per_s
        self._publishers = [asyncio.ensure_future(self._publish(node, each_s)) for node in nodes]
        if self.begin.foreign_per_s:
            self._publishers.append(asyncio.ensure_future(self._say()))

    def was_late(self, seconds: float) -> None:
        """So long after it was sent a message was received."""
        if len(self.late) < LATE_KEPT_MAX:
            self.late.append(seconds)

    async def stop(self) -> None:
        """End the publishers, wait until everybody who listens stands where the stream does, and end all."""
        self.closing = True
        for publisher in self._publishers:
            publisher.cancel()
        await asyncio.gather(*self._publishers, return_exceptions=True)
        ends_at = monotonic() + QUIET_S
        while monotonic() < ends_at and (behind := await self._behind()):
            await passing(0.1)
        if behind:
            self.ledger.find(f"{len(behind)} listeners are not where the stream is, the first: {behind[0]}")
        self.stopping = True
        for person in self._people:
            person.cancel()
        await asyncio.gather(*self._people, return_exceptions=True)
        await self._foreign.aclose()

    async def _behind(self) -> list[str]:
        """Who listens and is not where the stream is."""
        tops = {}
        for channel in self.channels:
            found = await self._call("GET", f"/api/queue/history/{channel}?limit=1")
            if found is None:
                return ["no node answers"]
            tops[channel] = found["epoch"], found["offset"]
        wrong = []
        for listener in self.listeners:
            if listener.stalled:
                continue
            if not listener.settled:
                wrong.append("one that has not joined")
            wrong += [f"{at} of {tops[channel]}" for channel, at in listener.stands().items() if at != tops[channel]]
        return wrong

    async def _publish(self, node: int, each_s: float) -> None:
        while True:
            await passing(self.random.uniform(0, 2 * each_s))
            self._number += 1
            channel, token = self.random.choice(self.channels), f"p{self._number}"
            found = await self._call("POST", "/api/queue/publish", self._message(channel, token), node)
            if found is not None:
                self.ledger.acknowledged(channel, (found["epoch"], found["offset"]), token)

    async def _say(self) -> None:
        while True:
            await passing(self.random.uniform(0, 2 / self.begin.foreign_per_s))
            self._number += 1
            message = {"token": f"f{self._number}", "at": monotonic()}
            try:
                await self._foreign.publish(self.random.choice(self.channels), msgspec.json.encode(message))
            except (RedisError, OSError):
                continue
            self.ledger.foreign += 1

    def _message(self, channel: str, token: str) -> dict[str, Any]:
        message: dict[str, Any] = {"token": token, "at": monotonic()}
        if self.begin.padding:
            message["padding"] = "x" * self.begin.padding
        return {"channel": channel, "message": message}

    async def _call(self, method: str, path: str, body: object = None, node: int = 0) -> dict[str, Any] | None:
        """The answer, if it is a 200; of a node by chance, unless one is named."""
        port = node or self.random.choice(list(self.begin.nodes.values()))
        text = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if text else {}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self.http.request(method, f"http://127.0.0.1:{port}{path}", data=text, headers=headers) as answer,
            ):
                found: dict[str, Any] = msgspec.json.decode(await answer.read())
                return found if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


class Desk:
    """What the harness asks for."""

    def __init__(self) -> None:
        self._load: ListeningLoad | None = None
        self._http: aiohttp.ClientSession

    async def do_begin(self, **begin: Any) -> None:
        """Start a load."""
        self._http = http_client()
        self._load = ListeningLoad(msgspec.convert(begin, Begin), self._http)
        self._load.start()

    async def do_joined(self) -> int:
        """How many listeners follow all their channels now."""
        return sum(listener.settled for listener in self._running().listeners)

    async def do_stall(self, count: int) -> None:
        """Have so many stop reading."""
        for listener in self._running().listeners[:count]:
            listener.stalled = True

    async def do_unstall(self) -> None:
        """Have all read again."""
        for listener in self._running().listeners:
            listener.stalled = False

    async def do_late(self) -> list[float]:
        """How late messages came since this was last asked, in seconds."""
        load = self._running()
        late, load.late = load.late, []
        return late

    async def do_stop(self) -> Any:
        """End the load; gives what was told."""
        load, self._load = self._running(), None
        await load.stop()
        await self._http.close()
        return msgspec.to_builtins(load.ledger.result())

    def _running(self) -> ListeningLoad:
        assert self._load is not None, "nothing runs"
        return self._load


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
