"""The echo through publish/subscribe: it comes, comes back after trouble, and its absence turns readiness red."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.echo import LATE_S, PERIOD_S, Echo
from actors.adapters.valkey.lane import CONNECT_DEADLINE_S, RECONNECT_S_MAX
from actors.adapters.valkey.store import ValkeyStore
from tests.conftest import NodeFactory
from tests.support.client import Client
from tests.support.proxy import CHUNK_BYTES, Proxy
from tests.support.store import connected, made
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

NODE = "echo-1"
CHANNEL = f"buzon:echo:{NODE}"
REASON = "publish/subscribe does not echo"
CHANNELS_REASON = "what is published on channels is not heard"
SOON_S = RECONNECT_S_MAX + 0.5
"""Within this time a subscriber that can come back is back and has heard."""


class HalfOpen(Proxy):
    """A proxy that, while `deaf`, loses what is published on its way to whom it should reach, and nothing else."""

    deaf = False

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if not (self.deaf and data.startswith(b">")):  # RESP3's mark of a push
                    writer.write(data)
        writer.close()


def echo_of(store: ValkeyStore) -> Echo:
    """The echo of a store."""
    return Echo.of(store, NODE, asyncio.get_running_loop().time, lambda: 0.0)


def counted_echo(store: ValkeyStore, through: ValkeyStore) -> tuple[Echo, list[float]]:
    """The same with a subscriber that another store makes, and when it made one."""
    now = asyncio.get_running_loop().time
    tried: list[float] = []

    def connect() -> AbstractConnection:
        tried.append(now())
        return through._connection()

    return Echo(connect, store.cold, NODE, now, lambda: 0.0), tried


@asynccontextmanager
async def echoing(echo: Echo) -> AsyncIterator[Echo]:
    """Run an echo; one that ends by itself fails the test."""
    task = asyncio.create_task(echo.run())
    await asyncio.sleep(0)
    try:
        yield echo
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def last_heard(echo: Echo) -> float:
    """When the last echo came, on the loop's clock."""
    now = asyncio.get_running_loop().time()
    return now - echo.age_s(now)


async def hears(echo: Echo, within_s: float = SOON_S) -> None:
    """Wait for an echo that comes from now on."""
    since = asyncio.get_running_loop().time()
    await until(lambda: last_heard(echo) > since + 1e-6, within_s, what="an echo")


async def test_the_echo_comes_every_second(any_store: ValkeyServer) -> None:
    """Soon after the start, then by its period, on a channel of the node's own and one connection."""
    async with connected(any_store) as store:
        echo = echo_of(store)
        assert echo.age_s(asyncio.get_running_loop().time()) == 0
        async with echoing(echo):
            await hears(echo)
            assert any_store.command("PUBSUB", "NUMSUB", CHANNEL) == [CHANNEL, 1]
            first = last_heard(echo)
            await hears(echo, PERIOD_S + 0.3)

            assert 0.9 * PERIOD_S <= last_heard(echo) - first <= PERIOD_S + 0.3
        await until(lambda: any_store.command("PUBSUB", "NUMSUB", CHANNEL) == [CHANNEL, 0], what="the subscriber goes")


async def test_a_subscriber_that_is_killed_comes_back(any_store: ValkeyServer) -> None:
    """Again and again; the store's lanes don't notice."""
    async with connected(any_store) as store, echoing(echo_of(store)) as echo:
        await hears(echo)
        for _ in range(3):
            assert any_store.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
            await hears(echo)

        assert store.connected


async def test_a_store_that_is_killed_and_comes_back_echoes(own_valkey: ValkeyServer) -> None:
    """While it is away the echo grows old, and that is all."""
    async with connected(own_valkey) as store, echoing(echo_of(store)) as echo:
        await hears(echo)
        own_valkey.kill9()
        await until(lambda: not store.connected, what="the end of the lanes")
        before = last_heard(echo)
        await passing(RECONNECT_S_MAX / 2)
        assert abs(last_heard(echo) - before) < 1e-6
        await asyncio.to_thread(own_valkey.start)

        await hears(echo, SOON_S + RECONNECT_S_MAX)


