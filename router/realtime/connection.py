"""Connection: a listener's end of a transport: writing to it, noticing that it is slow, and letting go of it.

Owns the transport after `edge.detached` has handed it over. Has no task and no timer: what must happen later comes by
the hall's wheel, through `due`. Never decides what is said, its subclasses do.
Invariants: nothing is written after the last word; who is closed has left its channels before the loop's next turn;
a reader holds no more here than the limit, or one frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from router.realtime.codes import GONE, SLOW, Close

if TYPE_CHECKING:
    from router.realtime.hall import Realtime

WRITE_HIGH_BYTES = 64 * 1024
"""Beyond this the transport says that its reader is slow, and only then is it asked how slow."""


class Connection(asyncio.Protocol):
    """Somebody who listens; a `Guest` of the channels together with a subclass."""

    __slots__ = ("_crowded", "_room", "_slot", "_transport", "_write", "client", "closed", "hall", "heard")

    _transport: asyncio.Transport
    _write: Callable[[bytes], None]

    def __init__(self, hall: Realtime, client: str) -> None:
        self.hall = hall
        self.client = client
        self.closed = False
        """The last word was said, or the transport is gone."""
        self.heard = False
        """Something came since this was last set to false."""
        self._crowded = False
        self._room: asyncio.Future[None] | None = None
        """Somebody waits until the transport is not crowded any more."""
        self._slot = 0.0

    # What a subclass says and does.

    def started(self) -> None:
        """The connection is there."""
        raise NotImplementedError

    def on_due(self) -> None:
        """The time that was armed has come, a second early perhaps."""
        raise NotImplementedError

    def say_goodbye(self, why: Close) -> None:
        """Write the last word, and close the transport or wait for the other side to."""
        raise NotImplementedError

    def leave_channels(self) -> None:
        """Give every seat up."""
        raise NotImplementedError

    # What the channels and subclasses use.

    def send(self, block: bytes, frames: int) -> None:
        """Write some whole frames. A reader too slow for it is closed."""
        if self._crowded:
            self._send_to_slow(block)
            return
        self._write(block)
        if self._crowded:
            self._look_after_burst(frames)

    async def room(self) -> None:
        """Wait until what was written has mostly gone out, or the connection has."""
        if not self._crowded or self.closed:
            return
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)

    def end(self, why: Close) -> None:
        """Say the last word. The channels are left a little later: they may be handing something out just now."""
        if self.closed:
            return
        self.say_goodbye(why)
        self._stop()
        self.arm(self.hall.limits.close_s)
        self.hall.ending(self, why)

    def abort(self) -> None:
        """Let go of the transport now."""
        self._transport.abort()

    def arm(self, after_s: float) -> None:
        """Call `on_due` then, and not when it was armed for before."""
        self._slot = self.hall.rearm(self, self._slot, after_s)

    def due(self) -> None:
        """The wheel has come round."""
        self._slot = 0.0
        if self.closed:
            self.abort()
        else:
            self.on_due()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over."""
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.hall.came(self)
        self.started()

    def eof_received(self) -> bool:
        """Nothing more will come: the transport may close itself."""
        return False

    def pause_writing(self) -> None:
        """The reader is slow."""
        self._crowded = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._crowded = False
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport is gone."""
        if not self.closed:
            self._stop()
            self.hall.ending(self, GONE)
        self.hall.disarm(self, self._slot)
        self._wake()
        self.hall.went(self)

    def _stop(self) -> None:
        self.closed = True
        self._write = _drop
        self._crowded = False
        self._wake()
        self.hall.call_soon(self.leave_channels)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _send_to_slow(self, block: bytes) -> None:
        if self._transport.get_write_buffer_size() + len(block) > self.hall.limits.held_bytes_max:
            self.end(SLOW)
        else:
            self._write(block)

    def _look_after_burst(self, frames: int) -> None:
        """One frame that is larger than the limit is no fault of its reader."""
        if frames > 1 and self._transport.get_write_buffer_size() > self.hall.limits.held_bytes_max:
            self.end(SLOW)


def _drop(_block: bytes) -> None:
    """Written after the last word."""
