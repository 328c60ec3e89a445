"""Peers over real sockets: asking, losing each other, moving, and what a port that strangers reach gives away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from actors.adapters.peers.caller import Service
from actors.adapters.peers.handshake import NONCE_BYTES, hello
from actors.adapters.peers.links import CONNECT_S, LOOK_S, PAUSE_S, PeerLinks
from actors.adapters.peers.listener import HANDSHAKE_S, STRANGERS_MAX, PeerListener
from actors.node_ports import PeerAnswer, PeerAppend, PeerAway, PeerDrop, PeerRequest
from actors.ports import Appended
from actors.runtime.clock import LoopClock
from actors.runtime.supervisor import Supervisor
from tests.support.doubles import JournalLines, make_entry
from tests.support.until import passing, until

SECRET = b"0123456789abcdef" * 4
DROP = PeerDrop("k")


class Desk:
    """Answers with its number, and to an append as if all were stored; `gate` holds all."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Take a request."""
        self.asked += 1
        await self.gate.wait()
        if isinstance(request, PeerAppend):
            return [Appended(1, len(entry.payload), 1000, 1, False, None) for entry in request.entries]
        return self.number


class Neighbourhood:
    """A node `a` that asks, and as many others as a test wants."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.crashes: list[tuple[str, str, BaseException]] = []
        self.clock = LoopClock(loop.time, loop.call_at)
        self.supervisor = Supervisor(self.clock, lambda *crash: self.crashes.append(crash), self._fatal)
        self.journal = JournalLines()
        self.addresses: dict[str, str] = {}
        self.secret = SECRET
        self.links = PeerLinks(
            "a",
            lambda: self.secret,
            lambda node: self.addresses.get(node, ""),
            self.supervisor,
            self.clock.boottime,
            self.journal,
        )
        self.listeners: list[PeerListener] = []

    def _fatal(self, reason: str) -> None:
        raise AssertionError(reason)

    async def add(self, node: str, number: int, secret: bytes = SECRET, port: int = 0) -> tuple[Desk, PeerListener]:
        """One more node, whose address is known."""
        desk = Desk(number)
        listener = PeerListener(Service(node, lambda: secret, desk, self.supervisor, self.clock.boottime))
        await listener.start("127.0.0.1", port)
        self.listeners.append(listener)
        self.addresses[node] = listener.address
        return desk, listener

    async def ask(self, node: str = "b", within_s: float = 1.0) -> PeerAnswer:
        """Ask for a number."""
        return await self.links.ask(node, DROP, within_s)


@asynccontextmanager
async def neighbourhood() -> AsyncIterator[Neighbourhood]:
    """Ends everything; what crashed meanwhile fails the test."""
    made = Neighbourhood()
    made.supervisor.service("peers", made.links.run)
    try:
        yield made
    finally:
        for listener in made.listeners:
            await listener.aclose()
        await made.supervisor.stop()
    assert made.crashes == []


@pytest.fixture
async def near() -> AsyncIterator[Neighbourhood]:
    """A neighbourhood for one test."""
    async with neighbourhood() as made:
        yield made


def port_of(listener: PeerListener) -> int:
    """Where it listens."""
    return int(listener.address.rpartition(":")[2])


async def raw(listener: PeerListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stranger's connection."""
    return await asyncio.open_connection("127.0.0.1", port_of(listener))


async def timed(asking: Callable[[], asyncio.Future[PeerAnswer]]) -> float:
    """For how long a question that fails keeps its asker."""
    began = time.monotonic()
    with pytest.raises(PeerAway):
        await asking()
    return time.monotonic() - began


async def test_one_connection_serves_many_askers(near: Neighbourhood) -> None:
    """Also those that come while it is made; each node has its own."""
    await near.add("b", 2)
    await near.add("c", 3)
    answers = await asyncio.gather(*(near.ask(node) for node in "bcbcbc"))
    assert answers == [2, 3, 2, 3, 2, 3]
    assert [len(listener._peers) for listener in near.listeners] == [1, 1]


