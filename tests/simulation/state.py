"""State: what a simulated store holds, and what the scripts of `actors/adapters/valkey/scripts` share.

One `Partition` stands for the keys of one hash tag, field by field as `_partition.lua` lists them; its methods are the
local functions of `_partition.lua` and `_ownership.lua`. Never asks for the time: every script is given its moment.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Literal

from msgspec import Struct, field

from actors.core.policy import Reason
from actors.node_ports import NodeRecord
from actors.ports import Fenced, Ready, Status

SPREAD_MS = 2000
DELIVERED_KEPT_MAX = 400
Message = tuple[str, int, bytes]


class Moment(Struct, frozen=True):
    """When a script runs: by the store's clock in milliseconds and microseconds, and in truth in seconds."""

    ms: int
    us: int
    true_s: float


class Batch(Struct, kw_only=True):
    """`m:<kid>` and `b:<kid>`. The key's options are those of its newest message. `born_s`: in truth."""

    key: str
    first_ms: int
    deadline_ms: int
    policy: bytes
    host: str
    trace: str
    messages: list[Message]
    size_bytes: int
    born_s: float


class Delivery(Struct, kw_only=True):
    """`d:<id>` and `o:<id>`. `claims` and `failures` count since it was last queued (x, f)."""

    partition: int
    kid: str
    batch: Batch
    reason: Reason
    created_ms: int
    status: Status = "pending"
    attempts: int = 0
    claims: int = 0
    failures: int = 0
    next_ms: int | None = None
    log: dict[int, bytes | int] = field(default_factory=dict)


class Partition(Struct, kw_only=True):
    """All of one partition. `windows` are the sets of message ids, each with the instant at which it expires."""

    number: int
    epoch: int = 0
    node: str = ""
    open: dict[str, Batch] = field(default_factory=dict)
    windows: dict[int, tuple[int, set[bytes | str]]] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)

    def fence(self, epoch: int) -> Fenced | None:
        """None for the owner; epoch 0 is nobody's."""
        return None if self.epoch == epoch != 0 else Fenced(self.epoch, self.node)

    def window(self, bucket: int, now_ms: int) -> set[bytes | str] | None:
        """A dedupe window that has not expired."""
        found = self.windows.get(bucket)
        if found is None:
            return None
        if found[0] <= now_ms:
            del self.windows[bucket]
            return None
        return found[1]

    def freeze(self, kid: str, name: str, reason: Reason, now_ms: int) -> bool:
        """Turn the open batch into a delivery. True when no earlier batch of the key is in its way."""
        batch = self.open.pop(kid)
        self.deliveries[name] = Delivery(partition=self.number, kid=kid, batch=batch, reason=reason, created_ms=now_ms)
        self.live[name] = now_ms
        line = self.lines.setdefault(kid, [])
        line.append(name)
        if len(line) == 1:
            self.ready[name] = now_ms
        return len(line) == 1

    def leave_line(self, of: Delivery, name: str, now_ms: int) -> Ready | None:
        """Take a delivery out of its key's line. Gives the next of that key when it may start now."""
        line = self.lines.get(of.kid, [])
        was_head = line[:1] == [name]
        if name in line:
            line.remove(name)
        if not line:
            self.lines.pop(of.kid, None)
            return None
        if not was_head:
            return None
        self.ready[line[0]] = now_ms
        return Ready(self.number, line[0], self.deliveries[line[0]].batch.host, 0)

    def file_away(self, name: str, kept: Literal["done", "dead"], now_ms: int) -> None:
        """File a delivery that has come to its end; beyond what is kept the oldest go. Times to live are not played."""
        self.live.pop(name, None)
        if kept == "dead":
            self.dead[name] = now_ms
            return
        self.done[name] = now_ms
        over = len(self.done) - DELIVERED_KEPT_MAX
        if over > 0:
            for oldest in sorted(self.done, key=lambda each: (self.done[each], each))[: min(over, 16)]:
                del self.done[oldest], self.deliveries[oldest]

    def bury(self, name: str, of: Delivery, now_ms: int) -> Ready | None:
        """A delivery dies: out of the line, into the dead letters."""
        self.busy.pop(name, None)
        of.status = "dead"
        of.next_ms = None
        self.file_away(name, "dead", now_ms)
        return self.leave_line(of, name, now_ms)

    def put_back(self, now_ms: int) -> int:
        """Make what the last owner had in hand ready again, what was cut off more than once apart from each other."""
        taken = sorted(self.busy, key=lambda name: (self.busy[name], name))
        self.busy.clear()
        for name in taken:
            of = self.deliveries.get(name)
            if of is not None:
                place = int(sha1(f"{name}{self.epoch}".encode(), usedforsecurity=False).hexdigest()[:4], 16) / 65536
                of.status = "retrying" if of.failures > 0 else "pending"
                self.ready[name] = now_ms + int((of.claims - of.failures - 1) * SPREAD_MS * place)
        return len(taken)


class State:
    """Everything the store holds."""

    def __init__(self) -> None:
        self.partitions: dict[int, Partition] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.events: list[str] = []

    def partition(self, number: int) -> Partition:
        """One partition, also one that holds nothing."""
        found = self.partitions.get(number)
        if found is None:
            found = self.partitions[number] = Partition(number=number)
        return found
