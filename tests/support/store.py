"""Store: the real ValkeyStore, connected to a real server, and a hand that works with it as the owner of partitions.

Owns the lanes' tasks of one connected store. `dump` is what a server holds, to be compared before and after; `Hand`
writes every owner's command under the epoch it holds. Nothing here decides what is right.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, islice
from typing import Any, Protocol, TypeVar, cast

import redis

from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.keys import PREFIXES
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.store import StoreOptions, ValkeyStore
from actors.adapters.valkey.topology import Service
from actors.core.ids import IdSource, partition_of
from actors.core.partition import locate
from actors.core.policy import Reason
from actors.ports import (
    Appended,
    Claim,
    Claimed,
    Close,
    ClosedBatch,
    DeliveryFilter,
    DeliveryRecord,
    Entry,
    Fenced,
    ListCursor,
    Next,
    NotDue,
    NothingOpen,
    OpenBatch,
    Poisoned,
    Ready,
    Release,
    Settle,
    StoreAway,
    WrongState,
)
from tests.support.doubles import make_entry
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

T = TypeVar("T")
WINDOW_MS = 600_000
KEPT = Kept(delivered_ms=60_000, dead_ms=120_000)
POLICY = b'{"webhook":{"url":"https://example.org/hook"},"buffer":{"key":"k"}}'
HOST = "example.org:443"
LONG_MS = 60_000
LOG = b'{"at":"2026-01-01T00:00:00Z","latency_ms":1.0}'
IDS = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)


@asynccontextmanager
async def connected(
    server: ValkeyServer | ValkeyCluster,
    *,
    window_ms: int = WINDOW_MS,
    kept: Kept = KEPT,
    scripts: Mapping[str, Script] | None = None,
    prepare: Callable[[ValkeyStore], None] = lambda _store: None,
) -> AsyncIterator[ValkeyStore]:
    """A store whose lanes are open. `scripts` stand in for those of their names; `prepare` runs before it connects."""
    store = made(server.unix_url, window_ms=window_ms, kept=kept)
    store._scripts.update(scripts or {})
    prepare(store)
    async with running(store):
        await until(lambda: store.connected, what="the store's lanes")
        yield store


def made(url: str, *, window_ms: int = WINDOW_MS, kept: Kept = KEPT) -> ValkeyStore:
    """A store that is not connected."""
    options = StoreOptions(url=url, client_name="buzon-test", window_ms=window_ms, kept=kept)
    return ValkeyStore(options, lambda: 0.0)


class Running(Protocol):
    """Whatever has lanes to be kept running."""

    def services(self) -> Sequence[Service]: ...


@asynccontextmanager
async def running(store: Running) -> AsyncIterator[None]:
    """Keep the lanes of a store running; a lane that ends by itself fails the test."""
    services = [asyncio.ensure_future(run()) for _, run in store.services()]
    try:
        yield
    finally:
        for service in services:
            service.cancel()
        for service in services:
            with suppress(asyncio.CancelledError):
                await service


async def when_back(ask: Callable[[], Any]) -> Any:
    """Ask until the store is back, and give the answer."""

    async def attempt() -> tuple[Any] | None:
        try:
            return (await ask(),)
        except StoreAway:
            return None

    return (await until(attempt, what="the store's return"))[0]


async def store_ms(server: ValkeyServer | ValkeyCluster) -> int:
    """The server's clock."""
    seconds, micros = cast(Sequence[Any], server.command("TIME"))
    return int(seconds) * 1000 + int(micros) // 1000


def dump(server: ValkeyServer | ValkeyCluster) -> dict[str, object]:
    """Everything the server holds, with the instants at which keys expire."""
    found: dict[str, object] = {}
    for member in server.members:
        with raw_client(member) as client:
            names: list[bytes] = sorted(client.scan_iter(count=1000))
            found |= {
                name.decode(): (_content(client, name), client.execute_command("PEXPIRETIME", name)) for name in names
            }
    return found


def key_names(server: ValkeyServer | ValkeyCluster, *, everlasting: bool | None = None) -> set[str]:
    """The names of all keys, or of those that have no time to live (`everlasting`), or of those that have one."""
    names: dict[str, int] = {}
    for member in server.members:
        with raw_client(member) as client:
            names |= {name.decode(): client.pttl(name) for name in client.scan_iter(count=1000)}
    return {name for name, ttl in names.items() if everlasting is None or (ttl == -1) == everlasting}


def raw_client(server: ValkeyServer) -> Any:
    """A synchronous client that leaves bytes as they are; close it (it is a context manager)."""
    return redis.Redis(unix_socket_path=str(server.socket_path), protocol=3, legacy_responses=False)


