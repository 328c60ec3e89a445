"""SSE: a listener of `/events`: the messages of `/ws` as server-sent events (WHATWG HTML, 9.2).

All channels of a connection are one seat, and each event's id says where it stands in all of them, so whoever comes
back with the last one misses nothing. Everybody with the same channels shares every event. Each is a chunk of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from actors.channel_ports import Format, Joined, Places, Position, Publication
from router.realtime.codes import SHUTDOWN, Close, fault_of
from router.realtime.connection import Connection
from router.realtime.event_ids import event_id
from router.realtime.frames import quoted
from router.realtime.hall import Realtime
from router.realtime.plain import message, start_of, subscribed

RETRY_MS = 1000
"""A browser waits this long, and up to as long again, before it comes back."""
LAST_CHUNK = b"0\r\n\r\n"


def chunk(event: bytes) -> bytes:
    """An event as a chunk of a body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(event), event)


HEARTBEAT = chunk(b":\n\n")


def message_event(name: str, epoch: str, publication: Publication, others: Places) -> bytes:
    """A publication, in a chunk."""
    own = (name, Position(epoch, publication.offset))
    return chunk(b"id:%b\ndata:%b\n\n" % (event_id((own, *others)), message(name, publication)))


def subscribed_event(
    name: str, position: Position, places: Iterable[tuple[str, Position]], *, recovered: bool
) -> bytes:
    """What comes next in a channel comes after this position."""
    told = subscribed(name, position, recovered=recovered)
    return chunk(b"event:subscribed\nid:%b\ndata:%b\n\n" % (event_id(places), told))


FORMAT = Format("sse", message_event)


class EventStream(Connection):
    """A listener of `/events`."""

    __slots__ = ("_names", "_told", "_wanted")

    def __init__(self, hall: Realtime, client: str, wanted: Mapping[str, Position | None]) -> None:
        super().__init__(hall, client)
        self._names = tuple(wanted)
        self._wanted: Mapping[str, Position | None] = wanted
        """What it missed; forgotten when it has been asked for."""
        self._told: set[str] | None = None
        """Channels of which it gets what it missed, while it joins."""

    # Guest.

    def admit(self, joined: Sequence[Joined]) -> None:
        """It has joined its channels."""
        told = self._told or set()
        self._told = None
        places = {each.name: start_of(each) for each in joined}
        events = [
            subscribed_event(each.name, places[each.name], places.items(), recovered=each.recovered)
            for each in joined
            if not (each.recovered and each.name in told)
        ]
        for each in joined:
            events += _missed(each, places)
        if events:
            self.send(b"".join(events), len(events))

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """It could not join: it comes back by itself."""
        fault = fault_of(error)
        told = quoted({"code": fault.code, "error": fault.message, "temporary": True})
        self.send(self._retry() + chunk(b"event:refused\ndata:%b\n\n" % told), 1)
        self.end(SHUTDOWN)

    def lost(self, name: str, position: Position, others: Places) -> None:
        """Nobody can say what came before this."""
        self.send(subscribed_event(name, position, ((name, position), *others), recovered=False), 1)

    async def caught_up(self, part: Joined, places: Places) -> None:
        """Write a part of what was missed."""
        if self.closed:
            return
        stands = {**dict(places), part.name: start_of(part)}
        told = self._told = self._told or set()
        events = []
        if part.name not in told:
            told.add(part.name)
            events = [subscribed_event(part.name, stands[part.name], stands.items(), recovered=True)]
        events += _missed(part, stands)
        self.send(b"".join(events), len(events))
        await self.room()

    # Connection.

    def started(self) -> None:
        """Join the channels."""
        self.send(self._retry(), 1)
        self.arm(self.hall.limits.heartbeat_s)
        wanted, self._wanted = self._wanted, {}
        self.hall.channels.attend(self, FORMAT, wanted)

    def on_due(self) -> None:
        """Say that the connection is still there."""
        self.send(HEARTBEAT, 1)
        if not self.closed:
            self.arm(self.hall.limits.heartbeat_s)

    def data_received(self, data: bytes) -> None:
        """Nothing is expected, and nothing is read."""

    def say_goodbye(self, why: Close) -> None:
        """End the body."""
        self._write((self._retry() if why is SHUTDOWN else b"") + LAST_CHUNK)
        self._transport.close()

    def leave_channels(self) -> None:
        """Give the seat up."""
        self.hall.channels.leave(self, FORMAT, self._names)

    def _retry(self) -> bytes:
        return chunk(b"retry:%d\n\n" % round(RETRY_MS * (1.0 + self.hall.jitter())))


def _missed(joined: Joined, places: dict[str, Position]) -> list[bytes]:
    """The events of what was missed in a channel; `places` go on with them."""
    name, epoch = joined.name, joined.position.epoch
    events = []
    for publication in joined.publications:
        others = [(other, place) for other, place in places.items() if other != name]
        events.append(message_event(name, epoch, publication, others))
        places[name] = Position(epoch, publication.offset)
    return events
