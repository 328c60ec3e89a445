"""WhatsApp sends through a real node and the fake Evolution API: states, order, retries, holding, waiting, restarts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from actors.host import CONCURRENCY, STARTED_MAX
from tests.conftest import NodeFactory
from tests.support.client import Client
from tests.support.evolution import evolution
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.whatsapp import INSTANCE, QUICK, WhatsApp, whatsapp
from tests.support.ws_listener import WsListener

ANA, BEA, CID = "34600000001", "34600000002", "34600000003"
UNKNOWN = "tsk_00" + "0" * 12 + "7" + "0" * 3 + "8" + "0" * 15


async def test_what_is_sent_arrives_in_order_and_can_be_looked_up(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """The answer of the contract; the result with WhatsApp's id; the text on the phone; nothing of the key anywhere."""
    async with whatsapp(make_node, valkey, http) as rig:
        answer = await rig.post("+34 600-000.001", "uno")
        assert (answer.status, answer.json) == (
            202,
            {
                "success": True,
                "message": "Mensaje encolado correctamente para procesamiento",
                "task_id": answer.json["task_id"],
            },
        )
        for text in ("dos", "tres"):
            await rig.send(ANA, text)
        task = await rig.task(answer.json["task_id"], 5)
        last = await rig.sent(f"{ANA}@s.whatsapp.net", "cuatro")

        assert rig.fake.received(ANA) == ["uno", "dos", "tres", "cuatro"]
        (first, *_) = rig.fake.messages(ANA)
        assert (task["status"], task["attempts"]) == ("SUCCESS", 1)
        assert task["result"] == {"success": True, "phone": "+34 600-000.001", "evolution_key": first.id}
        assert last["result"]["phone"] == f"{ANA}@s.whatsapp.net"
        assert rig.fake.fake.options.key not in rig.node.output()
        assert "cuatro" not in rig.node.output()
        page = await rig.client.listed("/tasks", "tasks", status="SUCCESS", limit=1)
        assert {row["task_id"] for row in page} >= {task["task_id"], last["task_id"]}
        assert len(page) == 4
        assert await rig.client.listed("/tasks", "tasks", instance="another") == []
        counted = (await rig.client.call("GET", "/monitoring")).json
        assert counted["tasks"]["SUCCESS"] == 4
        assert counted["evolution"]["version"].startswith("2.4")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"message": "x"}, "phone"),
        ({"phone": "123", "message": "x"}, "phone"),
        ({"phone": "a@b", "message": "x"}, "phone"),
        ({"phone": 34600000001, "message": "x"}, "phone"),
        ({"phone": ANA}, "message"),
        ({"phone": ANA, "message": ""}, "message"),
        ({"phone": ANA, "message": "  \n"}, "message"),
        ({"phone": ANA, "message": "x" * 65_537}, "message"),
        ({"phone": ANA, "message": "x", "instance_name": ".."}, "instance_name"),
        ({"phone": ANA, "message": "x", "instance_name": "a/b"}, "instance_name"),
        ({"phone": ANA, "message": "x", "eta": "tomorrow"}, "eta"),
        ({"phone": ANA, "message": "x", "eta": "2026-11-29T10:00:00"}, "eta"),
        ({"phone": ANA, "message": "x", "delay": -1}, "delay"),
        ({"phone": ANA, "message": "x", "delay": 1, "eta": "2026-11-29T10:00:00Z"}, "delay"),
        ({"phone": ANA, "message": "x", "message_id": "ñ"}, "message_id"),
        ({"phone": ANA, "message": "x", "on_unknown": "maybe"}, "on_unknown"),
    ],
)
async def test_bad_requests_name_the_field_and_store_nothing(
    walk_client: Client, body: dict[str, Any], pointer: str
) -> None:
    """400 as everywhere."""
    before = await walk_client.listed("/tasks", "tasks")
    answer = await walk_client.call("POST", "/messages", body)

    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert f"$.{pointer}" in answer.json["detail"]
    assert await walk_client.listed("/tasks", "tasks") == before


@pytest.fixture
async def walk_client(make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession) -> Client:
    """A client of a node whose Evolution is nowhere."""
    node = make_node({"EVOLUTION_API_URL": "http://127.0.0.1:9"}, redis_url=valkey.url)
    await node.start()
    return Client(http, node.url)