def _content(client: Any, name: bytes) -> object:
    kind = client.type(name).decode()
    reads: dict[str, tuple[str | int, ...]] = {
        "string": ("GET",),
        "hash": ("HGETALL",),
        "list": ("LRANGE", 0, -1),
        "set": ("SMEMBERS",),
        "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
        "stream": ("XRANGE", "-", "+"),
    }
    verb, *rest = reads[kind]
    content: object = client.execute_command(str(verb), name, *rest)
    return sorted(content) if isinstance(content, set) else content


def keys_in(partition: int, how_many: int) -> list[str]:
    """User keys that all belong to one partition."""
    candidates: Iterator[str] = (f"key-{number}" for number in count())
    return list(islice((key for key in candidates if locate(key)[1] == partition), how_many))


def entry(key: str, message_id: str, payload: bytes = b"{}", **changes: Any) -> Entry:
    """One message; `changes` are other fields of the Entry. By default its batch stays open for a minute."""
    stays_open = {"wait_ms": LONG_MS, "max_size": 1000, "max_bytes": 1_000_000, "policy": POLICY, "host": HOST}
    return make_entry(
        key, message_id, payload, **{**stays_open, "batch_id": IDS.delivery_id(locate(key)[1]), **changes}
    )


class Hand:
    """One node at work: it appends, and does what only an owner may do, one request at a time. Answers stay the
    store's own values."""

    def __init__(self, server: ValkeyServer | ValkeyCluster, store: ValkeyStore, node: str = "node-1") -> None:
        self.server = server
        self.store = store
        self.node = node
        self.epochs: dict[int, int] = {}
        """What this node believes to hold."""

    async def take(self, *partitions: int) -> list[int]:
        """Become the owner of partitions, whoever it was before; gives the epochs."""
        owners = await self.store.partitions.owners(partitions)
        wanted = [(partition, owner.epoch) for partition, owner in zip(partitions, owners, strict=True)]
        taken = await self.store.partitions.acquire(self.node, 0, wanted)
        assert [owner.node for owner in taken] == [self.node] * len(partitions)
        self.epochs.update(zip(partitions, (owner.epoch for owner in taken), strict=True))
        return [owner.epoch for owner in taken]

    async def epoch(self, partition: int) -> int:
        """The epoch of a partition, taken when it is not held yet."""
        if partition not in self.epochs:
            await self.take(partition)
        return self.epochs[partition]

    async def append(self, key: str, *message_ids: str, **changes: Any) -> list[Appended]:
        """Append messages in one call."""
        return stored(await self.store.batches.append([entry(key, name, **changes) for name in message_ids]))

    async def close(
        self, key: str, deadline_ms: int | None = None, reason: Reason = "manual", batch_id: str | None = None
    ) -> ClosedBatch | NotDue | NothingOpen | Fenced:
        """Freeze the open batch of a key."""
        kid, partition = locate(key)
        wish = Close(
            partition=partition,
            epoch=await self.epoch(partition),
            kid=kid,
            deadline_ms=deadline_ms,
            reason=reason,
            batch_id=batch_id or IDS.delivery_id(partition),
        )
        (answer,) = await self.store.batches.close([wish])
        assert not isinstance(answer, StoreAway), answer
        return answer

    async def frozen(self, key: str, *message_ids: str, **changes: Any) -> str:
        """Append messages and freeze their batch; gives the delivery's id."""
        await self.append(key, *message_ids, **changes)
        closed = await self.close(key)
        assert isinstance(closed, ClosedBatch)
        return closed.delivery_id

    async def cancel(self, key: str) -> int | NothingOpen | Fenced:
        """Drop the open batch of a key."""
        kid, partition = locate(key)
        return await self.store.batches.cancel(partition, await self.epoch(partition), kid)

    async def claim(self, delivery_id: str) -> Claimed | Poisoned | Next | NothingOpen | Fenced:
        """Take a delivery for one attempt."""
        (answer,) = await self.store.deliveries.work([await self.named(delivery_id)])
        assert not isinstance(answer, StoreAway), answer
        return answer

    async def make_due(self, delivery_id: str) -> None:
        """Let the time pass that a ready delivery waits for. Writes nothing when it waits for none."""
        ready = f"{PREFIXES[partition_of(delivery_id)]}ready"
        command = self.store._topology.runner.command
        due_ms = await command("ZSCORE", ready, delivery_id)
        seconds, microseconds = await self.store.cold.call("TIME")
        if due_ms is not None and float(due_ms) > int(seconds) * 1000 + int(microseconds) // 1000:
            await command("ZADD", ready, "XX", 0, delivery_id)

    async def claimed(self, delivery_id: str) -> Claimed:
        """Take a delivery that can be taken; if it waits for its time, that comes now."""
        await self.make_due(delivery_id)
        claimed = await self.claim(delivery_id)
        assert isinstance(claimed, Claimed)
        return claimed

    async def settle(
        self, delivery_id: str, attempt: int, status: str, retry_in_ms: int = 0
    ) -> Claimed | Poisoned | Next | NothingOpen | Fenced:
        """Write how an attempt ended."""
        outcome = await self.outcome(delivery_id, attempt, status, retry_in_ms)
        (answer,) = await self.store.deliveries.work([outcome])
        assert not isinstance(answer, StoreAway), answer
        return answer

    async def outcome(self, delivery_id: str, attempt: int, status: str, retry_in_ms: int = 0) -> Settle:
        """How an attempt ended, under the epoch held."""
        partition = partition_of(delivery_id)
        return Settle(
            partition=partition,
            epoch=await self.epoch(partition),
            delivery_id=delivery_id,
            attempt=attempt,
            status=cast(Any, status),
            log=LOG,
            retry_in_ms=retry_in_ms,
        )

    async def ended(self, delivery_id: str, status: str) -> Next:
        """Claim a delivery and settle the attempt."""
        answer = await self.settle(delivery_id, (await self.claimed(delivery_id)).attempt, status)
        assert isinstance(answer, Next)
        return answer

    async def release(self, delivery_id: str, in_ms: int = 0) -> Next | NothingOpen | Fenced:
        """Give a delivery back, or put it off."""
        partition = partition_of(delivery_id)
        wish = Release(partition=partition, epoch=await self.epoch(partition), delivery_id=delivery_id, in_ms=in_ms)
        (answer,) = await self.store.deliveries.release([wish])
        assert not isinstance(answer, StoreAway), answer
        return answer

    async def requeue(self, delivery_id: str) -> Next | WrongState | NothingOpen | Fenced:
        """Try again because somebody asked."""
        return await self.store.deliveries.requeue(await self.named(delivery_id))

    async def discard(self, delivery_id: str) -> Next | WrongState | NothingOpen | Fenced:
        """Give a delivery up."""
        return await self.store.deliveries.discard(await self.named(delivery_id))

    async def record(self, delivery_id: str) -> DeliveryRecord:
        """What is kept of a delivery that is known."""
        record = await self.store.deliveries.get(delivery_id)
        assert record is not None
        return record

    async def open_ids(self, key: str) -> list[str]:
        """The ids of the messages in the open batch."""
        batch = await self.store.batches.peek(key)
        return [] if batch is None else [name for name, _, _ in batch.messages]

    async def ready(self, *partitions: int, ahead_ms: int = 0) -> Sequence[Ready]:
        """What may be claimed within `ahead_ms`."""
        return (await self.store.partitions.sweep(partitions, ahead_ms, 1000))[1]

    async def named(self, delivery_id: str) -> Claim:
        """Name a delivery under the epoch held."""
        partition = partition_of(delivery_id)
        return Claim(partition=partition, epoch=await self.epoch(partition), delivery_id=delivery_id)


