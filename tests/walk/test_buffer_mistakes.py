"""How others got message buffers wrong, a test for each. The docstrings name the mistake and where it was made."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec

from tests.conftest import NodeFactory
from tests.support.behaviours import Reply
from tests.support.client import DELIVERIES, Client
from tests.support.ledger import Ledger
from tests.support.sink import Received, Sink
from tests.support.until import passing, steady, until
from tests.support.valkey import ValkeyServer

LATE_S = 0.4
"""Generous: the machine is shared."""


def ids_of(request: Received) -> list[str]:
    """The messages of an envelope."""
    return [message["message_id"] for message in msgspec.json.decode(request.body)["messages"]]


async def test_arrivals_during_a_delivery_get_a_full_window(client: Client, sink: Sink, key: str) -> None:
    """omni PR#880: two replies a burst, because what arrived during a flush was flushed right behind it."""
    sink.on("/hook", Reply(delay_s=0.5), Reply())
    await client.send(sink.url(), key, {}, wait_time=0.1, message_id="a")
    await sink.wait_for_requests(1)
    arrived = time.time()
    await client.send(sink.url(), key, {}, wait_time=0.8, message_id="b")
    await passing(0.5)  # the first delivery ends meanwhile
    await client.send(sink.url(), key, {}, wait_time=0.8, message_id="c")

    await sink.wait_for_requests(2)

    assert [ids_of(request) for request in sink.requests] == [["a"], ["b", "c"]]
    assert arrived + 0.8 <= sink.requests[1].at < arrived + 0.8 + LATE_S


async def test_nothing_that_happens_during_a_flush_sends_it_twice(client: Client, sink: Sink, key: str) -> None:
    """omni PR#313: an event during the flush restarted the timer, and the batch went out a second time."""
    keys = [f"{key}-{number}" for number in range(40)]

    async def trouble(each: str) -> None:
        await client.send(sink.url(), each, {}, wait_time=0.2, message_id=f"{each}.1")
        await passing(0.185)  # the deadline and all of these come together
        await asyncio.gather(
            client.flush(each),
            client.buffer(each),
            client.send(sink.url(), each, {}, wait_time=0.2, message_id=f"{each}.1"),
            client.send(sink.url(), each, {}, wait_time=0.2, message_id=f"{each}.2"),
            client.flush(each),
        )

    await asyncio.gather(*map(trouble, keys))
    await until(lambda: sum(len(ids_of(request)) for request in sink.requests) >= 2 * len(keys), what="all arrive")
    await passing(0.3)

    ledger = Ledger()
    for each in keys:
        ledger.note(each, f"{each}.1", acknowledged=True)
        ledger.note(each, f"{each}.2", acknowledged=True)
    findings = ledger.reconcile(sink.requests)
    assert findings.clean, findings


async def test_the_newest_message_says_how_long_to_wait(client: Client, sink: Sink, key: str) -> None:
    """omni PR#392: a fixed window went off although the latest event asked for more time."""
    await client.send(sink.url(), key, {}, mode="window", wait_time=0.3, max_size=9)
    await passing(0.15)
    latest = time.time()
    await client.send(sink.url(), key, {}, mode="debounce", wait_time=0.5, max_size=9)

    (request,) = await sink.wait_for_requests(1)

    assert latest + 0.5 <= request.at < latest + 0.5 + LATE_S
    assert request.headers["x-buffer-size"] == "2"


async def test_every_message_of_a_burst_reaches_the_webhook(client: Client, sink: Sink, key: str) -> None:
    """omni #225, Evolution processDebounce: only the last message did; text, media and ids of the others vanished."""
    burst = [{"text": "look"}, {"media": "photo.jpg", "caption": "this"}, {"text": "nice?", "pushName": "Ana"}]
    for number, payload in enumerate(burst):
        await client.send(sink.url(), key, payload, wait_time=0.2, message_id=f"wa-{number}")

    (request,) = await sink.wait_for_requests(1)

    messages = msgspec.json.decode(request.body)["messages"]
    assert [(each["message_id"], each["payload"]) for each in messages] == [
        (f"wa-{number}", payload) for number, payload in enumerate(burst)
    ]


