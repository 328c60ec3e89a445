"""The load generator, a process of its own: `python -m tests.bench.load SPEC_AS_JSON` prints a `LoadResult`.

A plain epoll loop over prepared requests on keep-alive connections, one request at a time on each. Closed loop, or at
a fixed pace when `rate` is given. Reads the CPU of the processes in `pids` at both ends of its window. Never retries.
"""

from __future__ import annotations

import select
import socket
import sys
from collections import deque
from time import monotonic, process_time

import msgspec
from msgspec import Struct

from tests.bench import cache_requests
from tests.bench.readings import cpu_s
from tests.bench.request_kinds import RequestSpec, builder, complaint, good_status, is_sampled

SILENCE_S = 10.0
READ_BYTES = 65536
ERRORS_KEPT = 5
SAMPLE_EVERY = 61
"""Of the answers that can be checked one in so many is kept and checked; prime, so that the sample meets every key."""


class LoadSpec(Struct, frozen=True, kw_only=True):
    """Requests `first` … of `message`, for `seconds` or until `count` are sent; `rate` per second, or closed loop.

    The connections are dealt out to `more_ports` as well: whichever is free takes the next message, whatever its key.
    """

    port: int
    more_ports: tuple[int, ...] = ()
    message: RequestSpec
    first: int = 0
    connections: int = 64
    seconds: float = 0.0
    count: int = 0
    rate: float = 0.0
    ledger: bool = False
    pids: dict[str, int] = {}


class LoadResult(Struct, kw_only=True):
    """`answered` and `cpu` (seconds, by name) belong to the window of `seconds`; `ok` and `errors` to the whole run.

    `cpu_before` are the readings at its start, and that is `began`. `ledger`: (number, sent at, answered at); all on
    the monotonic clock.
    `checked` answers were looked at, `hits` of them came from the near cache; `answer_bytes` is the last one's body.
    """

    answered: int = 0
    ok: int = 0
    sent: int = 0
    errors: int = 0
    error_samples: list[str] = []
    began: float = 0.0
    seconds: float = 0.0
    cpu: dict[str, float] = {}
    cpu_before: dict[str, float] = {}
    generator_busy: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    ledger: list[tuple[int, float, float]] = []
    checked: int = 0
    hits: int = 0
    answer_bytes: int = 0


