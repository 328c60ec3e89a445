"""From a WhatsApp contact to a webhook: Evolution's events, gathered and handed on, over a real node and a fake
Evolution of every version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from router.fake_evolution.numbers import lid_of
from tests.support.client import Answer, Client, is_problem, quoted
from tests.support.evolution import evolution
from tests.support.forked import Fork
from tests.support.node import NodeProcess
from tests.support.sink import Received, Sink
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.walk.conftest import SETTINGS

WEBHOOK, ROUTES = "/evolution/webhook", "/api/v1/inbound"
ANA, PHONE = "5511988887777", "5511988887777@s.whatsapp.net"
LID = lid_of(PHONE)
AT_S = 1_717_689_097
HIDDEN = "***"


@pytest.fixture
async def instance(client: Client) -> AsyncIterator[str]:
    """The name of an instance that nobody else uses; its route goes with the test."""
    name = f"i-{uuid4().hex[:16]}"
    yield name
    await client.call("DELETE", f"{ROUTES}/{name}")


async def put(client: Client, name: str, sink: Sink, **changes: Any) -> dict[str, Any]:
    """Put a route to a sink; two texts fill its buffer when nothing else is said."""
    route = {"webhook": {"url": sink.url()}, "buffer": {"wait_time": 30, "max_size": 2}, **changes}
    answer = await client.call("PUT", f"{ROUTES}/{quoted(name)}", route)
    assert answer.status == 200, answer
    shown: dict[str, Any] = answer.json
    return shown


def upsert(name: str, text: str, key_id: str, at_s: int = AT_S, **key: object) -> dict[str, Any]:
    """An event of version 2.4's."""
    who = key or {"remoteJid": PHONE}
    data = {
        "key": {"fromMe": False, "id": key_id, **who},
        "pushName": "Ana",
        "message": {"conversation": text},
        "messageType": "conversation",
        "messageTimestamp": at_s,
    }
    return {"event": "messages.upsert", "instance": name, "data": data, "apikey": "A" * 36}


async def tell(client: Client, event: object, path: str = WEBHOOK, **headers: str) -> Answer:
    """One webhook call."""
    return await client.call("POST", path, event, headers=headers)


async def result(client: Client, event: object, path: str = WEBHOOK) -> str:
    """What became of a call that must be answered well."""
    answer = await tell(client, event, path)
    assert answer.status == 200, answer
    assert answer.json["status"] == "success"
    happened: str = answer.json["result"]
    return happened


def body_of(request: Received) -> dict[str, Any]:
    """What the webhook got."""
    decoded: dict[str, Any] = json.loads(request.body)
    return decoded


@pytest.mark.parametrize("dialect", ["1", "2.3", "2.4"])
@pytest.mark.parametrize("by_events", [False, True])
async def test_two_texts_of_a_contact_are_one_request(
    client: Client, sink: Sink, instance: str, dialect: str, *, by_events: bool
) -> None:
    """Of every version, in both URL styles: the newest event, with both texts, without its key."""
    await put(client, instance, sink)
    async with evolution(dialect, instances=(instance,)) as fake:
        fake.webhook(client.url + WEBHOOK, by_events=by_events)
        fake.incoming(ANA, "hola")
        await fake.settled()
        newest = fake.incoming(ANA, "¿tienen pan?")
        await fake.settled()
        assert [each.status for each in fake.posted] == [200, 200]
        token = fake.fake.instance(None).token
    (request,) = await sink.wait_for_requests(1)

    event = body_of(request)
    assert (event["event"], event["instance"]) == ("messages.upsert", instance)
    assert event["data"]["key"]["id"] == newest
    assert event["data"]["message"]["conversation"] == "hola\n¿tienen pan?"
    assert token.encode() not in request.body
    assert "apikey" not in event
    headers = request.headers
    assert (headers["x-buffer-size"], headers["x-buffer-reason"]) == ("2", "size")
    assert headers["x-buffer-key"] == quoted(f"{instance}:{PHONE}")


async def test_n8n_gets_what_its_chat_nodes_take(client: Client, sink: Sink, instance: str) -> None:
    """Six fields; the aggregate is the input."""
    await put(client, instance, sink, buffer={"format": "n8n", "max_size": 2, "separator": " "})
    for number, text in enumerate(("quiero", "pan")):
        assert await result(client, upsert(instance, text, f"K{number}")) == "stored"
    (request,) = await sink.wait_for_requests(1)

    assert body_of(request) == {
        "chatInput": "quiero pan",
        "sessionId": f"{instance}:{PHONE}",
        "remoteJid": PHONE,
        "pushName": "Ana",
        "keyId": "K1",
        "instanceName": instance,
    }