async def test_a_shutdown_keeps_open_buffers(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, key: str
) -> None:
    """omni PR#752: a deployment dropped whatever was waiting."""
    node = make_node(redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    for number in range(3):
        await client.send(sink.url(), f"{key}-{number}", {}, wait_time=1, message_id="m")

    assert (await node.sigterm()).exit_code == 0
    assert sink.count == 0
    await node.start()

    requests = await sink.wait_for_requests(3)
    assert sorted(request.headers["x-buffer-key"] for request in requests) == [f"{key}-{n}" for n in range(3)]


async def test_a_lost_timer_changes_nothing_of_a_batch(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink, key: str
) -> None:
    """inngest PR#4800: with the timer gone an older event overwrote the newer one. Evolution: buffers lived in RAM.

    kill -9 forgets every timer; the batch goes out at its stored time with the newest payload, all of it in order.
    """
    node = make_node(redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    began = time.time()
    options = {"wait_time": 1.5, "aggregate_field": "q", "max_size": 9}
    await client.send(sink.url("/older"), key, {"q": "a", "from": "older"}, **options)
    node.kill9()
    await node.start()
    await client.send(sink.url("/newer"), key, {"q": "b", "from": "newer"}, **options)
    node.kill9()
    await node.start()

    (request,) = await sink.wait_for_requests(1)

    assert (request.path, request.body) == ("/newer", b'{"q":"a\\nb","from":"newer"}')
    assert began + 1.5 <= request.at


async def test_a_late_message_never_moves_the_cap(client: Client, sink: Sink, key: str) -> None:
    """inngest PR#3554: an event just before the cap pushed the deadline past it."""
    began = time.time()
    for pause_s in (0.3, 0.3, 0.0):
        await client.send(sink.url(), key, {}, mode="debounce", wait_time=0.5, max_wait=0.7, max_size=9)
        await passing(pause_s)

    (request,) = await sink.wait_for_requests(1)

    assert began + 0.7 <= request.at < began + 0.7 + LATE_S
    assert request.headers["x-buffer-size"] == "3"


async def test_messages_that_meet_a_closing_batch_find_a_place(client: Client, sink: Sink, key: str) -> None:
    """inngest updateDebounce.lua: while a flush was in progress the script said "make a new one", and the reschedule
    was left to do outside of it. Here append, dedupe, deadline and cap are one script: each message is in one batch."""
    ledger = Ledger()
    sizes = {f"{key}-{number}": 1000 if number % 2 else 7 for number in range(4)}  # some close by time, some by size
    ends_at = time.time() + 1.0

    async def stream(each: str) -> None:
        number = 0
        while time.time() < ends_at:
            name = f"{each}.{number}"
            mode = "debounce" if number % 2 else "window"
            answer = await client.send(
                sink.url(), each, {}, wait_time=0.05, max_wait=0.06, mode=mode, message_id=name, max_size=sizes[each]
            )
            assert not answer["duplicate"]
            ledger.note(each, name, acknowledged=True)
            number += 1

    await asyncio.gather(*map(stream, sizes))
    await until(
        lambda: sum(int(each.headers["x-buffer-size"]) for each in sink.requests) >= len(ledger.acknowledged),
        what="all arrive",
    )

    findings = ledger.reconcile(sink.requests)
    assert findings.clean, findings
    assert {request.headers["x-buffer-reason"] for request in sink.requests} >= {"timeout", "size"}


async def test_deadlines_are_exact_to_the_millisecond(client: Client, sink: Sink, key: str) -> None:
    """inngest kept seconds. 0.12 s is neither 0 nor 1."""
    began = time.time()
    await asyncio.gather(*(client.send(sink.url(), f"{key}-{n}", {}, wait_time=0.12) for n in range(10)))

    requests = await sink.wait_for_requests(10)

    assert all(began + 0.12 <= request.at < began + 0.12 + LATE_S for request in requests)


async def test_messages_at_the_same_moment_are_one_batch(client: Client, sink: Sink, key: str) -> None:
    """The n8n recipe (Redis list, Wait, "am I the last?", GET, DEL): two that arrived together both thought so, or
    neither did, and what came between GET and DEL was gone. It also kept one sleeping execution for each message."""
    await asyncio.gather(
        *(
            client.send(sink.url(), key, {}, mode="debounce", wait_time=0.4, max_size=1000, message_id=f"m{number}")
            for number in range(200)
        )
    )

    await sink.wait_for_requests(1)
    await steady(lambda: sink.count == 1, 0.3, what="there is one delivery")

    assert sorted(ids_of(sink.requests[0])) == sorted(f"m{number}" for number in range(200))


async def test_a_steady_stream_is_neither_starved_nor_sent_piece_by_piece(client: Client, sink: Sink, key: str) -> None:
    """Chatwoot PR#15133: "discard if newer" without waiting paid for an answer to every message, and under a steady
    stream none was ever used."""
    sent = 0
    ends_at = time.time() + 1.5
    while time.time() < ends_at:
        await client.send(sink.url(), key, {}, mode="debounce", wait_time=0.2, max_wait=0.5, max_size=1000)
        sent += 1
        await passing(0.02)

    await until(lambda: sum(int(each.headers["x-buffer-size"]) for each in sink.requests) == sent, what="all arrive")

    assert 3 <= sink.count <= 5
    assert sent > 20


async def test_conversations_with_the_same_contact_stay_apart(client: Client, sink: Sink, key: str) -> None:
    """Evolution: instances and bots that talked to the same contact shared one buffer."""
    contact = f"{key}@s.whatsapp.net"
    names = ("sales", "support", "Sales", "sales ")
    for turn in range(2):
        for number, name in enumerate(names):
            await client.send(sink.url(f"/{number}"), f"{name}:{contact}", {"from": name, "turn": turn}, max_size=2)

    requests = await sink.wait_for_requests(len(names))

    for number, name in enumerate(names):
        (request,) = [each for each in requests if each.path == f"/{number}"]
        payloads = [each["payload"] for each in msgspec.json.decode(request.body)["messages"]]
        assert payloads == [{"from": name, "turn": 0}, {"from": name, "turn": 1}]


async def test_a_buffer_has_a_bound_in_bytes_by_itself(client: Client, sink: Sink, key: str) -> None:
    """Evolution: no cap at all, in memory."""
    answers = [
        await client.send(sink.url(), key, {"media": "x" * 400_000}, wait_time=60, max_size=1000) for _ in range(3)
    ]

    (request,) = await sink.wait_for_requests(1)

    assert [answer["flushed"] for answer in answers] == [False, False, True]
    assert request.headers["x-buffer-reason"] == "bytes"


async def test_a_delivery_that_fails_is_kept(client: Client, sink: Sink, key: str) -> None:
    """Evolution: errors were logged and the messages dropped. Here they are dead letters, whole, and can be sent."""
    sink.on("/hook", Reply(status=500))
    await client.send(sink.url(), key, {"text": "precious"}, max_size=1, webhook={"max_retries": 1})
    (dead,) = await client.until_status(key, "dead")
    sink.on("/hook", Reply())

    await client.call("POST", f"{DELIVERIES}/{dead['id']}/retry")
    await client.until_status(key, "delivered")

    assert len({request.body for request in sink.requests}) == 1
    assert b"precious" in sink.requests[-1].body
