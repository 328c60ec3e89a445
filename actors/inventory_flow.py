"""Inventory flow: how events leave the database and come back as the projection.

The relay numbers what was committed, puts it into the stream and on the channel, and calls it sent; the projector
follows the stream and moves the projection. Both are one node's at a time, the owner of the inventory's partition, and
each of their writes carries its epoch. Each step may be done again after a crash: the stream takes a number once, a
message of the channel has its event's id, the projection skips what it has.
Invariant: what the stream lacks is read from the database, so a store that forgot loses no event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from actors.cache import Cache
from actors.cache_ports import CacheWrite
from actors.core.inventory import Event, UnreadableEvent
from actors.core.partition import locate
from actors.inventory import SEQ_NAME
from actors.inventory_home import InventoryHome, InventoryParts
from actors.inventory_ports import DatabaseAway, Fenced, Gap, StreamUnusable
from actors.ports import Counter, Gauge, Journal, Overloaded, StoreAway

CHANNEL = "events"
PARTITION = locate("$inventory")[1]
"""Whoever owns this one moves the inventory's events."""
BITE = 500
"""Events moved in one go."""
IDLE_S = 0.05
"""How often the database is asked for events that another node's commands wrote."""
AGAIN_S = 0.5
LAG_EVERY = 20
AGAIN_TOLD_S = 60.0
"""Longer than it takes from the writing of an event to its being told by a node that takes over from one that died."""
_encode = msgspec.json.Encoder().encode


class EventStream(Protocol):
    """The stream of all events in the store. May raise StoreAway, StreamUnusable."""

    async def add(self, events: Sequence[Event]) -> int:
        """Put events at the end; those whose numbers it has had already are left out. Gives the last number that it
        had before."""
        ...

    async def read(self, from_seq: int, limit: int) -> Sequence[Event]:
        """Events from a number on, as far as they are kept."""
        ...


class Owned(Protocol):
    """Part of `actors.ownership.Ownership`."""

    def epoch(self, partition: int) -> int: ...
    def may_act(self, partition: int, epoch: int) -> bool: ...


class FlowMeters(Protocol):
    """What is counted."""

    inventory_events: Counter
    inventory_lag_seconds: Gauge
    inventory_lag_events: Gauge


Publish = Callable[[str, bytes, str], Awaitable[object]]
"""Channel, JSON, the id under which it is published once."""