async def test_one_message_id_or_idempotency_key_is_one_task(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """Sent twice it is the same task, sent once; for another contact it is another; another body is a conflict."""
    async with whatsapp(make_node, valkey, http) as rig:
        first, again = [await rig.post(ANA, "uno", message_id="m-1") for _ in range(2)]
        other = await rig.post(BEA, "uno", message_id="m-1")
        await rig.task(first.json["task_id"], 5)
        late = await rig.post(ANA, "uno", message_id="m-1")
        body = {"phone": CID, "message": "uno"}
        keyed = [await rig.client.call("POST", "/messages", body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        changed = await rig.client.call(
            "POST", "/messages", {**body, "message": "dos"}, headers={"Idempotency-Key": "k"}
        )
        await rig.task(other.json["task_id"], 5)
        await rig.task(keyed[0].json["task_id"], 5)

        assert first.json["task_id"] == again.json["task_id"] == late.json["task_id"] != other.json["task_id"]
        assert [answer.json.get("duplicate", False) for answer in (first, again, late)] == [False, True, True]
        assert keyed[0].json == keyed[1].json
        assert keyed[1].headers["Idempotency-Replayed"] == "true"
        assert changed.status == 409
        assert [rig.fake.received(phone) for phone in (ANA, BEA, CID)] == [["uno"], ["uno"], ["uno"]]


async def test_retry_failure_and_another_try_on_demand(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """What passes is tried again; what lasts fails after the retries, what is final at once; each may be retried."""
    async with whatsapp(make_node, valkey, http) as rig:
        rig.fake.fail_next("timed-out")
        passed = await rig.sent(ANA, "uno")
        rig.fake.fail_next("rate-overlimit", number=BEA, times=3)
        lasting = await rig.sent(BEA, "dos")
        rig.fake.absent(CID)
        final = await rig.sent(CID, "tres")
        rig.fake.fake.whatsapp.absent.clear()
        retried = [await rig.client.call("POST", f"/tasks/{task['task_id']}/retry") for task in (lasting, final)]
        ended = [await rig.task(task["task_id"], 5) for task in (lasting, final)]
        refused = [
            await rig.client.call(method, f"/tasks/{passed['task_id']}{path}")
            for method, path in (("POST", "/retry"), ("DELETE", ""))
        ]

        assert (passed["status"], passed["attempts"]) == ("SUCCESS", 2)
        assert (lasting["status"], lasting["attempts"]) == ("FAILURE", 3)
        assert lasting["result"]["success"] is False
        assert "rate-overlimit" in lasting["result"]["error"]
        assert final["result"] == {"success": False, "phone": CID, "error": "the number is not on WhatsApp"}
        assert final["attempts"] == 1
        assert [answer.status for answer in retried] == [202, 202]
        assert [task["status"] for task in ended] == ["SUCCESS", "SUCCESS"]
        assert [answer.status for answer in refused] == [409, 409]
        assert "SUCCESS" in refused[0].json["detail"]


async def test_later_revoked_and_unknown(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """A task with a time is not sent before it and holds up nobody; it may be revoked until then; others are 404."""
    async with whatsapp(make_node, valkey, http) as rig:
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        later = await rig.send(ANA, "luego", eta=at.isoformat())
        never = await rig.send(ANA, "nunca", delay=300)
        now = await rig.sent(ANA, "ya")
        waiting = await rig.task(later)
        revoked = await rig.client.call("DELETE", f"/tasks/{never}")
        gone = await rig.task(never)
        ended = await rig.task(later, 5)
        sent_at = time.time()
        soon = await rig.send(BEA, "pronto", delay=300)
        hurried = await rig.client.call("POST", f"/tasks/{soon}/retry")
        await rig.task(soon, 5)
        unknown = [
            (await rig.client.call(method, path)).status
            for name in (UNKNOWN, "x", "dlv_" + UNKNOWN[4:])
            for method, path in (
                ("GET", f"/tasks/{name}"),
                ("DELETE", f"/tasks/{name}"),
                ("POST", f"/tasks/{name}/retry"),
            )
        ]

        assert now["status"] == "SUCCESS"
        assert (waiting["status"], waiting["eta"][:19]) == ("PENDING", at.isoformat()[:19])
        assert (revoked.status, gone["status"], gone["result"]) == (200, "REVOKED", None)
        assert ended["status"] == "SUCCESS"
        assert sent_at >= at.timestamp()
        assert rig.fake.received(ANA) == ["ya", "luego"]
        assert (hurried.status, rig.fake.received(BEA)) == (202, ["pronto"])
        assert unknown == [404] * 9


async def test_a_closed_instance_holds_its_lane_and_no_other(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """No retry is used up however long it lasts; it says so; what waited goes out in order when it is open again."""
    async with whatsapp(make_node, valkey, http, fake_options={"instances": ("demo", "other")}) as rig:
        rig.fake.state("close")
        tasks = [await rig.send(ANA, f"{number}") for number in range(5)]
        other = await rig.sent(BEA, "otra", instance_name="other")
        await until(lambda: "whatsapp instance held" in rig.node.output(), 5)
        found = await rig.task(tasks[0])
        metrics = (await rig.client.call("GET", "/metrics")).body.decode()

        async def shown() -> dict[str, Any] | None:
            instances = (await rig.client.call("GET", "/monitoring")).json["evolution"]["instances"]
            return next((each for each in instances if each["instance"] == INSTANCE and "held" in each), None)

        held = await until(shown, 5, what="the monitoring says that it is held")
        rig.fake.state("open")
        ended = [await rig.task(task, 10) for task in tasks]

        assert other["status"] == "SUCCESS"
        assert (found["status"], found["result"]) == ("PENDING", None)
        assert "not connected" in found["log"][-1]["error"]
        assert held is not None
        assert "not connected" in held["held"]
        assert "buzon_instances_held 1.0" in metrics
        assert [task["status"] for task in ended] == ["SUCCESS"] * 5
        assert rig.fake.received(ANA) == [f"{number}" for number in range(5)]


async def test_what_waits_for_its_turn_does_not_go_out_through_a_held_lane(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """More sends are begun than may be out. Those out hang; by then their lane is held, and none follows them."""
    async with whatsapp(make_node, valkey, http) as rig:
        for number in range(2):  # each answer doubles what may be begun
            assert (await rig.sent(ANA, str(number)))["status"] == "SUCCESS"
        before = _sends(rig)
        rig.fake.state("close")
        rig.fake.fail_next("hang", times=None)
        tasks = [await rig.send(f"3461000{number:04d}", "uno") for number in range(2 * STARTED_MAX)]
        await until(lambda: '"whatsapp instance held"' in rig.node.output(), 10)
        await until_all(rig, tasks, "PENDING", "RETRY")
        out = _sends(rig) - before
        rig.fake.heal()
        rig.fake.state("open")
        ends = [await rig.task(task, 15) for task in tasks]

        assert out <= CONCURRENCY
        assert {end["status"] for end in ends} == {"SUCCESS"}
        assert all(len(rig.fake.received(f"3461000{number:04d}")) == 1 for number in range(2 * STARTED_MAX))


async def until_all(rig: WhatsApp, tasks: list[str], *states: str) -> None:
    """Wait until each of the tasks is in one of these states."""

    async def reached() -> bool:
        return all([(await rig.task(task))["status"] in states for task in tasks])

    await until(reached, 10)


def _sends(rig: WhatsApp) -> int:
    return sum("/sendText/" in answer["path"] for answer in rig.fake.answers)


async def test_a_missing_license_holds_everything_too(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """503 LICENSE_REQUIRED: an operator has to act."""
    async with whatsapp(make_node, valkey, http, fake_options={"activated": False}) as rig:
        task = await rig.send(ANA, "uno")
        await until(lambda: '"cause":"license"' in rig.node.output(), 5)
        assert (await rig.task(task))["status"] == "PENDING"
        rig.fake.fake.activated = True
        assert (await rig.task(task, 10))["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("version", "on_unknown", "expected"),
    [
        ("2.4", "dead", ("SUCCESS", 1)),
        ("2.3", "retry", ("SUCCESS", 2)),
        ("2.3", "dead", ("FAILURE", 1)),
        ("1", "dead", ("FAILURE", 1)),
    ],
)
async def test_a_send_of_which_nobody_knows(
    make_node: NodeFactory,
    valkey: ValkeyServer,
    http: aiohttp.ClientSession,
    version: str,
    on_unknown: str,
    expected: tuple[str, int],
) -> None:
    """Sent, and then no answer: where the server takes our message id it cannot be sent twice; elsewhere the request
    chooses."""
    async with whatsapp(make_node, valkey, http, version) as rig:
        rig.fake.fail_next("sent-then-hang")
        task = await rig.sent(ANA, "uno", on_unknown=on_unknown)

        assert (task["status"], len(rig.fake.received(ANA))) == expected
        assert task["result"].get("uncertain", False) == (task["status"] == "FAILURE")


async def test_receipts_move_a_tasks_delivery_forward_and_all_of_it_is_told(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """Through Evolution's webhook; `$tasks` has each change in order."""
    async with whatsapp(make_node, valkey, http) as rig:
        rig.fake.webhook(f"{rig.client.url}/evolution/webhook")
        async with WsListener(http, rig.client.url, "$tasks") as listener:
            task = await rig.sent(ANA, "uno")
            key_id = task["result"]["evolution_key"]
            for receipt in ("READ", "DELIVERY_ACK"):
                rig.fake.status(key_id, receipt)
                await rig.fake.settled()

            def told(what: str) -> list[dict[str, Any]]:
                return [event for event in listener.data["$tasks"] if event["type"] == what]

            await until(lambda: [event["delivery"] for event in told("delivery")][-1:] == ["read"], 5)
            found = await rig.task(task["task_id"])

        assert found["delivery"] == "read"
        assert [len(told(what)) for what in ("queued", "started", "succeeded")] == [1, 1, 1]
        assert told("succeeded")[0]["result"] == task["result"]
        assert {event["task_id"] for event in listener.data["$tasks"]} == {task["task_id"]}


async def test_tasks_survive_kill_9_of_node_and_store(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """What was acknowledged is sent by whoever comes next; what had ended is still known."""
    async with whatsapp(make_node, own_valkey, http, TASK_RETRY_DELAY="200ms") as rig:
        done = await rig.sent(ANA, "antes")
        rig.fake.state("close")
        waiting = [await rig.send(ANA, f"{number}") for number in range(3)]
        later = await rig.send(BEA, "luego", delay=2)
        rig.node.kill9()
        own_valkey.kill9()
        await asyncio.to_thread(own_valkey.start)
        rig.fake.state("open")
        await rig.node.start()
        ended = [await rig.task(task, 10) for task in [*waiting, later]]

        assert [task["status"] for task in ended] == ["SUCCESS"] * 4
        assert rig.fake.received(ANA) == ["antes", "0", "1", "2"]
        assert rig.fake.received(BEA) == ["luego"]
        assert (await rig.task(done["task_id"]))["result"] == done["result"]


async def test_a_store_that_forgot_its_last_second_is_told_its_tasks_again(
    make_node: NodeFactory, own_valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """kill -9 of the store, and the end of its log is gone: the node that acknowledged them writes them again, once."""
    async with whatsapp(make_node, own_valkey, http) as rig:
        await rig.sent(ANA, "antes")
        safe = _aof_bytes(own_valkey)
        tasks = [await rig.send(ANA, f"{number}", delay=3) for number in range(10)]
        own_valkey.kill9()
        own_valkey.cut_aof(_aof_bytes(own_valkey) - safe)
        await asyncio.to_thread(own_valkey.start)
        await until(lambda: "10 messages had been lost" in rig.node.output(), 5)

        async def known() -> bool:
            return (await rig.client.call("GET", f"/tasks/{tasks[-1]}")).status == 200

        await until(known, 5, what="the store is read again")
        ended = [await rig.task(task, 15) for task in tasks]

        assert [task["status"] for task in ended] == ["SUCCESS"] * 10
        assert sorted(rig.fake.received(ANA)[1:]) == [f"{number}" for number in range(10)]


async def test_the_pace_of_an_instance(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """`EVOLUTION_RATE`: so many a second, whoever they are for."""
    async with whatsapp(make_node, valkey, http, EVOLUTION_RATE="5/s") as rig:
        began = time.monotonic()
        tasks = [await rig.send(f"3460000001{number}", "x") for number in range(6)]
        for task in tasks:
            await rig.task(task, 5)
        assert time.monotonic() - began >= 0.95


async def test_any_node_takes_a_task_and_its_owner_sends_it(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """Order of a contact holds whoever was asked; looking up, revoking and waiting work anywhere."""
    async with evolution("2.4") as fake:
        given = {"EVOLUTION_API_URL": fake.url, "EVOLUTION_API_KEY": fake.fake.options.key, **QUICK}
        nodes = [make_node({**given, "NODE_ID": name}, redis_url=valkey.url) for name in ("a", "b", "c")]
        for node in nodes:
            await node.start()
        rigs = [WhatsApp(node, Client(http, node.url), fake) for node in nodes]
        tasks = [await rigs[number % 3].send(ANA, f"{number}") for number in range(12)]
        later = await rigs[0].send(ANA, "nunca", delay=60)
        revoked = [(await rig.client.call("DELETE", f"/tasks/{later}")).status for rig in rigs]
        ended = [await rigs[(number + 1) % 3].task(task, 10) for number, task in enumerate(tasks)]

        assert [task["status"] for task in ended] == ["SUCCESS"] * 12
        assert fake.received(ANA) == [f"{number}" for number in range(12)]
        assert sorted(revoked) == [200, 409, 409]


def _aof_bytes(store: ValkeyServer) -> int:
    """The size of the append-only file: what an answered command wrote is in it."""
    newest = max(store.directory.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)
    return newest.stat().st_size
