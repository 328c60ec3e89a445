"""`GET /monitoring` of one node on one store: its shape, its pages, its mistakes."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from router.edge.paging import Cursor
from tests.support.client import Client, quoted
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.until import until

PATH = "/monitoring"
RFC3339 = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def monitoring(client: Client, query: str = "") -> Any:
    """The answer."""
    answer = await client.call("GET", PATH + query)
    assert answer.status == 200, answer
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json


async def test_a_node_alone_shows_itself_and_all_partitions_settled(client: Client, node: NodeProcess) -> None:
    """Who it is, what it owns, and the store behind it."""
    found = await monitoring(client)

    assert list(found) == ["node", "nodes", "partitions", "queues", "redis", "tasks", "evolution", "events", "cursor"]
    (shown,) = found["nodes"]
    assert (found["node"], shown["id"], shown["state"], shown["partitions"]) == ("walked", "walked", "alive", 256)
    assert (shown["pid"], shown["machine"]) == (node.pid, os.uname().nodename)
    assert shown["silent_seconds"] < 2
    assert RFC3339.fullmatch(shown["started_at"])
    epoch = found["partitions"]["nodes"]["walked"]["epoch"]
    assert found["partitions"] == {
        "total": 256,
        "vacant": 0,
        "misplaced": 0,
        "settled": True,
        "nodes": {"walked": {"partitions": 256, "epoch": epoch}},
    }
    assert epoch > 0
    assert found["redis"]["connected"] is True
    assert found["redis"]["server"].startswith(("Valkey ", "Redis "))
    assert re.fullmatch(r"[0-9a-f]{16}", found["redis"]["cluster"])
    assert found["redis"]["refusal"] is None
    assert set(found["tasks"]) == {"PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"}
    assert (found["evolution"]["url"], found["evolution"]["version"]) == ("http://localhost:8080", None)


async def test_the_owner_of_each_partition_is_listed_on_request(client: Client) -> None:
    """256 rows, only when they are asked for."""
    owners = (await monitoring(client, "?partitions=true"))["partitions"]["owners"]

    assert [owner["partition"] for owner in owners] == list(range(256))
    assert {owner["node"] for owner in owners} == {"walked"}
    assert all(owner["epoch"] > 0 for owner in owners)
    assert "owners" not in (await monitoring(client, "?partitions=false"))["partitions"]


async def test_what_waits_is_summed(client: Client, sink: Sink, key: str) -> None:
    """Open batches are seen within a few seconds. Those of tests before this one may close meanwhile."""
    lowest: int = (await monitoring(client))["queues"]["open_batches"]
    sent = 0

    async def seen() -> bool:
        nonlocal lowest, sent
        await client.send(sink.url(), f"{key}-{sent}", {}, wait_time=60)
        sent += 1
        now: int = (await monitoring(client))["queues"]["open_batches"]
        lowest = min(lowest, now)
        return now > lowest

    await until(seen, 8, every_s=0.2, what="open batches are counted")


async def test_the_clusters_log_comes_in_pages_newest_first(client: Client) -> None:
    """A node alone has joined and taken what was nobody's; the cursor ends at the first line."""
    whole = await monitoring(client, "?limit=1000")
    pages, cursor = [], ""
    while cursor is not None:
        page = await monitoring(client, f"?limit=1{f'&cursor={quoted(cursor)}' if cursor else ''}")
        pages.append(page["events"])
        cursor = page["cursor"]

    assert whole["cursor"] is None
    assert [event for page in pages for event in page] == whole["events"]
    assert {len(page) for page in pages} == {1}
    lines = [(event["node"], event["what"], event["count"]) for event in reversed(whole["events"])]
    assert lines[:2] == [("walked", "joined", None), ("walked", "took", 256)]
    assert all(RFC3339.fullmatch(event["at"]) for event in whole["events"])


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("partitions=maybe", "partitions"),
        ("cursor=!!", "cursor"),
        (f"cursor={Cursor(list[str]).encode(['0-0'])}", "cursor"),
        (f"cursor={Cursor(list[str]).encode(['+'])}", "cursor"),
    ],
)
async def test_a_mistake_in_the_query_is_named(client: Client, query: str, pointer: str) -> None:
    """400, never something of the store's."""
    answer = await client.call("GET", f"{PATH}?{query}")

    assert answer.status == 400
    assert pointer in answer.json["detail"]


async def test_it_tells_no_secret(client: Client, node: NodeProcess) -> None:
    """Neither where the store is nor what the nodes share."""
    text = (await client.call("GET", f"{PATH}?limit=1000&partitions=true")).body.decode()

    assert "redis://" not in text
    assert not re.search(r"[0-9a-f]{32}", text), "the cluster's id is 16 digits, its secret 64"