class InventoryFlow:
    """One node's relay and projector. `run` is a service."""

    def __init__(
        self, home: InventoryHome, stream: EventStream, cache: Cache, ownership: Owned, meters: FlowMeters
    ) -> None:
        self._home = home
        self._stream = stream
        self._cache = cache
        self._ownership = ownership
        self._meters = meters
        self._woken = asyncio.Event()
        self._shown = -1
        """The number of the projection that readers look under."""
        self._doubtful = False
        self._told = (-1, 0)
        """Under which epoch, and up to which number, events were told of."""
        self._doubted = False
        """Whether the store may have lost what it was told last."""
        self._unreadable = ""
        """Why the projection cannot go on; "" when it can."""
        self._stream_fault = ""
        """Why the stream could not be used in this turn; "" when it could."""
        self._stream_ahead = 0
        """The number of an entry that is not ours and keeps events out of the stream; 0 when there is none."""
        self._said = ("", 0)
        """What was said of both."""
        self.publish: Publish = _nowhere
        """Publishes on a channel; set once by the composition root."""
        self.on_applied: Callable[[Sequence[Event]], Awaitable[None]] = _nobody
        """Told of the events that the projection has now, in order: each at least once, under its id. May raise
        StoreAway, Overloaded; then they are told again."""
        self.again_told_s = AGAIN_TOLD_S
        """So old may an event be that is told again: its id must be remembered for longer."""

    def wake(self) -> None:
        """There is something to move."""
        self._woken.set()

    async def run_once(self) -> int:
        """Move what there is; gives how many events were numbered or applied. Raises DatabaseAway, StoreAway,
        Overloaded."""
        self._stream_fault = ""
        parts = self._home.opened
        epoch = self._ownership.epoch(PARTITION)
        if parts is None or not self._ownership.may_act(PARTITION, epoch):
            return 0
        return await self.relay(parts, epoch) + await self.project(parts, epoch)

    async def relay(self, parts: InventoryParts, epoch: int) -> int:
        """Let events that were committed go: into the stream and onto the channel. They wait while the stream cannot be
        used."""
        numbered = await parts.relay.number(epoch, BITE)
        if isinstance(numbered, Fenced) or not numbered.events:
            return 0
        try:
            before = await self._stream.add(numbered.events)
        except StreamUnusable as error:
            self._stream_fault = str(error)
            return 0
        self._stream_ahead = before if before > numbered.events[-1].seq else 0
        # They are submitted in this order, and the channel has them in it; each need not wait for the one before.
        await asyncio.gather(*(self.publish(CHANNEL, message_of(each), each.event_id) for each in numbered.events))
        await parts.relay.sent(epoch, numbered.events[-1].seq)
        return len(numbered.events)

    async def project(self, parts: InventoryParts, epoch: int) -> int:
        """Move the projection by what the stream has, or by what the database has where the stream lacks it."""
        moved = 0
        while True:
            watermark = await parts.queries.watermark()
            await self._catch_up(parts, epoch, watermark)
            events = await self._read(parts, watermark + 1)
            try:
                applied = await parts.projection.apply(epoch, events) if events else None
            except UnreadableEvent:  # the stream's copy: the database's may have been mended
                applied = Gap(expected=watermark + 1)
            if isinstance(applied, Gap) or (applied is None and await self._behind(parts, watermark)):
                events = await parts.projection.events(watermark + 1, BITE)
                applied = await parts.projection.apply(epoch, events) if events else None
            if isinstance(applied, Fenced):
                return moved  # what is shown is somebody else's by now, and this watermark may be from before
            if applied is None or isinstance(applied, Gap):
                await self._show(watermark)
                return moved
            await self._show(applied.seq)
            moved += applied.count
            await self._tell(events, applied.seq)
            if not applied.count:
                return moved

    async def _read(self, parts: InventoryParts, from_seq: int) -> Sequence[Event]:
        try:
            if not self._stream_ahead:
                return await self._stream.read(from_seq, BITE)
        except StreamUnusable as error:
            self._stream_fault = str(error)
        return await parts.projection.events(from_seq, BITE)

    async def run(self, journal: Journal) -> None:
        """Move events as they come. A service: ends only by cancellation."""
        turn, away = 0, False
        while True:
            try:
                moved = await self._turn(journal)
                turn += 1
                if away or turn % LAG_EVERY == 0:  # whoever moves nothing learns only from this that it is back
                    await self._measure()
                if away:
                    journal.info("inventory flows again")
                    self._home.why_away = ""
                away = False
            except (DatabaseAway, StoreAway, Overloaded) as error:
                if not away:
                    journal.warning("inventory stands still", reason=str(error))
                away, moved = True, 0
                if isinstance(error, DatabaseAway):
                    self._home.why_away = str(error)
                else:
                    self._doubted = True
                await asyncio.sleep(AGAIN_S)
            if moved:
                continue
            try:
                unused = self._home.opened is None
                async with asyncio.timeout(AGAIN_S if unused or self._stream_fault else IDLE_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def _turn(self, journal: Journal) -> int:
        """One turn. An event that cannot be read holds up the projection until somebody mends it, and nothing else; a
        stream that cannot be used holds up the relay."""
        moved, unreadable = 0, ""
        try:
            moved = await self.run_once()
        except UnreadableEvent as error:
            unreadable = str(error)
        if unreadable and unreadable != self._unreadable:
            journal.error("projection stands still", reason=unreadable)
        self._unreadable = unreadable
        self._say_of_stream(journal)
        return moved

    def _say_of_stream(self, journal: Journal) -> None:
        fault, ahead = self._said
        if self._stream_fault and not fault:
            journal.warning("event stream cannot be used", reason=self._stream_fault)
        elif fault and not self._stream_fault:
            journal.info("event stream can be used again")
        if self._stream_ahead and not ahead:
            journal.warning("event stream takes no events", last_entry=self._stream_ahead, reason="it is not ours")
        self._said = self._stream_fault, self._stream_ahead

    async def _catch_up(self, parts: InventoryParts, epoch: int, watermark: int) -> None:
        """Tell of what came into the projection without us, by an operator's rebuild, and of what we could not tell.

        What another owner moved, that one told of, unless it died before it did; a store that was away may have lost
        what it was told last: what is not old is told again.
        """
        told = self._told if self._told[0] == epoch and self._told[1] <= watermark else (epoch, watermark)
        if told != self._told or self._doubted:
            await self.on_applied(await parts.projection.recent(told[1], BITE, self.again_told_s))
            self._told, self._doubted = told, False
        while self._told[1] < watermark and not isinstance(await parts.projection.apply(epoch, ()), Fenced):
            events = await parts.projection.events(self._told[1] + 1, BITE)
            await self._tell(events, watermark)
            if not events:
                self._told = epoch, watermark

    async def _tell(self, events: Sequence[Event], upto: int) -> None:
        """Tell of each event that the projection has now, and count it once that is done."""
        epoch, told = self._told
        fresh = [event for event in events if told < event.seq <= upto]
        if fresh:
            await self.on_applied(fresh)
            self._told = epoch, fresh[-1].seq
            self._meters.inventory_events.inc(len(fresh))

    async def _behind(self, parts: InventoryParts, watermark: int) -> bool:
        """Whether the database has numbered events that the stream does not have: a store that forgot. Asked when the
        projection begins to stand still, and when it lags while it does."""
        if watermark == self._shown and not self._doubtful:
            return False
        self._doubtful = False
        return bool(await parts.projection.events(watermark + 1, 1))

    async def _show(self, seq: int) -> None:
        """Have readers look under this number, again when somebody changed it: a node that slept between its write and
        this, a flush of the cache. A cache that is away is told when it is back: what it holds is not believed
        meanwhile."""
        value = str(seq).encode()
        try:
            if seq == self._shown and (await self._cache.read(SEQ_NAME))[0].value == value:
                return
            await self._cache.write(CacheWrite(key=SEQ_NAME, op="set", value=value))
        except (StoreAway, Overloaded):
            return
        self._shown = seq

    async def _measure(self) -> None:
        parts = self._home.opened
        if parts is not None:  # also where another node moves events: each must know whether the database is there
            lag = await parts.queries.lag()
            self._meters.inventory_lag_seconds.set(lag.seconds)
            self._meters.inventory_lag_events.set(lag.events)
            self._doubtful = lag.events > 0


def message_of(event: Event) -> bytes:
    """The event as it goes onto the channel."""
    return _encode({"event_id": event.event_id, "type": event.type, "data": event.data, "at": event.at})


async def _nowhere(_channel: str, _data: bytes, _once: str) -> object:
    raise RuntimeError("events have nowhere to go")


async def _nobody(_events: Sequence[Event]) -> None:
    """Nobody wants to know."""
