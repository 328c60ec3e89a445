"""Store: joins lanes, scripts and parts to one store, and knows which server it talks to.

Greets every new connection: is it a master, is it ours, is it the same run as before. A new run id means that the
server restarted or another one took its place, and perhaps lost the end of what was acknowledged.
Invariant: nobody uses a connection whose server did not pass the greeting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from actors.adapters.valkey.batches import ValkeyBatches
from actors.adapters.valkey.deliveries import Kept, ValkeyDeliveries
from actors.adapters.valkey.identity import Identity, StoreUnfit
from actors.adapters.valkey.lane import CONNECT_DEADLINE_S, Lane
from actors.adapters.valkey.membership import ValkeyMembership
from actors.adapters.valkey.partitions import ValkeyPartitions
from actors.adapters.valkey.records import ValkeyRecords
from actors.adapters.valkey.runner import Runner
from actors.adapters.valkey.scripts import load_all
from actors.adapters.valkey.wire import REPLY_DEADLINE_S
from actors.ports import Entry, StoreAway

VERSION_MIN = (7, 0)
REPLAY_MESSAGES = 128


class Server(Struct, frozen=True):
    """What is known of the server. `unsafe` names each setting that can lose what was acknowledged."""

    run_id: str
    name: str
    unsafe: tuple[str, ...]


class StoreOptions(Struct, frozen=True, kw_only=True):
    """`window_ms`: how long message ids are remembered. A store is one cluster's, told apart by `cluster_name`."""

    url: str
    client_name: str
    window_ms: int
    kept: Kept
    cluster_name: str = "buzon"


