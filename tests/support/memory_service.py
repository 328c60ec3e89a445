"""Memory service: the channels of a node as the real-time edge sees them, in memory and under a test's hands.

Keeps a stream for each channel and the seats of its guests. `hold` has who wants to join wait for `let_in`; `away` has
everything fail. Invariant: a guest is told and seated in one step, as the contract of `ChannelService` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from actors.channel_ports import Format, Guest, Joined, Position, Publication, Recalled, Sent
from actors.ports import StoreAway


class Seat:
    """A guest and what they listen to."""

    def __init__(self, guest: Guest, form: Format, wanted: Mapping[str, Position | None]) -> None:
        self.guest = guest
        self.form = form
        self.wanted = dict(wanted)


class MemoryService:
    """Implements `ChannelService`."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Publication]] = {}
        self.epochs: dict[str, str] = {}
        self.seats: list[Seat] = []
        self.waiting: list[Seat] = []
        self.hold = False
        self.away = False

    def attend(self, guest: Guest, form: Format, wanted: Mapping[str, Position | None]) -> None:
        """Join."""
        if self.away:
            guest.refuse(tuple(wanted), StoreAway("away"))
            return
        seat = Seat(guest, form, wanted)
        self.waiting.append(seat)
        if not self.hold:
            self.let_in()

    def let_in(self) -> None:
        """Admit all who wait."""
        waiting, self.waiting = self.waiting, []
        for seat in waiting:
            if seat.guest.closed:
                continue
            self.seats.append(seat)
            seat.guest.admit([self._joined(name, since) for name, since in seat.wanted.items()])

    def leave(self, guest: Guest, form: Format, names: Sequence[str]) -> None:
        """Give a seat up."""
        for seats in (self.seats, self.waiting):
            seats[:] = [each for each in seats if not (each.guest is guest and set(each.wanted) == set(names))]

    async def publish(self, name: str, data: bytes, once: str | None = None) -> Sent:
        """Publish JSON."""
        if self.away:
            raise StoreAway("away")
        return self.say(name, data)

    def say(self, name: str, data: bytes) -> Sent:
        """Publish now."""
        stream = self.streams.setdefault(name, [])
        publication = Publication(len(stream) + 1, f"msg_{name}_{len(stream) + 1}", data)
        stream.append(publication)
        epoch = self.at(name).epoch
        seats = [seat for seat in self.seats if name in seat.wanted]
        encoded: dict[tuple[str, ...], bytes] = {}
        for seat in seats:
            key = (seat.form.name, *sorted(seat.wanted))
            if key not in encoded:
                encoded[key] = seat.form.encode(name, epoch, publication, self._others(seat, name))
            seat.guest.send(encoded[key], 1)
        return Sent(publication.id, self.at(name), len(seats))

    def lose(self, name: str) -> None:
        """Begin a new epoch."""
        self.epochs[name] = self.at(name).epoch + "x"
        for seat in list(self.seats):
            if name in seat.wanted:
                seat.guest.lost(name, self.at(name), self._others(seat, name))

    async def history(self, name: str, since: Position | None, limit: int) -> Recalled:
        """What a channel has."""
        if self.away:
            raise StoreAway("away")
        start = 0 if since is None else since.offset
        fits = since is None or since.epoch in ("", self.at(name).epoch)
        found = [each for each in self.streams.get(name, []) if each.offset > start] if fits else []
        return Recalled(self.at(name), tuple(found[:limit]), len(found) > limit)

    async def subscribers(self, names: Sequence[str]) -> Sequence[int]:
        """How many listen."""
        return [sum(name in seat.wanted for seat in self.seats) for name in names]

    async def active(self, pattern: str) -> Sequence[str]:
        """The channels that somebody listens to."""
        return sorted({name for seat in self.seats for name in seat.wanted if fnmatchcase(name, pattern)})

    def at(self, name: str) -> Position:
        """Where a channel stands."""
        return Position(self.epochs.setdefault(name, "e1"), len(self.streams.get(name, [])))

    def _joined(self, name: str, since: Position | None) -> Joined:
        at = self.at(name)
        if since is None or since.epoch != at.epoch or since.offset > at.offset:
            return Joined(name, at, False)
        return Joined(name, at, True, tuple(self.streams.get(name, [])[since.offset :]))

    def _others(self, seat: Seat, name: str) -> Sequence[tuple[str, Position]]:
        return [(other, self.at(other)) for other in seat.wanted if other != name]
