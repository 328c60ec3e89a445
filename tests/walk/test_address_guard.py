"""The address guard of a node that others can reach: no webhook leads back into its own network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from tests.support.client import MESSAGE, Client, is_problem, message
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.valkey import ValkeyServer, served
from tests.walk.conftest import running

LITERALS = (
    "127.0.0.1 127.1.2.3 [::1] [::ffff:127.0.0.1] [::] 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254"
    " 100.64.0.1 224.0.0.1 255.255.255.255 [fe80::1] [fd00:ec2::254] [ff02::1] [64:ff9b::7f00:1] [2002:7f00:1::]"
    " 2130706433 0x7f000001 127.1 0177.0.0.1 localhost LOCALHOST a.localhost"
)


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    """A store of this file's own: two nodes on one store would contend for it."""
    yield from served(ValkeyServer())


@pytest.fixture(scope="module")
def open_node(store: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that listens everywhere, as one behind a proxy does, and lists one network as allowed."""
    settings = {
        "APP_HOST": "0.0.0.0",
        "AUTH": "off",
        "MAX_RETRIES": "1",
        "RETRY_DELAY": "50ms",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.2/32",
    }
    yield from running(tmp_path_factory.mktemp("guard") / "data", settings, store)


@pytest.fixture
def client(open_node: NodeProcess, http: aiohttp.ClientSession) -> Client:
    """A client of it."""
    return Client(http, open_node.url)


async def test_no_literal_of_a_private_network_is_accepted(client: Client, sink: Sink, key: str) -> None:
    """400 naming the URL, whatever the spelling; nothing is buffered and nothing is dialled."""
    port = sink.address[1]
    for host in LITERALS.split():
        answer = await client.call("POST", MESSAGE, message(f"http://{host}:{port}/", key, {}, max_size=1))
        assert is_problem(answer, 400, pointer="$.webhook.url"), host

    assert (await client.buffer(key)).status == 404
    assert await client.deliveries(key=key) == []
    assert sink.connections == 0


async def test_a_name_that_leads_inside_is_not_dialled(client: Client, sink: Sink, key: str) -> None:
    """Its delivery dies of the same phrase as one to a host that does not exist: nobody maps our network."""
    names = [socket.gethostname(), "ip6-loopback", "no-such-host.invalid"]
    port = sink.address[1]
    await asyncio.gather(*(client.send(f"http://{name}:{port}/", f"{key}-{name}", {}, max_size=1) for name in names))

    for name in names:
        (row,) = await client.until_status(f"{key}-{name}", "dead", within_s=20)
        assert {attempt["error"] for attempt in row["attempts"]} == {"unreachable"}
    assert sink.connections == 0


async def test_a_listed_network_is_reached(client: Client, key: str) -> None:
    """WEBHOOK_ALLOWED_NETWORKS opens exactly what it names."""
    async with Sink(host="127.0.0.2") as inside:
        await client.send(inside.url(), key, {}, max_size=1)
        await inside.wait_for_requests(1)
        near = inside.url().replace("127.0.0.2", "127.0.0.3")
        assert is_problem(await client.call("POST", MESSAGE, message(near, key, {})), 400, pointer="$.webhook.url")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "example.com",
        "http://",
        "http://user:password@example.com/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://exa mple.com/",
        "http://example.com/\r\nX-Evil: 1",
        "http://example.com/\x00",
        "http://[::1%25lo]/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://example.com./",
        "http://example.com\\@127.0.0.1/",
        "http://" + "x" * 2050,
        "",
    ],
)
async def test_odd_urls_are_refused(client: Client, key: str, url: str) -> None:
    """When the message comes, not when nobody is there to read about it."""
    answer = await client.call("POST", MESSAGE, message(url, key, {}, max_size=1))

    assert is_problem(answer, 400, pointer="$.webhook.url")
    assert await client.deliveries(key=key) == []
