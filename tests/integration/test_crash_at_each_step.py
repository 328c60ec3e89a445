"""kill -9 of the node at each step of a delivery's life: what was acknowledged arrives, and only a request that was
already out can arrive a second time, under the same webhook-id with the same bytes."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.support.node import NodeProcess
from tests.support.sink import Reply, Sink
from tests.support.until import until
from tests.support.valkey import ValkeyServer

QUICK = {"RETRY_DELAY": "0.2"}
IDS = ("first", "second")
POST_TAKES_S = 0.3
STEPS = {
    "before_append:kill@2": 1,
    "after_append:kill@2": 1,
    "after_close:kill": 1,
    "before_claim:kill": 1,
    "after_claim:kill": 1,
    "mid_post:kill": 2,
    "after_post_before_settle:kill": 2,
    "after_settle:kill": 1,
}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes its time, so that a request can be caught on its way."""
    async with Sink() as receiver:
        receiver.on("/hook", Reply(delay_s=POST_TAKES_S))
        yield receiver


async def post(http: aiohttp.ClientSession, node: NodeProcess, sink: Sink, message_id: str) -> bool:
    """Send one message of a batch of two; whether it was acknowledged."""
    message = {
        "webhook": {"url": sink.url()},
        "buffer": {"key": "k", "max_size": len(IDS), "wait_time": 60},
        "payload": {"n": message_id},
        "message_id": message_id,
    }
    try:
        async with http.post(f"{node.url}/api/v1/message", json=message) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def statuses(http: aiohttp.ClientSession, node: NodeProcess) -> list[str]:
    """How the deliveries stand."""
    async with http.get(f"{node.url}/api/v1/deliveries") as response:
        return [delivery["status"] for delivery in (await response.json())["deliveries"]]


@pytest.mark.parametrize(("failpoint", "posts"), STEPS.items(), ids=STEPS)
async def test_a_crash_loses_nothing_and_repeats_only_what_was_out(
    failpoint: str, posts: int, make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """A client that resends what was not acknowledged, under the same id, gets its batch delivered once in effect."""
    node = make_node(QUICK, redis_url=valkey.url, failpoints=failpoint)
    await node.start()
    acknowledged = {message_id for message_id in IDS if await post(http, node, sink, message_id)}
    assert await node.ended() == -signal.SIGKILL

    node.failpoints = ""
    await node.start()
    for message_id in IDS:
        assert message_id in acknowledged or await post(http, node, sink, message_id)
    requests = await sink.wait_for_requests(posts, 10)
    await until(lambda: delivered(http, node), 10, what="the delivery is settled")

    assert len(requests) == posts
    assert {request.headers["webhook-id"] for request in requests} == {requests[0].headers["webhook-id"]}
    assert {request.body for request in requests} == {requests[0].body}
    assert [body in requests[0].body for body in (b'"first"', b'"second"')] == [True, True]


async def delivered(http: aiohttp.ClientSession, node: NodeProcess) -> bool:
    """Whether exactly one delivery exists, and that one arrived."""
    return await statuses(http, node) == ["delivered"]


async def test_sigterm_ends_a_node_in_order(make_node: NodeFactory, valkey: ValkeyServer) -> None:
    """Exit code 0 well within five seconds, and the same node comes up again."""
    node = make_node(redis_url=valkey.url)
    await node.start()

    stopped = await node.sigterm()

    assert stopped.exit_code == 0, node.output()
    assert stopped.seconds < 5
    await node.start()
