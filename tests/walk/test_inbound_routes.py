"""The routes of instances: put, looked at, listed, dropped; what is wrong with one, and what is never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.client import Client, is_problem, quoted
from tests.support.node import NodeProcess

ROUTES = "/api/v1/inbound"
URL = "https://n8n.example/webhook"
PLAIN: dict[str, Any] = {"webhook": {"url": URL}, "buffer": {}}
HIDDEN = "***"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def prefix(client: Client) -> AsyncIterator[str]:
    """What the names of a test's routes begin with; they go with it."""
    name = f"r-{uuid4().hex[:16]}"
    yield name
    for route in await client.listed(ROUTES, "routes", limit=1000):
        if route["instance"].startswith(name):
            await client.call("DELETE", f"{ROUTES}/{quoted(route['instance'])}")


async def test_a_route_is_what_was_put_without_its_secrets(client: Client, prefix: str, node: NodeProcess) -> None:
    """In the answer to its PUT, alone, and in the list; sent back as it is shown it is refused."""
    headers = {"Authorization": f"Bearer {prefix}", "X-Plain": "x"}
    full = {
        "webhook": {"url": URL, "headers": headers, "secret": SECRET},
        "buffer": {"wait_time": 8, "mode": "debounce", "max_wait": 30, "format": "n8n"},
        "token": f"t{prefix}",
        "reply": True,
        "reply_path": "data.answer",
        "takeover": "count",
    }
    shown = {
        **full,
        "instance": prefix,
        "token": HIDDEN,
        "webhook": {"url": URL, "headers": dict.fromkeys(headers, HIDDEN), "secret": HIDDEN},
    }
    path = f"{ROUTES}/{prefix}"
    put, got = await client.call("PUT", path, full), await client.call("GET", path)
    listed = [each for each in await client.listed(ROUTES, "routes") if each["instance"] == prefix]
    assert (put.status, put.json, got.status, got.json, listed) == (200, shown, 200, shown, [shown])
    assert is_problem(await client.call("PUT", path, shown), 400)
    assert (await client.call("GET", path)).json == shown
    assert SECRET not in node.output()
    assert f"Bearer {prefix}" not in node.output()


async def test_a_route_is_replaced_and_dropped(client: Client, prefix: str) -> None:
    """The second time there is nothing to drop; unknown ones are 404, also where there is a route of all."""
    path = f"{ROUTES}/{prefix}"
    assert is_problem(await client.call("GET", path), 404)
    assert (await client.call("PUT", path, {**PLAIN, "token": "t"})).json["token"] == HIDDEN
    assert "token" not in (await client.call("PUT", path, {**PLAIN, "unknown": "is ignored"})).json
    deleted = await client.call("DELETE", path)
    assert (deleted.status, deleted.json) == (200, {"instance": prefix, "deleted": True})
    assert is_problem(await client.call("DELETE", path), 404)
    assert is_problem(await client.call("GET", path), 404)


@pytest.mark.parametrize("name", ["a b", "ñ😀", "100%", "a:b@c", "x" * 90])
async def test_names_are_percent_decoded(client: Client, prefix: str, name: str) -> None:
    """Whatever an instance is called."""
    whole = prefix + name
    path = f"{ROUTES}/{quoted(whole)}"
    assert (await client.call("PUT", path, PLAIN)).json == {**PLAIN, "instance": whole}
    assert (await client.call("GET", path)).json["instance"] == whole
    assert whole in [each["instance"] for each in await client.listed(ROUTES, "routes")]


@pytest.mark.parametrize("name", ["..", "a/b", "a\x00b", "a\nb", "x" * 129])
async def test_what_no_instance_is_called_has_no_route(client: Client, name: str) -> None:
    """As for a send: it would become another path at Evolution."""
    assert is_problem(await client.call("PUT", f"{ROUTES}/{quoted(name)}", PLAIN), 400)


async def test_they_are_listed_page_by_page(client: Client, prefix: str) -> None:
    """By name, each once."""
    names = [f"{prefix}-{number}" for number in range(5)]
    for name in reversed(names):
        await client.call("PUT", f"{ROUTES}/{name}", PLAIN)
    for limit in (1, 2, 100):
        rows = [each["instance"] for each in await client.listed(ROUTES, "routes", limit=limit)]
        assert [name for name in rows if name.startswith(prefix)] == names
        assert rows == sorted(rows)
    for query in ("limit=0", "limit=x", "cursor=???"):
        assert is_problem(await client.call("GET", f"{ROUTES}?{query}"), 400)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"webhook": {}}, "$.webhook.url"),
        ({"webhook": {"url": URL, "hedaers": {}}}, "$.webhook.hedaers"),
        ({"webhook": {"url": "http://169.254.169.254/"}}, "$.webhook.url"),
        ({"webhook": {"url": URL, "headers": {"Authorization": HIDDEN}}}, "$.webhook.headers.Authorization"),
        ({"webhook": {"url": URL, "secret": HIDDEN}}, "$.webhook.secret"),
        ({"buffer": {"key": "k"}}, "$.buffer.key"),
        ({"buffer": {"wait_tiem": 8}}, "$.buffer.wait_tiem"),
        ({"buffer": {"wait_time": 0.01}}, "$.buffer.wait_time"),
        ({"buffer": {"format": "xml"}}, "$.buffer.format"),
        ({"buffer": {"aggregate_field": "data.pushName"}}, "$.buffer.aggregate_field"),
        ({"buffer": {"mode": "debounce", "max_wait": 1}}, "$.buffer.max_wait"),
        ({"buffer": None}, "$.buffer"),
        ({"token": HIDDEN}, "$.token"),
        ({"token": "a b"}, "$.token"),
        ({"reply": 1}, "$.reply"),
        ({"reply_path": "a..b"}, "$.reply_path"),
        ({"takeover": "stop"}, "$.takeover"),
    ],
)
async def test_what_is_wrong_is_named(client: Client, prefix: str, change: dict[str, Any], pointer: str) -> None:
    """And nothing is kept."""
    path = f"{ROUTES}/{prefix}"
    assert is_problem(await client.call("PUT", path, {**PLAIN, **change}), 400, pointer=pointer)
    assert is_problem(await client.call("GET", path), 404)


async def test_other_mistakes(client: Client, prefix: str) -> None:
    """Of the name and of the body."""
    path = f"{ROUTES}/{prefix}"
    assert is_problem(await client.call("PUT", path, b"{"), 400, pointer="$")
    assert is_problem(await client.call("PUT", path, {"buffer": {}}), 400, pointer="$.webhook")
    assert is_problem(await client.call("PUT", path, PLAIN, headers={"Content-Type": "text/xml"}), 415)
    for name in ("x" * 129, "%20", "%FF"):
        assert is_problem(await client.call("PUT", f"{ROUTES}/{name}", PLAIN), 400, pointer="instance")
    assert is_problem(await client.call("POST", path, PLAIN), 405)
