"""The inventory on a real node (the HTTP contract, section 7): what is answered, what is written, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from actors.core.cache_names import NEAR_PREFIX
from actors.core.inventory import CANTIDAD_MAX
from tests.conftest import NODES
from tests.support.client import Answer, is_problem
from tests.support.inventory_api import INVENTORY, InventoryClient, command, event_ids, value_of
from tests.support.node import NodeProcess
from tests.support.postgres import PostgresServer
from tests.support.until import until
from tests.support.valkey import ValkeyServer, served
from tests.support.ws_listener import WsListener
from tests.walk.conftest import running

UNKNOWN_EVENT = "evt_" + "0" * 12 + "7" + "0" * 3 + "8" + "0" * 15
BAD_NAMES: list[Any] = ["", " ", "\t\n", "a" * 201, "a\0b", 7, None, ["Ana"], True]
BAD_CANTIDADES: list[Any] = [0, -1, CANTIDAD_MAX + 1, 2**63, 2**70, 1.5, "3", True, None, [1]]
BAD_DATES: list[Any] = [
    "",
    "mañana",
    "2030-13-01",
    "0001-01-01",
    "9999-12-31",
    "2030-02-30",
    "2030-1-1",
    "30-01-01",
    "2030-01-01T00:00:00",
    7,
    True,
]
BAD_BODIES = [b"", b"{", b"[]", b"null", b'{"cliente":"\xff"}', b'{"cliente":"\\ud800"}', b'{"cliente":NaN}']
NO_IDS = ["0", "01", "-1", "1.5", "abc", "9" * 18, "9" * 19, "9" * 30, "%201", "1%00", "0x1", "%D9%A1", "+1", "1e3"]


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    """The store of the node of this file."""
    yield from served(ValkeyServer())


@pytest.fixture(scope="module")
def url(shared_postgres: PostgresServer) -> str:
    """The database of this file's node, whose tests leave their inventories there."""
    return shared_postgres.emptied()