async def test_texts_are_in_the_order_in_which_they_were_written(client: Client, sink: Sink, instance: str) -> None:
    """Webhooks overtake each other; WhatsApp's time does not. Within a second the arrival counts."""
    await put(client, instance, sink, buffer={"format": "envelope", "max_size": 4})
    for key_id, second in (("C", 2), ("A", 0), ("B1", 1), ("B2", 1)):
        assert await result(client, upsert(instance, key_id, key_id, AT_S + second)) == "stored"
    (request,) = await sink.wait_for_requests(1)

    envelope = body_of(request)
    assert envelope["aggregated"] == "A\nB1\nB2\nC"
    assert [each["payload"]["data"]["key"]["id"] for each in envelope["messages"]] == ["A", "B1", "B2", "C"]
    names = [each["message_id"] for each in envelope["messages"]]
    assert [name.split("_")[1] for name in names] == [f"{AT_S + second:011d}" for second in (0, 1, 1, 2)]


async def test_an_event_that_comes_three_times_is_one_message(client: Client, sink: Sink, instance: str) -> None:
    """At once, and again when its batch has gone, under the contact's other name."""
    await put(client, instance, sink)
    async with evolution("2.3", instances=(instance,)) as fake:
        fake.webhook(client.url + WEBHOOK)
        fake.hold()
        first, second = fake.incoming(ANA, "uno"), fake.incoming(ANA, "dos")
        fake.release(copies=3)
        await fake.settled()
    (request,) = await sink.wait_for_requests(1)
    assert body_of(request)["data"]["message"]["conversation"] == "uno\ndos"

    await client.until_status(f"{instance}:{PHONE}", "delivered")
    for key_id in (first, second):
        assert await result(client, upsert(instance, "otra vez", key_id, remoteJid=LID)) == "duplicate"
        assert await result(client, upsert(instance, "otra vez", key_id)) == "duplicate"
    assert [batch for batch in await client.buffers() if instance in batch["key"]] == []


async def test_copies_that_come_together_are_one_message(client: Client, sink: Sink, instance: str) -> None:
    """Whoever of them is first."""
    await put(client, instance, sink)
    ways: list[dict[str, Any]] = [{"remoteJid": LID}, {"remoteJid": LID, "remoteJidAlt": PHONE}] * 5
    results = await asyncio.gather(*(result(client, upsert(instance, "uno", "K", **way)) for way in ways))
    assert sorted(results) == ["duplicate"] * 9 + ["stored"]


async def test_a_contact_that_changes_its_name_in_the_middle_of_a_burst(
    client: Client, sink: Sink, instance: str
) -> None:
    """One request; when it is delivered the phone's name goes on, and the lid leads to it."""
    await put(client, instance, sink, buffer={"wait_time": 30, "max_size": 3, "format": "n8n"})
    async with evolution("2.4", instances=(instance,)) as fake:
        fake.webhook(client.url + WEBHOOK)
        for text, identity in (("uno", "lid_only"), ("dos", "2.3.5"), ("tres", "plain")):
            fake.incoming(ANA, text, identity=identity)
            await fake.settled()
        (request,) = await sink.wait_for_requests(1)
        assert request.headers["x-buffer-key"] == quoted(f"{instance}:{LID}")
        assert (body_of(request)["chatInput"], body_of(request)["remoteJid"]) == ("uno\ndos\ntres", PHONE)
        await client.until_status(f"{instance}:{LID}", "delivered")

        for number in range(3):
            fake.incoming(ANA, f"{number}", identity="lid_only" if number % 2 == 0 else "2.4")
            await fake.settled()
    requests = await sink.wait_for_requests(2)
    assert requests[1].headers["x-buffer-key"] == quoted(f"{instance}:{PHONE}")


async def test_every_spelling_of_the_url(client: Client, sink: Sink, instance: str) -> None:
    """With and without the event, with and without a slash, whatever the body says it is."""
    await put(client, instance, sink)
    paths = [WEBHOOK, f"{WEBHOOK}/", f"{WEBHOOK}/messages-upsert", f"{WEBHOOK}/messages-upsert/", f"{WEBHOOK}?x=%20"]
    for number, path in enumerate(paths):
        nameless = {**upsert(instance, "x", f"K{number}")}
        if "upsert" in path:
            del nameless["event"]
        assert await result(client, nameless, path) == "stored"
    plain = await tell(client, upsert(instance, "x", "K9"), **{"Content-Type": "text/plain"})
    assert (plain.status, plain.json["result"]) == (200, "stored")


async def test_what_means_nothing_here_is_taken_and_ignored(client: Client, instance: str) -> None:
    """Evolution never tries again after a 4xx: only what is no event gets one."""
    for name, data in (("qrcode.updated", {}), ("made.up", [1]), ("messages.upsert", None), ("CALL", {"x": 1})):
        assert await result(client, {"event": name, "instance": instance, "data": data}) in ("not handled", "no id")
    assert await result(client, upsert(instance, "x", "K1")) == "no route"
    closed = {"event": "connection.update", "instance": instance, "data": {"state": "close", "statusReason": 401}}
    assert await result(client, closed) == "connection"
    update = {"event": "messages.update", "instance": instance, "data": {"keyId": "K1", "status": "READ"}}
    assert await result(client, update) == "receipt"


