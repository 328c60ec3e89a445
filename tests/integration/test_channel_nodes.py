"""Channels over several real nodes: what one is told, all who listen hear, wherever they listen and whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.channel_store import foreigner
from tests.support.client import Client, quoted
from tests.support.node import NodeProcess
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer
from tests.support.ws_listener import WsListener

COUNTED_S = 1.0
"""Counts are right within this time."""
FORGOTTEN_S = 6.0
"""A killed node's people are forgotten within this time."""


@pytest.fixture(name="nodes")
async def fixture_nodes(make_node: NodeFactory, own_valkey: ValkeyServer) -> list[NodeProcess]:
    """Three nodes on one store of the test's own."""
    nodes = [make_node({"NODE_ID": f"n{number}"}, redis_url=own_valkey.url) for number in range(3)]
    await asyncio.gather(*(node.start() for node in nodes))
    return nodes


@pytest.fixture(name="listeners")
async def fixture_listeners(nodes: list[NodeProcess], http: aiohttp.ClientSession) -> AsyncIterator[list[WsListener]]:
    """Somebody on each of them who listens to two channels."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(WsListener(http, node.url, "a", "b")) for node in nodes]


async def publish(client: Client, channel: str, *values: object) -> list[int]:
    """Publish one after the other; gives how many were said to listen each time."""
    counts = []
    for value in values:
        answer = await client.call("POST", "/api/queue/publish", {"channel": channel, "message": value})
        assert answer.status == 200, answer
        counts.append(answer.json["subscribers"])
    return counts


async def subscribers(client: Client, channel: str) -> int:
    """How many listen, as a node says."""
    answer = await client.call("GET", f"/api/queue/subscribers/{quoted(channel)}")
    assert answer.status == 200, answer
    count: int = answer.json["subscribers"]
    return count


def clients_of(http: aiohttp.ClientSession, nodes: Sequence[NodeProcess]) -> list[Client]:
    """A client of each node."""
    return [Client(http, node.url) for node in nodes]


async def test_everybody_hears_what_any_node_is_told(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession, own_valkey: ValkeyServer
) -> None:
    """In one order; what another Redis client publishes as well, once, with an offset like all others."""
    clients = clients_of(http, nodes)
    for number in range(30):
        await publish(clients[number % 3], "a", number)
        if number % 10 == 0:
            own_valkey.command("PUBLISH", "a", f'{{"foreign":{number}}}')
    own_valkey.command("PUBLISH", "a", "no JSON: é")
    await until(lambda: all(len(each.data["a"]) == 34 for each in listeners), what="all of it")
    first = listeners[0].data["a"]
    assert [each.data["a"] for each in listeners] == [first] * 3
    assert [value for value in first if isinstance(value, int)] == list(range(30))
    assert [value for value in first if isinstance(value, dict)] == [{"foreign": 0}, {"foreign": 10}, {"foreign": 20}]
    assert first[-1] == "no JSON: é"
    history = await clients[2].call("GET", "/api/queue/history/a?limit=100")
    assert [each["data"] for each in history.json["messages"]] == first
    assert all(not each.data["b"] for each in listeners)


async def test_a_burst_of_another_redis_client(
    nodes: list[NodeProcess], listeners: list[WsListener], own_valkey: ValkeyServer
) -> None:
    """As fast as it can: everybody hears all of it, in its order."""
    sent = list(range(12_000))
    with own_valkey.client() as other, other.pipeline(transaction=False) as pipeline:
        for number in sent:
            pipeline.publish("a", number)
        pipeline.execute()
    await until(lambda: all(len(each.data["a"]) >= len(sent) for each in listeners), 20.0, what="all of it")
    assert [each.data["a"] for each in listeners] == [sent] * 3
    assert [each.told for each in listeners] == [2] * 3


async def test_counts_are_people(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession, own_valkey: ValkeyServer
) -> None:
    """On all nodes, and other Redis clients; whoever goes is counted no more within a second, and the people of a node
    that was killed once its report is over."""
    clients = clients_of(http, nodes)

    async def all_say(count: int) -> bool:
        found = [await subscribers(client, "a") for client in clients if client.url != gone]
        return found == [count] * len(found)

    gone = ""
    await until(lambda: all_say(3), COUNTED_S, what="three people")
    assert await publish(clients[0], "a", 1) == [3]
    with foreigner(own_valkey, to="a"):
        assert await subscribers(clients[1], "a") == 4
        assert await publish(clients[2], "a", 2) == [4]
        async with WsListener(http, nodes[1].url, "a"):
            assert await publish(clients[1], "a", 3) == [5]
            await until(lambda: all_say(5), COUNTED_S, what="five who listen")
        await until(lambda: all_say(4), COUNTED_S, what="one has gone")
    await until(lambda: all_say(3), COUNTED_S, what="the other client has gone")
    listed = await clients[0].call("GET", "/api/queue/channels?pattern=[ab]")
    assert listed.json["channels"] == [{"channel": "a", "subscribers": 3}, {"channel": "b", "subscribers": 3}]

    nodes[2].kill9()
    gone = nodes[2].url
    await until(lambda: all_say(2), FORGOTTEN_S, what="the people of a killed node are forgotten")


async def test_who_comes_back_elsewhere_has_missed_nothing(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession
) -> None:
    """After kill -9 of a node, in order and once; the others notice nothing."""
    clients = clients_of(http, nodes)
    await publish(clients[0], "a", *range(10))
    await listeners[2].has("a", range(10))
    nodes[2].kill9()
    await listeners[2].closed()
    await publish(clients[0], "a", *range(10, 20))
    assert await listeners[2].go_to(nodes[1].url) == [True, True]
    await publish(clients[1], "a", *range(20, 25))
    for listener in listeners:
        await listener.has("a", range(25))
        assert not listener.errors
    assert [listener.told for listener in listeners] == [2, 2, 4]


async def test_a_node_that_stops_sends_everybody_home(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession
) -> None:
    """With code 3001, within the time of a stop; elsewhere they go on with nothing missed."""
    clients = clients_of(http, nodes)
    more = [WsListener(http, nodes[0].url, "a") for _ in range(20)]
    async with AsyncExitStack() as stack:
        for listener in more:
            await stack.enter_async_context(listener)
        await publish(clients[1], "a", *range(5))
        stopped = await nodes[0].sigterm()
        assert stopped.exit_code == 0
        assert stopped.seconds < 5
        assert [await listener.closed() for listener in (listeners[0], *more)] == [3001] * 21
        await publish(clients[1], "a", *range(5, 10))
        for listener in (listeners[0], *more):
            assert all(await listener.go_to(nodes[2].url))
            await listener.has("a", range(10))
        await until(lambda: subscribers_are(clients[1], 23), FORGOTTEN_S, what="everybody is counted once")


async def subscribers_are(client: Client, count: int) -> bool:
    """Whether so many are said to listen to channel a."""
    return await subscribers(client, "a") == count


async def test_a_cut_subscription_leaves_no_hole(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession, own_valkey: ValkeyServer
) -> None:
    """CLIENT KILL of all subscriptions amid publishing: listeners get what was said meanwhile, once and in order."""
    clients = clients_of(http, nodes)
    published = 0
    for _ in range(5):
        await publish(clients[0], "a", *range(published, published + 20))
        own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
        await publish(clients[1], "a", *range(published + 20, published + 40))
        published += 40
    for listener in listeners:
        await listener.has("a", range(published))
        assert listener.told == 2


async def test_a_store_that_restarts_loses_nobody(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession, own_valkey: ValkeyServer
) -> None:
    """kill -9 and restart on its data: the connections stay, and nobody is told of a loss where there is none."""
    clients = clients_of(http, nodes)
    await publish(clients[0], "a", *range(10))
    for listener in listeners:
        await listener.has("a", range(10))
    own_valkey.kill9()
    refused = await clients[0].call("POST", "/api/queue/publish", {"channel": "a", "message": 0})
    assert refused.status == 503
    await asyncio.to_thread(own_valkey.start)

    async def back() -> bool:
        return (await clients[0].call("GET", "/readyz")).status == 200

    await until(back, 10, what="the node is ready again")
    await publish(clients[0], "a", *range(10, 20))
    for listener in listeners:
        await listener.has("a", range(20), within_s=10)
        assert listener.told == 2


async def test_a_store_that_lost_messages_says_so(
    nodes: list[NodeProcess], listeners: list[WsListener], http: aiohttp.ClientSession, own_valkey: ValkeyServer
) -> None:
    """An append-only file whose end is missing: a new epoch, and everybody who listens is told."""
    clients = clients_of(http, nodes)
    await publish(clients[0], "a", *range(5))
    for listener in listeners:
        await listener.has("a", range(5))
    before = own_valkey.aof_bytes()
    await publish(clients[0], "b", 0)
    for listener in listeners:
        await listener.has("b", [0])
    epochs = {channel: listeners[0].at[channel][0] for channel in "ab"}
    own_valkey.kill9()
    own_valkey.cut_aof(own_valkey.aof_bytes() - before)
    await asyncio.to_thread(own_valkey.start)
    for listener in listeners:
        await until(lambda: listener.told == 3, 15, what="told of the loss")  # noqa: B023  it is this turn's
        assert listener.subscribed[-1]["channel"] == "b"
        assert listener.subscribed[-1]["recovered"] is False
        assert listener.at["b"][0] > epochs["b"]
        assert listener.at["a"][0] == epochs["a"]
    await passing(0.2)
    await publish(clients[1], "b", 1)
    for listener in listeners:
        await listener.has("b", [0, 1])


async def test_events_of_all_nodes_are_heard_on_each(nodes: list[NodeProcess], http: aiohttp.ClientSession) -> None:
    """Somebody on one node hears of batches that others close; and nothing is told while nobody listens."""
    clients = clients_of(http, nodes)
    body = {"webhook": {"url": "http://127.0.0.1:9/x", "max_retries": 0}, "buffer": {"key": "k", "max_size": 1}}
    assert (await clients[1].call("POST", "/api/v1/message", {**body, "payload": {}})).status == 200
    async with WsListener(http, nodes[0].url, "$buffers", "$deliveries", "$nodes") as listener:
        for client in clients:
            assert (await client.call("POST", "/api/v1/message", {**body, "payload": {}})).status == 200
        await until(
            lambda: sum(each["type"] == "closed" for each in listener.data["$buffers"]) == 3, what="three batches"
        )
        assert {each["key"] for each in listener.data["$buffers"]} == {"k"}
        assert {each["node"] for each in listener.data["$buffers"] if each["type"] == "closed"} == {"n0", "n1", "n2"}
        await until(
            lambda: sum(each["type"] == "dead" for each in listener.data["$deliveries"]) >= 3, 10, what="dead letters"
        )
        nodes[2].kill9()
        await until(
            lambda: any(each["type"] == "found dead" and each["other"] == "n2" for each in listener.data["$nodes"]),
            10,
            what="the death of a node",
        )
