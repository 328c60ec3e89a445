"""The reading end of the channels: many sockets of subscribers, read with as little work as every frame allows.

All subscribers of a channel must get the same bytes. So one of them keeps what it got, to be looked at frame by frame,
and of the others a checksum over their frames is kept, which must be the same. A read that is nothing but whole
messages of the size seen last is not taken apart; any other is: the ends of frames, a ping, a close.
"""

from __future__ import annotations

import resource
import socket
from array import array
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from zlib import crc32

from tests.bench.channel_frames import CLOSE, MESSAGE, PING, PONG, sent_times, upgrade, walk

CONNECT_S = 20.0
WAVE = 100
"""As many are asked for before the first answer is read; a server's backlog holds them."""
READ_BYTES = 256 * 1024
HEAD_ENDS = b"\r\n\r\n"
UNKNOWN = 1 << 40
SPARE_FILES = 200


class Ended(Exception):
    """A subscriber's connection has come to an end, or never began."""


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files as far as it may and must be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + SPARE_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + SPARE_FILES), hard))


def connected(port: int, channels: Sequence[str], receive_bytes: int = 0) -> socket.socket:
    """A connection on which a subscriber's upgrade has been asked for. `receive_bytes`: a receive buffer that small."""
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(CONNECT_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(upgrade(port, channels))
    return connection


def admitted(connection: socket.socket, greetings: int) -> bytes:
    """Wait for the upgrade and for so many frames after it; returns what else was read."""
    data = b""
    while True:
        head, ends, rest = data.partition(HEAD_ENDS)
        frames = walk(rest) if ends else []
        if ends and not head.startswith(b"HTTP/1.1 101 "):
            raise Ended(f"no upgrade: {data[:200]!r}")
        if ends and len(frames) >= greetings:
            connection.setblocking(False)
            return rest[frames[greetings - 1].end :] if greetings else rest
        more = connection.recv(READ_BYTES)
        if not more:
            raise Ended(f"closed instead of admitted: {data[:200]!r}")
        data += more


def subscribers(port: int, channel: str, count: int, greetings: int) -> Iterator[tuple[socket.socket, bytes]]:
    """Open that many subscribers; each with what came after its greetings."""
    for first in range(0, count, WAVE):
        wave = [connected(port, (channel,)) for _ in range(first, min(count, first + WAVE))]
        for connection in wave:
            yield connection, admitted(connection, greetings)


class Stream:
    """One subscriber: the checksum over its messages, the start of a frame that has not come whole, and `kept`, the
    texts of its messages, if it is the one that keeps them."""

    __slots__ = ("carry", "digest", "kept", "receive_into", "socket")

    def __init__(self, connection: socket.socket, carry: bytes, kept: list[bytes] | None) -> None:
        self.socket = connection
        self.receive_into: Callable[[memoryview], int] = connection.recv_into
        self.carry = carry
        self.digest = 0
        self.kept = kept


class Reader:
    """Reads the streams: `frames` messages came in `reads` reads; `latencies` in seconds, when they are `timed`."""

    def __init__(self, *, timed: bool) -> None:
        self.frames = 0
        self.reads = 0
        self.frame_bytes = 0
        self.latencies = array("d")
        self._timed = timed
        self._size = UNKNOWN
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)

    def read(self, stream: Stream) -> None:
        """Read what there is."""
        view, size = self._view, self._size
        got = stream.receive_into(view)
        self.reads += 1
        if got % size or stream.carry or not got or view[0] != MESSAGE or view[got - size] != MESSAGE:
            self._take_apart(stream, bytes(view[:got]))
            return
        block = view[:got]
        stream.digest = crc32(block, stream.digest)
        self.frames += got // size
        if self._timed:
            self._note(bytes(block))
        if stream.kept is not None:
            self._keep(stream.kept, bytes(block))

    def _take_apart(self, stream: Stream, data: bytes) -> None:
        if not data:
            raise Ended("the server closed a subscriber's connection")
        data = stream.carry + data
        frames = walk(data)
        messages = [frame for frame in frames if frame.first == MESSAGE]
        for frame in frames:
            if frame.first == PING:
                stream.socket.send(PONG)
            elif frame.first == CLOSE:
                raise Ended(f"the server closed a subscriber: {data[frame.payload : frame.end]!r}")
        block = b"".join([data[frame.at : frame.end] for frame in messages])
        stream.carry = data[frames[-1].end :] if frames else data
        stream.digest = crc32(block, stream.digest)
        self.frames += len(messages)
        if messages:
            self._size = self.frame_bytes = messages[-1].end - messages[-1].at
        if self._timed:
            self._note(block)
        if stream.kept is not None:
            self._keep(stream.kept, block)

    def _note(self, block: bytes) -> None:
        now = monotonic()
        self.latencies.extend([now - at for at in sent_times(block)])

    def _keep(self, kept: list[bytes], block: bytes) -> None:
        kept += [block[frame.payload : frame.end] for frame in walk(block)]
