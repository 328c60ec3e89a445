"""`GET /monitoring` of two real nodes on one store: what one does, the other shows, and the cluster's log keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.client import Client
from tests.support.node import NodeProcess
from tests.support.until import until
from tests.support.valkey import ValkeyServer

Found = dict[str, Any]
SETTLES_S = 40.0
"""Partitions move a few at a time, and only once nobody has come or gone for a while."""


async def shown(client: Client, condition: Callable[[Found], object], within_s: float, what: str) -> Found:
    """Ask until the condition holds of the answer, and give that."""

    async def look() -> Found | None:
        answer = await client.call("GET", "/monitoring?limit=1000&partitions=true")
        assert answer.status == 200, answer
        found: Found = answer.json
        return found if condition(found) else None

    found = await until(look, within_s, every_s=0.05, what=what)
    assert found is not None
    return found


def states(found: Found) -> dict[str, str]:
    """The state of each node."""
    return {node["id"]: node["state"] for node in found["nodes"]}


def lines(found: Found, what: str) -> list[tuple[str, str | None]]:
    """Who noted this of whom, oldest first."""
    return [(event["node"], event["other"]) for event in reversed(found["events"]) if event["what"] == what]


@pytest.mark.timeout(120)
async def test_a_node_comes_crashes_comes_back_and_leaves(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """Joined, found dead, took over, joined again, handed over, left: each on both nodes' pages and in both logs."""
    first, second = (make_node({"NODE_ID": name}, redis_url=own_valkey.url) for name in ("first", "second"))
    await first.start()
    await second.start()
    one, two = Client(http, first.url), Client(http, second.url)
    for client in (one, two):
        await shown(client, lambda found: states(found) == {"first": "alive", "second": "alive"}, 5, "both are seen")

    first.kill9()
    after_crash = await shown(two, lambda found: found["partitions"]["settled"], 6, "all is taken over")

    assert states(after_crash) == {"first": "dead", "second": "alive"}
    assert list(after_crash["partitions"]["nodes"]) == ["second"]
    assert {owner["node"] for owner in after_crash["partitions"]["owners"]} == {"second"}
    noted = await shown(two, lambda found: lines(found, "took over"), 3, "the takeover is noted")
    assert lines(noted, "found dead") == [("second", "first")]
    assert lines(noted, "took over") == [("second", "first")]

    await first.start()
    settled = await shown(
        two,
        lambda found: (
            found["partitions"]["settled"] and states(found)["first"] == "alive" and lines(found, "handed over")
        ),
        SETTLES_S,
        "half is given back",
    )
    assert states(settled) == {"first": "alive", "second": "alive"}
    shares = settled["partitions"]["nodes"]
    assert 96 < shares["first"]["partitions"] < 160
    assert shares["first"]["partitions"] + shares["second"]["partitions"] == 256
    assert set(lines(settled, "handed over")) == {("second", "first")}

    assert (await first.sigterm()).exit_code == 0
    alone = await shown(
        two,
        lambda found: list(found["partitions"]["nodes"]) == ["second"] and lines(found, "left"),
        6,
        "the rest is taken",
    )
    assert states(alone) == {"second": "alive"}
    assert lines(alone, "left") == [("first", None)]
    assert lines(alone, "joined") == [("first", None), ("second", None), ("first", None)]
    assert lines(alone, "found dead") == [("second", "first")]
    assert_logged(second, "joined", "found dead", "took over", "handed over")
    assert_logged(first, "left")


async def test_while_the_store_is_away_everybody_is_silent_and_nobody_dead(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """The page still comes, at once, with what the node knew; a restart of the store is noted with its replay."""
    node = make_node({"NODE_ID": "only"}, redis_url=own_valkey.url)
    await node.start()
    client = Client(http, node.url)
    await client.send("http://127.0.0.1:9/hook", "k", {}, wait_time=60)

    own_valkey.kill9()
    away = await shown(client, lambda found: states(found) == {"only": "silent"}, 5, "the silence is seen")

    assert away["redis"]["connected"] is False
    assert (away["events"], away["cursor"]) == ([], None)
    assert away["partitions"]["nodes"]["only"]["partitions"] == 256
    own_valkey.start()
    back = await shown(client, lambda found: lines(found, "store restarted"), 5, "the restart is noted")
    assert back["redis"]["connected"] is True
    assert lines(back, "store restarted") == [("only", None)]
    assert lines(back, "joined") == [("only", None)]
    assert_logged(node, "store restarted")


def assert_logged(node: NodeProcess, *phrases: str) -> None:
    """Each phrase stands in the node's own log."""
    text = node.output()
    assert [phrase for phrase in phrases if phrase not in text] == []
