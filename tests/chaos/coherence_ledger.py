"""Coherence ledger: what one process did to the cache and saw of it, line by line. Values only.

Keys are slots, small numbers; every value carries the number of its write, which is never used twice. All instants are
of the machine's monotonic clock, read by the process that sent the request: before its first byte left, and after its
answer was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

FOREIGN = "*"
"""In place of a node's name: a plain client of the store."""
NOTHING = 0
"""In place of a number: the key was not there."""
FOR_EVER = -1
"""In place of milliseconds."""
LINK_LOSS_S = 1.0
"""After so long without a word from the store a node believes nothing of what it keeps."""
TOLD_S = 0.050
"""By then every node knows what another one has acknowledged."""


class Wrote(Struct, frozen=True, array_like=True, tag="w"):
    """Keys were changed, or may have been: `acked` None means that nobody knows.

    `numbers`: what a `set` wrote to each slot; what an `expire` found there. `ttl_ms` FOR_EVER: no expiry.
    """

    via: str
    op: Literal["set", "delete", "expire"]
    slots: Sequence[int]
    numbers: Sequence[int]
    ttl_ms: int
    began: float
    acked: float | None


class Looked(Struct, frozen=True, array_like=True, tag="r"):
    """Keys were read: the number and the milliseconds left of each slot. `lefts` is empty where they were not told."""

    via: str
    slots: Sequence[int]
    numbers: Sequence[int]
    lefts: Sequence[int]
    began: float
    ended: float
    stale: bool = False


class Refused(Struct, frozen=True, array_like=True, tag="x"):
    """Anything that was not done: an HTTP status, or BROKEN or TIMED_OUT of `tests.chaos.evidence`."""

    via: str
    what: str
    began: float
    ended: float
    status: int
    detail: str = ""


class Loosened(Struct, array_like=True, tag="c"):
    """A reason why a node (FOREIGN: all) may hear of changes later than usual: reads that begin meanwhile are given
    the time in which the loss of a link must be noticed. A cut at an instant loosens for LINK_LOSS_S."""

    node: str
    at: float
    until: float
    why: str = ""


class Stall(Struct, frozen=True, array_like=True, tag="s"):
    """A node, or its way to the store, did not answer a probe meanwhile."""

    node: str
    at: float
    until: float
    of: Literal["node", "way"] = "node"


Line = Wrote | Looked | Refused | Loosened | Stall
_DECODER = msgspec.json.Decoder(Line)


class Ledger(Struct, kw_only=True):
    """All lines, by kind. `evicts`: the server may drop any key at any time."""

    wrote: list[Wrote] = []
    looked: list[Looked] = []
    refused: list[Refused] = []
    loosened: list[Loosened] = []
    stalls: list[Stall] = []
    evicts: bool = False

    def add(self, line: Line) -> None:
        """Put a line where it belongs."""
        match line:
            case Wrote():
                self.wrote.append(line)
            case Looked():
                self.looked.append(line)
            case Refused():
                self.refused.append(line)
            case Loosened():
                self.loosened.append(line)
            case Stall():
                self.stalls.append(line)


def read(*paths: Path, evicts: bool = False) -> Ledger:
    """The ledger in these files."""
    ledger = Ledger(evicts=evicts)
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                ledger.add(_DECODER.decode(line))
    return ledger
