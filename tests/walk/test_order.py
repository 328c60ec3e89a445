"""Order per key, and that keys and hosts never wait for each other."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise

from tests.support.behaviours import Behaviour, Drip, Flood, Hang, Reply, Reset
from tests.support.client import DELIVERIES, Client
from tests.support.ledger import Ledger
from tests.support.node import NodeProcess
from tests.support.sink import Sink
from tests.support.until import until
from tests.support.valkey import free_port

TROUBLE_S = 4
"""For how long a webhook is in the way, at least, where one is."""
QUICK_S = TROUBLE_S / 2
"""A delivery to a healthy one that took less did not wait for it, on the busiest machine; most take some milliseconds.
How many is the benchmark's."""


async def test_the_next_batch_of_a_key_waits_for_the_one_before(client: Client, sink: Sink, key: str) -> None:
    """Through all its failed tries; then they follow in the order in which they were closed."""
    sink.on("/hook", Reply(status=500), Reply(status=500), Reply(status=200))
    for number in range(4):
        await client.send(sink.url(), key, {"n": number}, max_size=1, format="merged")

    await client.until_status(key, *["delivered"] * 4)

    bodies = [request.body for request in sink.requests]
    assert bodies == [b'{"n":0}'] * 3 + [b'{"n":1}', b'{"n":2}', b'{"n":3}']


async def test_a_dead_batch_makes_way(client: Client, sink: Sink, key: str) -> None:
    """The next one starts when it has died; replayed, it comes behind those that wait."""
    sink.on("/hook", Reply(status=410), Reply(delay_s=0.3), Reply())
    for number in range(3):
        await client.send(sink.url(), key, {"n": number}, max_size=1, format="merged")
    (dead,) = await until(lambda: client.deliveries(key=key, status="dead"), what="the first is dead")
    await sink.wait_for_requests(2)

    assert (await client.call("POST", f"{DELIVERIES}/{dead['id']}/retry")).status == 202
    await client.until_status(key, "delivered", "delivered", "delivered")

    assert [request.body for request in sink.requests] == [b'{"n":0}', b'{"n":1}', b'{"n":2}', b'{"n":0}']


async def test_one_request_of_a_key_at_a_time(client: Client, sink: Sink, key: str) -> None:
    """A slow webhook sees the next batch only after it answered."""
    sink.on("/hook", Reply(delay_s=0.15))
    for number in range(4):
        await client.send(sink.url(), key, {"n": number}, max_size=1, format="merged")

    requests = await sink.wait_for_requests(4)

    assert [request.body for request in requests] == [b'{"n":%d}' % number for number in range(4)]
    gaps = [later.at - earlier.at for earlier, later in pairwise(requests)]
    assert min(gaps) >= 0.149


async def test_many_keys_through_a_flaky_webhook_each_in_order(client: Client, sink: Sink, key: str) -> None:
    """Every first try fails, whatever closes the batches: nothing is lost, doubled, changed or out of order."""
    ledger = Ledger()
    keys = [f"{key}-{number}" for number in range(20)]

    async def talk(each: str) -> None:
        sink.on(f"/{each}", *(Reply(status=500 if turn % 2 == 0 else 200) for turn in range(200)))
        for number in range(17):
            name = f"{each}.{number}"
            await client.send(sink.url(f"/{each}"), each, {}, message_id=name, max_size=4, wait_time=0.05)
            ledger.note(each, name, acknowledged=True)

    await asyncio.gather(*map(talk, keys))

    def taken() -> int:
        return sum(int(each.headers["x-buffer-size"]) for each in sink.requests if each.headers["x-attempt"] != "1")

    await until(lambda: taken() == 20 * 17, 20, what="everything is delivered")

    findings = ledger.reconcile(sink.requests, taken=lambda request: request.headers["x-attempt"] != "1")
    assert findings.clean, findings


async def test_another_key_does_not_wait(client: Client, sink: Sink, key: str) -> None:
    """Nor does it for the same webhook: what answers slowly, as those do that ask a language model, answers a dozen
    conversations at once."""
    sink.on("/slow", Reply(delay_s=TROUBLE_S))
    await asyncio.gather(*(client.send(sink.url("/slow"), f"{key}-{n}", {}, max_size=1) for n in range(12)))
    began = time.time()

    await client.send(sink.url("/quick"), key, {}, max_size=1)
    await client.until_status(key, "delivered")

    assert time.time() - began < QUICK_S