async def test_a_large_batch_goes_and_comes(near: Neighbourhood) -> None:
    """More than a socket takes at once."""
    await near.add("b", 2)
    entries = [make_entry(f"k{number}", payload=b"x" * 10_000) for number in range(256)]
    answer = await near.links.ask("b", PeerAppend(entries), 2.0)
    assert isinstance(answer, list)
    assert [outcome.size_bytes for outcome in answer] == [10_000] * 256


async def test_a_node_without_an_address_is_away(near: Neighbourhood) -> None:
    """Nothing is tried."""
    with pytest.raises(PeerAway):
        await near.ask("nobody")
    assert near.links._peers == {}


async def test_a_refused_connection_is_away_at_once_and_tried_again_soon(near: Neighbourhood) -> None:
    """Within the pause nobody tries; a node that is back is reached after it. Each change is logged once."""
    desk, listener = await near.add("b", 2)
    port = port_of(listener)
    await listener.aclose()
    for _ in range(20):
        with pytest.raises(PeerAway):
            await near.ask()
    near.addresses["b"] = f"127.0.0.1:{port}"
    with pytest.raises(PeerAway):
        await near.ask()
    desk, _ = await near.add("b", 22, port=port)
    with pytest.raises(PeerAway, match="a moment ago"):
        await near.ask()
    await passing(PAUSE_S)
    assert await near.ask() == 22
    assert desk.asked == 1
    assert near.journal.phrases() == ["peer not reachable", "peer reachable again"]


