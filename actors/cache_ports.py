"""Cache ports: what the cache needs from a store, as Protocols, and the values that cross.

Adapters implement them. Instants that end in `_ms` are Unix milliseconds of the store's clock; a `Proof` and all that
is compared with it are seconds of this machine's own clock that also runs in sleep (`Clock.boottime`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from actors.ports import CommitMeters, Gauge, StoreAway

NEVER = -1
"""As `expires_ms`: the entry stays until somebody takes it away."""

ReadHow = Literal["hit", "miss", "collapsed", "stale"]
"""From this process; from the store; from the store, by somebody else's question; from this process, unproven."""
WriteOp = Literal["set", "delete", "expire"]
WriteOutcome = Literal["done", "absent", "other_type", "mismatch"]
"""`absent`: there was nothing to delete or to expire. `other_type`: the key is no string, and stays as it is.
`mismatch`: a precondition did not hold. Only `done` has changed anything."""


class Proof:
    """That whatever changes in one server is told here. Whoever listens to the server moves `until`, forward while it
    hears, to now when it hears no more; a server that is listened to again gets another proof."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


UNPROVEN = Proof(float("-inf"))
"""Of what was read while nobody listened."""


class Loaded(Struct, frozen=True, gc=False):
    """What the store has under a key: its bytes as they are stored, None for nothing (or no string).

    `left_ms` is for how long it stays, counted from the moment it was looked at, `NEVER` for ever; `expires_ms` the
    same as an instant. `asked_at` is the boottime at which the question left, `proof` that of its server by then.
    """

    value: bytes | None
    expires_ms: int
    left_ms: int
    asked_at: float
    proof: Proof


class TooLong(Struct, frozen=True, gc=False):
    """The key holds a string of `size_bytes`, more than is read at once."""

    size_bytes: int


class CacheWrite(Struct, frozen=True, gc=False, kw_only=True):
    """One change of one key.

    `value` is JSON, only with `set`. `ttl_ms` is how long the entry stays from now on, 0 for ever (`set`, `expire`).
    `if_match` and `if_none_match` are preconditions (RFC 9110): "" for none, "*", or entity tags as 40 hex digits each,
    joined by commas. Both are judged on what is stored at the moment of the write. `once` names the request: a write of
    a key that was done under this name before counts as done, and is not done again over what came after it.
    """

    key: str
    op: WriteOp
    value: bytes = b""
    ttl_ms: int = 0
    if_match: str = ""
    if_none_match: str = ""
    once: str = ""


class OtherType(Struct, frozen=True):
    """A batch was refused: `key` is no string. Nothing was changed."""

    key: str


class SliceCursor(Struct, frozen=True, array_like=True):
    """Where a walk over all names goes on: in server number `server`, at `place` of its own scan, after `name`."""

    server: int = 0
    place: int = 0
    name: str = ""


class ServerStats(Struct, frozen=True, kw_only=True):
    """What the cache's server says of itself. `keyspace` is for each of its databases (`db0`) what is in it: `keys`,
    `expires`, `avg_ttl`. Channels of the router's own are not counted."""

    redis_version: str
    uptime_in_seconds: int
    connected_clients: int
    used_memory_human: str
    total_commands_processed: int
    keyspace: Mapping[str, Mapping[str, int]]
    pubsub_channels: int


class Slice(Struct, frozen=True):
    """Some names, each of a string that is not the router's own; `following` is None at the end."""

    names: Sequence[str]
    following: SliceCursor | None


class CacheStore(Protocol):
    """Where entries are. Every method may raise StoreAway, at once while that is known; where many servers share the
    store a StoreAway among the answers stands for a key whose server is away. An answer for each request, in order.

    Reads and writes of a key take effect in the order in which they were asked for.
    """

    async def load(self, keys: Sequence[str], bytes_max: int = 0) -> Sequence[Loaded | TooLong | StoreAway]:
        """Look at keys, which are all different; one question for each server unless the values are very large. When
        more than `bytes_max` have been read (0: no bound) the rest is TooLong, with the size of what was read."""
        ...

    async def write(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome | StoreAway]:
        """Do each write by itself."""
        ...

    async def write_all(self, writes: Sequence[CacheWrite]) -> Sequence[WriteOutcome] | OtherType:
        """Do all writes, or none when one of the keys is no string. Atomic where the keys are on one server."""
        ...

    async def slice(self, pattern: str, cursor: SliceCursor, limit: int) -> Slice:
        """Look at a bounded part of all names; it may hold none, never more than `limit`. `pattern` is a Redis glob."""
        ...


class Listening(Protocol):
    """What the store tells of what changed in it."""

    on_invalidated: Callable[[Sequence[bytes] | None], None]
    """Told the names of what changed, or None for everything; set once by the composition root. Not valid UTF-8 is
    possible: any program may write any name."""


class Tally(Protocol):
    """A counter that can be read."""

    @property
    def value(self) -> float: ...
    def inc(self, amount: float = 1) -> None: ...


class CacheMeters(Protocol):
    """Pre-bound metric children of the cache."""

    @property
    def cache_commits(self) -> CommitMeters: ...

    cache_reads: Mapping[ReadHow, Tally]
    cache_absent: Tally
    """Reads, of any kind, that found nothing."""
    cache_writes: Tally
    cache_invalidations: Tally
    """Names that the store said have changed, the router's own left out."""
    cache_near_evicted: Tally
    cache_near_bytes: Gauge
    cache_near_entries: Gauge
