"""Hearing: what one channel's two Redis channels say, put together.

A published message comes as two: on the side channel its offset, at once followed by its data on the plain one. The
server says both in one step, on one connection: nothing comes between. So what comes on the plain channel without
having been announced is another Redis client's. Anybody may publish on either: what makes no sense is passed over.
Invariant: an announcement whose message is missing is a gap, and whoever listens is told of it.
"""

from __future__ import annotations

from msgspec import Struct

from actors.channel_ports import Hears, Publication
from actors.core.channel_names import is_event_channel

DIGITS_MAX = 15
"""Python refuses to read numbers of thousands of digits, and a number beyond these is no offset."""
_ANNOUNCED_PARTS, _INGESTED_PARTS = 5, 7


class Announced(Struct, frozen=True, gc=False):
    """A message whose data comes next, so many bytes."""

    epoch: str
    offset: int
    size_bytes: int
    id: str


class Nobody:
    """Hears everything, and does nothing."""

    def listening(self, names: object) -> None:
        """Nothing."""

    def deaf(self, names: object) -> None:
        """Nothing."""

    def arrived(self, name: str, epoch: str, publication: Publication) -> None:
        """Nothing."""

    def marked(self, name: str, mark: str) -> None:
        """Nothing."""

    def foreign(self, name: str, message: bytes) -> None:
        """Nothing."""

    def ingested(self, name: str, mark: str, number: int) -> None:
        """Nothing."""

    def woken(self, name: str) -> None:
        """Nothing."""

    def opened(self) -> None:
        """Nothing."""


class Hearing:
    """Of one channel, for as long as it is subscribed without an interruption."""

    __slots__ = ("_announced", "_foreigners", "_hears", "_name")

    def __init__(self, name: str, hears: Hears) -> None:
        self._name = name
        self._hears = hears
        self._foreigners = not is_event_channel(name)
        self._announced: Announced | None = None

    def plain(self, message: bytes) -> None:
        """The plain channel says this."""
        announced = self._announced
        if announced is not None and announced.size_bytes == len(message):
            self._announced = None
            publication = Publication(announced.offset, announced.id, message)
            self._hears.arrived(self._name, announced.epoch, publication)
        elif self._foreigners:
            # Not the announced one: while slots move, what two servers say may come interleaved.
            self._hears.foreign(self._name, message)

    def side(self, message: bytes) -> None:
        """The side channel says this."""
        kind = message[:2]
        try:
            if kind == b"p|":
                announced = _announced(message)
                self._nothing_between()
                self._announced = announced
            elif kind == b"m|":
                mark = message[2:].decode()
                self._nothing_between()
                self._hears.marked(self._name, mark)
            elif kind == b"f|":
                epoch, mark, number, publication = _ingested(message)
                self._nothing_between()
                self._hears.ingested(self._name, mark, number)
                self._hears.arrived(self._name, epoch, publication)
        except ValueError:
            return  # somebody's joke

    def _nothing_between(self) -> None:
        """Announce a gap when the message that was announced has not come."""
        if self._announced is not None:
            self._announced = None
            self._hears.deaf((self._name,))
            self._hears.listening((self._name,))


def _announced(message: bytes) -> Announced:
    _, epoch, offset, size_bytes, message_id = _parts(message, _ANNOUNCED_PARTS)
    return Announced(epoch.decode(), _number(offset), _number(size_bytes), message_id.decode())


def _ingested(message: bytes) -> tuple[str, str, int, Publication]:
    _, epoch, offset, mark, number, message_id, data = _parts(message, _INGESTED_PARTS)
    publication = Publication(_number(offset), message_id.decode(), data)
    return epoch.decode(), mark.decode(), _number(number), publication


def _parts(message: bytes, how_many: int) -> list[bytes]:
    parts = message.split(b"|", how_many - 1)
    if len(parts) != how_many:
        raise ValueError(message)
    return parts


def _number(raw: bytes) -> int:
    if len(raw) > DIGITS_MAX or not raw.isdigit():
        raise ValueError(raw)
    return int(raw)