async def test_webhooks_that_misbehave_hurt_nobody_else(
    client: Client, node: NodeProcess, sink: Sink, key: str
) -> None:
    """Hanging, dripping, resetting, refusing, answering 300 MB: a healthy one is served as if they were not there,
    and the node grows by nothing to speak of."""
    troubles: dict[str, Behaviour] = {
        "hang": Hang(),
        "drip": Drip(part="head"),
        "reset": Reset(),
        "flood": Flood(),
        "slow": Reply(delay_s=TROUBLE_S),
    }
    before_kb = resident_kb(node.pid)
    async with Sink() as hang, Sink() as drip, Sink() as reset, Sink() as flood, Sink() as slow:
        bad = dict(zip(troubles, (hang, drip, reset, flood, slow), strict=True))
        for name, host in bad.items():
            host.on("/hook", troubles[name])
        urls = [host.url() for host in bad.values()] + [f"http://127.0.0.1:{free_port()}/"]
        await asyncio.gather(
            *(
                client.send(url, f"{key}-{number}-{turn}", {}, max_size=1, webhook={"timeout": 6, "max_retries": 0})
                for number, url in enumerate(urls)
                for turn in range(20)
            )
        )
        await hang.wait_for_requests(1)
        latencies = []
        for number in range(40):
            began = time.time()
            await client.send(sink.url(), f"{key}-good-{number}", {}, max_size=1)
            await sink.wait_for_requests(number + 1)
            latencies.append(time.time() - began)

        assert max(latencies) < QUICK_S
        assert hang.open_connections <= 16
    assert resident_kb(node.pid) - before_kb < 32 * 1024


async def test_many_hanging_hosts_slow_no_other(client: Client, sink: Sink, key: str) -> None:
    """Forty hosts that hang, with more deliveries for each than it may get at once, leave room for one that works."""
    longer = {
        "timeout": 30,
        "max_retries": 0,
    }  # they still hang when the last of so many has been sent, on a busy machine too
    async with AsyncExitStack() as stack:
        hanging = [await stack.enter_async_context(Sink()) for _ in range(40)]
        for host in hanging:
            host.on("/hook", Hang())
        await asyncio.gather(
            *(
                client.send(host.url(), f"{key}-{number}-{turn}", {}, max_size=1, webhook=longer)
                for number, host in enumerate(hanging)
                for turn in range(40)
            )
        )
        await until(lambda: all(host.open_connections >= 16 for host in hanging), 10, what="all of them hang")
        began = time.time()
        await client.send(sink.url(), key, {}, max_size=1)
        await sink.wait_for_requests(1, 10)

        assert time.time() - began < QUICK_S


async def test_a_dead_host_slows_no_other(client: Client, sink: Sink, key: str) -> None:
    """Hundreds of deliveries to a host that refuses cost the next host nothing, and all come to their end."""
    url = f"http://127.0.0.1:{free_port()}/"
    await asyncio.gather(
        *(client.send(url, f"{key}-{number}", {}, max_size=1, webhook={"max_retries": 1}) for number in range(300))
    )
    began = time.time()
    await client.send(sink.url(), key, {}, max_size=1)
    await sink.wait_for_requests(1, 10)

    assert time.time() - began < QUICK_S

    async def all_dead() -> bool:
        rows = [row for row in await client.deliveries(status="dead", limit=1000) if row["url"] == url]
        return len(rows) == 300

    await until(all_dead, 20, every_s=0.2, what="all deliveries to the dead host are dead")


async def test_a_host_that_comes_back_is_served_again(client: Client, key: str) -> None:
    """Its breaker lets a probe through; all that waited is delivered."""
    port = free_port()
    for number in range(8):
        await client.send(f"http://127.0.0.1:{port}/", f"{key}-{number}", {}, max_size=1, webhook={"max_retries": 12})
    await client.until_status(f"{key}-0", "retrying")
    async with Sink(port=port) as back:
        await back.wait_for_requests(8, 15)
        for number in range(8):
            await client.until_status(f"{key}-{number}", "delivered")
        assert back.count == 8


def resident_kb(pid: int) -> int:
    """Memory of a process that is really there."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
