"""A rig whose store is a primary and its replica, watched by three sentinels that promote the replica when need be.

Nodes know the sentinels only. The two servers replicate as a user of their own, so that the link between them is cut
by taking that user's rights away: the sentinels see both, and nothing passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import redis

from tests.chaos.rig import START_S, Rig
from tests.support.child import Child
from tests.support.until import until
from tests.support.valkey import ValkeyServer, free_port, valkey_binary

SERVICE = "buzon"
SENTINELS = 3
QUORUM = 2
DOWN_AFTER_MS = 1000
FAILOVER_TIMEOUT_MS = 5000
USER = "replication"
PASSWORD = "chaos"
ACCOUNT = (
    *("--user", USER, "on", f">{PASSWORD}", "+psync", "+replconf", "+ping"),
    *("--masteruser", USER, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"),
)
CONFIGURATION = """\
bind 127.0.0.1
port {port}
dir {directory}
sentinel monitor {service} 127.0.0.1 {primary} {quorum}
sentinel down-after-milliseconds {service} {down_after_ms}
sentinel failover-timeout {service} {failover_timeout_ms}
"""


class Sentinel:
    """One sentinel."""

    def __init__(self, directory: Path, primary: int) -> None:
        self.port = free_port()
        directory.mkdir()
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            CONFIGURATION.format(
                port=self.port,
                directory=directory,
                service=SERVICE,
                primary=primary,
                quorum=QUORUM,
                down_after_ms=DOWN_AFTER_MS,
                failover_timeout_ms=FAILOVER_TIMEOUT_MS,
            )
        )
        self.child = Child([valkey_binary(), configuration, "--sentinel"], directory)

    def ask(self, *words: str) -> Any:
        """One SENTINEL command."""
        with redis.Redis(port=self.port, decode_responses=True, socket_timeout=2) as client:
            return client.execute_command("SENTINEL", *words)

    def primary(self) -> int:
        """The port of the primary, as it says."""
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def knows_all(self) -> bool:
        """Whether it has found the replica and the other sentinels."""
        try:
            known = self.ask("MASTER", SERVICE)
        except redis.RedisError:
            return False
        found: Mapping[str, str] = known if isinstance(known, dict) else dict(zip(known[::2], known[1::2], strict=True))
        return (int(found["num-slaves"]), int(found["num-other-sentinels"])) == (1, SENTINELS - 1)


class SentinelRig(Rig):
    """`store` is the primary that the nodes should use; `replica` the other server."""

    replica: ValkeyServer
    sentinels: list[Sentinel]

    async def make_store(self) -> ValkeyServer:
        """Both servers and the sentinels; gives the primary."""
        primary = await self.engine(ValkeyServer(tcp=True), *ACCOUNT)
        self.replica = await self.engine(ValkeyServer(tcp=True), *ACCOUNT, *following(primary))
        self.sentinels = []
        for number in range(SENTINELS):
            sentinel = Sentinel(self.directory / f"sentinel-{number}", primary.port)
            self._stack.callback(sentinel.child.close)
            self.sentinels.append(sentinel)

        def watched() -> bool:
            return in_step(self.replica) and all(sentinel.knows_all() for sentinel in self.sentinels)

        await until(watched, START_S, every_s=0.1, what="the replica follows, the sentinels know all")
        return primary

    async def store_url(self, name: str) -> str:
        """How a new node reaches the store: by asking the sentinels. The proxy is there and nobody uses it."""
        await super().store_url(name)
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}"

    async def cut_link(self) -> None:
        """The replica hears nothing of the primary any more."""
        self.store.command("ACL", "SETUSER", USER, "off")
        self.store.command("CLIENT", "KILL", "TYPE", "replica")

    async def promoted(self, within_s: float) -> float:
        """Wait until the replica is a primary; they change places here. Gives the seconds that took."""
        began = monotonic()
        await until(lambda: role(self.replica) == "master", within_s, every_s=0.02, what="the replica is promoted")
        self.store, self.replica = self.replica, self.store
        return monotonic() - began

    async def announced(self, within_s: float) -> float:
        """Wait until every sentinel says who the primary is now. Gives the seconds that took."""
        began = monotonic()

        def all_say() -> bool:
            return all(sentinel.primary() == self.store.port for sentinel in self.sentinels)

        await until(all_say, within_s, every_s=0.02, what="the sentinels announce the new primary")
        return monotonic() - began

    def demote(self) -> None:
        """Make the old primary a replica at once; left to themselves, sentinels take ten seconds for that."""
        self.replica.command("REPLICAOF", "127.0.0.1", str(self.store.port))

    async def come_back(self, within_s: float = START_S) -> None:
        """Start the old primary again, as a replica, and wait until it follows."""
        await asyncio.to_thread(self.replica.start, *ACCOUNT, *following(self.store))
        await self.followed(within_s)

    async def followed(self, within_s: float = START_S) -> None:
        """Wait until the replica has all that the primary has."""
        self.store.command("ACL", "SETUSER", USER, "on")
        await until(lambda: in_step(self.replica), within_s, every_s=0.05, what="the replica follows")

    async def fail_over(self, within_s: float = START_S) -> None:
        """Have the sentinels promote the replica though nothing is wrong."""

        def begun() -> bool:
            try:
                self.sentinels[0].ask("FAILOVER", SERVICE)
            except redis.ResponseError:
                return False  # it has not heard yet that the replica is well
            return True

        await until(begun, within_s, every_s=0.1, what="a sentinel begins to fail over")


def following(primary: ValkeyServer) -> tuple[str, ...]:
    """Options that make a server the replica of another."""
    return ("--replicaof", "127.0.0.1", str(primary.port))


def in_step(replica: ValkeyServer) -> bool:
    """Whether a replica's link to its primary is up."""
    answer = _asked(replica, "INFO", "replication")
    return isinstance(answer, dict) and answer.get("master_link_status") == "up"


def role(server: ValkeyServer) -> str:
    """What a server takes itself for: master or slave; "" when it does not say."""
    answer = _asked(server, "ROLE")
    return str(answer[0]) if isinstance(answer, list) else ""


def _asked(server: ValkeyServer, *words: str) -> object:
    try:
        return server.command(*words)
    except redis.ConnectionError:
        return None  # a server that changes its role hangs up
