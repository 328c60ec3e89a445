"""The official Centrifugo libraries against a real node: they connect, talk, lose their connection and miss nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.centrifuge_clients import Failed, Listener, javascript_listener, of, python_listener
from tests.support.node import NodeProcess
from tests.support.relay import Relay, relay_to
from tests.support.until import until
from tests.support.valkey import ValkeyServer

CHANNEL = "news:1"
Library = Callable[[str, str], AbstractAsyncContextManager[Listener]]


@pytest.fixture(name="library", params=[python_listener, javascript_listener], ids=["python", "javascript"])
def fixture_library(request: pytest.FixtureRequest) -> Library:
    """Each of the two."""
    library: Library = request.param
    return library


@pytest.fixture(name="node")
async def fixture_node(make_node: NodeFactory, valkey: ValkeyServer) -> NodeProcess:
    """A node on a store that outlives it."""
    node = make_node(redis_url=valkey.url)
    await node.start()
    return node


@pytest.fixture(name="relay")
async def fixture_relay(node: NodeProcess) -> AsyncIterator[Relay]:
    """What the clients connect through."""
    async with relay_to(node.port) as relay:
        yield relay


async def publish(http: aiohttp.ClientSession, node: NodeProcess, *values: object) -> None:
    """Publish by HTTP."""
    for value in values:
        url = f"{node.url}/api/queue/publish"
        async with http.post(url, json={"channel": CHANNEL, "message": value}) as answer:
            assert answer.status == 200, await answer.text()


def url_of(port: int) -> str:
    """Where the libraries are told to connect to."""
    return f"ws://127.0.0.1:{port}/connection/websocket"


def data_of(listener: Listener) -> list[object]:
    """What was heard."""
    return [each["data"] for each in of(listener, "publication")]


async def test_it_talks(library: Library, node: NodeProcess, http: aiohttp.ClientSession) -> None:
    """Publish, hear, read history, count who listens; what is forbidden fails with its code."""
    async with library(url_of(node.port), CHANNEL) as listener:
        await until(lambda: of(listener, "subscribed"), what="it is subscribed")
        await listener.do("publish", data={"a": ["é", 1.5, None]})
        await publish(http, node, "by HTTP")
        await until(lambda: len(data_of(listener)) == 2, what="both are heard")
        assert data_of(listener) == [{"a": ["é", 1.5, None]}, "by HTTP"]
        assert [each["offset"] for each in of(listener, "publication")] == [1, 2]

        history = await listener.do("history", limit=10)
        assert [each["data"] for each in history["publications"]] == data_of(listener)
        newest = await listener.do("history", limit=1, reverse=True)
        assert [each["data"] for each in newest["publications"]] == ["by HTTP"]
        assert (await listener.do("history", limit=0))["offset"] == 2
        assert (await listener.do("presence_stats"))["numClients"] == 1
        with pytest.raises(Failed) as failure:
            await listener.do("publish", to="$buffers", data=1)
        assert failure.value.code == 103
        with pytest.raises(Failed) as failure:
            await listener.do("publish", to="x" * 256, data=1)
        assert failure.value.code == 107
        await listener.do("disconnect")
        await until(lambda: of(listener, "disconnected"), what="it is disconnected")


async def test_it_loses_the_connection_and_recovers(
    library: Library, node: NodeProcess, relay: Relay, http: aiohttp.ClientSession
) -> None:
    """What was published meanwhile comes, once and in order."""
    async with library(url_of(relay.port), CHANNEL) as listener:
        await until(lambda: of(listener, "subscribed"), what="it is subscribed")
        await publish(http, node, 1, 2)
        await until(lambda: data_of(listener) == [1, 2], what="it hears")
        for first in (3, 6):
            relay.cut()
            await publish(http, node, first, first + 1, first + 2)
            relay.mend()
            await until(lambda: data_of(listener) == [*range(1, first + 3)], what="it has missed nothing")  # noqa: B023  awaited here
            assert of(listener, "subscribed")[-1] == {"event": "subscribed", "wasRecovering": True, "recovered": True}
        await publish(http, node, 9)
        await until(lambda: data_of(listener) == [*range(1, 10)], what="it hears again")


async def test_a_node_that_goes_down_sends_it_home(
    library: Library, node: NodeProcess, http: aiohttp.ClientSession
) -> None:
    """With 3001; it comes back when the node does, and recovers."""
    async with library(url_of(node.port), CHANNEL) as listener:
        await until(lambda: of(listener, "subscribed"), what="it is subscribed")
        await publish(http, node, 1)
        await until(lambda: data_of(listener) == [1], what="it hears")
        stopped = await node.sigterm()
        assert stopped.exit_code == 0
        await until(lambda: of(listener, "connecting")[-1]["code"] == 3001, what="it was told why")
        await node.start()
        await publish(http, node, 2)
        await until(lambda: data_of(listener) == [1, 2], what="it hears again")
        assert of(listener, "subscribed")[-1]["recovered"] is True


async def test_a_store_that_forgot_everything(
    library: Library, node: NodeProcess, relay: Relay, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """The client is told that it has missed something, and goes on."""
    async with library(url_of(relay.port), CHANNEL) as listener:
        await until(lambda: of(listener, "subscribed"), what="it is subscribed")
        await publish(http, node, 1)
        await until(lambda: data_of(listener) == [1], what="it hears")
        relay.cut()
        streams = valkey.command("KEYS", "*:c:*")
        assert isinstance(streams, list)
        valkey.command("DEL", *streams)
        await publish(http, node, 2)
        relay.mend()
        await until(lambda: len(of(listener, "subscribed")) == 2, what="it is back")
        assert of(listener, "subscribed")[-1] == {"event": "subscribed", "wasRecovering": True, "recovered": False}
        await publish(http, node, 3)
        await until(lambda: data_of(listener)[-1] == 3, what="it hears again")
