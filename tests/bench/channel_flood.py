"""One subscriber too many: besides the common channel it has one of large messages, which it reads or does not read.

When it does not, what the server holds for it grows by a megabyte a second or more, until the server closes it.
"""

from __future__ import annotations

import select
from time import monotonic

from tests.bench.channel_frames import CLOSE, PING, PONG, walk
from tests.bench.channel_streams import READ_BYTES, admitted, connected

FLOOD_PAD = "y" * 60_000
RECEIVE_BYTES = 4096
END_S = 5.0
CHANNELS = 2


class FloodedReader:
    """The one that `reads`, or stalls. `channel` is the one of large messages."""

    def __init__(self, port: int, channel: str, *, reads: bool) -> None:
        self.channel = f"{channel}-flood"
        self.socket = connected(port, (channel, self.channel), 0 if reads else RECEIVE_BYTES)
        self._data = admitted(self.socket, CHANNELS)

    def read(self) -> None:
        """Read what there is and drop it."""
        self._data += self.socket.recv(READ_BYTES)
        self._close_code()

    def end(self) -> str:
        """Read on after having stalled, and say how the connection ended; "" when it did not, within `END_S`."""
        ends_at = monotonic() + END_S
        while monotonic() < ends_at:
            if not select.select([self.socket], [], [], END_S)[0]:
                return ""
            try:
                more = self.socket.recv(READ_BYTES)
            except ConnectionResetError:
                return "reset"
            if not more:
                return "closed"
            self._data += more
            if code := self._close_code():
                return str(code)
        return ""

    def _close_code(self) -> int:
        """Drop the whole frames; the code of a close frame among them, else 0."""
        frames = walk(self._data)
        code = 0
        for frame in frames:
            if frame.first == CLOSE:
                code = int.from_bytes(self._data[frame.payload : frame.payload + 2], "big")
            elif frame.first == PING:
                self.socket.send(PONG)
        self._data = self._data[frames[-1].end :] if frames else self._data
        return code
