"""Subscribers and publishers, a process of its own: `python -m tests.bench.channel_load SPEC_AS_JSON`.

Opens the subscribers, publishes over HTTP and reads everything, in one epoll loop on one core; prints a `FanResult`.
Closed loop: the next messages go out, one or several at once, when everybody has got those before. Open loop: one
message at a time at a fixed pace, and a message's latency counts from when it was due, however late it was sent.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic, process_time
from typing import Literal

import msgspec
from msgspec import Struct

from tests.bench.channel_flood import FLOOD_PAD, FloodedReader
from tests.bench.channel_frames import Kind, complaints, publication
from tests.bench.channel_streams import Ended, Reader, Stream, allow_files, subscribers
from tests.bench.figures import percentile
from tests.bench.load import Broken, Connection, receive
from tests.bench.readings import RunQueue, cpu_s, resident_bytes

SILENCE_S = 10.0
EVENTS_MAX = 64
"""So many sockets are read before the publishers get their turn."""
NAP_S = 0.0003
"""In the closed loop, where nobody asks how late a frame is read: rather many at a time than each when it comes."""
WARM_ROUNDS = 3
PACED_CONNECTIONS = 16
GOOD = (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ", b"HTTP/1.1 202 ")


class FanSpec(Struct, frozen=True, kw_only=True):
    """`subscribers` of `channel`, each of which is greeted with so many frames. `share` messages at once in a closed
    loop, or `rate` messages per second. `flood`: one more subscriber, of a channel of `flood_rate` large messages per
    second as well."""

    port: int
    kind: Kind
    channel: str
    subscribers: int
    greetings: int = 1
    share: int = 1
    rate: float = 0.0
    seconds: float = 0.0
    flood: Literal["", "read", "stalled"] = ""
    flood_rate: float = 20.0
    pids: dict[str, int] = {}


class FanResult(Struct, kw_only=True):
    """`deliveries` and `cpu` (seconds, by name) belong to the window of `seconds`; `waited`: the share of it in which
    this process stood ready without a core. `resident` bytes of the server: at the start and at most. `ended`: how the
    flooded subscriber's connection did, if it did."""

    deliveries: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = {}
    generator_busy: float = 0.0
    frames_per_read: float = 0.0
    frame_bytes: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    waited: float = 0.0
    resident: tuple[int, int] = (0, 0)
    ended: str = ""
    troubles: list[str] = []


class Publisher:
    """Keep-alive connections that publish one message at a time each."""

    def __init__(self, port: int, build: Callable[[int, float], bytes], connections: int, poll: select.epoll) -> None:
        self.sent = 0
        self.answered = 0
        self.connections = {each.socket.fileno(): each for each in [Connection(port) for _ in range(connections)]}
        self.idle = deque(self.connections.values())
        self._build = build
        for descriptor in self.connections:
            poll.register(descriptor, select.EPOLLIN)

    def publish(self, at: float) -> None:
        """Send the next message on an idle connection; it says that it was due then."""
        request = self._build(self.sent, at)
        connection = self.idle.popleft()
        sent = connection.socket.send(request)
        while sent < len(request):  # a large one does not fit at once; the server takes it while we wait here
            select.select([], [connection.socket], [], SILENCE_S)
            sent += connection.socket.send(request[sent:])
        self.sent += 1

    def finish(self, connection: Connection) -> None:
        """Book an answer, if it is whole."""
        answer = receive(connection)
        if answer is None:
            return
        if not answer.startswith(GOOD):
            raise Broken(answer[:300].decode(errors="replace"))
        self.answered += 1
        self.idle.append(connection)