@pytest.fixture(scope="module")
def started(store: ValkeyServer, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The one node; use `node`."""
    folder = tmp_path_factory.mktemp("inventory") / "data"
    yield from running(folder, {"DATABASE_URL": url, "NODE_ID": "walked"}, store)


@pytest.fixture
def node(started: NodeProcess, request: pytest.FixtureRequest) -> NodeProcess:
    """The node of this file. Don't crash or stop it."""
    request.node.stash.setdefault(NODES, []).append(started)
    return started


@pytest.fixture
async def client(node: NodeProcess, http: aiohttp.ClientSession) -> InventoryClient:
    """A client of it."""
    return InventoryClient(http, node.url)


async def test_an_inventory_is_made_grows_and_goes(client: InventoryClient) -> None:
    """Each answer as the contract has it; whoever names the event reads what it did."""
    answer = await client.create("Ñandú S. A.", "2030-01-31")
    made = answer.json
    assert answer.status == 201
    assert answer.headers["Location"] == f"{INVENTORY}/{made['id']}"
    key, event_id = made.pop("id"), made.pop("event_id")
    assert made == {"cliente": "Ñandú S. A.", "fecha_caducidad": "2030-01-31", "total_items": 0}
    resumen = {"inventario_id": key, "cliente": "Ñandú S. A.", "total_items": 0, "fecha_caducidad": "2030-01-31"}
    assert (await client.get(key, event_id)).json == {**resumen, "lineas": []}

    lines = []
    for producto, cantidad in (("tuerca", 3), ("tornillo", CANTIDAD_MAX), ("tuerca", 4)):
        answer = await client.line(key, producto, cantidad)
        assert answer.status == 201
        line = answer.json
        event_id = line.pop("event_id")
        assert line.pop("inventario_id") == key
        assert line == {"id": line["id"], "producto": producto, "cantidad": cantidad}
        lines.append(line)
    total = CANTIDAD_MAX + 7
    assert (await client.get(key, event_id)).json == {**resumen, "total_items": total, "lineas": lines}
    assert {**resumen, "total_items": total} in await client.rows()

    answer = await client.delete(key)
    assert answer.status == 200
    assert answer.json == {"id": key, "event_id": answer.json["event_id"]}
    for gone in (
        await client.get(key, answer.json["event_id"]),
        await client.line(key),
        await client.delete(key),
        await client.get(key),
    ):
        assert is_problem(gone, 404)
    assert key not in [row["inventario_id"] for row in await client.rows()]


async def test_the_list_shows_the_newest_expiry_first(client: InventoryClient) -> None:
    """Those without one last, of equal ones the newest first; pages follow each other without a hole."""
    dates = ["2031-05-01", None, "2031-05-02", "2031-05-01", None, "2029-12-31"]
    made = [await client.made(f"c{number}", fecha) for number, fecha in enumerate(dates)]
    rows = await client.rows(f"limit=1000&after={made[-1]['event_id']}")
    ours = [row["inventario_id"] for row in rows if row["inventario_id"] in [each["id"] for each in made]]
    assert ours == [made[number]["id"] for number in (2, 3, 0, 5, 4, 1)]
    pages = [await client.rows(f"limit=2&offset={offset}") for offset in range(0, len(rows) + 1, 2)]
    assert [row for page in pages for row in page] == rows
    assert await client.rows(f"offset={len(rows)}") == []
    assert (await client.rows("limit=1&offset=1000000")) == []


async def bad_calls(client: InventoryClient, key: int) -> AsyncIterator[tuple[object, Answer, int]]:
    """Each thing that a client may not send: what it is, what is answered, and what should be."""
    for name in BAD_NAMES:
        yield ("cliente", name), await client.create(name), 400
        yield ("producto", name), await client.line(key, name), 400
    for cantidad in BAD_CANTIDADES:
        yield ("cantidad", cantidad), await client.line(key, "p", cantidad), 400
    for fecha in BAD_DATES:
        yield ("fecha", fecha), await client.create("Ana", fecha), 400
    for body in BAD_BODIES:
        yield body, await client.call("POST", INVENTORY, body), 400
        yield body, await client.call("POST", f"{INVENTORY}/{key}/linea", body), 400
    for field in ("producto", "cantidad"):
        whole = {"producto": "p", "cantidad": 1}
        del whole[field]
        yield field, await client.call("POST", f"{INVENTORY}/{key}/linea", whole), 400


async def test_what_may_not_be_is_refused_and_nothing_is_written(client: InventoryClient, url: str) -> None:
    """Neither a row nor an event."""
    key = (await client.made())["id"]
    count = "SELECT count(*) + (SELECT last_value FROM eventos_id_seq) FROM eventos"
    before = await value_of(url, count)

    async for what, answer, status in bad_calls(client, key):
        assert answer.status == status, (what, answer)
        assert is_problem(answer, status)

    assert await value_of(url, count) == before
    assert await value_of(url, "SELECT count(*) FROM lineas_inventario WHERE inventario_id = $1", key) == 0


@pytest.mark.parametrize("unknown", NO_IDS)
async def test_what_is_no_inventory_is_not_found(client: InventoryClient, url: str, unknown: str) -> None:
    """Whatever stands in its place in the path."""
    before = await value_of(url, "SELECT count(*) FROM eventos")
    for answer in (await client.get(unknown), await client.line(unknown), await client.delete(unknown)):
        assert is_problem(answer, 404)
    assert await value_of(url, "SELECT count(*) FROM eventos") == before


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=1001", "limit=x", "limit=1.5", "limit="),
        *("offset=-1", "offset=x", "offset=1000001"),
        *("after=", "after=x", "after=evt_", "after=evt_" + "g" * 32, "after=" + "e" * 1000, "after=%00"),
    ],
)
async def test_a_bad_query_is_refused(client: InventoryClient, query: str) -> None:
    """And the field named."""
    answer = await client.call("GET", f"{INVENTORY}?{query}")
    assert is_problem(answer, 400)
    assert query.partition("=")[0] in answer.json["detail"]


