"""A Redis Cluster for tests: three masters on loopback, from the same binaries as the single servers.

Owns its servers. Forms at once; the servers themselves wait two seconds before they take the first write. Slots are
split as Redis' own tool would; there are no replicas unless a test adds one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.support.valkey import START_S, ValkeyServer, free_port

BORDERS = (0, 5461, 10923, REDIS_CLUSTER_HASH_SLOTS)
WITHOUT_KEY = frozenset({"CLIENT", "CLUSTER", "CONFIG", "DBSIZE", "FLUSHALL", "INFO", "SCRIPT", "TIME"})


class ValkeyCluster:
    """Three masters, as one store."""

    def __init__(self, binary: Path | None = None, node_timeout_ms: int = 2000) -> None:
        self.members = tuple(ValkeyServer(binary, tcp=True) for _ in BORDERS[1:])
        self.replicas: list[ValkeyServer] = []
        self._bus_ports: dict[ValkeyServer, int] = {}
        self._binary = binary
        self._node_timeout_ms = node_timeout_ms

    @property
    def url(self) -> str:
        """Where a node finds it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    unix_url = url

    def start(self) -> None:
        """Start the servers and wait until they are a cluster."""
        for member in self.members:
            self.start_member(member)
        for number, member in enumerate(self.members):
            member.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            member.command("CLUSTER", "ADDSLOTSRANGE", BORDERS[number], BORDERS[number + 1] - 1)
            self.join(member)
        self.wait_until_ok(self.members)

    def start_member(self, member: ValkeyServer) -> None:
        """Start one server, or start it again."""
        options = {
            "cluster-enabled": "yes",
            "cluster-port": self._bus_ports.setdefault(member, free_port()),
            "cluster-node-timeout": self._node_timeout_ms,
            "cluster-announce-ip": "127.0.0.1",
            "repl-diskless-sync-delay": 0,
            "cluster-require-full-coverage": "no",
            "cluster-allow-replica-migration": "no",
        }
        member.start(*(word for name, value in options.items() for word in (f"--{name}", str(value))))

    def join(self, member: ValkeyServer) -> None:
        """Make a server known to the cluster."""
        first = self.members[0]
        if member is not first:
            member.command("CLUSTER", "MEET", "127.0.0.1", first.port, self._bus_ports[first])

    def wait_until_ok(self, members: Iterable[ValkeyServer], known: int = len(BORDERS) - 1) -> None:
        """Wait until each of the members finds the cluster well and knows so many servers."""
        ends_at = monotonic() + START_S
        for member in members:
            with member.client() as client:
                while not _is_ok(client.execute_command("CLUSTER", "INFO"), known):
                    assert monotonic() < ends_at, "the cluster did not form"

    def add_replica(self, primary: ValkeyServer) -> ValkeyServer:
        """Start a replica of a master, and wait until it is in step."""
        replica = ValkeyServer(self._binary, tcp=True)
        self.replicas.append(replica)
        self.start_member(replica)
        self.join(replica)
        self.wait_until_ok((*self.members, replica), len(self.members) + len(self.replicas))
        replica.command("CLUSTER", "REPLICATE", str(primary.command("CLUSTER", "MYID")))
        ends_at = monotonic() + START_S
        with replica.client() as client:
            while client.info("replication").get("master_link_status") != "up":
                assert monotonic() < ends_at, "the replica is not in step"
        return replica

    def move(self, key: str, to: ValkeyServer) -> None:
        """Move the slot of a key to another master, as Redis' own tool does."""
        slot, at = key_slot(key.encode()), self.of(key)
        here, there = str(at.command("CLUSTER", "MYID")), str(to.command("CLUSTER", "MYID"))
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        at.command("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        while keys := at.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            assert isinstance(keys, list)
            at.command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        for member in (to, at, *self.members):
            member.command("CLUSTER", "SETSLOT", slot, "NODE", there)

    def of(self, key: str) -> ValkeyServer:
        """The server that a new cluster keeps a key on."""
        slot = key_slot(key.encode())
        return next(member for member, border in zip(self.members, BORDERS[1:], strict=True) if slot < border)

    def command(self, *words: str | bytes | int | float) -> object:
        """Run one command where its key is; one without a key everywhere, and the last answer counts."""
        if words[0] not in WITHOUT_KEY:
            return self.of(str(words[1])).command(*words)
        return [member.command(*words) for member in self.members][-1]

    def close(self) -> None:
        """End it and forget its data."""
        for member in (*self.members, *self.replicas):
            member.close()


def _is_ok(info: object, known: int) -> bool:
    facts = info if isinstance(info, dict) else dict(line.split(":", 1) for line in str(info).split())
    return facts["cluster_state"] == "ok" and int(facts["cluster_known_nodes"]) == known