class Fan:
    """Runs one spec."""

    def __init__(self, spec: FanSpec) -> None:
        allow_files(spec.subscribers)
        self.result = FanResult(troubles=[])
        self._spec = spec
        self._poll = select.epoll()
        self._nap = not spec.rate
        self._reader = Reader(timed=spec.rate > 0)
        self._streams: dict[int, Stream] = {}
        for connection, rest in subscribers(spec.port, spec.channel, spec.subscribers, spec.greetings):
            stream = Stream(connection, rest, None if self._streams else [])
            self._streams[connection.fileno()] = stream
            self._poll.register(connection, select.EPOLLIN)
        build = publication(spec.kind, spec.port, spec.channel)
        connections = PACED_CONNECTIONS if spec.rate else spec.share
        self._publisher = Publisher(spec.port, build, connections, self._poll)
        self._flooded: FloodedReader | None = None
        self._flood: Publisher | None = None
        if spec.flood:
            self._flooded = FloodedReader(spec.port, spec.channel, reads=spec.flood == "read")
            build = publication(spec.kind, spec.port, self._flooded.channel, FLOOD_PAD)
            self._flood = Publisher(spec.port, build, PACED_CONNECTIONS, self._poll)
            if spec.flood == "read":
                self._poll.register(self._flooded.socket, select.EPOLLIN)

    def run(self) -> FanResult:
        """Publish and read to the end; what goes wrong is a trouble of the result."""
        try:
            (self._paced if self._spec.rate else self._closed)()
            self._compare()
        except (Broken, Ended, OSError) as error:
            self.result.troubles.append(f"{type(error).__name__}: {error}")
        return self.result

    def _closed(self) -> None:
        for _ in range(WARM_ROUNDS):
            self._round()
        window = Window(self._spec, self._reader)
        while monotonic() < window.ends_at:
            self._round()
        self._drain()
        window.close(self.result)

    def _round(self) -> None:
        for _ in range(self._spec.share):
            self._publisher.publish(monotonic())
        self._drain(ahead=self._spec.share)

    def _paced(self) -> None:
        self._round()
        self._drain()
        self._reader.latencies = self._reader.latencies[:0]
        window = Window(self._spec, self._reader)
        step, due = 1 / self._spec.rate, window.began
        flood_step, flood_due = 1 / self._spec.flood_rate, window.began if self._flood else float("inf")
        while due < window.ends_at:
            now = monotonic()
            if now > window.ends_at + SILENCE_S:
                raise Ended(f"only {self._publisher.sent} messages within {now - window.began:.0f} s")
            while due <= now and due < window.ends_at and self._publisher.idle:
                self._publisher.publish(due)
                due += step
            if self._flood is not None and flood_due <= now and self._flood.idle:
                self._flood.publish(now)
                flood_due += flood_step
                window.weigh()
            next_due = min(due, flood_due) if self._publisher.idle else now + SILENCE_S
            self._turn(max(0.0, next_due - monotonic()))
        self._drain()
        window.close(self.result)
        latencies = self._reader.latencies.tolist()
        self.result.p50_ms, self.result.p99_ms, self.result.max_ms = (
            round(percentile(latencies, share) * 1e3, 3) for share in (0.5, 0.99, 1.0)
        )
        if self._flooded is not None and self._spec.flood == "stalled":
            self.result.ended = self._flooded.end()

    def _drain(self, ahead: int = 0) -> None:
        """Until everything is answered and everybody has got it, but for so many messages."""
        publisher, reader, everybody = self._publisher, self._reader, len(self._streams)
        while reader.frames < (publisher.sent - ahead) * everybody or publisher.answered < publisher.sent:
            if not self._turn(SILENCE_S):
                raise Ended(
                    f"{publisher.sent} published, {publisher.answered} answered, {reader.frames} deliveries of "
                    f"{publisher.sent * everybody}, and then nothing for {SILENCE_S:g} s"
                )

    def _turn(self, wait_s: float) -> bool:
        """Read what there is, or wait for it. False: nothing came."""
        events = self._poll.poll(0, EVENTS_MAX)
        if not events:
            if not select.select([self._poll], [], [], wait_s)[0]:  # to the microsecond, which epoll_wait cannot
                return False
            events = self._poll.poll(0, EVENTS_MAX)
        streams, read = self._streams, self._reader.read
        for descriptor, _ in events:
            stream = streams.get(descriptor)
            if stream is not None:
                read(stream)
            else:
                self._other(descriptor)
        if self._nap and len(events) < EVENTS_MAX:
            select.select([], [], [], NAP_S)
        return True

    def _other(self, descriptor: int) -> None:
        if connection := self._publisher.connections.get(descriptor):
            self._publisher.finish(connection)
        elif self._flood is not None and (connection := self._flood.connections.get(descriptor)):
            self._flood.finish(connection)
        elif self._flooded is not None:
            self._flooded.read()

    def _compare(self) -> None:
        """Look at what came: the same for everyone, and right for the one who kept it."""
        first, *others = self._streams.values()
        different = sum(other.digest != first.digest or bool(other.carry) for other in others)
        if different:
            self.result.troubles.append(f"{different} subscribers did not get what the first one got")
        in_order = self._spec.share == 1 and not self._spec.rate
        self.result.troubles += complaints(first.kept or [], self._spec.kind, self._publisher.sent, in_order=in_order)


class Window:
    """What is measured between two moments."""

    def __init__(self, spec: FanSpec, reader: Reader) -> None:
        self._spec, self._reader = spec, reader
        self._frames, self._reads = reader.frames, reader.reads
        self._resident = self._heaviest = self._weight()
        self._cpu = {name: cpu_s(pid) for name, pid in spec.pids.items()}
        self._own_cpu = process_time()
        self._queue = RunQueue(os.getpid())
        self._waited_s = self._queue.waited_s()
        self.began = monotonic()
        self.ends_at = self.began + spec.seconds

    def weigh(self) -> None:
        """Note how large the server is now."""
        self._heaviest = max(self._heaviest, self._weight())

    def close(self, result: FanResult) -> None:
        """It ends now."""
        self.weigh()
        result.seconds = monotonic() - self.began
        result.cpu = {name: cpu_s(pid) - self._cpu[name] for name, pid in self._spec.pids.items()}
        result.generator_busy = (process_time() - self._own_cpu) / result.seconds
        result.waited = (self._queue.waited_s() - self._waited_s) / result.seconds
        self._queue.close()
        result.deliveries = self._reader.frames - self._frames
        result.frames_per_read = result.deliveries / max(1, self._reader.reads - self._reads)
        result.frame_bytes = self._reader.frame_bytes
        result.resident = (self._resident, self._heaviest)

    def _weight(self) -> int:
        return resident_bytes(self._spec.pids["server"]) if "server" in self._spec.pids else 0


def main() -> None:
    """Run the spec of the command line."""
    spec = msgspec.json.decode(sys.argv[1], type=FanSpec)
    sys.stdout.buffer.write(msgspec.json.encode(Fan(spec).run()))


if __name__ == "__main__":
    main()
