"""WhatsApp, buffer, agent, WhatsApp: somebody writes in pieces, an agent is asked once, its answer arrives."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import NodeFactory
from tests.support.sink import Reply, Sink
from tests.support.until import steady, until
from tests.support.valkey import ValkeyServer
from tests.support.whatsapp import INSTANCE, WhatsApp, whatsapp

ANA = "34600000001"
JSON = (("Content-Type", "application/json"),)
BURST = ("hola", "quería saber", "si abren hoy")


async def routed(rig: WhatsApp, sink: Sink, **more: Any) -> None:
    """Evolution tells the node, and what contacts write goes to the agent."""
    rig.fake.webhook(f"{rig.client.url}/evolution/webhook")
    route = {"webhook": {"url": sink.url()}, "buffer": {"wait_time": 0.4, "max_size": 20}, **more}
    answer = await rig.client.call("PUT", f"/api/v1/inbound/{INSTANCE}", route)
    assert answer.status == 200, answer


@pytest.mark.parametrize("version", ["1", "2.3", "2.4"])
async def test_five_short_messages_one_answer(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, version: str
) -> None:
    """The agent gets one request with all that was said, and no key; the contact gets one answer."""
    async with whatsapp(make_node, valkey, http, version) as rig, Sink() as agent:
        agent.on("/hook", Reply(body=b'{"output":"Abrimos a las nueve."}', headers=JSON))
        await routed(rig, agent, reply=True)
        for text in BURST:
            rig.fake.incoming(ANA, text)
            await rig.fake.settled()
        (request,) = await agent.wait_for_requests(1)
        await until(lambda: rig.fake.received(ANA), 5, what="the answer arrives")

        event = msgspec.json.decode(request.body)
        assert event["data"]["message"]["conversation"] == "\n".join(BURST)
        assert b"apikey" not in request.body
        assert rig.fake.received(ANA) == ["Abrimos a las nueve."]
        await steady(lambda: len(rig.fake.received(ANA)) == 1 and agent.count == 1, 0.6)
        (task,) = await rig.client.listed("/tasks", "tasks")
        assert (task["status"], task["phone"]) == ("SUCCESS", f"{ANA}@s.whatsapp.net")


async def test_n8n_and_a_path_of_its_own(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """`format: "n8n"` and `reply_path`; an answer without a text is no reply."""
    async with whatsapp(make_node, valkey, http) as rig, Sink() as agent:
        agent.on("/hook", Reply(body=b'[{"data":{"says":"uno"}}]', headers=JSON))
        buffer = {"wait_time": 0.1, "format": "n8n"}
        await routed(rig, agent, reply=True, reply_path="data.says", buffer=buffer)
        rig.fake.incoming(ANA, "hola")
        await until(lambda: rig.fake.received(ANA), 5, what="the answer arrives")
        agent.on("/hook", Reply(body=b'{"output":"no"}', headers=JSON))
        rig.fake.incoming(ANA, "otra")
        requests = await agent.wait_for_requests(2)

        asked = msgspec.json.decode(requests[0].body)
        assert (asked["chatInput"], asked["sessionId"], asked["instanceName"]) == (
            "hola",
            f"{INSTANCE}:{ANA}@s.whatsapp.net",
            INSTANCE,
        )
        await steady(lambda: rig.fake.received(ANA) == ["uno"], 0.5)


async def test_a_reply_survives_a_crash_and_is_sent_once(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession
) -> None:
    """The node dies while the agent thinks: it is asked again, and whatever it says then, one reply is sent."""
    async with whatsapp(make_node, valkey, http) as rig, Sink() as agent:
        agent.on("/hook", Reply(body=b'{"answer":"hola"}', headers=JSON, delay_s=1.0))
        await routed(rig, agent, reply=True)
        rig.fake.incoming(ANA, "hola")
        await agent.wait_for_requests(1)
        rig.node.kill9()
        await rig.node.start()
        await until(lambda: rig.fake.received(ANA), 10, what="the answer arrives")
        await steady(lambda: rig.fake.received(ANA) == ["hola"], 0.5)
        assert len({request.headers["webhook-id"] for request in agent.requests}) == 1
