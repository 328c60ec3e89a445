"""Attendance: how somebody joins channels, so that nothing is missing between what they had and what they get.

Whoever comes without positions joins at once where the channels are followed. Else, in bounded time: wait until they
are, read what was missed from the store, and take the end of it from what was delivered here meanwhile. Then, in one
step with nothing in between, the guest is told and put into its outlet.
Invariants: a guest is admitted or refused once, or has gone; `recovered` means all that came after its position, in
order; orders are bounded, and so are those served at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from actors.channel_ports import Format, Guest, Joined, Position, Publication, Recall, Recalled
from actors.core.stream import continues
from actors.ports import Overloaded, StoreAway
from actors.runtime.clock import Clock
from actors.runtime.supervisor import Supervisor
from actors.topic import Topic

SERVED_MAX = 64
ORDERS_MAX = 16_384
SETTLE_S = 1.1
"""A channel is followed after this long, or the guest is asked to come back."""
BEHIND_S = 0.02
"""Until a node that has heard less than its guest looks again."""
ORDER_S = 2.0
"""An order that waited longer for its turn is refused at once."""
PART_S = 10.0
"""A reader has this long for each part of what it missed."""
PART_MESSAGES = 500
PART_BYTES = 256 * 1024
WHOLE_BYTES = 1024 * 1024
"""What a format may get that wants all of it in one answer."""
ROUNDS_MAX = 1000
"""Questions for one guest and channel: each brings it PART_MESSAGES nearer to a stream that goes on."""

CROWDED = Overloaded("too many connections want to join channels")

Names = tuple[str, ...]


class Order:
    """Somebody who wants to join."""

    __slots__ = ("answered", "due", "form", "given_up", "guest", "topics", "wanted")

    def __init__(
        self, guest: Guest, form: Format, wanted: Mapping[str, Position | None], topics: Sequence[Topic], due: float
    ) -> None:
        self.guest = guest
        self.form = form
        self.wanted = dict(wanted)
        self.topics = topics
        self.due = due
        self.given_up = False
        self.answered = False
        """The guest was admitted or refused."""

    @property
    def names(self) -> Names:
        """The channels, in the order of the guest."""
        return tuple(self.wanted)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.given_up or self.guest.closed


class Reached(Struct, frozen=True, gc=False):
    """How far a guest has got with a channel: all it missed up to `at`, of which it has not been told the end yet."""

    at: Position
    untold: tuple[Publication, ...] = ()


class Attendance:
    """`recall` reads a stream; `admitted` puts the guest of an order into its outlet; `left` is told when an order is
    over, however."""

    def __init__(
        self,
        recall: Callable[[Recall], Awaitable[Recalled]],
        admitted: Callable[[Order], None],
        left: Callable[[Order], None],
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        self._recall = recall
        self._admitted = admitted
        self._left = left
        self._supervisor = supervisor
        self._clock = clock
        self._orders: deque[Order] = deque()
        self._serving = 0
        self._pending: dict[tuple[Guest, Names], Order] = {}

    def attend(
        self, guest: Guest, form: Format, wanted: Mapping[str, Position | None], topics: Sequence[Topic]
    ) -> None:
        """Let a guest join these topics, which are those of `wanted` in its order."""
        order = Order(guest, form, wanted, topics, self._clock.monotonic() + ORDER_S)
        for topic in topics:
            topic.hold()
        if all(since is None for since in wanted.values()) and all(topic.live for topic in topics):
            self._admit(order, {})
            self._end(order)
            return
        self._pending[guest, tuple(wanted)] = order
        if len(self._orders) >= ORDERS_MAX:
            self._refuse(order, CROWDED)
            self._end(order)
            return
        self._orders.append(order)
        self._serve_more()

    def give_up(self, guest: Guest, names: Names) -> bool:
        """Forget an order; false when there is none."""
        order = self._pending.pop((guest, names), None)
        if order is None:
            return False
        order.given_up = True
        return True

    def _serve_more(self) -> None:
        if self._serving >= SERVED_MAX:
            return
        try:
            self._supervisor.spawn("join channels", self._serve_all())
        except Overloaded as error:
            while not self._serving and self._orders:
                order = self._orders.popleft()
                self._refuse(order, error)
                self._end(order)
            return
        self._serving += 1

    async def _serve_all(self) -> None:
        try:
            while self._orders:
                await self._serve(self._orders.popleft())
        finally:
            self._serving -= 1
            if self._orders:  # this one has crashed
                self._serve_more()

    async def _serve(self, order: Order) -> None:
        try:
            if self._clock.monotonic() > order.due:
                raise CROWDED
            await self._catch_up(order)
        except (StoreAway, Overloaded, TimeoutError) as error:
            self._refuse(order, error)
        finally:
            if not order.answered:
                self._refuse(order, StoreAway("nobody knows what was missed"))
            self._end(order)

    async def _catch_up(self, order: Order) -> None:
        async with asyncio.timeout(SETTLE_S):
            for topic in order.topics:
                await topic.settled()
        reached: dict[str, Reached | None] = {}
        for topic, (name, since) in zip(order.topics, order.wanted.items(), strict=True):
            reached[name] = None if since is None else await self._recovered(order, topic, Reached(since), reached)
        for topic in (*order.topics, *order.topics):
            # While one channel was read another went on, further perhaps than what is remembered of it.
            so_far = reached[topic.channel.name]
            if so_far is not None and topic.since(so_far.at) is None:
                reached[topic.channel.name] = await self._recovered(order, topic, so_far, reached)
        if not order.over:
            self._admit(order, reached)

    async def _recovered(
        self, order: Order, topic: Topic, so_far: Reached, reached: Mapping[str, Reached | None]
    ) -> Reached | None:
        """Read what comes after a position, until the rest is remembered here; None when it can't be brought back."""
        at, untold = so_far.at, list(so_far.untold)
        for _ in range(ROUNDS_MAX):
            if order.over:
                return None
            recalled = await self._recall(
                Recall(channel=topic.channel, since=at, limit=PART_MESSAGES, bytes_max=PART_BYTES)
            )
            if not continues(at, recalled):
                return None
            known = await _level(topic, at)
            if known is None or known.epoch != at.epoch:
                return None
            # What this node has not heard yet comes by its ear.
            new = [each for each in recalled.publications if each.offset <= known.offset]
            at = Position(at.epoch, new[-1].offset) if new else at
            untold += new
            if topic.since(at) is not None:
                return None if _too_long(order, untold) else Reached(at, tuple(untold))
            if _too_long(order, untold):
                return None
            if not order.form.whole and untold:
                await self._tell_part(order, topic, Reached(at, tuple(untold)), reached)
                untold.clear()
        return None

    async def _tell_part(
        self, order: Order, topic: Topic, part: Reached, reached: Mapping[str, Reached | None]
    ) -> None:
        if order.over:  # it left while the store was asked
            return
        name = topic.channel.name
        places = [(each.channel.name, _place(order, each, reached)) for each in order.topics if each is not topic]
        joined = Joined(name, part.at, True, part.untold)
        async with asyncio.timeout(PART_S):
            await order.guest.caught_up(joined, [*places, (name, part.at)])

    def _admit(self, order: Order, reached: Mapping[str, Reached | None]) -> None:
        """Tell the guest where it stands, and let it in. Nothing may come between the two."""
        joined = []
        for topic in order.topics:
            at = topic.stream.at
            if at is None:
                raise StoreAway("nobody knows yet where the channel stands")
            so_far = reached.get(topic.channel.name)
            rest = None if so_far is None else topic.since(so_far.at)
            if so_far is None or rest is None:
                joined.append(Joined(topic.channel.name, at, False))
            else:
                joined.append(Joined(topic.channel.name, at, True, so_far.untold + rest))
        order.answered = True
        self._admitted(order)
        order.guest.admit(joined)

    def _refuse(self, order: Order, error: Exception) -> None:
        order.answered = True
        if not order.over:
            order.guest.refuse(order.names, error)

    def _end(self, order: Order) -> None:
        if self._pending.get((order.guest, order.names)) is order:  # who gave it up may have come back
            del self._pending[order.guest, order.names]
        for topic in order.topics:
            topic.let_go()
        self._left(order)


async def _level(topic: Topic, at: Position) -> Position | None:
    """Wait until the node has heard as much as its guest, whom another node may have told more; gives where it stands
    then. Raises TimeoutError."""
    for _ in range(round(SETTLE_S / BEHIND_S)):
        known = topic.stream.at
        if known is None or known.epoch != at.epoch or known.offset >= at.offset:
            return known
        await asyncio.sleep(BEHIND_S)
    raise TimeoutError("the node has heard less than its guest")


def _too_long(order: Order, untold: Sequence[Publication]) -> bool:
    return order.form.whole and sum(len(each.data) for each in untold) > WHOLE_BYTES


def _place(order: Order, topic: Topic, reached: Mapping[str, Reached | None]) -> Position:
    """Where a guest stands in a channel while it is told of another: not beyond what it has got."""
    name = topic.channel.name
    so_far = reached.get(name)
    since = order.wanted[name]
    if so_far is not None:
        return Position(so_far.at.epoch, so_far.at.offset - len(so_far.untold))
    if since is not None and name not in reached:
        return since
    at = topic.stream.at
    return Position("", 0) if at is None else at