class ValkeyStore:
    """The store of one node. `on_changed` is told when another run of the server answers than before."""

    def __init__(self, options: StoreOptions, jitter: Callable[[], float]) -> None:
        self._options = options
        self._scripts = load_all()
        self._run_id: str | None = None
        self._changed = False
        self.on_changed: Callable[[], None] = lambda: None
        """Told, in the tick in which a changed server opens for callers; set once by the composition root."""
        self.unreplayed: Callable[[], Sequence[Entry]] = lambda: ()
        """What was acknowledged lately and must be appended again to a changed server; set like `on_changed`."""
        self.on_replayed: Callable[[int], None] = lambda _count: None
        self.server: Server | None = None
        self.unfit: StoreUnfit | None = None
        self.on_unfit: Callable[[str], None] = lambda _reason: None
        """Told once why a store that was fit is so no more; set like `on_changed`."""
        self._identity = Identity(options.cluster_name)
        self.hot = Lane(self._connection, self._greet, self._opened, jitter)
        self.cold = Lane(self._connection, self._greet_cold, lambda: None, jitter)
        runner = Runner(self.hot, self.cold, self._scripts)
        self.batches = ValkeyBatches(runner, options.window_ms)
        self.deliveries = ValkeyDeliveries(runner, options.kept)
        self.partitions = ValkeyPartitions(runner)
        self.membership = ValkeyMembership(runner, lambda: self.cluster, self.reject)
        self.records = ValkeyRecords(runner)

    @property
    def connected(self) -> bool:
        """Whether both lanes are open now."""
        return self.hot.up.is_set() and self.cold.up.is_set()

    @property
    def refusal(self) -> str:
        """Why the server refuses to write now, "" if it does not: its memory or its disk is full."""
        return self.hot.refusal

    @property
    def cluster(self) -> str:
        """The id of the cluster whose data the store holds, empty before the first greeting."""
        return self._identity.cluster

    @property
    def secret(self) -> bytes:
        """What the cluster's nodes know each other by, empty before the first greeting. Never to be logged."""
        return self._identity.secret

    @property
    def server_name(self) -> str:
        """The server's kind and version, empty while none has been reached."""
        return "" if self.server is None else self.server.name

    def _connection(self) -> AbstractConnection:
        parts: dict[str, Any] = dict(parse_url(self._options.url))
        kind: type[AbstractConnection] = parts.pop("connection_class", None) or (
            UnixDomainSocketConnection if "path" in parts else Connection
        )
        if issubclass(kind, Connection | SSLConnection):
            parts.setdefault("socket_keepalive", True)
        return kind(
            **parts,
            protocol=3,
            legacy_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=CONNECT_DEADLINE_S,
            client_name=self._options.client_name,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    async def _greet(self, connection: AbstractConnection) -> None:
        """Look at the server; raises StoreAway when it must not be used now."""
        info = _parsed(await _ask(connection, "INFO"))
        if info.get("loading") == "1":
            raise StoreAway("the store is loading its data")
        if info.get("role") != "master":
            raise StoreAway("the store is a replica")
        name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        if tuple(int(part) for part in info["redis_version"].split(".")[:2]) < VERSION_MIN:
            raise self._refused(StoreUnfit(f"{name} is too old: 7.0 or newer is needed"))
        try:
            await self._identity.check(partial(_ask, connection))
        except StoreUnfit as error:
            raise self._refused(error) from error
        for script in self._scripts.values():
            await _ask(connection, "SCRIPT", "LOAD", script.source)
        self.unfit = None
        self.server = Server(info["run_id"], name, await self._unsafe(connection))
        if self._run_id not in (None, info["run_id"]):
            await self._replay(connection)
            self._changed = True
        self._run_id = info["run_id"]

    async def _greet_cold(self, connection: AbstractConnection) -> None:
        """Follow the hot lane: only it looks at a server closely, and brings back what that has lost."""
        try:
            async with asyncio.timeout(REPLY_DEADLINE_S):
                await self.hot.up.wait()
        except TimeoutError:
            raise StoreAway(self.hot.why_down) from None
        info = _parsed(await _ask(connection, "INFO"))
        if info.get("run_id") != self._run_id or info.get("role") != "master":
            raise StoreAway("the store has changed")

    async def _replay(self, connection: AbstractConnection) -> None:
        """Append again what was acknowledged lately, before anybody else can: the order within a key stays.

        Also when memory is full: what was acknowledged had its room already, and there is a bound to it.
        """
        entries = self.unreplayed()
        source = self._scripts["append"].source.replace(b"#!lua\n", b"#!lua flags=allow-oom\n", 1)
        for chunk in (entries[at : at + REPLAY_MESSAGES] for at in range(0, len(entries), REPLAY_MESSAGES)):
            keys, arguments = self.batches.append_call(chunk)
            await _ask(connection, "EVAL", source, len(keys), *keys, *arguments)
        self.on_replayed(len(entries))

    def reject(self, reason: str) -> None:
        """Nobody may use the store any more, until a greeting finds it fit again."""
        self._refused(StoreUnfit(reason))
        for lane in (self.hot, self.cold):
            lane.drop(reason)

    def _refused(self, why: StoreUnfit) -> StoreAway:
        """Note that the store must not be used; gives what its callers are told."""
        news = self.unfit is None and self.cluster
        self.unfit = why
        if news:
            self.on_unfit(str(why))
        return StoreAway(str(why))

    def _opened(self) -> None:
        if self._changed:
            self._changed = False
            self.on_changed()

    async def _unsafe(self, connection: AbstractConnection) -> tuple[str, ...]:
        """Settings that lose acknowledged messages. A server that hides its settings is believed."""
        try:
            raw = await _ask(connection, "CONFIG", "GET", "maxmemory-policy", "append*", "no-appendfsync-on-rewrite")
        except ResponseError:
            return ()
        settings = {name.decode(): value.decode() for name, value in raw.items()}
        unsafe = []
        if settings.get("maxmemory-policy", "noeviction") != "noeviction":
            unsafe.append(f"maxmemory-policy is {settings['maxmemory-policy']}, not noeviction")
        if settings.get("appendonly", "yes") != "yes":
            unsafe.append("appendonly is off")
        elif settings.get("appendfsync") == "no":
            unsafe.append("appendfsync is no")
        elif settings.get("no-appendfsync-on-rewrite") == "yes":
            unsafe.append("no-appendfsync-on-rewrite is on")
        return tuple(unsafe)


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    async with asyncio.timeout(REPLY_DEADLINE_S):
        await connection.send_command(*command, check_health=False)
        return await connection.read_response(disable_decoding=True)


def _parsed(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}