async def test_what_is_no_event_is_refused(client: Client, instance: str) -> None:
    """With the place in the body; a body that is too large or compressed, too."""
    for body, pointer in (
        (b"{", "$"),
        (b"\xff", "$"),
        (b"", "$"),
        (b"[]", "$"),
        (b'{"event":"x","data":{}}', "$.instance"),
        (b'{"event":"x","instance":" "}', "$.instance"),
        (json.dumps({"instance": instance}).encode(), "$.event"),
        (b'{"instance":"x","event":"y","n":' + b"[" * 40 + b"]" * 40 + b"}", "$"),
    ):
        assert is_problem(await tell(client, body), 400, pointer=pointer)
    assert is_problem(await tell(client, b" " * (1024 * 1024 + 1)), 413)
    assert is_problem(await tell(client, b"{}", **{"Content-Encoding": "gzip"}), 415)
    assert is_problem(await client.call("GET", WEBHOOK), 405)


async def test_a_token_is_asked_for_where_there_is_one(
    client: Client, sink: Sink, instance: str, node: NodeProcess
) -> None:
    """Every way to show it; without it nothing changes. No log line holds it."""
    token = f"t-{uuid4().hex[:16]}"
    await put(client, instance, sink, token=token)
    event = upsert(instance, "hola", "K1")
    for wrong in (
        tell(client, event),
        tell(client, event, apikey=token[:-1]),
        tell(client, event, f"{WEBHOOK}?token=x"),
    ):
        refused = await wrong
        assert is_problem(refused, 401)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert is_problem(await tell(client, {**event, "event": "made.up"}), 401)
    assert [batch for batch in await client.buffers() if instance in batch["key"]] == []

    answers = [
        await tell(client, event, apikey=token),
        await tell(client, event, Authorization=f"Bearer {token}"),
        await tell(client, event, f"{WEBHOOK}/messages-upsert?token={token}"),
    ]
    assert [each.json["result"] for each in answers] == ["stored", "duplicate", "duplicate"]
    async with evolution("2.3", instances=(instance,)) as fake:
        for key, status in ((token, 200), ("another", 401)):
            fake.webhook(client.url + WEBHOOK, headers={"jwt_key": key})
            fake.incoming("5511988880000", "hola")
            await fake.settled()
            assert fake.posted[-1].status == status
    log = node.child.stderr_path.read_text()
    assert "/evolution/webhook" in log
    assert token not in log


async def test_our_own_messages_are_no_input(client: Client, sink: Sink, instance: str) -> None:
    """What the API sent comes back as an echo; what a person wrote on the phone is theirs."""
    await put(client, instance, sink, takeover="count")
    sent = {"event": "send.message", "instance": instance, "data": {"key": {"id": "E1", "fromMe": True}}}
    assert await result(client, sent) == "sent"
    assert await result(client, upsert(instance, "hola", "E1", remoteJid=PHONE, fromMe=True)) == "echo"
    assert await result(client, upsert(instance, "hola", "E2", remoteJid=PHONE, fromMe=True)) == "own"
    await put(client, instance, sink)
    assert await result(client, upsert(instance, "hola", "E3", remoteJid=PHONE, fromMe=True)) == "own"
    assert [batch for batch in await client.buffers() if instance in batch["key"]] == []


async def test_what_happens_is_counted(client: Client, sink: Sink, instance: str) -> None:
    """By what became of it; the numbers are in the metrics."""

    async def counted(happened: str) -> float:
        text = (await client.call("GET", "/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("buzon_inbound_events_total{")]
        return next(float(line.split()[1]) for line in lines if f'"{happened}"' in line)

    before = [await counted(name) for name in ("stored", "no_route", "malformed")]
    assert await result(client, upsert(instance, "x", "K1")) == "no route"
    await put(client, instance, sink)
    assert await result(client, upsert(instance, "x", "K1")) == "stored"
    await tell(client, b"{")
    assert [await counted(name) for name in ("stored", "no_route", "malformed")] == [each + 1 for each in before]


async def test_while_the_store_is_away(
    own_valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """503 with a time to come back, for texts and for everything else; then what is sent again is stored once."""
    data_dir = tmp_path_factory.mktemp("away") / "data"
    node = NodeProcess(data_dir, SETTINGS, redis_url=own_valkey.url)
    node.begin = Fork
    try:
        await node.start()
        client = Client(http, node.url)
        await put(client, "*", sink)
        assert await result(client, upsert("ventas", "uno", "K1")) == "stored"
        own_valkey.freeze()
        for event in (upsert("ventas", "dos", "K2"), {"event": "call", "instance": "ventas"}):
            answer = await tell(client, event)
            assert is_problem(answer, 503)
            assert answer.headers["Retry-After"].isdigit()
        own_valkey.thaw()

        async def stored() -> bool:
            return (await tell(client, upsert("ventas", "dos", "K2"))).status == 200

        await until(stored, what="the store is back")
        (request,) = await sink.wait_for_requests(1)
        assert body_of(request)["data"]["message"]["conversation"] == "uno\ndos"
    finally:
        node.close()
