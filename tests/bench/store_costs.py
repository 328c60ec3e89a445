"""What things cost in a real store: bytes of what lies in it, microseconds of what is done in it.

Driven through the router's own adapter, in calls as large as a busy node's. Bytes are differences of `used_memory`;
microseconds are the server process's CPU, or where that is too coarse what the server says its scripts took.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import process_time
from typing import TypeVar

import msgspec
from msgspec import Struct

from actors.adapters.valkey.store import ValkeyStore
from actors.core.membership import View, observe
from actors.core.partition import PARTITIONS, locate
from actors.node_ports import NodeRecord
from actors.ports import Claim, Claimed, Close, ClosedBatch, Entry, Settle
from tests.bench.messages import MessageSpec, builder
from tests.bench.readings import cpu_s
from tests.support.store import HOST, IDS, LOG, Hand, connected, entry
from tests.support.valkey import ValkeyServer

T = TypeVar("T")
CALL = 64
"""Requests in one call: the connections of the benchmark's closed loop."""
OPEN_BATCHES = 20_000
MESSAGES = 20_000
BATCH = 5
KEYS = 200
NODES = 100
ROUNDS = 50
HOUR_MS = 3_600_000
_POLICY = builder(MessageSpec(sink="http://webhook.example/hook", tag="x", keys=1, max_size=5), 80)(0)


class StoreCosts(Struct, frozen=True, kw_only=True):
    """Bytes in the store, and µs of its CPU. A message's includes its part of close, claim and settle (batches of
    five); `beat_*` are of a store with a hundred nodes, `node_beat_us` of the node's own CPU for one beat."""

    open_batch_bytes: float
    further_message_bytes: float
    dedupe_bytes: float
    waiting_bytes: float
    delivered_bytes: float
    message_us: float
    message_commands: float
    beat_us: float
    beat_bytes: float
    node_beat_us: float
    look_us: float
    sweep_us: float


async def measure(open_batches: int = OPEN_BATCHES, messages: int = MESSAGES, rounds: int = ROUNDS) -> StoreCosts:
    """Measure all of it, each on an engine of its own."""
    costs: dict[str, float] = {}
    async with _engine() as (server, hand):
        costs |= await _bytes(server, hand, open_batches)
    async with _engine() as (server, hand):
        costs |= await _messages(server, hand, messages)
    async with _engine() as (server, hand):
        costs |= await _looks(server, hand.store, rounds)
    return StoreCosts(**costs)


@asynccontextmanager
async def _engine() -> AsyncIterator[tuple[ValkeyServer, Hand]]:
    """A new engine, and the owner of all its partitions."""
    server = ValkeyServer()
    try:
        server.start()
        async with connected(server) as store:
            hand = Hand(server, store)
            await hand.take(*range(PARTITIONS))
            yield server, hand
    finally:
        server.close()


async def _bytes(server: ValkeyServer, hand: Hand, batches: int) -> dict[str, float]:
    """Open batches, fill them with a second message, freeze them, deliver them; weigh after each."""
    keys = [f"{number:06d}@domain.net" for number in range(batches)]
    weights = [_used(server)]
    for name in ("first", "second"):
        await _append(hand, [_message(key, f"{name}-{key}", max_size=1000) for key in keys])
        weights.append(_used(server))
    dedupe = _dedupe_bytes(server, batches * 2)
    deliveries = await _closed(hand, keys)
    weights.append(_used(server))
    await _deliver(hand, deliveries)
    weights.append(_used(server))
    opened, further, frozen, delivered = (weight - weights[0] for weight in weights[1:])
    kept = batches * 2 * dedupe
    return {
        "open_batch_bytes": opened / batches,
        "further_message_bytes": (further - opened) / batches,
        "dedupe_bytes": dedupe,
        "waiting_bytes": (frozen - kept) / batches,
        "delivered_bytes": (delivered - kept) / batches,
    }


async def _messages(server: ValkeyServer, hand: Hand, messages: int) -> dict[str, float]:
    """Take messages, five to a batch, and deliver every batch, as a node does."""
    pid = server.child.pid
    server.command("CONFIG", "RESETSTAT")
    before = cpu_s(pid)
    for chunk in _chunks(range(messages), CALL * BATCH):
        entries = [_message(f"{number % KEYS}@domain.net", f"m-{number}", max_size=BATCH) for number in chunk]
        await _deliver(hand, await _append(hand, entries))
    commands = sum(calls for name, calls, _ in _stats(server) if name not in ("info", "config|resetstat"))
    return {"message_us": (cpu_s(pid) - before) / messages * 1e6, "message_commands": commands / messages}


