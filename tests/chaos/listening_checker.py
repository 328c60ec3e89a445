"""Listening checker: what listeners were told, held against what was published and against each other.

Fed with facts as they come: acknowledged publications, and what each listener was told. Every finding is a sentence.
"""

from __future__ import annotations

from msgspec import Struct

Place = tuple[str, int]
"""Epoch and offset."""
FINDINGS_MAX = 20


class Told(Struct, frozen=True):
    """How all of it stands. `holes` and what else is wrong are in `findings`."""

    received: int
    published: int
    foreign: int
    resumed: int
    unrecovered: int
    lost: int
    closed: dict[int, int]
    findings: list[str]
    wrong: int


class Book:
    """What one listener was told of one channel."""

    __slots__ = ("at", "fresh", "token")

    def __init__(self) -> None:
        self.at: Place | None = None
        self.token = ""
        """Of the message there, when it was received."""
        self.fresh = False
        """It came without a position, or could not go on from the one it had."""


class Ledger:
    """All publications and all that was heard."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.wrong = 0
        self.received = self.published = self.foreign = 0
        self.resumed = self.unrecovered = self.lost = 0
        self.closed: dict[int, int] = {}
        self._tokens: dict[tuple[str, str, int], str] = {}
        """By channel, epoch and offset: what stands there, as whoever first knew it said."""
        self._foreign_at: dict[str, tuple[str, str, int]] = {}

    def find(self, what: str) -> None:
        """Something is wrong."""
        self.wrong += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)

    def acknowledged(self, channel: str, place: Place, token: str) -> None:
        """A publication was answered with its place."""
        self.published += 1
        self._stands(channel, place, token)

    def came_back(self, book: Book, channel: str, place: Place, *, recovered: bool, live: bool) -> None:
        """A listener was told where it stands. `live`: on a connection on which it stood somewhere already."""
        had = book.at is not None
        if recovered:
            self.resumed += 1
            if book.at != place:
                self.find(f"{channel}: goes on at {place}, the listener had {book.at}")
        else:
            self.unrecovered += had and not live
            self.lost += live
            book.token = ""
        book.at = place

    def heard(self, book: Book, channel: str, offset: int, token: str) -> None:
        """A listener was told a message."""
        self.received += 1
        if book.at is None:
            self.find(f"{channel}: {offset} before anything else")
            return
        epoch, at = book.at
        if offset != at + 1:
            self.find(f"{channel}: {offset} after {at} in {epoch}")
        before = self._tokens.get((channel, epoch, at))
        if book.token and before is not None and before != book.token:
            self.find(f"{channel}: {offset} follows {before}, the listener had {book.token}")
        book.at, book.token = (epoch, offset), token
        self._stands(channel, book.at, token)

    def result(self) -> Told:
        """All of it."""
        return Told(
            received=self.received,
            published=self.published,
            foreign=self.foreign,
            resumed=self.resumed,
            unrecovered=self.unrecovered,
            lost=self.lost,
            closed=self.closed,
            findings=self.findings,
            wrong=self.wrong,
        )

    def _stands(self, channel: str, place: Place, token: str) -> None:
        at = (channel, *place)
        known = self._tokens.setdefault(at, token)
        if known != token:
            self.find(f"{channel}: {place} is {token} for one and {known} for another")
        if token.startswith("f"):
            first = self._foreign_at.setdefault(token, at)
            if first != at:
                self.find(f"{channel}: the foreign message {token} stands at {first[1:]} and at {place}")
