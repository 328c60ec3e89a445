"""Greeting: what every server must pass before anybody uses a connection to it.

Is it a master, is it ours, is it the same run as before. A new run id means that the server restarted or another one
took its place, and perhaps lost the end of what was acknowledged: that is brought back first.
Invariants: nobody uses a connection whose server did not pass; a partition is opened on another run of a server only
after what this node acknowledged of it was replayed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from actors.adapters.valkey.identity import Identity, StoreUnfit
from actors.adapters.valkey.question import ask, ask_all
from actors.adapters.valkey.replay import Replay
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.wire import REPLY_DEADLINE_S
from actors.core.partition import PARTITIONS
from actors.ports import Entry, StoreAway
from actors.task_ports import NewTask

VERSION_MIN = (7, 0)
VERIFYING_COMMANDS = 64


class Server(Struct, frozen=True):
    """What is known of a server. `unsafe` names each setting that can lose what was acknowledged."""

    run_id: str
    name: str
    unsafe: tuple[str, ...]


class Hooks:
    """What the store tells its node and asks of it; each is set once, by the composition root."""

    def __init__(self) -> None:
        self.on_changed: Callable[[], None] = lambda: None
        """Told, in the tick in which it opens for callers, of a server that is another run than before."""
        self.unreplayed: Callable[[], Sequence[Entry | NewTask]] = lambda: ()
        """What was acknowledged lately and must be appended again to a changed server."""
        self.on_replayed: Callable[[int, int], None] = lambda _count, _added: None
        """Told how many messages were appended again, and how many of them the server had lost."""
        self.on_unfit: Callable[[str], None] = lambda _reason: None
        """Told once why a store that was fit is so no more."""
        self.verifying: Callable[[Collection[int]], Sequence[tuple[Any, ...]]] = lambda _partitions: ()
        """Commands that a changed server runs before anybody uses it: they tell it what is known of its channels."""
        self.others: Callable[[], bool] = lambda: False
        """Whether other nodes live, which have acknowledged messages of their own."""


class Greeter:
    """Greets the servers of one store. `unfit` is why the store must not be used, None while it may."""

    def __init__(self, hooks: Hooks, identity: Identity, scripts: Mapping[str, Script], replay: Replay) -> None:
        self._hooks = hooks
        self._identity = identity
        self._scripts = scripts
        self._replay = replay
        self._runs: list[str | None] = [None] * PARTITIONS
        """The run of a server that last had the partition."""
        self._identified = asyncio.Event()
        self.shut: Callable[[str], None] = lambda _reason: None
        """Ends every connection of the store; set once by the store."""
        self.unfit: StoreUnfit | None = None

    async def greet(
        self, connection: AbstractConnection, partitions: Collection[int], home: bool
    ) -> tuple[Server, bool]:
        """Look at the server that holds these partitions, and, at `home`, the store's own record. Gives what it is and
        whether it has changed; raises StoreAway when it must not be used now."""
        try:
            run_id, name = await looked_at(connection)
        except StoreUnfit as error:
            raise self.refuse(error) from None
        await self._identify(connection, home)
        await taught(connection, self._scripts)
        server = Server(run_id, name, await _unsafe(connection))
        changed = await self._bring_back(connection, server.run_id, partitions)
        if home:
            self.unfit = None
        elif self.unfit is not None:  # found out meanwhile, at home
            raise StoreAway(str(self.unfit))
        return server, changed

    def opened(self) -> None:
        """A changed server opens for callers."""
        self._hooks.on_changed()

    def refuse(self, why: StoreUnfit) -> StoreAway:
        """Note that the store must not be used; gives what its callers are told."""
        news = self.unfit is None and self._identity.cluster != ""
        self.unfit = why
        # What was acknowledged since went into what is not the store: it counts as changed when it is fit again.
        self._runs = [None if run is None else "" for run in self._runs]
        self.shut(str(why))
        if news:
            self._hooks.on_unfit(str(why))
        return StoreAway(str(why))

    async def _identify(self, connection: AbstractConnection, home: bool) -> None:
        if home:
            try:
                await self._identity.check(partial(ask, connection))
            except StoreUnfit as error:
                raise self.refuse(error) from error
            self._identified.set()
            return
        try:
            async with asyncio.timeout(REPLY_DEADLINE_S):
                await self._identified.wait()
        except TimeoutError:
            raise StoreAway("nobody knows yet whose the store is") from None
        if self.unfit is not None:
            raise StoreAway(str(self.unfit))

    async def _bring_back(self, connection: AbstractConnection, run_id: str, partitions: Collection[int]) -> bool:
        changed = frozenset(partition for partition in partitions if self._runs[partition] not in (None, run_id))
        if changed:
            commands = self._hooks.verifying(changed)
            for at in range(0, len(commands), VERIFYING_COMMANDS):
                await ask_all(connection, commands[at : at + VERIFYING_COMMANDS])
            lost = [entry for entry in self._hooks.unreplayed() if entry.partition in changed]
            added = await self._replay.run(connection, lost, self._hooks.others())
            self._hooks.on_replayed(len(lost), added)
        for partition in partitions:
            self._runs[partition] = run_id
        return bool(changed)


async def looked_at(connection: AbstractConnection) -> tuple[str, str]:
    """The run of the server and its name. Raises StoreAway when it cannot be used now, StoreUnfit when it is too
    old."""
    info = await info_of(connection)
    if info.get("loading") == "1":
        raise StoreAway("the store is loading its data")
    if info.get("role") != "master":
        raise StoreAway("the store is a replica")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    if tuple(int(part) for part in info["redis_version"].split(".")[:2]) < VERSION_MIN:
        raise StoreUnfit(f"{name} is too old: 7.0 or newer is needed")
    return info["run_id"], name


async def taught(connection: AbstractConnection, scripts: Mapping[str, Script]) -> None:
    """Let the server know the scripts."""
    await ask_all(connection, [("SCRIPT", "LOAD", script.source) for script in scripts.values()])


async def info_of(connection: AbstractConnection) -> dict[str, str]:
    """What the server says of itself."""
    return facts_of(await ask(connection, "INFO"))


def facts_of(info: bytes) -> dict[str, str]:
    """The reply to INFO, read."""
    lines = (line.partition(":") for line in info.decode().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


async def _unsafe(connection: AbstractConnection) -> tuple[str, ...]:
    """Settings that lose acknowledged messages. A server that hides its settings is believed."""
    try:
        raw = await ask(connection, "CONFIG", "GET", "maxmemory-policy", "append*", "no-appendfsync-on-rewrite")
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