async def _looks(server: ValkeyServer, store: ValkeyStore, rounds: int) -> dict[str, float]:
    """Beats of a hundred nodes, a look at all owners, and a sweep over all partitions in which nothing is due."""
    records = [_record(number) for number in range(NODES)]
    for record in records:
        await store.membership.beat(record, (), ())
    view: View[NodeRecord] = View()

    async def beat() -> None:
        nonlocal view
        view = observe(view, await store.membership.beat(records[0], (), ()), 0.0, 0.0)

    async def owners() -> None:
        await store.partitions.owners(range(PARTITIONS))

    async def sweep() -> None:
        await store.partitions.sweep(range(PARTITIONS), 600, 16, {})

    own = process_time()
    beat_us = await _script_us(server, beat, rounds)
    return {
        "node_beat_us": (process_time() - own) / rounds * 1e6,
        "beat_us": beat_us,
        "beat_bytes": sum(len(msgspec.json.encode(record)) + 40 for record in records),
        "look_us": await _script_us(server, owners, rounds),
        "sweep_us": await _script_us(server, sweep, rounds),
    }


async def _append(hand: Hand, entries: Sequence[Entry]) -> list[str]:
    """Append, and give the deliveries of the batches that were full."""
    deliveries = []
    for chunk in _chunks(entries, CALL):
        for each, appended in zip(chunk, await hand.store.batches.append(chunk), strict=True):
            if not isinstance(appended, Exception) and appended.closed is not None:
                deliveries.append(each.batch_id)
    return deliveries


async def _closed(hand: Hand, keys: Sequence[str]) -> list[str]:
    """Freeze the open batches of all these keys."""
    deliveries = []
    for chunk in _chunks(keys, CALL):
        closes = [_close(hand, key) for key in chunk]
        answers = await hand.store.batches.close(closes)
        deliveries += [each.delivery_id for each in answers if isinstance(each, ClosedBatch)]
    return deliveries


async def _deliver(hand: Hand, deliveries: Sequence[str]) -> None:
    """Claim and settle."""
    for chunk in _chunks(deliveries, CALL // BATCH):
        claims = [await hand.named(name) for name in chunk]
        claimed = [each for each in await hand.store.deliveries.work(claims) if isinstance(each, Claimed)]
        if len(claimed) != len(claims):
            raise AssertionError("a delivery could not be claimed")
        await hand.store.deliveries.work([_settle(claim) for claim in claims])


def _message(key: str, message_id: str, *, max_size: int) -> Entry:
    """One message like those of the benchmark."""
    payload = b'{"json":{"input":{"data":{"query":"mensaje de ejemplo 000000001"}}}}'
    policy = _POLICY.partition(b"\r\n\r\n")[2].partition(b',"payload"')[0] + b"}"
    return entry(key, message_id, payload, policy=policy, host=HOST, wait_ms=HOUR_MS, max_size=max_size)


def _close(hand: Hand, key: str) -> Close:
    kid, partition = locate(key)
    return Close(
        partition=partition,
        epoch=hand.epochs[partition],
        kid=kid,
        deadline_ms=None,
        reason="manual",
        batch_id=IDS.delivery_id(partition),
    )


def _settle(claim: Claim) -> Settle:
    return Settle(
        partition=claim.partition,
        epoch=claim.epoch,
        delivery_id=claim.delivery_id,
        attempt=1,
        status="delivered",
        log=LOG,
    )


def _record(number: int) -> NodeRecord:
    """What a node of a large cluster says of itself."""
    return NodeRecord(
        node=f"router-{number:03d}-7f9c6",
        incarnation="0123456789abcdef",
        beat=1,
        address=f"10.0.{number}.17:8100",
        group="0123456789ab",
        version="0.1.0",
        machine=f"router-{number:03d}",
        pid=100_000 + number,
        url=f"http://10.0.{number}.17:8000",
        started_ms=1_800_000_000_000,
        partitions=3,
        open_batches=1_000_000,
        undelivered=1234,
        oldest_waiting_ms=250,
    )


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _used(server: ValkeyServer) -> int:
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


def _stats(server: ValkeyServer) -> list[tuple[str, int, int]]:
    """Every command that ran, those of scripts among them: name, calls, µs."""
    with server.client() as client:
        found: dict[str, dict[str, int]] = client.info("commandstats")
    return [(name.removeprefix("cmdstat_"), row["calls"], row["usec"]) for name, row in found.items()]


async def _script_us(server: ValkeyServer, ask: Callable[[], Awaitable[None]], rounds: int) -> float:
    server.command("CONFIG", "RESETSTAT")
    for _ in range(rounds):
        await ask()
    return sum(us for name, _, us in _stats(server) if name.startswith("evalsha")) / rounds


def _dedupe_bytes(server: ValkeyServer, ids: int) -> float:
    """Bytes of the sets that hold message ids, for each id."""
    with server.client() as client:
        names = list(client.scan_iter(match="buzon:{*}:i:*", count=1000))
        if sum(client.scard(name) for name in names) != ids:
            raise AssertionError("ids are missing: a dedupe window has ended meanwhile")
        total: int = sum(client.memory_usage(name, samples=0) for name in names)
        return total / ids
