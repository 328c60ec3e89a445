"""Cable: two transports joined in memory, so that both sides of a connection run in virtual time.

What one side writes the other receives in the next tick. A cable can hold what is written, be shown it and change it,
and be cut; it decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class End(asyncio.Transport):
    """One side's transport. `sent` is all it wrote; `alter` may change what arrives; `held` keeps it back."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.alter: Callable[[bytes], bytes] = lambda data: data
        self.held = False
        self.closed = False
        self._kept: list[bytes] = []
        self._own: asyncio.Protocol | None = None
        self._far: End | None = None

    def join(self, own: asyncio.Protocol, far: End) -> None:
        """Stand between these two."""
        self._own, self._far = own, far

    def is_closing(self) -> bool:
        """Whether it was closed here."""
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send to the other side."""
        self.sent.append(bytes(data))
        if not self.closed:
            if self.held:
                self._kept.append(bytes(data))
            else:
                asyncio.get_running_loop().call_soon(self._arrive, bytes(data))

    def release(self) -> None:
        """Let what was held arrive, in one piece."""
        self.held = False
        kept, self._kept = b"".join(self._kept), []
        if kept:
            self._arrive(kept)

    def get_write_buffer_size(self) -> int:
        """What the other side has not taken."""
        return sum(map(len, self._kept))

    def abort(self) -> None:
        """Cut the cable."""
        for end in (self, self._far):
            if end is not None and not end.closed:
                end.closed = True
                if end._own is not None:
                    asyncio.get_running_loop().call_soon(end._own.connection_lost, None)

    def close(self) -> None:
        """The same: there is nothing to flush."""
        self.abort()

    def _arrive(self, data: bytes) -> None:
        far = self._far
        if far is not None and not far.closed and far._own is not None:
            far._own.data_received(self.alter(data))


def plug(one: asyncio.Protocol, other: asyncio.Protocol) -> tuple[End, End]:
    """Connect two protocols; gives their transports."""
    ends = End(), End()
    ends[0].join(one, ends[1])
    ends[1].join(other, ends[0])
    other.connection_made(ends[1])
    one.connection_made(ends[0])
    return ends


def alone(protocol: asyncio.Protocol) -> End:
    """Give a protocol a transport with nobody at the other end."""
    end = End()
    end.join(protocol, End())
    protocol.connection_made(end)
    return end
