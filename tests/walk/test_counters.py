"""The counters tell the truth: what a node says it did is what was done."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import NodeFactory
from tests.support.behaviours import Reply
from tests.support.client import DELIVERIES, Client
from tests.support.sink import Sink
from tests.support.until import until
from tests.support.valkey import ValkeyServer


async def counted(client: Client) -> dict[str, float]:
    """Every sample of /metrics whose value is not 0, by name and label value."""
    text = (await client.call("GET", "/metrics")).body.decode()
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.value]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


async def test_every_message_and_batch_and_attempt_is_counted_once(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Messages, duplicates, batches by what closed them, attempts by what came of them, what waits now."""
    node = make_node({"RETRY_DELAY": "50ms"}, redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    sink.on("/hook", Reply(status=500), Reply())
    sink.on("/gone", Reply(status=410))
    for number in range(3):
        await client.send(sink.url(), "size", {}, max_size=3, message_id=f"m{number}")
        await client.send(sink.url(), "size", {}, max_size=3, message_id="m0")
    await client.send(sink.url("/ok"), "bytes", {"text": "x" * 100}, max_bytes=50)
    await client.send(sink.url("/ok"), "time", {}, wait_time=0.05)
    await client.send(sink.url("/ok"), "manual", {}, wait_time=60)
    await client.flush("manual")
    await client.send(sink.url("/gone"), "dead", {}, max_size=1)
    await client.send(sink.url("/ok"), "open", {}, wait_time=60)
    for key in ("size", "bytes", "time", "manual"):
        await client.until_status(key, "delivered")
    (dead,) = await client.until_status("dead", "dead")
    await client.call("DELETE", f"{DELIVERIES}/{dead['id']}")

    async def told() -> dict[str, float] | None:
        samples = await counted(client)
        return samples if samples.get("buzon_open_batches") == 1 else None

    samples = await until(told, what="the gauges are up to date")
    assert samples is not None
    expected = {
        "buzon_messages_accepted_total": 8,
        "buzon_messages_duplicate_total": 3,
        "buzon_batches_total size": 2,
        "buzon_batches_total bytes": 1,
        "buzon_batches_total timeout": 1,
        "buzon_batches_total manual": 1,
        "buzon_batch_messages_count": 5,
        "buzon_batch_messages_sum": 7,
        "buzon_deliveries_total delivered": 4,
        "buzon_deliveries_total retrying": 1,
        "buzon_deliveries_total dead": 1,
        "buzon_deliveries_total discarded": 1,
        "buzon_delivery_attempt_seconds_count": 6,
    }
    assert {name: samples.get(name) for name in expected} == expected
    assert samples["buzon_commit_seconds_count"] > 0
    assert samples["buzon_loop_lag_seconds_count"] > 0
    assert "buzon_oldest_waiting_seconds" not in samples


async def test_the_age_of_what_waits_is_shown_and_falls(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """It grows while a delivery cannot be made and is 0 again afterwards."""
    node = make_node({"RETRY_DELAY": "50ms"}, redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    sink.on("/hook", Reply(status=503, headers=(("Retry-After", "3"),)), Reply())
    await client.send(sink.url(), "k", {}, max_size=1)

    async def age() -> float:
        return (await counted(client)).get("buzon_oldest_waiting_seconds", 0.0)

    async def shown() -> bool:
        return await age() > 0.5

    async def gone() -> bool:
        return await age() == 0

    await until(shown, 6, every_s=0.1, what="the age is shown")
    await client.until_status("k", "delivered")
    await until(gone, 6, every_s=0.1, what="nothing waits")


async def test_records_are_kept_for_their_time_only(
    make_node: NodeFactory, valkey: ValkeyServer, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """DEAD_TTL and DELIVERED_TTL: then they are neither listed nor found, and no key of theirs is left behind."""
    node = make_node({"DEAD_TTL": "1s", "DELIVERED_TTL": "1s", "IDEMPOTENCY_TTL": "1s"}, redis_url=valkey.url)
    await node.start()
    client = Client(http, node.url)
    sink.on("/gone", Reply(status=410))
    await client.send(sink.url(), "k", {}, max_size=1, message_id="m", headers={"Idempotency-Key": "i"})
    await client.send(sink.url("/gone"), "k", {}, max_size=1, message_id="n")
    rows = await client.until_status("k", "dead", "delivered")

    async def forgotten() -> bool:
        return not await client.deliveries()

    await until(forgotten, 3, what="they are forgotten")
    for row in rows:
        assert (await client.call("GET", f"{DELIVERIES}/{row['id']}")).status == 404
        assert (await client.call("POST", f"{DELIVERIES}/{row['id']}/retry")).status == 404
    assert (await client.call("POST", f"{DELIVERIES}/retry", {"status": "dead"})).json == {"requeued": 0}

    def left() -> list[str]:
        keys = valkey.command("KEYS", "*")
        assert isinstance(keys, list)
        # The node proves once a second that it hears: that channel's keys are made anew as long as it lives.
        kept = (":own", "}:c:", "}:h:", "buzon:cfg")
        return sorted(key for key in keys if not any(each in key for each in kept))

    await until(lambda: not left(), 6, every_s=0.1, what="no key is left behind")