async def test_a_port_that_takes_connections_and_says_nothing_costs_no_more_than_was_said(near: Neighbourhood) -> None:
    """Neither the first asker nor those who wait with it."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        near.addresses["b"] = f"127.0.0.1:{mute.getsockname()[1]}"
        times = await asyncio.gather(*(timed(lambda: asyncio.ensure_future(near.ask("b", 0.05))) for _ in range(5)))
        assert all(0.04 < took < 0.2 for took in times)
        took = await timed(lambda: asyncio.ensure_future(near.ask("b", 5.0)))
        assert took < CONNECT_S + 0.3


async def test_a_node_that_dies_is_away_at_once_and_found_when_it_is_back(near: Neighbourhood) -> None:
    """Those who wait for its answers are told; a new connection is made by the next who asks."""
    desk, listener = await near.add("b", 2)
    assert await near.ask() == 2
    desk.gate.clear()
    waiting = asyncio.ensure_future(near.ask("b", 10.0))
    await until(lambda: desk.asked == 2, what="the question is there")
    address = listener.address
    assert await timed(lambda: _cut(listener, waiting)) < 0.5
    near.addresses["b"] = address
    await near.add("b", 22, port=int(address.rpartition(":")[2]))
    assert await near.ask() == 22


def _cut(listener: PeerListener, waiting: asyncio.Future[PeerAnswer]) -> asyncio.Future[PeerAnswer]:
    for caller in list(listener._peers):
        caller.end()
    if listener._server is not None:
        listener._server.close()
    return waiting


async def test_a_node_that_moves_is_asked_where_it_is_now(near: Neighbourhood) -> None:
    """The old connection is closed."""
    await near.add("b", 2)
    assert await near.ask() == 2
    await near.add("b", 22)
    assert await near.ask() == 22
    await until(lambda: len(near.listeners[0]._peers) == 0, what="the old connection is gone")


async def test_a_node_that_is_gone_keeps_no_connection(near: Neighbourhood) -> None:
    """Though nobody asks it."""
    await near.add("b", 2)
    assert await near.ask() == 2
    del near.addresses["b"]
    await until(lambda: len(near.listeners[0]._peers) == 0, LOOK_S + 1.0, what="the connection is gone")


async def test_another_node_on_a_port_that_was_used_again_is_noticed(near: Neighbourhood) -> None:
    """It is asked nothing."""
    desk, listener = await near.add("c", 3)
    near.addresses["b"] = listener.address
    with pytest.raises(PeerAway):
        await near.ask("b")
    assert await near.ask("c") == 3
    assert desk.asked == 1


async def test_nodes_of_two_clusters_do_not_talk(near: Neighbourhood) -> None:
    """Whoever dials; once both know the same secret they do. No secret is in any log."""
    desk, _ = await near.add("b", 2, secret=SECRET[::-1])
    with pytest.raises(PeerAway) as caught:
        await near.ask()
    assert desk.asked == 0
    near.secret = SECRET[::-1]
    await passing(PAUSE_S)
    assert await near.ask() == 2
    said = repr((near.journal.lines, caught.value, caught.value.__cause__))
    assert SECRET.decode() not in said
    assert SECRET.hex() not in said


STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "another version": b"BZN\x00" + b"x" * 100,
    "another node": hello("a", "c", b"n" * NONCE_BYTES).said,
    "a flood": b"BZN\x01" + b"\xff" * 1_000_000,
}


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_is_told_nothing(near: Neighbourhood, kind: str) -> None:
    """The connection is closed without a word, at once."""
    desk, listener = await near.add("b", 2)
    reader, writer = await raw(listener)
    with suppress(ConnectionError):
        writer.write(STRANGERS[kind])
        async with asyncio.timeout(HANDSHAKE_S / 2):
            assert await reader.read() == b""
    writer.close()
    assert desk.asked == 0
    assert await near.ask() == 2


async def test_half_open_strangers_go_by_themselves_and_keep_no_peer_out(near: Neighbourhood) -> None:
    """Twice as many as are kept, each with half a hello."""
    _, listener = await near.add("b", 2)
    writers = []
    for _ in range(2 * STRANGERS_MAX):
        _, writer = await raw(listener)
        writer.write(b"BZN\x01half")
        writers.append(writer)
    await until(lambda: len(listener._strangers) == STRANGERS_MAX, what="the oldest are gone")
    assert await near.ask() == 2
    await until(lambda: not listener._strangers, HANDSHAKE_S + 1.0, what="all are gone")
    assert await near.ask() == 2
    for writer in writers:
        writer.close()


async def test_a_listener_that_is_closed_has_no_address_and_no_connections(near: Neighbourhood) -> None:
    """What is being done goes on; its asker is told that nobody can know."""
    desk, listener = await near.add("b", 2)
    desk.gate.clear()
    waiting = asyncio.ensure_future(near.ask())
    await until(lambda: desk.asked == 1, what="the question is there")
    await listener.aclose()
    with pytest.raises(PeerAway):
        await waiting
    assert listener.address == ""
    desk.gate.set()


async def test_the_links_close_with_their_service() -> None:
    """Nothing is left open when a node stops."""
    async with neighbourhood() as made:
        _, listener = await made.add("b", 2)
        assert await made.ask() == 2
        await made.supervisor.stop()
        await until(lambda: len(listener._peers) == 0, what="the connection is gone")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", ":", "256.0.0.1:1"])
async def test_an_address_that_is_none_is_away(near: Neighbourhood, address: str) -> None:
    """Whatever a record of a node says."""
    near.addresses["b"] = address
    with pytest.raises(PeerAway):
        await near.ask()


async def test_an_advertised_host_is_what_peers_are_told() -> None:
    """With brackets where the colons of an address need them."""
    async with neighbourhood() as made:
        _, listener = await made.add("b", 2)
        port = port_of(listener)
        other = PeerListener(listener._service)
        await other.start("127.0.0.1", 0, "node-2.internal")
        assert other.address.startswith("node-2.internal:")
        await other.aclose()
        if socket.has_ipv6 and _ipv6_works():
            await other.start("::1")
            assert other.address.startswith("[::1]:")
            made.addresses["b"] = other.address
            assert await made.ask() == 2
            await other.aclose()
        assert port


def _ipv6_works() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
