"""Subscribers that wait, a process of its own: `python -m tests.bench.channel_idle SPEC_AS_JSON`.

Weighs the server before they come, and when all of them are there and nothing has happened for a second.
"""

from __future__ import annotations

import select
import sys

import msgspec
from msgspec import Struct

from tests.bench.channel_streams import allow_files, subscribers
from tests.bench.readings import resident_bytes

WARM_CONNECTIONS = 20
"""What they leave behind in the heap is taken up again by the first of those that are weighed: few, for that."""
SETTLE_S = 1.0


class IdleSpec(Struct, frozen=True, kw_only=True):
    """So many connections to one channel of the server with that pid."""

    port: int
    pid: int
    connections: int


class IdleResult(Struct, frozen=True, kw_only=True):
    """Resident bytes of the server without them and with them, and how many were no longer idle by then: a connection
    that was closed weighs nothing."""

    before: int
    after: int
    disturbed: int


def weigh(spec: IdleSpec) -> IdleResult:
    """A server that has had visitors, then one that has them all."""
    allow_files(spec.connections)
    for connection, _ in list(subscribers(spec.port, "warm", min(WARM_CONNECTIONS, spec.connections), 1)):
        connection.close()
    before = settled(spec.pid)
    opened = list(subscribers(spec.port, "idle", spec.connections, 1))
    after = settled(spec.pid)
    poll = select.poll()
    for connection, _ in opened:
        poll.register(connection, select.POLLIN)
    disturbed = len(poll.poll(0)) + sum(bool(rest) for _, rest in opened)
    for connection, _ in opened:
        connection.close()
    return IdleResult(before=before, after=after, disturbed=disturbed)


def settled(pid: int) -> int:
    """What it weighs a second from now."""
    select.select([], [], [], SETTLE_S)
    return resident_bytes(pid)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(weigh(msgspec.json.decode(sys.argv[1], type=IdleSpec))))
