"""Topic: one channel that somebody listens to on this node.

Owns how far its stream has been delivered here, the outlets of those who listen, and, while somebody is about to join,
the last publications. What to do is decided by `core.stream`; this performs it.
Invariant: what a guest of an outlet was told when it joined, and what the outlet gets afterwards, leave no gap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from actors.channel_ports import ChannelName, Format, Places, Position, Publication
from actors.core.stream import Arrived, Ask, Deliver, Inbox, Lost, Settled, Stream, decide
from actors.fanout import Outlet
from actors.foreign import Foreign

RECENT_MAX = 2048
RECENT_BYTES_MAX = 256 * 1024

OutletKey = tuple[str, tuple[str, ...]]
"""The name of a format, and the channels of a seat."""


class Topic:
    """`ask` sends a question to the store; `places` tells where channels stand; `on_lost` is told of each loss."""

    __slots__ = (
        "_ask",
        "_on_lost",
        "_places",
        "_recent",
        "_recent_bytes",
        "_waiting",
        "channel",
        "foreign",
        "holds",
        "outlets",
        "people",
        "stream",
    )

    def __init__(
        self,
        channel: ChannelName,
        foreign: Foreign,
        ask: Callable[[Topic, Ask], None],
        places: Callable[[Sequence[str]], Places],
        on_lost: Callable[[], None],
    ) -> None:
        self.channel = channel
        self.foreign = foreign
        self._ask = ask
        self._places = places
        self._on_lost = on_lost
        self.stream = Stream()
        self.outlets: dict[OutletKey, Outlet] = {}
        self.people = 0
        """Guests of all outlets."""
        self.holds = 0
        """Guests about to join: while there are any, what is delivered is remembered."""
        self._recent: deque[Publication] = deque()
        self._recent_bytes = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def live(self) -> bool:
        """Whether the stream is followed now."""
        return self.stream.phase == "live"

    @property
    def idle(self) -> bool:
        """Whether nobody needs it."""
        return not self.outlets and not self.holds

    async def settled(self) -> None:
        """Wait until the stream is followed."""
        while not self.live:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = None
            try:
                await waiter
            finally:
                self._waiting.pop(waiter, None)

    def hold(self) -> None:
        """Somebody is about to join."""
        self.holds += 1

    def let_go(self) -> None:
        """Somebody has joined, or will not."""
        self.holds -= 1
        if not self.holds:
            self._forget()

    def since(self, position: Position) -> tuple[Publication, ...] | None:
        """What was delivered after a position; None when not all of it is remembered, or it is of another epoch."""
        at = self.stream.at
        if at is None or at.epoch != position.epoch or position.offset > at.offset:
            return None
        after = tuple(each for each in self._recent if each.offset > position.offset)
        return after if position.offset + len(after) == at.offset else None

    def tell(self, message: Inbox) -> None:
        """Receive a message, and do what it asks for."""
        self.stream, effects = decide(self.stream, message)
        for effect in effects:
            match effect:
                case Deliver(epoch, publications):
                    self._deliver(epoch, publications)
                case Ask():
                    self._ask(self, effect)
                case Lost(position):
                    self._lost(position)
                case Settled():
                    self._wake()
                case _:
                    assert_never(effect)

    def arrived(self, epoch: str, publication: Publication) -> None:
        """A publication was heard."""
        self.tell(Arrived(epoch, publication))

    def _deliver(self, epoch: str, publications: Sequence[Publication]) -> None:
        name = self.channel.name
        for outlet in self.outlets.values():
            encode, others = outlet.form.encode, self._others(outlet)
            for publication in publications:
                outlet.put(encode(name, epoch, publication, others))
        if self.holds:
            self._remember(publications)

    def _others(self, outlet: Outlet) -> Places:
        if len(outlet.names) == 1:
            return ()
        return self._places([name for name in outlet.names if name != self.channel.name])

    def _lost(self, position: Position) -> None:
        self._forget()
        self._on_lost()
        for outlet in list(self.outlets.values()):
            outlet.hand_out()
            others = self._others(outlet)
            for guest in outlet.guests:
                guest.lost(self.channel.name, position, others)

    def _wake(self) -> None:
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_result(None)

    def _remember(self, publications: Sequence[Publication]) -> None:
        self._recent.extend(publications)
        self._recent_bytes += sum(len(each.data) for each in publications)
        while len(self._recent) > RECENT_MAX or self._recent_bytes > RECENT_BYTES_MAX:
            self._recent_bytes -= len(self._recent.popleft().data)

    def _forget(self) -> None:
        self._recent.clear()
        self._recent_bytes = 0


def outlet_key(form: Format, names: Sequence[str]) -> OutletKey:
    """By which an outlet is known: the order of the channels makes no other one."""
    return form.name, tuple(sorted(names))