async def test_a_server_that_refuses_is_asked_again_and_not_too_often(own_valkey: ValkeyServer) -> None:
    """An ACL without channels: no subscription, no publishing; with them all is well again."""
    async with connected(own_valkey) as store:
        echo, tried = counted_echo(store, store)
        async with echoing(echo):
            await hears(echo)
            own_valkey.command("ACL", "SETUSER", "default", "resetchannels")
            await until(lambda: len(tried) >= 6, what="it tries to come back")
            assert 0.5 <= tried[5] - tried[1] <= 1.8  # a refusal is heard, not waited out
            assert store.connected
            own_valkey.command("ACL", "SETUSER", "default", "allchannels")

            await hears(echo)


async def test_a_connection_that_never_greets_does_not_hold_the_echo_up(valkey: ValkeyServer, tmp_path: Path) -> None:
    """It is given up, and the next one that works is used."""
    async with connected(valkey) as store, Proxy(valkey, tmp_path / "p") as proxy:
        proxy.swallowing = True
        echo, tried = counted_echo(store, made(proxy.url))
        async with echoing(echo):
            await until(lambda: len(tried) == 2, what="a second try")
            proxy.swallowing = False

            await hears(echo, CONNECT_DEADLINE_S + SOON_S)


async def test_what_others_publish_is_no_echo(valkey: ValkeyServer) -> None:
    """Nor does a lane that is down bring anything but silence."""
    words = ["", "1", "0", "-1", "x", "9" * 18, "9" * 5000, "²"]
    echo, tried = counted_echo(made("unix:///nowhere?db=0"), made(valkey.unix_url))
    async with echoing(echo):
        await until(lambda: valkey.command("PUBSUB", "NUMSUB", CHANNEL) == [CHANNEL, 1], what="the subscription")
        before = last_heard(echo)
        assert [valkey.command("PUBLISH", CHANNEL, word) for word in words] == [1] * len(words)
        with overheard(valkey) as listening:
            valkey.command("PUBLISH", CHANNEL, "the last")
            await until(listening, what="all of it has arrived")
        await passing(0.1)

        assert len(tried) == 1
        assert abs(last_heard(echo) - before) < 1e-6


async def test_readiness_is_red_while_nothing_echoes(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Subscribers whose connections look alive and say nothing: red in time, for the node's own echo and for channels;
    then green."""
    loop = asyncio.get_running_loop()
    async with HalfOpen(valkey, tmp_path / "p") as proxy:
        node = make_node(redis_url=proxy.url)
        await node.start()
        client = Client(http, node.url)

        async def reasons() -> list[str]:
            answer = await client.call("GET", "/readyz?verbose")
            found: list[str] = answer.json["reasons"]
            assert answer.status == (503 if found else 200)
            return found

        await until(lambda: b"PUBLISH" in b"".join(proxy.heard), what="the first number is said")
        proxy.deaf = True
        began = loop.time()
        first, *_ = await until(reasons, LATE_S + 1.2, what="not ready any more")
        assert loop.time() - began >= LATE_S - PERIOD_S - 0.2
        assert first.startswith((REASON, CHANNELS_REASON))

        async def both() -> bool:
            found = await reasons()
            return [reason.partition(" (")[0] for reason in found] == [REASON, CHANNELS_REASON]

        await until(both, 2 * PERIOD_S, what="both reasons")
        assert (await client.call("GET", "/health")).status == 200
        await until(lambda: b"".join(proxy.heard).count(b"SUBSCRIBE") >= 2, what="another connection is tried")

        proxy.deaf = False

        async def is_ready() -> bool:
            return not await reasons()

        await until(is_ready, PERIOD_S + SOON_S, what="ready again")
        assert (await node.sigterm()).exit_code == 0


@contextmanager
def overheard(server: ValkeyServer) -> Iterator[Callable[[], bool]]:
    """Somebody else who listens; the function tells whether there was something."""
    with server.client() as client, client.pubsub() as subscription:
        subscription.subscribe(CHANNEL)
        yield lambda: (subscription.get_message() or {}).get("type") == "message"
