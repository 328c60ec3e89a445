"""Evidence: what observers outside the system wrote down, and what the harness did meanwhile. Values only.

All instants are seconds of the machine's monotonic clock, which every process here shares. Nothing in here comes from
the system under test except `Counted`, which is there to be held against the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")
BROKEN = 0
TIMED_OUT = -1
OK = 200
EVERY_NODE = "*"


class Try(Struct, frozen=True, array_like=True):
    """The driver sent a message once. `status`: HTTP's, or BROKEN (refused, reset), or TIMED_OUT."""

    id: str
    key: str
    sequence: int
    node: str
    sent_at: float
    status: int
    answered_at: float
    duplicate: bool = False

    @property
    def acknowledged(self) -> bool:
        """Whether somebody was promised something."""
        return self.status == OK


class Begun(Struct, frozen=True, array_like=True, tag="begun"):
    """The sink has a whole request. `node` is the sender's name as the kernel knows the connection, "" unknown."""

    number: int
    at: float
    node: str
    webhook_id: str
    sha256: str
    key: str
    reason: str
    attempt: int
    ids: tuple[str, ...]
    path: str


class Answered(Struct, frozen=True, array_like=True, tag="answered"):
    """The sink answered; `whole` is false when only a head went out that nobody could finish reading."""

    number: int
    at: float
    status: int
    whole: bool = True


class Post(Struct, frozen=True, kw_only=True):
    """A request that the sink got. `status` 0: never answered."""

    begun: Begun
    status: int = 0
    answered_at: float = float("inf")
    whole: bool = False

    @property
    def taken(self) -> bool:
        """Whether the webhook said that it has it."""
        return 200 <= self.status < 300


class Probe(Struct, frozen=True, array_like=True):
    """The prober asked a node something."""

    node: str
    path: str
    at: float
    status: int
    took_s: float

    @property
    def ended_at(self) -> float:
        """When the answer was there."""
        return self.at + self.took_s


class Sample(Struct, frozen=True, array_like=True):
    """What /proc said of a process."""

    at: float
    node: str
    pid: int
    rss_bytes: int
    fds: int
    threads: int
    sockets: int


class Policy(Struct, frozen=True, kw_only=True):
    """What a key's messages ask of their buffer."""

    max_size: int
    wait_s: float
    debounce: bool = False
    max_wait_s: float = 0.0


class Crash(Struct, frozen=True, kw_only=True):
    """A node stopped acting at `at`, in the middle of whatever it did: killed, frozen or cut off. What it had begun may
    still reach the sink until `until`."""

    node: str
    at: float
    until: float
    partitions: frozenset[int] = frozenset()
    """What it owned, if others are to take that over."""


class Fault(Struct, kw_only=True):
    """From `at` to `until` requests to `node` (EVERY_NODE: to any) may fail."""

    node: str
    at: float
    until: float = float("inf")


class Counted(Struct, frozen=True, kw_only=True):
    """What the nodes themselves counted during the row."""

    accepted: int
    duplicates: int
    delivered: int


class Evidence(Struct, frozen=True, kw_only=True):
    """Everything about one row."""

    tries: Sequence[Try]
    posts: Sequence[Post]
    probes: Sequence[Probe] = ()
    samples: Sequence[Sample] = ()
    policies: Mapping[str, Policy] = {}
    crashes: Sequence[Crash] = ()
    faults: Sequence[Fault] = ()
    dead: frozenset[str] = frozenset()
    """Messages in dead letters at the end."""
    still_open: frozenset[str] = frozenset()
    """Keys with an open batch at the end, ids of deliveries that are not over."""
    counted: Counted | None = None
    """Only where no node was restarted."""


def joined(lines: Iterable[Begun | Answered]) -> list[Post]:
    """The sink's log as one value a request, in order of arrival."""
    posts: dict[int, Post] = {}
    for line in lines:
        if isinstance(line, Begun):
            posts[line.number] = Post(begun=line)
        elif line.number in posts:
            begun = posts[line.number].begun
            posts[line.number] = Post(begun=begun, status=line.status, answered_at=line.at, whole=line.whole)
    return list(posts.values())


def tries_in(ledger: Path) -> list[Try]:
    """The driver's ledger."""
    return list(_lines(ledger, msgspec.json.Decoder(Try)))


def posts_in(log: Path) -> list[Post]:
    """The sink's log."""
    return joined(_lines(log, msgspec.json.Decoder(Begun | Answered)))


def probes_in(log: Path) -> list[Probe]:
    """The prober's log."""
    return list(_lines(log, msgspec.json.Decoder(Probe)))


def _lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[T]:
    with path.open("rb") as file:
        for line in file:
            yield decoder.decode(line)
