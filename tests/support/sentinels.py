"""A primary, its replica and three sentinels, for tests of failovers.

Owns five processes, on loopback. The sentinels watch closely: a primary that is silent for half a second is replaced
about two seconds later.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.child import Child
from tests.support.valkey import PROBE_S, START_S, ValkeyServer, free_port, valkey_binary

SERVICE = "mymaster"
QUORUM = 2
DOWN_AFTER_MS = 500


class Sentinels:
    """`servers` are the first primary and its first replica; who is what changes with each failover."""

    def __init__(self, binary: Path | None = None, sentinels: int = 3) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="buzon-sentinels-", dir="/tmp"))
        self.servers = tuple(ValkeyServer(binary, tcp=True) for _ in range(2))
        self.ports = [free_port() for _ in range(sentinels)]
        self.children: list[Child] = []
        self._binary = binary or valkey_binary()

    @property
    def url(self) -> str:
        """Where a node finds the store."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{SERVICE}"

    def start(self) -> None:
        """Start all of it and wait until every sentinel knows the replica and the other sentinels."""
        primary, replica = self.servers
        primary.start("--repl-diskless-sync-delay", "0")
        replica.start("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        ends_at = monotonic() + START_S
        with replica.client() as client:
            while client.info("replication")["master_link_status"] != "up":  # sentinels look at it only every 10 s
                assert monotonic() < ends_at, "the replica is not in step"
                primary.child.wait(PROBE_S)
        for port in self.ports:
            self.children.append(self._sentinel(port, primary.port))
        for port in self.ports:
            while not self._knows_all(port):
                assert monotonic() < ends_at, [child.output() for child in self.children]

    def primary(self) -> ValkeyServer:
        """The server that the sentinels call the master now."""
        _, port = self.ask("get-master-addr-by-name", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def replica(self) -> ValkeyServer:
        """The other one."""
        primary = self.primary()
        return next(server for server in self.servers if server is not primary)

    def ask(self, *words: str, port: int | None = None) -> Any:
        """Ask one sentinel."""
        with _client(port or self.ports[0]) as client:
            return client.execute_command("SENTINEL", *words)

    def cut_replication(self) -> None:
        """Let the replica fall behind: it may not ask for what is written any more."""
        primary = self.primary()
        primary.command("ACL", "SETUSER", "default", "-psync", "-sync")
        primary.command("CLIENT", "KILL", "TYPE", "replica")

    def close(self) -> None:
        """End all of it and forget its data."""
        for child in self.children:
            child.close()
        for server in self.servers:
            server.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _sentinel(self, port: int, primary_port: int) -> Child:
        folder = self.directory / str(port)
        folder.mkdir()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nprotected-mode no\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} {QUORUM if len(self.ports) > 1 else 1}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        return Child([self._binary, config, "--sentinel"], folder / "sentinel")

    def _knows_all(self, port: int) -> bool:
        try:
            (replica,) = self.ask("replicas", SERVICE, port=port)
            others = self.ask("sentinels", SERVICE, port=port)
        except (redis.RedisError, ValueError):
            self.children[0].wait(PROBE_S)
            return False
        facts = replica if isinstance(replica, dict) else dict(zip(replica[::2], replica[1::2], strict=True))
        return facts["master-link-status"] == "ok" and len(others) == len(self.ports) - 1


def _client(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=2)
