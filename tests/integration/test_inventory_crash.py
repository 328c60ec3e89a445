"""The inventory when something dies: the database, the node, the owner of the flow; and the engines of our own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from actors.adapters.postgres.embedded import EmbeddedPostgres
from tests.conftest import NodeFactory
from tests.support.client import is_problem
from tests.support.inventory_api import InventoryClient, Load, event_ids, value_of
from tests.support.inventory_rig import Inventory
from tests.support.node import NodeProcess
from tests.support.postgres import MadeCluster, kill9
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer
from tests.support.workers import Workers, children
from tests.support.ws_listener import WsListener

KILLS = 3
LOAD_S = (0.1, 0.5)
"""How long a node works before it is killed."""
TAKEN_OVER_S = 3.0
"""From the death of the node that moved the events (issue: inventory) to a projection that has everything."""
KNOWN_AWAY_S = 0.3
BACK_S = 10.0
CONNECTIONS = 12
"""Of their own, so that hardly ever all of them reach the same of two workers."""
NODE = {"LOG_LEVEL": "warning"}
MODEL = """
SELECT inventario.id, coalesce(sum(cantidad), 0)::bigint AS total FROM inventario
LEFT JOIN lineas_inventario ON inventario_id = inventario.id GROUP BY inventario.id
"""


@pytest.fixture
async def engine(short_path: Path, made_cluster: MadeCluster) -> AsyncIterator[EmbeddedPostgres]:
    """A running engine of the test's own, to be killed."""
    async with made_cluster.running(short_path) as engine:
        yield engine


