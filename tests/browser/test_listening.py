"""Listening in a real browser: the README's example, WebSockets, coming back, and pages that may not."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.browser import Page, opened, serving
from tests.support.client import Client
from tests.support.docs import examples, read
from tests.support.node import NodeProcess
from tests.support.until import until

BROWSER_S = 30.0
CHANNEL = "inventarios_updates"
EVENTS = examples(read("README.md"))["channels-browser"].text
SOCKET = """
const socket = new WebSocket("ws://%(host)s/ws?channels=inventarios_updates");
socket.onmessage = (event) => report(JSON.parse(event.data));
socket.onclose = (event) => report({closed: event.code});
"""


def on_node(script: str, node: NodeProcess) -> str:
    """A script of the README, for this node; what it logs is reported."""
    return script.replace("http://127.0.0.1:8000", node.url).replace("console.log(", "report(")


@pytest.mark.timeout(90)
async def test_a_page_gets_all_messages_also_those_it_missed(
    make_node: NodeFactory, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """By the example of the README: the node is killed and comes back, and the browser goes on by itself."""
    page = Page()
    async with serving(page):
        node = make_node({"ALLOWED_ORIGINS": f'["{page.origin}"]'}, data_dir=tmp_path / "data")
        await node.start()
        page.script = on_node(EVENTS, node)
        client = Client(http, node.url)
        async with opened(page, tmp_path):
            await until(lambda: listeners(client, 1), BROWSER_S, what="the page listens")
            await published(client, 1, 2)
            await until(lambda: values(page) == [1, 2], BROWSER_S, what="two messages")
            node.kill9()
            await node.start()
            await published(client, 3, 4)
            await until(lambda: values(page) == [1, 2, 3, 4], BROWSER_S, what="what was missed")


@pytest.mark.timeout(90)
async def test_a_page_listens_by_websocket(make_node: NodeFactory, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """The same frames as everybody; a node that stops sends it home with 3001."""
    page = Page()
    async with serving(page):
        node = make_node({"ALLOWED_ORIGINS": f'["{page.origin}"]'}, data_dir=tmp_path / "data")
        await node.start()
        page.script = SOCKET % {"host": node.url.removeprefix("http://")}
        client = Client(http, node.url)
        async with opened(page, tmp_path):
            await until(lambda: page.reports, BROWSER_S, what="the page listens")
            assert (page.reports[0]["type"], page.reports[0]["recovered"]) == ("subscribed", False)
            await published(client, 1, 2)
            await until(lambda: values(page) == [1, 2], BROWSER_S, what="two messages")
            await node.sigterm()
            await until(lambda: page.reports[-1] == {"closed": 3001}, BROWSER_S, what="sent home")


@pytest.mark.timeout(90)
async def test_a_page_of_another_origin_may_not(
    make_node: NodeFactory, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Neither way, unless its origin is listed."""
    page = Page()
    async with serving(page):
        node = make_node({"ALLOWED_ORIGINS": '["http://127.0.0.1:1"]'}, data_dir=tmp_path / "data")
        await node.start()
        host = node.url.removeprefix("http://")
        failing = "events.onerror = () => report({failed: events.readyState});"
        page.script = SOCKET % {"host": host} + on_node(EVENTS, node) + failing
        async with opened(page, tmp_path):
            await until(lambda: len(page.reports) >= 2, BROWSER_S, what="both failed")
        assert sorted(map(str, page.reports)) == ["{'closed': 1006}", "{'failed': 2}"]
        assert await listeners(Client(http, node.url), 0)


def values(page: Page) -> list[object]:
    """The data of the messages that the page reported."""
    return [each["data"] for each in page.reports if isinstance(each, dict) and each.get("type") == "message"]


async def listeners(client: Client, count: int) -> bool:
    """Whether so many listen."""
    return bool((await client.call("GET", f"/api/queue/subscribers/{CHANNEL}")).json["subscribers"] == count)


async def published(client: Client, *messages: object) -> None:
    """Publish one after the other."""
    for message in messages:
        answer = await client.call("POST", "/api/queue/publish", {"channel": CHANNEL, "message": message})
        assert answer.status == 200, answer