async def test_what_is_kept_near_is_not_for_callers_of_the_cache(
    client: InventoryClient, url: str, store: ValkeyServer
) -> None:
    """Who may write entries cannot forge an inventory."""
    made = await client.made()
    assert (await client.get(made["id"], made["event_id"])).status == 200
    shown = str(await value_of(url, "SELECT seq FROM proyeccion"))
    kept = f"{NEAR_PREFIX}inventario:seq"
    await until(lambda: store.command("GET", kept) == shown, what="the projection's number is shown")
    forged = await client.call("POST", "/api/cache/", {"key": kept, "value": "7"})
    assert is_problem(forged, 400)
    assert (await client.call("POST", "/api/cache/flush", {"confirm": True})).json["deleted_count"] == 0
    assert (await client.call("GET", "/api/cache/keys?pattern=*")).json["keys"] == []
    assert store.command("GET", kept) == shown


async def test_an_event_that_nobody_knows_is_not_found(client: InventoryClient) -> None:
    """At once, not after two seconds; of a list as well as of one inventory."""
    key = (await client.made())["id"]
    async with asyncio.timeout(1.0):
        assert is_problem(await client.get(key, UNKNOWN_EVENT), 404)
        assert is_problem(await client.call("GET", f"{INVENTORY}?after={UNKNOWN_EVENT}"), 404)
        assert is_problem(await client.get(key, "x"), 400)