def kill_postmaster(data_dir: Path) -> None:
    """End the engine of a folder as a crash would: its sessions die with it."""
    os.kill(int((data_dir / "postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)


async def until_stored(client: InventoryClient, within_s: float = BACK_S) -> int:
    """Try to make an inventory until that works; gives its id."""

    async def stored() -> int:
        answer = await client.create("afterwards")
        assert answer.status in (201, 503), answer
        return int(answer.json["id"]) if answer.status == 201 else 0

    return await until(stored, within_s, what="an inventory that is stored")


async def until_shown(client: InventoryClient, *keys: int) -> None:
    """Wait until the list shows these."""

    async def shown() -> bool:
        return set(keys) <= {row["inventario_id"] for row in await client.rows()}

    await until(shown, BACK_S, what=f"inventories {keys}")


async def everywhere_once(store: ValkeyServer, client: InventoryClient, inventory: Inventory, load: Load) -> None:
    """Every acknowledged command is in model, stream, channels and projection, once; all of them agree."""

    async def caught_up() -> bool:
        return (await inventory.queries.lag()).events == 0

    await until(caught_up, BACK_S, what="a projection that has everything")
    ids = await event_ids(inventory.url)
    assert len(ids) < 1000, "more than the channel keeps: send less"
    with store.client() as redis:
        entries = redis.execute_command("XRANGE", "buzon:events", "-", "+")
    assert [name for name, _ in entries] == [f"{number}-0" for number in range(1, len(ids) + 1)]
    assert all(event_id in str(fields) for event_id, (_, fields) in zip(ids, entries, strict=True))
    assert [each["event_id"] for each in await client.history()] == ids

    async def told() -> bool:
        return len(await client.history("$inventory")) >= len(ids)

    await until(told, BACK_S, what="what is told of the projection")
    assert [each["event_id"] for each in await client.history("$inventory")] == ids
    assert set(load.acknowledged) <= set(ids)
    assert max(Counter(ids).values()) == 1

    sure: Counter[int] = Counter()
    for key, quantity in load.acknowledged.values():
        sure[key] += quantity
    model = {row["id"]: row["total"] for row in await inventory.database.rows(MODEL)}
    assert {key: row.total_items for key, row in (await inventory.resumen()).items()} == model
    assert all(model[key] >= total for key, total in sure.items())
    assert not (await inventory.upkeep.verify()).differences


async def wake(http: aiohttp.ClientSession, node: NodeProcess) -> None:
    """Have the channel `$inventory` keep what is told there, as for a listener who comes back."""
    async with WsListener(http, node.url, "$inventory"):
        pass


async def test_a_node_that_is_killed_again_and_again_loses_and_doubles_nothing(
    make_node: NodeFactory, own_valkey: ValkeyServer, inventory: Inventory, http: aiohttp.ClientSession
) -> None:
    """kill -9 at moments of chance under a load of commands."""
    chance = random.Random()  # noqa: S311  moments, no secrets
    node = make_node({**NODE, "DATABASE_URL": inventory.url}, redis_url=own_valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    await wake(http, node)
    load = Load([client], "load", at_once=3)
    for _ in range(KILLS):
        await passing(chance.uniform(*LOAD_S))
        node.kill9()
        await node.start()
    answered = len(load.acknowledged)
    await until(lambda: len(load.acknowledged) > answered, what="commands after the last start")
    await load.stop()
    await everywhere_once(own_valkey, client, inventory, load)


async def test_the_other_node_takes_over_from_the_one_that_moved_the_events(
    make_node: NodeFactory, own_valkey: ValkeyServer, inventory: Inventory, http: aiohttp.ClientSession
) -> None:
    """One at a time is at work; when it is killed the other has everything within three seconds, though it was the
    other that took the commands meanwhile."""
    nodes = [
        make_node({**NODE, "NODE_ID": name, "DATABASE_URL": inventory.url}, redis_url=own_valkey.url)
        for name in ("a", "b")
    ]
    await asyncio.gather(*(node.start() for node in nodes))
    clients = {node.port: InventoryClient(http, node.url) for node in nodes}
    await wake(http, nodes[0])
    load = Load(list(clients.values()), "load", at_once=2)
    owner, other = await told_apart(nodes, clients)
    await until(lambda: len(load.acknowledged) > 20, what="some commands")

    owner.kill9()
    killed_at = time.monotonic()
    survivor = clients[other.port]
    made = await until_stored(survivor)
    await load.stop()

    async def has_it() -> bool:
        return (await survivor.get(made)).status == 200

    await until(has_it, BACK_S, what="what was made after the death")
    assert time.monotonic() - killed_at < TAKEN_OVER_S
    await survivor.until_lag(0)
    await everywhere_once(own_valkey, survivor, inventory, load)


async def told_apart(nodes: list[NodeProcess], clients: dict[int, InventoryClient]) -> tuple[NodeProcess, NodeProcess]:
    """Which of two nodes moves the events, and which does not."""

    async def moved() -> list[float]:
        return [await clients[node.port].number("buzon_inventory_events_total") for node in nodes]

    async def busy() -> list[NodeProcess]:
        before = await moved()
        await passing(0.2)
        at_work = [node for node, earlier, now in zip(nodes, before, await moved(), strict=True) if now > earlier]
        return at_work if len(at_work) == 1 else []

    (owner,) = await until(busy, what="one node that moves events")
    (other,) = (node for node in nodes if node is not owner)
    return owner, other


async def test_without_its_database_only_the_inventory_is_away(
    make_node: NodeFactory, valkey: ValkeyServer, engine: EmbeddedPostgres, http: aiohttp.ClientSession
) -> None:
    """503 with Retry-After, soon; /health names it, the rest works; it comes back by itself, with what it had."""
    node = make_node({**NODE, "DATABASE_URL": engine.url}, redis_url=valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    key = await until_stored(client)

    await kill9(engine)

    for answer in (await client.create(), await client.line(key), await client.delete(key)):
        assert is_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    began = time.monotonic()
    assert (await client.create()).status == 503
    assert time.monotonic() - began < KNOWN_AWAY_S

    async def away() -> bool:
        return await client.postgres() == "away"

    await until(away, what="health says so")
    for _ in range(20):
        assert await away(), "and goes on saying so"
        await passing(0.1)
    assert (await client.call("GET", "/health")).status == 503
    assert (await client.call("PUT", "/api/v1/cache/k", {"value": 1})).status == 200
    assert (await client.call("POST", "/api/queue/publish", {"channel": "c", "message": 1})).status == 200

    await engine.start()

    made = await until_stored(client)

    async def healthy() -> bool:
        return (await client.call("GET", "/health")).status == 200

    await until(healthy, what="health says that it is back")
    await until_shown(client, key, made)
    assert node.child.exit_code is None


async def test_a_database_that_is_away_from_the_start_is_found_later(
    make_node: NodeFactory,
    valkey: ValkeyServer,
    short_path: Path,
    made_cluster: MadeCluster,
    http: aiohttp.ClientSession,
) -> None:
    """The node starts without it; its tables are made once it is there."""
    made_cluster.copy_to(short_path)
    engine = EmbeddedPostgres(short_path)
    node = make_node({**NODE, "DATABASE_URL": engine.url}, redis_url=valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    answer = await client.create()
    assert is_problem(answer, 503)
    assert await client.postgres() == "away"
    try:
        await engine.start()
        made = await until_stored(client)
        await until_shown(client, made)
    finally:
        await engine.stop(within_s=0)


async def test_a_node_brings_its_own_database(
    make_node: NodeFactory,
    valkey: ValkeyServer,
    short_path: Path,
    made_cluster: MadeCluster,
    http: aiohttp.ClientSession,
) -> None:
    """It is started with the first request; killed, it is started again; after a kill of the node all is there."""
    data_dir = short_path / "data"
    node = make_node(NODE, data_dir=data_dir, redis_url=valkey.url)
    await node.start()
    client = InventoryClient(http, node.url)
    assert await client.postgres() == "unused"
    assert not (data_dir / "postgres").exists()
    made_cluster.copy_to(data_dir)

    first = await client.made("first")
    assert (await client.get(first["id"], first["event_id"])).status == 200
    assert await client.postgres() == "connected"

    kill_postmaster(data_dir)
    second = await until_stored(client)
    node.kill9()
    await node.start()
    third = await until_stored(client)
    await until_shown(client, first["id"], second, third)

    version = data_dir / "postgres/data/PG_VERSION"
    was = version.read_text()
    version.write_text("17\n")
    kill_postmaster(data_dir)
    for _ in range(20):  # longer than a service may crash before it ends the node
        assert (await client.call("PUT", "/api/v1/cache/k", {"value": 1})).status == 200
        await passing(0.1)
    assert is_problem(await client.create(), 503)
    version.write_text(was)
    await until_stored(client)
    stopped = await node.sigterm()
    assert stopped.exit_code == 0
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await value_of(EmbeddedPostgres(data_dir).url, "SELECT 1")


async def test_workers_hear_that_one_of_them_wanted_the_database(
    short_path: Path, made_cluster: MadeCluster, valkey: ValkeyServer
) -> None:
    """The other may be the one that has to move the events of the first."""
    async with Workers(short_path, REDIS_URL=valkey.url, **NODE) as workers:
        await workers.start()
        assert b'"postgres":"unused"' in (await workers.fresh("/health")).body
        made_cluster.copy_to(short_path / "data")
        await made_anew(workers, "first")
        await until(lambda: connected(workers), what="a database that both have")


async def test_workers_share_the_database_of_their_parent(
    short_path: Path, made_cluster: MadeCluster, valkey: ValkeyServer
) -> None:
    """One engine for both; what one stores the other shows; it is started again when it dies."""
    made_cluster.copy_to(short_path / "data")
    async with Workers(short_path, REDIS_URL=valkey.url, **NODE) as workers:
        await workers.start()
        await until(lambda: connected(workers), what="a database that both have, though nobody asked either for it")
        for name in ("first", "second"):
            made = [await made_anew(workers, name) for _ in range(4)]
            programs = [command[0] for command in children(workers.child.pid).values()]
            assert sum(program.endswith("postgres") for program in programs) == 1, programs
            for key in made:
                await seen_by_all(workers, key)
            if name == "first":
                kill_postmaster(short_path / "data")


async def connected(workers: Workers) -> bool:
    """Whether all workers have the database open."""
    answers = [await workers.fresh("/health") for _ in range(CONNECTIONS)]
    return all(b'"postgres":"connected"' in answer.body for answer in answers)


async def made_anew(workers: Workers, name: str) -> int:
    """An inventory that is made over a connection of its own, so that either worker may get it."""

    async def stored() -> int:
        async with aiohttp.ClientSession() as http:
            answer = await InventoryClient(http, workers.url).create(name)
        assert answer.status in (201, 503), answer
        return int(answer.json["id"]) if answer.status == 201 else 0

    return await until(stored, BACK_S, what="an inventory that is stored")


async def seen_by_all(workers: Workers, key: int) -> None:
    """Wait until whoever gets a connection shows an inventory."""

    async def seen() -> bool:
        return all([(await workers.fresh(f"/inventario/{key}")).status == 200 for _ in range(6)])

    await until(seen, what=f"inventory {key}")
