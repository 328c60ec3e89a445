"""How late batches go out that close by time, at a fixed pace of messages."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from tests.bench.figures import Figure, at_most, percentile
from tests.bench.load import LoadSpec
from tests.bench.messages import MessageSpec, message_number
from tests.bench.rig import Rig
from tests.bench.sink_fast import Received
from tests.bench.throughput import DRAIN_S, troubles_of

RATE = 500.0
SECONDS = 15.0
KEYS = 200
WAITS = tuple(f"1.{tenth}" for tenth in range(10))
ASKED_MS = 50.0
EARLY_S = 0.002
"""Deadlines are whole milliseconds of the store's clock, so up to this much early is rounding."""


class Member(Struct, frozen=True):
    """One message of an enveloped batch, as far as it matters here."""

    message_id: str


class Envelope(Struct, frozen=True):
    """What the webhook got."""

    reason: str
    messages: list[Member]


async def measure(rig: Rig, seconds: float = SECONDS) -> tuple[list[Figure], list[str]]:
    """Send at the pace, wait for every batch, and compare the sink's log with the generator's ledger."""
    sink, node = await rig.sink(), await rig.node()
    await sink.record()
    message = MessageSpec(sink=sink.url, tag="t", keys=KEYS, max_size=1000, waits=WAITS, aggregate=False)
    result = await rig.load(
        LoadSpec(port=node.process.port, message=message, seconds=seconds, rate=RATE, ledger=True, pids=node.pids)
    )
    troubles = list(troubles_of(result))
    if not await sink.arrived(result.ok, DRAIN_S):
        troubles.append(f"{result.ok} accepted, {await sink.messages()} delivered within {DRAIN_S:g} s")
    late, early, count = lateness(await sink.log(), result.ledger)
    if early:
        troubles.append(f"{early} batches went out before their time")
    if count != result.ok:
        troubles.append(f"{result.ok} accepted, {count} in the sink's log")
    after_send = percentile([sent for _, sent in late], 0.99) * 1e3
    acked = [acked * 1e3 for acked, _ in late]
    detail = (
        f"{len(late):,} batches, {result.ok / result.seconds:.0f} messages/s; p50 {percentile(acked, 0.5):.1f}, "
        f"max {max(acked, default=0):.1f} ms; p99 from the moment of sending {after_send:.1f} ms; "
        f"{node.core.of_others():.0%} of the node's core went to others"
    )
    return [at_most("lateness of timeouts, p99", percentile(acked, 0.99), ASKED_MS, "ms", detail)], troubles


def lateness(log: list[Received], ledger: list[tuple[int, float, float]]) -> tuple[list[tuple[float, float]], int, int]:
    """Per batch (late since the first ack + wait, late since the first send + wait); then how many batches were early
    beyond rounding or closed for another reason, and how many messages the log holds."""
    times = {number: (sent, acked) for number, sent, acked in ledger}
    decode = msgspec.json.Decoder(Envelope).decode
    late: list[tuple[float, float]] = []
    wrong = messages = 0
    for received in log:
        batch = decode(received.body)
        messages += len(batch.messages)
        number = message_number(batch.messages[0].message_id)
        sent, acked = times[number]
        wait_s = float(WAITS[number % KEYS % len(WAITS)])
        late.append((received.at - acked - wait_s, received.at - sent - wait_s))
        wrong += late[-1][1] < -EARLY_S or batch.reason != "timeout"
    return late, wrong, messages