async def test_a_command_under_an_idempotency_key_is_done_once(client: InventoryClient, url: str) -> None:
    """The first answer again, headers and all; another body is refused; another inventory is another command."""
    before = await value_of(url, "SELECT count(*) FROM eventos")
    first, again = [await client.create("Eva", "2030-01-01", idempotency_key="make Eva") for _ in range(2)]
    assert (first.status, first.body) == (again.status, again.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert is_problem(await client.create("Ada", idempotency_key="make Eva"), 409)
    key, other = first.json["id"], (await client.made())["id"]
    lines = [await client.line(at, idempotency_key="grow") for at in (key, key, other)]
    assert lines[0].body == lines[1].body
    assert lines[2].json["inventario_id"] == other
    assert is_problem(await client.line(key, cantidad=2, idempotency_key="grow"), 409)
    escaped = "".join(f"%{ord(digit):02x}" for digit in str(key))
    assert (await client.line(escaped, idempotency_key="grow")).body == lines[0].body, "the same route"
    at_once = await asyncio.gather(*(client.create("Zoe", idempotency_key="make Zoe") for _ in range(8)))
    assert len({answer.body for answer in at_once}) == 1
    assert await value_of(url, "SELECT count(*) FROM eventos") == before + 5


async def test_events_are_told_in_order_and_once(
    client: InventoryClient, http: aiohttp.ClientSession, store: ValkeyServer
) -> None:
    """On the channel `events` as they are sent, on `$inventory` once they can be read, and in the stream."""
    async with WsListener(http, client.url, "events", "$inventory") as listener:
        made = await client.made("Oír", "2030-01-31")
        key = made["id"]
        line = (await client.line(key, "tuerca", 2)).json
        gone = (await client.delete(key)).json
        heard = listener.data["events"]
        await until(lambda: min(len(heard), len(listener.data["$inventory"])) >= 3, what="three events on either")

    data = [
        {"id": key, "cliente": "Oír", "fecha_caducidad": "2030-01-31"},
        {"id": line["id"], "inventario_id": key, "producto": "tuerca", "cantidad": 2},
        {"id": key},
    ]
    ids = [made["event_id"], line["event_id"], gone["event_id"]]
    assert [set(each) for each in heard] == [{"event_id", "type", "data", "at"}] * 3
    assert [each["type"] for each in heard] == ["InventarioCreado", "LineaAgregada", "InventarioEliminado"]
    assert [each["event_id"] for each in heard] == ids
    assert [each["data"] for each in heard] == data
    assert all(each["at"].endswith("Z") for each in heard)
    told = msgspec.json.encode(listener.data["$inventory"]).decode()
    assert all(told.count(event_id) == 1 for event_id in ids)
    with store.client() as redis:
        entries = redis.execute_command("XREVRANGE", "buzon:events", "+", "-", "COUNT", 3)
    assert all(event_id in str(entry) for event_id, entry in zip(reversed(ids), entries, strict=True))


async def test_the_node_tells_how_it_stands(client: InventoryClient, url: str) -> None:
    """Health and metrics. An event is counted a moment after it can be read; each is counted once."""
    made = await client.made()
    assert (await client.get(made["id"], made["event_id"])).status == 200

    async def all_counted() -> bool:
        applied = await value_of(url, "SELECT seq FROM proyeccion")
        return bool(await client.number("buzon_inventory_events_total") == applied > 0)

    await until(all_counted, what="all events are counted")
    await client.until_lag(0)
    assert await client.number("buzon_inventory_lag_seconds") == 0
    assert await client.postgres() == "connected"
    assert (await client.call("GET", "/health")).json["status"] == "healthy"


async def test_reads_come_from_the_near_cache_and_are_never_old(client: InventoryClient, url: str) -> None:
    """A second read is the first one's answer; a later event ends that at once for whoever saw the event."""
    made = await client.made()
    key = made["id"]
    await client.get(key, made["event_id"])
    for total in range(1, 6):
        line = (await client.line(key)).json
        assert (await client.get(key, line["event_id"])).json["total_items"] == total

        async def seen(total: int = total) -> bool:
            return bool((await client.get(key)).json["total_items"] == total)

        await until(seen, 1.0, what="the new total without naming its event")
    assert (await client.call("DELETE", "/api/v1/cache/")).status == 200
    assert (await client.get(key)).json["total_items"] == 5


async def test_an_operator_migrates_verifies_and_rebuilds_under_load(
    client: InventoryClient, url: str, tmp_path: Path
) -> None:
    """Exit 0 when all is well, 4 when the projection is not what it should be, and 0 again once it was made anew."""
    made = await client.made("Ana", "2030-01-31")
    key = made["id"]
    await client.get(key, made["event_id"])
    migrated, verified = await asyncio.gather(
        command(tmp_path, url, "migrate"), command(tmp_path, url, "inventory", "verify")
    )
    assert migrated == (0, "current\n")
    assert verified[0] == 0, verified

    await value_of(url, "UPDATE inventario_resumen SET total_items = 77 WHERE inventario_id = $1", key)
    code, said = await command(tmp_path, url, "inventory", "verify")
    assert code == 4
    assert '"projection":"77"' in said
    assert "1 differences" in said or "2 differences" in said

    rebuilding = asyncio.ensure_future(command(tmp_path, url, "inventory", "rebuild"))
    lines = 0
    while not rebuilding.done():
        lines += (await client.line(key)).status == 201
        assert (await client.get(key)).status == 200
        assert await client.rows()
    code, said = await rebuilding
    assert code == 0
    assert said.startswith("rebuilt up to event ")
    last = (await client.line(key)).json
    assert (await client.get(key, last["event_id"])).json["total_items"] == lines + 1
    assert (await command(tmp_path, url, "inventory", "verify"))[0] == 0


async def test_all_events_of_this_file_are_everywhere_once(
    client: InventoryClient, url: str, store: ValkeyServer
) -> None:
    """Whatever was done above: the stream is dense from 1 on, and the database, the stream and the channel agree."""
    made = await client.made()
    assert (await client.get(made["id"], made["event_id"])).status == 200
    ids = await event_ids(url)
    with store.client() as redis:
        names = [name for name, _ in redis.execute_command("XRANGE", "buzon:events", "-", "+")]
    assert names == [f"{number}-0" for number in range(1, len(ids) + 1)]
    assert [each["event_id"] for each in await client.history()] == ids[-1000:]
