"""Fan-out: from one publication to the connections of all who listen here.

An outlet is everybody who gets the same bytes: one format of one channel, or of one set of channels. A publication is
encoded once for each outlet, the frames of one turn of the loop are joined, and every guest is handed one block a turn.
Invariants: a guest gets what was put into its outlets while it was there, in order, and nothing else; no turn hands out
more than BITE blocks while others wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from actors.channel_ports import Format, Guest
from actors.ports import Counter

BITE = 2048
"""Blocks handed out in one turn of the loop: each costs a system call, and others want to be served."""

Block = tuple[bytes, int]
"""Some frames, joined, and how many they are."""
Parcel = tuple[Sequence[Guest], Sequence[Block] | Block]
"""Guests, and the block of each, or one for all."""


class Outlet:
    """Guests who get the same bytes. `names` are the channels of their seat."""

    __slots__ = ("_fanout", "_guests", "form", "frames", "names")

    def __init__(self, fanout: Fanout, form: Format, names: tuple[str, ...]) -> None:
        self._fanout = fanout
        self._guests: dict[Guest, None] = {}
        self.form = form
        self.names = names
        self.frames: list[bytes] = []
        """What was put in in this turn."""

    def __len__(self) -> int:
        return len(self._guests)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._guests

    @property
    def guests(self) -> list[Guest]:
        """Everybody who is here now."""
        return list(self._guests)

    def put(self, frame: bytes) -> None:
        """Give this to everybody who is here, at the end of the turn."""
        if not self.frames:
            self._fanout.wants_out(self)
        self.frames.append(frame)

    def hand_out(self) -> None:
        """Hand out now what was put in."""
        if self.frames:
            self._fanout.hand_out()

    def add(self, guest: Guest) -> None:
        """From now on; what was put in before is not for this guest."""
        self.hand_out()
        self._guests[guest] = None

    def remove(self, guest: Guest) -> None:
        """What was put in before it leaves is handed to it still."""
        if guest in self._guests:
            if not guest.closed:
                self._fanout.hand_out()
            del self._guests[guest]


class Fanout:
    """Hands out what the outlets of a node hold."""

    def __init__(self, deliveries: Counter) -> None:
        self._call_soon = asyncio.get_running_loop().call_soon
        self._deliveries = deliveries
        self._dirty: list[Outlet] = []
        self._parcels: deque[Parcel] = deque()
        self._armed = False

    def wants_out(self, outlet: Outlet) -> None:
        """An outlet holds something."""
        self._dirty.append(outlet)
        if not self._armed:
            self._armed = True
            self._call_soon(self._turn)

    def hand_out(self) -> None:
        """Hand everything out now."""
        self._pack()
        while self._parcels:
            self._deliver(self._parcels.popleft())

    def _turn(self) -> None:
        self._armed = False
        self._pack()
        left = BITE
        while self._parcels and left > 0:
            guests, blocks = self._parcels.popleft()
            if len(guests) > left:
                rest = blocks if isinstance(blocks, tuple) else blocks[left:]
                self._parcels.appendleft((guests[left:], rest))
                guests = guests[:left]
            left -= len(guests)
            self._deliver((guests, blocks))
        if self._parcels and not self._armed:
            self._armed = True
            self._call_soon(self._turn)

    def _pack(self) -> None:
        """Make parcels of all that is in the outlets. Who is in several gets the frames of all in one block."""
        dirty, self._dirty = self._dirty, []
        if len(dirty) == 1:
            guests, block = self._emptied(dirty[0])
            if guests:
                self._parcels.append((guests, block))
            return
        blocks: dict[Guest, Block] = {}
        for outlet in dirty:
            guests, block = self._emptied(outlet)
            for guest in guests:
                had = blocks.get(guest)
                blocks[guest] = block if had is None else (had[0] + block[0], had[1] + block[1])
        if blocks:
            self._parcels.append((list(blocks), list(blocks.values())))

    def _emptied(self, outlet: Outlet) -> tuple[list[Guest], Block]:
        frames, outlet.frames = outlet.frames, []
        guests = outlet.guests
        self._deliveries.inc(len(guests) * len(frames))
        return guests, (frames[0] if len(frames) == 1 else b"".join(frames), len(frames))

    @staticmethod
    def _deliver(parcel: Parcel) -> None:
        guests, blocks = parcel
        if isinstance(blocks, tuple):
            block, frames = blocks
            for guest in guests:
                guest.send(block, frames)
            return
        for guest, (block, frames) in zip(guests, blocks, strict=False):
            guest.send(block, frames)
