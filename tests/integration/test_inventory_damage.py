"""A node beside a store and a database that others have had their hands in: it goes on, and does what it can."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.conftest import NodeFactory
from tests.support.client import is_problem
from tests.support.inventory_api import InventoryClient, Load, event_ids
from tests.support.inventory_rig import Inventory
from tests.support.postgres import PostgresServer
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer
from tests.support.ws_listener import WsListener

NODE = {"LOG_LEVEL": "warning"}
LONG_S = 3.0
"""Longer than a service may crash again and again before it ends the node."""
BACK_S = 10.0


async def test_a_node_goes_on_beside_what_is_no_stream(
    make_node: NodeFactory, own_valkey: ValkeyServer, inventory: Inventory, http: aiohttp.ClientSession
) -> None:
    """Commands are done and shown; the events leave once the name is free."""
    node = make_node({**NODE, "DATABASE_URL": inventory.url}, redis_url=own_valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    own_valkey.command("SET", "buzon:events", "x")
    first = await client.made()
    assert (await client.get(first["id"], first["event_id"])).status == 200
    await passing(LONG_S)
    second = await client.made()
    assert (await client.get(second["id"], second["event_id"])).status == 200
    assert node.child.stderr_path.read_text().count("event stream cannot be used") == 1
    assert await client.history() == []

    own_valkey.command("DEL", "buzon:events")

    async def left() -> bool:
        return [each["event_id"] for each in await client.history()] == [first["event_id"], second["event_id"]]

    await until(left, what="both events on their channel")
    assert own_valkey.command("XLEN", "buzon:events") == 2


async def test_a_node_goes_on_beside_a_database_of_another_encoding(
    make_node: NodeFactory, valkey: ValkeyServer, shared_postgres: PostgresServer, http: aiohttp.ClientSession
) -> None:
    """Its inventory is away."""
    url = await asyncio.to_thread(shared_postgres.new_database, "LATIN1")
    node = make_node({**NODE, "DATABASE_URL": url}, redis_url=valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    assert is_problem(await client.create(), 503)
    await passing(LONG_S)
    assert is_problem(await client.create("\u2026"), 503)
    assert await client.postgres() == "away"
    assert (await client.call("PUT", "/api/v1/cache/k", {"value": 1})).status == 200
    assert "its encoding is LATIN1, not UTF8" in node.child.stderr_path.read_text()


async def test_what_the_projection_has_is_told_though_the_store_is_killed(
    make_node: NodeFactory, own_valkey: ValkeyServer, inventory: Inventory, http: aiohttp.ClientSession
) -> None:
    """Each event comes to a listener who stays, at least once, and no two under one offset."""
    node = make_node({**NODE, "DATABASE_URL": inventory.url}, redis_url=own_valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    async with WsListener(http, node.url, "$inventory") as listener:
        load = Load([client], "load", at_once=3)
        for _ in range(2):
            answered = len(load.acknowledged)
            await until(lambda: len(load.acknowledged) > answered + 20, BACK_S, what="commands")  # noqa: B023  at once
            own_valkey.restart()
        answered = len(load.acknowledged)
        await until(lambda: len(load.acknowledged) > answered + 20, BACK_S, what="commands")
        await load.stop()
        ids = await event_ids(inventory.url)

        def heard() -> set[str]:
            return {each["event_id"] for each in listener.data["$inventory"]}

        await until(lambda: heard() == set(ids), BACK_S, what="all events")
