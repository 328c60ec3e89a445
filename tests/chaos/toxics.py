"""Toxics: a process of TCP proxies that delay, hold back, cut up and cut off what passes through them.

`python -m tests.chaos.toxics SOCKET`. Every proxy listens on a loopback port of its own and dials one address for each
connection. What it does to either direction is a `Toxic`; without one, bytes are handed on as they come.
`hold` is a broken network: nothing arrives, and what was sent arrives late when it is mended. `drop` swallows bytes, so
mending resets the connection. A proxy may also replace addresses in what a server says by others of the same length, so
that nodes which learn each other's addresses from the store reach each other through proxies.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Literal, cast

import msgspec
import uvloop
from msgspec import Struct

from tests.chaos.control import serve

QUEUE_BYTES_MAX = 4 * 1024 * 1024
CLOSE_WITH_RST = struct.pack("ii", 1, 0)
Direction = Literal["up", "down"]


class Toxic(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens to the bytes of one direction. 0 and False: nothing."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    hold: bool = False
    drop: bool = False
    slice_bytes: int = 0
    slice_delay_ms: float = 0.0
    bytes_per_s: float = 0.0
    limit_bytes: int = 0
    """After so many bytes the connection is reset."""


NONE = Toxic()
HELD = Toxic(hold=True)


class Flow:
    """The bytes of one direction of one connection, and when each piece may go on."""

    def __init__(self, link: Link, direction: Direction) -> None:
        self._link = link
        self._direction: Direction = direction
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued_bytes = 0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._passed_bytes = 0
        self._carry = b""
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self.ended = False
        self.spoiled = False

    @property
    def toxic(self) -> Toxic:
        """What applies now."""
        return HELD if self._link.held else self._link.proxy.toxics[self._direction]

    def take(self, data: bytes) -> None:
        """Bytes came in."""
        if self._direction == "down" and self._link.proxy.replacements:
            data, self._carry = replaced(self._carry + data, self._link.proxy.replacements)
        toxic = self.toxic
        if toxic is NONE and not self._queue and self.target is not None:
            self.target.write(data)
            return
        if toxic.drop:
            self.spoiled = True
            return
        for piece in self._pieces(data, toxic):
            self._queue.append((self._due(len(piece), toxic), piece))
            self._queued_bytes += len(piece)
        if self._queued_bytes > QUEUE_BYTES_MAX and self.source is not None:
            self.source.pause_reading()
        self.run()

    def end(self) -> None:
        """The sender has hung up; what is under way still arrives, unless the line is cut."""
        self.ended = True
        self.run()

    def run(self) -> None:
        """Hand on what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.target is None or self.toxic.hold or self.toxic.drop:
            return
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now:
            self._write(self._queue.popleft()[1])
        if self._queue:
            self._timer = asyncio.get_running_loop().call_at(self._queue[0][0], self.run)
        elif self.ended:
            self.target.close()
        if self._queued_bytes <= QUEUE_BYTES_MAX and self.source is not None and not self.source.is_closing():
            self.source.resume_reading()

    def stop(self) -> None:
        """Forget everything."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _write(self, piece: bytes) -> None:
        assert self.target is not None
        self._queued_bytes -= len(piece)
        self._passed_bytes += len(piece)
        self.target.write(piece)
        if 0 < self.toxic.limit_bytes <= self._passed_bytes:
            self._link.reset()

    def _pieces(self, data: bytes, toxic: Toxic) -> list[bytes]:
        size = toxic.slice_bytes or len(data)
        return [data[start : start + size] for start in range(0, len(data), size)]

    def _due(self, size: int, toxic: Toxic) -> float:
        now = asyncio.get_running_loop().time()
        jitter_s = random.uniform(-toxic.jitter_ms, toxic.jitter_ms) / 1e3  # noqa: S311  chance, no secret
        due = max(now + toxic.latency_ms / 1e3 + jitter_s, now, self._free_at)
        if toxic.bytes_per_s:
            due += size / toxic.bytes_per_s
        self._free_at = due + toxic.slice_delay_ms / 1e3
        return due


def replaced(data: bytes, replacements: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """The data with everything replaced, and what must wait because it may be the beginning of something to replace."""
    for old, new in replacements.items():
        data = data.replace(old, new)
    for size in range(min(len(data), max(map(len, replacements)) - 1), 0, -1):
        tail = data[-size:]
        if any(old.startswith(tail) for old in replacements):
            return data[:-size], tail
    return data, b""


class End(asyncio.Protocol):
    """One of the two sockets of a connection: feeds a flow, drains the other."""

    def __init__(self, link: Link, feeds: Flow, drains: Flow) -> None:
        self._link = link
        self._feeds = feeds
        self._drains = drains

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the flows."""
        plain = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._link.opened(plain)
        self._feeds.source = plain
        self._drains.target = plain
        self._drains.run()

    def data_received(self, data: bytes) -> None:
        """Feed."""
        self._feeds.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the other side, when it may know."""
        if exc is not None and not self._feeds.toxic.hold:
            self._link.reset()
        self._drains.target = None
        self._drains.stop()
        self._feeds.end()
        self._link.closed()

    def pause_writing(self) -> None:
        """The receiver is slow: so becomes the sender."""
        if self._drains.source is not None:
            self._drains.source.pause_reading()

    def resume_writing(self) -> None:
        """The receiver reads on."""
        if self._drains.source is not None and not self._drains.source.is_closing():
            self._drains.source.resume_reading()


class Link:
    """One connection through a proxy."""

    def __init__(self, proxy: ToxicProxy) -> None:
        self.proxy = proxy
        self.port = 0
        """By which the server sees it."""
        self.held = False
        """Whether this connection alone is broken, as by `hold`."""
        self.up = Flow(self, "up")
        self.down = Flow(self, "down")
        self._transports: list[asyncio.Transport] = []
        self._open = 0
        self._dialling: asyncio.Task[None] | None = None

    def accept(self) -> End:
        """The client's end; the server is dialled at once."""
        self.proxy.accepted.append(monotonic())
        self._dialling = asyncio.get_running_loop().create_task(self._dial())
        return End(self, feeds=self.up, drains=self.down)

    def opened(self, transport: asyncio.Transport) -> None:
        """A socket of ours is open."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transports.append(transport)
        self._open += 1
        self.proxy.links.add(self)

    def closed(self) -> None:
        """A socket of ours is gone."""
        self._open -= 1
        if not self._open:
            self.proxy.links.discard(self)

    def reset(self) -> None:
        """End both sides with RST."""
        self.up.stop()
        self.down.stop()
        for transport in self._transports:
            if not transport.is_closing():
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RST)
            transport.abort()

    def changed(self) -> None:
        """The toxics changed."""
        healed = not self.proxy.toxics["up"].drop and not self.proxy.toxics["down"].drop
        if healed and (self.up.spoiled or self.down.spoiled):
            self.reset()
            return
        self.up.run()
        self.down.run()

    async def _dial(self) -> None:
        host, port = self.proxy.upstream
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: End(self, feeds=self.down, drains=self.up), host, port
            )
        except OSError:
            self.reset()
        else:
            self.port = transport.get_extra_info("sockname")[1]
            self.proxy.dialled(self.port)


class ToxicProxy:
    """One listening port and the connections that came in through it."""

    def __init__(self, upstream: tuple[str, int], dialled: Callable[[int], None]) -> None:
        self.upstream = upstream
        self.dialled = dialled
        self.toxics: dict[Direction, Toxic] = {"up": NONE, "down": NONE}
        self.links: set[Link] = set()
        self.accepted: list[float] = []
        """When each connection came in, whether or not the server took it."""
        self.replacements: dict[bytes, bytes] = {}
        self.port = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take connections, always on the same port."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Link(self).accept(), "127.0.0.1", self.port, backlog=512)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut(1.0)

    def cut(self, share: float) -> int:
        """Reset a share of the open connections, by chance; gives how many."""
        hit = [link for link in self.links if random.random() < share]  # noqa: S311  chance, no secret
        for link in hit:
            link.reset()
        return len(hit)

    def set(self, up: Toxic, down: Toxic) -> None:
        """Apply toxics from now on, to open connections as well."""
        self.toxics = {"up": NONE if up == NONE else up, "down": NONE if down == NONE else down}
        for link in tuple(self.links):
            link.held = False
            link.changed()


class Desk:
    """What the harness may ask of this process."""

    def __init__(self) -> None:
        self._proxies: dict[str, ToxicProxy] = {}
        self._ports: dict[int, str] = {}

    async def do_add(self, name: str, host: str, port: int) -> int:
        """A new proxy; gives its port."""
        proxy = self._proxies[name] = ToxicProxy((host, port), lambda port: self._ports.update({port: name}))
        await proxy.listen()
        return proxy.port

    async def do_set(self, name: str, up: dict[str, object], down: dict[str, object]) -> None:
        """Set both toxics."""
        self._proxies[name].set(msgspec.convert(up, Toxic), msgspec.convert(down, Toxic))

    async def do_replace(self, name: str, replacements: dict[str, str]) -> None:
        """Replace these words by others of the same length in what the server says."""
        assert all(len(old) == len(new) for old, new in replacements.items()), "lengths differ"
        self._proxies[name].replacements = {old.encode(): new.encode() for old, new in replacements.items()}

    async def do_refuse(self, name: str) -> None:
        """Refuse."""
        self._proxies[name].refuse()

    async def do_listen(self, name: str) -> None:
        """Listen again."""
        await self._proxies[name].listen()

    async def do_cut(self, name: str, share: float) -> int:
        """Reset open connections."""
        return self._proxies[name].cut(share)

    async def do_hold(self, port: int) -> int:
        """Break the one connection that the server sees under this port, until its proxy is set or healed; gives how
        many that were."""
        hit = [link for proxy in self._proxies.values() for link in proxy.links if link.port == port]
        for link in hit:
            link.held = True
        return len(hit)

    async def do_accepted(self, name: str, since: float) -> list[float]:
        """When connections came in to a proxy."""
        return [at for at in self._proxies[name].accepted if at >= since]

    async def do_heal(self) -> None:
        """All proxies listen and hand on."""
        for proxy in self._proxies.values():
            proxy.set(NONE, NONE)
            await proxy.listen()

    async def do_ports(self) -> dict[int, str]:
        """The local ports towards the servers of all connections so far, with the proxy's name."""
        return self._ports


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
