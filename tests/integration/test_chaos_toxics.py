"""The chaos suite's proxies do to a connection what they are told, where they are told, and stop doing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.toxics import NONE, Toxic, ToxicProxy
from tests.support.until import passing, steady, until

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Rig:
    """A server that remembers its connections, and a proxy in front of it."""

    def __init__(self) -> None:
        self.accepted: list[Ends] = []
        self.dialled: list[int] = []
        self.proxy: ToxicProxy
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[Ends, Ends]:
        """A connection: the client's ends and the server's."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self._open.append(writer)
        count = len(self.accepted)
        await until(lambda: len(self.accepted) > count, what="the server has a connection")
        return (reader, writer), self.accepted[-1]

    async def close(self) -> None:
        """Hang up everywhere."""
        for writer in [*self._open, *(writer for _, writer in self.accepted)]:
            writer.transport.abort()
        self.proxy.refuse()
        await until(lambda: not self.proxy.links, what="no connection is left")


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    """The rig, for one test."""
    rig = Rig()
    server = await asyncio.start_server(lambda *ends: rig.accepted.append(ends), "127.0.0.1", 0)
    rig.proxy = ToxicProxy(server.sockets[0].getsockname()[:2], rig.dialled.append)
    await rig.proxy.listen()
    try:
        yield rig
    finally:
        await rig.close()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A server and a proxy."""
    async with running() as made:
        yield made


async def read(reader: asyncio.StreamReader, size: int, within_s: float = 2.0) -> bytes:
    """Exactly so many bytes."""
    async with asyncio.timeout(within_s):
        return await reader.readexactly(size)


async def exchanged(client: Ends, server: Ends) -> bool:
    """Whether a byte passes each way."""
    client[1].write(b"?")
    server[1].write(b"!")
    return await read(server[0], 1) + await read(client[0], 1) == b"?!"


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def test_without_toxics_everything_passes(rig: Rig) -> None:
    """Both ways, any amount, and the end of either side, too; the port towards the server is told."""
    client, server = await rig.connect()
    big = bytes(range(256)) * 20_000
    client[1].write(big)

    assert await read(server[0], len(big)) == big
    assert await exchanged(client, server)
    assert rig.dialled == [server[1].get_extra_info("peername")[1]]
    client[1].close()
    assert await server[0].read() == b""


async def test_latency_delays_one_direction(rig: Rig) -> None:
    """The other is as quick as ever; the order stays, whatever the jitter."""
    client, server = await rig.connect()
    rig.proxy.set(up=Toxic(latency_ms=200, jitter_ms=50), down=NONE)
    began = now()
    for number in range(20):
        client[1].write(b"%02d" % number)
        await passing(0.001)
    server[1].write(b"!")
    await read(client[0], 1)
    assert now() - began < 0.14

    assert await read(server[0], 40) == b"".join(b"%02d" % number for number in range(20))
    assert 0.15 <= now() - began < 0.6


async def test_hold_keeps_bytes_back_until_it_is_mended(rig: Rig) -> None:
    """Like a broken network: no byte, no end, no error; then all of it."""
    client, server = await rig.connect()
    rig.proxy.set(up=Toxic(hold=True), down=NONE)
    client[1].write(b"held")
    client[1].close()
    arriving = asyncio.ensure_future(server[0].read())
    await steady(lambda: not arriving.done(), 0.2)

    rig.proxy.set(NONE, NONE)

    assert await arriving == b"held"


async def test_connections_made_while_held_are_silent(rig: Rig) -> None:
    """They are accepted, and work once the network is mended."""
    rig.proxy.set(up=Toxic(hold=True), down=Toxic(hold=True))
    client, server = await rig.connect()
    exchange = asyncio.ensure_future(exchanged(client, server))
    await steady(lambda: not exchange.done(), 0.2)

    rig.proxy.set(NONE, NONE)

    assert await exchange


async def test_drop_swallows_and_mending_resets(rig: Rig) -> None:
    """A stream with a hole in it must not go on."""
    client, server = await rig.connect()
    rig.proxy.set(up=NONE, down=Toxic(drop=True))
    server[1].write(b"swallowed")
    client[1].write(b"?")
    assert await read(server[0], 1) == b"?"

    rig.proxy.set(NONE, NONE)

    with pytest.raises(ConnectionResetError):
        await read(client[0], 1)


async def test_a_refusing_proxy_resets_and_refuses_until_it_listens(rig: Rig) -> None:
    """Then on the same port."""
    client, _ = await rig.connect()
    port = rig.proxy.port
    rig.proxy.refuse()

    with pytest.raises(ConnectionResetError):
        await read(client[0], 1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await rig.proxy.listen()
    assert rig.proxy.port == port
    assert await exchanged(*await rig.connect())


async def test_cut_resets_all_or_some(rig: Rig) -> None:
    """None of them for a share of nothing."""
    pairs = [await rig.connect() for _ in range(3)]

    assert rig.proxy.cut(0.0) == 0
    assert all([await exchanged(*pair) for pair in pairs])
    assert rig.proxy.cut(1.0) == 3
    for client, _ in pairs:
        with pytest.raises(ConnectionResetError):
            await read(client[0], 1)


async def test_a_server_that_is_away_resets(rig: Rig) -> None:
    """As far as a proxy can say that nobody is there."""
    rig.proxy.upstream = ("127.0.0.1", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.proxy.port)

    with pytest.raises(ConnectionResetError):
        await read(reader, 1)
    writer.close()


async def test_slices_and_bandwidth_take_their_time(rig: Rig) -> None:
    """All arrives in the end, whole."""
    client, server = await rig.connect()
    rig.proxy.set(up=Toxic(slice_bytes=10, slice_delay_ms=20), down=Toxic(bytes_per_s=1000))
    began = now()
    client[1].write(b"x" * 100)
    server[1].write(b"y" * 100)
    server[1].write(b"z")

    assert await read(client[0], 101) == b"y" * 100 + b"z"
    assert now() - began >= 0.09
    assert await read(server[0], 100) == b"x" * 100
    assert now() - began >= 0.18


async def test_addresses_are_replaced_in_what_the_server_says(rig: Rig) -> None:
    """Also when one comes in pieces; nothing that only looks like one is held back for ever."""
    rig.proxy.replacements = {b"127.0.0.1:40001": b"127.0.0.1:50001"}
    client, server = await rig.connect()
    for piece in (b"at 127.0.0.1:40001, 127.0.0", b".1:40", b"001 and 127.0.0.1:4000", b"2\r\n"):
        server[1].write(piece)
        await passing(0.02)
    said = b"at 127.0.0.1:50001, 127.0.0.1:50001 and 127.0.0.1:40002\r\n"

    assert await read(client[0], len(said)) == said
    client[1].write(b"127.0.0.1:40001")
    assert await read(server[0], 15) == b"127.0.0.1:40001"


async def test_limited_data_ends_in_a_reset(rig: Rig) -> None:
    """After so many bytes."""
    client, server = await rig.connect()
    rig.proxy.set(up=Toxic(slice_bytes=10, limit_bytes=30), down=NONE)
    client[1].write(b"x" * 100)

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await read(server[0], 100)
    with pytest.raises(ConnectionResetError):
        await read(client[0], 1)


async def test_one_connection_alone_is_held_back(rig: Rig) -> None:
    """Its neighbours through the same proxy notice nothing; healing the proxy mends it."""
    held, free = await rig.connect(), await rig.connect()
    port = held[1][1].get_extra_info("peername")[1]
    links = await until(lambda: [each for each in rig.proxy.links if each.port == port], what="it is known")
    links[0].held = True
    held[0][1].write(b"held")
    arriving = asyncio.ensure_future(read(held[1][0], 4))

    assert await exchanged(*free)
    await steady(lambda: not arriving.done(), 0.2)

    rig.proxy.set(NONE, NONE)
    assert await arriving == b"held"
    assert await exchanged(*held)
    assert len(rig.proxy.accepted) == 2