class Connection:
    """One keep-alive connection and the request that is out on it."""

    __slots__ = ("buffer", "number", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.number = -1
        self.sent_at = 0.0


class Broken(Exception):
    """The connection ended, or the answer is not one that this generator can frame."""


def receive(connection: Connection) -> bytes | None:
    """The whole answer once it is there, else None."""
    try:
        data = connection.socket.recv(READ_BYTES)
    except OSError as error:
        raise Broken(f"{type(error).__name__} instead of an answer") from error
    if not data:
        raise Broken("the connection was closed instead of an answer")
    if connection.buffer:
        data = connection.buffer + data
    head_end = data.find(b"\r\n\r\n")
    if head_end >= 0:
        at = data.find(b"Content-Length: ", 0, head_end)
        if at < 0:
            at = data[:head_end].lower().find(b"content-length: ")
            if at < 0:
                raise Broken(f"an answer without Content-Length: {data[:120]!r}")
        if len(data) >= head_end + 4 + int(data[at + 16 : data.find(b"\r", at)]):
            connection.buffer = b""
            return data
    connection.buffer = data
    return None


class Generator:
    """Runs one spec. `finish` books an answer, `send` lets a connection's next request out."""

    def __init__(self, spec: LoadSpec) -> None:
        self.result = LoadResult(error_samples=[], ledger=[])
        self._spec = spec
        self._build = builder(spec.message, spec.port)
        self._next = spec.first
        self._end = spec.first + spec.count if spec.count else sys.maxsize
        self._latencies: list[float] = []
        self._sampled = is_sampled(spec.message)
        self._good = f"HTTP/1.1 {good_status(spec.message)} ".encode()
        self._samples: list[tuple[int, bytes]] = []
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        ports = (spec.port, *spec.more_ports)
        for number in range(spec.connections):
            connection = Connection(ports[number % len(ports)])
            self._connections[connection.socket.fileno()] = connection
            self._poll.register(connection.socket, select.EPOLLIN)

    def run(self) -> LoadResult:
        """Send everything, wait for every answer (at most `SILENCE_S` without one) and return the count."""
        result, spec = self.result, self._spec
        result.cpu_before = {name: cpu_s(pid) for name, pid in spec.pids.items()}
        own_cpu, began = process_time(), monotonic()
        result.began = began
        ends_at = began + spec.seconds if spec.seconds else float("inf")
        (self._paced if spec.rate else self._closed)(began, ends_at)
        if not result.seconds:
            self._close_window(monotonic() - began)
        result.generator_busy = (process_time() - own_cpu) / (monotonic() - began)
        ordered = sorted(self._latencies) or [0.0]
        result.p50_ms, result.p99_ms = (round(ordered[int(len(ordered) * share)] * 1e3, 3) for share in (0.5, 0.99))
        result.max_ms = round(ordered[-1] * 1e3, 3)
        self._check()
        return result

    def close(self) -> None:
        """Let go of the connections."""
        self._poll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def _closed(self, began: float, ends_at: float) -> None:
        connections, wait = self._connections, self._poll.poll
        busy = 0
        for connection in list(connections.values()):
            busy += self._send(connection)
        while busy:
            events = wait(SILENCE_S)
            if not events:
                return self._fail(f"{busy} requests without an answer for {SILENCE_S:g} s", busy)
            for descriptor, _ in events:
                connection = connections[descriptor]
                if not self._finish(connection):
                    continue
                busy -= 1
                if monotonic() < ends_at:
                    busy += self._send(connection)
                elif not self.result.seconds:
                    self._close_window(monotonic() - began)
        return None

    def _paced(self, began: float, ends_at: float) -> None:
        idle = deque(self._connections.values())
        step, due, all_of_them = 1 / self._spec.rate, began, len(idle)
        while True:
            now = monotonic()
            while due <= now and due < ends_at and idle and self._next < self._end:
                self._send(idle.popleft())
                due += step
            finished = due >= ends_at or self._next >= self._end
            if finished and len(idle) == all_of_them:
                return
            waiting = finished or not idle
            events = self._poll.poll(SILENCE_S if waiting else max(0.0, due - now))
            if waiting and not events:
                return self._fail(f"no answer for {SILENCE_S:g} s", all_of_them - len(idle))
            for descriptor, _ in events:
                if self._finish(self._connections[descriptor]):
                    idle.append(self._connections[descriptor])

    def _send(self, connection: Connection) -> int:
        number = self._next
        if number >= self._end or connection.number < -1:
            return 0
        self._next = number + 1
        request = self._build(number)
        connection.number, connection.sent_at = number, monotonic()
        if connection.socket.send(request) != len(request):
            self._fail("a request did not fit into the socket's buffer")
        self.result.sent += 1
        return 1

    def _finish(self, connection: Connection) -> bool:
        try:
            answer = receive(connection)
        except Broken as error:
            self._poll.unregister(connection.socket)
            connection.number = -2
            self._fail(str(error))
            return True
        if answer is None:
            return False
        now = monotonic()
        self._latencies.append(now - connection.sent_at)
        if answer.startswith(self._good):
            self.result.ok += 1
            if self._sampled and self.result.ok % SAMPLE_EVERY == 1:
                self._samples.append((connection.number, answer))
            if self._spec.ledger:
                self.result.ledger.append((connection.number, connection.sent_at, now))
        else:
            self._fail(answer[:300].decode(errors="replace"))
        return True

    def _close_window(self, seconds: float) -> None:
        self.result.answered = self.result.ok
        self.result.seconds = seconds
        before = self.result.cpu_before
        self.result.cpu = {name: cpu_s(pid) - before[name] for name, pid in self._spec.pids.items()}

    def _check(self) -> None:
        """Look at the sample. A wrong answer is an error like any other."""
        for number, answer in self._samples:
            self.result.checked += 1
            self.result.hits += cache_requests.is_hit(answer)
            self.result.answer_bytes = len(answer) - answer.find(b"\r\n\r\n") - 4
            if wrong := complaint(self._spec.message, number, answer):
                self._fail(wrong)

    def _fail(self, sample: str, requests: int = 1) -> None:
        self.result.errors += requests
        if len(self.result.error_samples) < ERRORS_KEPT:
            self.result.error_samples.append(sample)


def main() -> None:
    """Run the spec of the command line."""
    spec = msgspec.json.decode(sys.argv[1], type=LoadSpec)
    sys.stdout.buffer.write(msgspec.json.encode(Generator(spec).run()))


if __name__ == "__main__":
    main()
