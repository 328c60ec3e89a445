"""Watches how long a server leaves one small request waiting: `python -m tests.bench.prober SPEC_AS_JSON`.

Asks for `path` every 5 ms on one connection until SIGTERM, then prints a `ProbeResult`. What the kernel made the prober
or the server wait for a core is taken off each answer: a shared machine is not a stall of the loop.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from time import monotonic

import msgspec
from msgspec import Struct

from tests.bench.readings import RunQueue

READ_BYTES = 65536
STALL_MS = 50.0


class ProbeSpec(Struct, frozen=True, kw_only=True):
    """Where to ask, and the process that answers."""

    port: int
    pid: int
    path: str = "/livez"
    every_s: float = 0.005


class ProbeResult(Struct, frozen=True, kw_only=True):
    """Answer times. `max_ms` without the waits for a core, `max_raw_ms` with them; `stalls`: over `STALL_MS`, net."""

    probes: int
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    max_raw_ms: float
    stalls: int


def run(spec: ProbeSpec, ended: threading.Event) -> ProbeResult:
    """Probe until `ended` is set."""
    queues = [RunQueue(os.getpid()), RunQueue(spec.pid)]
    request = f"GET {spec.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    raw: list[float] = []
    net: list[float] = []
    errors = 0
    with socket.create_connection(("127.0.0.1", spec.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not ended.wait(spec.every_s):
            waited, began = sum(queue.waited_s() for queue in queues), monotonic()
            connection.sendall(request)
            errors += not connection.recv(READ_BYTES).startswith(b"HTTP/1.1 200 ")
            raw.append((monotonic() - began) * 1e3)
            net.append(raw[-1] - (sum(queue.waited_s() for queue in queues) - waited) * 1e3)
    for queue in queues:
        queue.close()
    ordered = sorted(net) or [0.0]
    return ProbeResult(
        probes=len(raw),
        errors=errors,
        p50_ms=ordered[len(ordered) // 2],
        p99_ms=ordered[int(len(ordered) * 0.99)],
        max_ms=ordered[-1],
        max_raw_ms=max(raw, default=0.0),
        stalls=sum(answer > STALL_MS for answer in net),
    )


def main() -> None:
    """Probe until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sys.stdout.write(msgspec.json.encode(run(msgspec.json.decode(sys.argv[1], type=ProbeSpec), ended)).decode())


if __name__ == "__main__":
    main()
