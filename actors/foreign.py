"""Foreign: what other Redis clients publish on a channel, on its way to an offset.

Every node that listens hears it, between the same two marks and in the same order, counts it, and asks the store for an
offset under the mark and the number: whoever is first gets one, the others learn that there is one. Never delivers
anything itself: with its offset a message comes back like any other.
Invariants: what was counted is asked for until it has an offset; one question at a time; bounded, the oldest go first,
and the next question says so: the store begins a new epoch when no other node had them either, which tells everybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from actors.channel_ports import ChannelName, Ingest

MESSAGE_BYTES_MAX = 1024 * 1024
"""A larger one would close whoever reads it: a reader may have as much in hand."""
PENDING_MAX = 32_768
PENDING_BYTES_MAX = 32 * 1024 * 1024
INGEST_MAX = 128
INGEST_BYTES_MAX = 256 * 1024

_as_json = msgspec.json.encode
_check = msgspec.json.decode


class Heard(Struct, frozen=True, gc=False):
    """A message that has no offset yet."""

    mark: str
    number: int
    id: str
    data: bytes


class Foreign:
    """The foreign messages of one channel. `new_id` makes ids; `ask` sends a question and is told nothing more."""

    __slots__ = ("_ask", "_asked", "_bytes", "_channel", "_count", "_mark", "_new_id", "_pending", "gone")

    def __init__(self, channel: ChannelName, new_id: Callable[[], str], ask: Callable[[Ingest], None]) -> None:
        self._channel = channel
        self._new_id = new_id
        self._ask = ask
        self._mark = ""
        self._count = 0
        self._pending: deque[Heard] = deque()
        self._bytes = 0
        self._asked: Ingest | None = None
        self.gone: tuple[str, int] | None = None
        """Up to which message of a mark some were given up for want of room, and the store does not know it yet."""

    def __len__(self) -> int:
        return len(self._pending)

    def marked(self, mark: str) -> None:
        """From here on is counted anew."""
        self._mark, self._count = mark, 0

    def unheard(self) -> None:
        """Something may be missed: until the next mark nobody knows what number a message has. Others may."""
        self._mark = ""

    def heard(self, message: bytes) -> None:
        """Count a message, and ask for its offset."""
        if not self._mark or len(message) > MESSAGE_BYTES_MAX:
            return
        data = as_json(message)
        if len(data) > MESSAGE_BYTES_MAX:  # a byte that is no text is six as JSON
            return
        self._count += 1
        self._pending.append(Heard(self._mark, self._count, self._new_id(), data))
        self._bytes += len(data)
        while len(self._pending) > PENDING_MAX or self._bytes > PENDING_BYTES_MAX:
            oldest = self._pending.popleft()
            self._bytes -= len(oldest.data)
            self.gone = oldest.mark, oldest.number
        self.go_on()

    def has_offset(self, mark: str, number: int) -> None:
        """All up to this one have offsets, whoever asked."""
        if self.gone and self.gone[0] == mark and self.gone[1] <= number:
            self.gone = None
        pending = self._pending
        while pending and pending[0].mark == mark and pending[0].number <= number:
            self._bytes -= len(pending.popleft().data)
        if not pending or pending[0].mark == mark:
            return
        kept = [each for each in self._pending if each.mark != mark or each.number > number]
        self._pending = deque(kept)
        self._bytes = sum(len(each.data) for each in kept)

    def go_on(self) -> None:
        """Ask for what has no offset, unless a question is under way."""
        if self._asked is None and self._pending:
            first, *rest = self._next()
            messages = tuple((each.id, each.data) for each in (first, *rest))
            self._asked = Ingest(self._channel, first.mark, first.number, messages, self.gone)
            self._ask(self._asked)

    def answered(self, asked: Ingest, done: bool) -> None:
        """The question has been answered; `done` is false when nobody can know what came of it."""
        if asked is not self._asked:
            return
        self._asked = None
        if done:
            if asked.gone == self.gone:
                self.gone = None
            self.has_offset(asked.mark, asked.number + len(asked.messages) - 1)
            self.go_on()

    def _next(self) -> Iterator[Heard]:
        """Successors of the first, as many as fit into a question."""
        first = self._pending[0]
        size_bytes = 0
        for place, each in enumerate(self._pending):
            size_bytes += len(each.data)
            if place and (
                each.mark != first.mark
                or each.number != first.number + place
                or place >= INGEST_MAX
                or size_bytes > INGEST_BYTES_MAX
            ):
                return
            yield each


def as_json(message: bytes) -> bytes:
    """A message as JSON text: itself when it is JSON, else a string of it."""
    try:
        _check(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _as_json(message.decode("utf-8", "replace"))
    return message