def stored(outcomes: Sequence[Appended | StoreAway]) -> list[Appended]:
    """The outcomes of appends that all were done."""
    done = [outcome for outcome in outcomes if not isinstance(outcome, StoreAway)]
    assert len(done) == len(outcomes), outcomes
    return done


def ready_now(delivery_id: str) -> Ready:
    """What the store says of a delivery that may start."""
    return Ready(partition_of(delivery_id), delivery_id, HOST, 0)


async def pages(page: Callable[[ListCursor], Any], calls_max: int = 1000) -> list[list[Any]]:
    """Every page of a list, from its start."""
    found: list[list[Any]] = []
    cursor: ListCursor | None = ListCursor()
    while cursor is not None:
        assert len(found) < calls_max, "the list never ends"
        rows, cursor = await page(cursor)
        found.append(list(rows))
    return found


async def all_open(store: ValkeyStore, limit: int = 1000) -> list[OpenBatch]:
    """Every open batch, page by page."""
    return flat(await pages(lambda cursor: store.batches.list_open(cursor, limit)))


async def all_deliveries(
    store: ValkeyStore, wanted: DeliveryFilter | None = None, limit: int = 1000
) -> list[DeliveryRecord]:
    """Every delivery that is wanted, page by page."""
    chosen = wanted or DeliveryFilter()
    return flat(await pages(lambda cursor: store.deliveries.list_deliveries(chosen, cursor, limit)))


def flat(rows: Iterable[Iterable[T]]) -> list[T]:
    """Pages as one list."""
    return [row for page in rows for row in page]
