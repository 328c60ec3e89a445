"""Ports: what the actors need from the outside, as Protocols, and the values that cross.

Adapters implement them, the composition root joins them, tests may stand in for them. Nothing here does anything.
Times that end in `_ms` are Unix milliseconds of the *store's* clock when they name an instant, durations otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

from msgspec import Meta, Struct

from actors.core.policy import Reason, Terms


class StoreAway(Exception):
    """The store did not answer, or cannot take writes now; whether a write happened is unknown. Try later."""


class Overloaded(Exception):
    """A bounded queue or mailbox is full; nothing was done. Try later."""


Result_contra = TypeVar("Result_contra", contravariant=True)


class Reply(Protocol[Result_contra]):
    """Where an actor leaves its answer to an ask; a future, as a rule."""

    def done(self) -> bool: ...
    def set_result(self, result: Result_contra, /) -> None: ...
    def set_exception(self, exception: type | BaseException, /) -> None: ...


class Entry(Struct, frozen=True, gc=False, kw_only=True):
    """One message on its way into the store, with all that its batch needs to know.

    `batch_id` is the id a batch gets if this message closes it (fresh for every entry).
    `dedupe` identifies (key, message id); `trace` is a traceparent or "".
    `received_us` is when the store first received it, in µs of its clock; 0: it has not yet.
    """

    terms: Terms
    message_id: str
    dedupe: bytes | str
    payload: bytes
    trace: str
    batch_id: str
    received_us: int = 0

    @property
    def partition(self) -> int:
        """Where its key belongs."""
        return self.terms.partition


class ClosedBatch(Struct, frozen=True, gc=False):
    """A batch that was frozen. `first_in_line`: no earlier batch of its key is still undelivered."""

    delivery_id: str
    size: int
    host: str
    reason: Reason
    first_in_line: bool


class Appended(Struct, frozen=True, gc=False):
    """What the batch holds after an append; `size` 0: the message was a duplicate and no batch is open.
    `remaining_ms` is 0 when this message closed the batch. `received_us` is the store's time at which this was done."""

    size: int
    size_bytes: int
    remaining_ms: int
    deadline_ms: int
    duplicate: bool
    closed: ClosedBatch | None
    received_us: int = 0


class Close(Struct, frozen=True, kw_only=True):
    """Freeze the open batch of `kid` if its deadline is not after `deadline_ms` (`None`: whatever it is)."""

    partition: int
    epoch: int
    kid: str
    deadline_ms: int | None
    reason: Reason
    batch_id: str


class NotDue(Struct, frozen=True):
    """The open batch closes later than the caller believed, in `remaining_ms`."""

    remaining_ms: int
    deadline_ms: int


class NothingOpen(Struct, frozen=True):
    """No open batch of that key (or no such delivery, or not in a state that allows the change)."""


class Fenced(Struct, frozen=True):
    """The caller's epoch is stale: another node owns the partition. Nothing was written."""

    epoch: int
    node: str


Status = Literal["pending", "delivering", "retrying", "delivered", "dead", "discarded"]


Settled = Literal["delivered", "retrying", "dead", "held"]
TaskOutcome = Literal["queued", "held", "delivered", "retrying", "dead", "discarded"]


class Claim(Struct, frozen=True, kw_only=True):
    """Name one delivery as the owner of its partition."""

    partition: int
    epoch: int
    delivery_id: str


class Claimed(Struct, frozen=True, kw_only=True):
    """A frozen batch taken for one attempt. `attempt` counts from 1 over the delivery's life; `failures` are the
    settled failures since it was last queued. `messages` in order of acceptance: (message_id, received_ms, payload).
    `cut_off`: of a task, nobody knows how its last attempt ended."""

    delivery_id: str
    key: str
    attempt: int
    failures: int
    reason: Reason
    policy: bytes
    trace: str
    created_ms: int
    messages: Sequence[tuple[str, int, bytes]]
    cut_off: bool = False


class Settle(Struct, frozen=True, kw_only=True):
    """How attempt `attempt` ended. `log` is the attempt as JSON bytes; `retry_in_ms` only with `retrying` and `held`,
    which uses up no retry. Of a task: `result` is JSON or nothing, `mark` names the WhatsApp message it became."""

    partition: int
    epoch: int
    delivery_id: str
    attempt: int
    status: Settled
    log: bytes
    retry_in_ms: int = 0
    result: bytes = b""
    mark: str = ""


class Ready(Struct, frozen=True, gc=False):
    """A delivery that may be attempted in `due_in_ms` (0: now)."""

    partition: int
    delivery_id: str
    host: str
    due_in_ms: int


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One line of a delivery's log. `at` is RFC 3339; `response_excerpt` at most 1 KiB of text."""

    at: str
    latency_ms: float
    status_code: int | None = None
    error: str | None = None
    response_excerpt: str | None = None


class Next(Struct, frozen=True):
    """An owner's write was done; `following` is the delivery of the same key that may start now, if there is one."""

    following: Ready | None


class Poisoned(Struct, frozen=True):
    """The delivery was claimed too often without anybody living to settle it: it is dead now."""

    following: Ready | None


class WrongState(Struct, frozen=True):
    """The delivery is in a state that does not allow the change."""

    status: Status


class Release(Struct, frozen=True, kw_only=True):
    """Give a claimed delivery back, to be due in `in_ms`. `untried`: nothing of the attempt has left this node."""

    partition: int
    epoch: int
    delivery_id: str
    in_ms: int
    untried: bool = False


class OpenBatch(Struct, frozen=True, kw_only=True):
    """One row of the list of open batches; `messages` (id, received_ms, payload) only when one key was asked for."""

    key: str
    size: int
    size_bytes: int
    remaining_ms: int
    partition: int
    messages: Sequence[tuple[str, int, bytes]] = ()


class DeliveryRecord(Struct, frozen=True, kw_only=True):
    """All that is kept of a delivery. `attempts`: JSON of `Attempt`, or the ms at which an attempt that nobody
    settled was claimed, oldest first."""

    delivery_id: str
    key: str
    url: str
    status: Status
    size: int
    reason: Reason
    created_ms: int
    next_attempt_ms: int | None
    attempts: Sequence[bytes | int]


class ListCursor(Struct, frozen=True, array_like=True):
    """Where a list that is spread over partitions goes on: after `name` at `score` in `partition` of `stage`."""

    stage: Annotated[int, Meta(ge=0, le=3)] = 0
    partition: Annotated[int, Meta(ge=0, le=255)] = 0
    score: str = ""
    name: str = ""


class DeliveryFilter(Struct, frozen=True, kw_only=True):
    """Which deliveries a list shows; `None` means any."""

    status: Status | None = None
    key: str | None = None


class DueBatch(Struct, frozen=True):
    """An open batch whose deadline is near or past."""

    partition: int
    kid: str
    deadline_ms: int
    due_in_ms: int


class Owner(Struct, frozen=True):
    """Who holds a partition and since which epoch; node "" is nobody."""

    epoch: int
    node: str


class Census(Struct, frozen=True):
    """How much waits in the store, and which deliveries are claimed (the oldest hundred of each partition).
    `turned_back` names partitions whose server's clock was turned back since the last census, and by how many ms."""

    open_batches: int
    undelivered: int
    oldest_waiting_ms: int
    claimed: Sequence[str] = ()
    turned_back: Mapping[int, int] = {}


class BatchStore(Protocol):
    """The open batches. Every method may raise StoreAway; an answer per request, in order.

    Where many servers share the store, a StoreAway among the answers stands for a request whose server is away.
    """

    def append(self, entries: Sequence[Entry]) -> Awaitable[Sequence[Appended | StoreAway]]: ...
    def close(
        self, closes: Sequence[Close]
    ) -> Awaitable[Sequence[ClosedBatch | NotDue | NothingOpen | Fenced | StoreAway]]: ...
    async def cancel(self, partition: int, epoch: int, kid: str) -> int | NothingOpen | Fenced: ...
    async def peek(self, key: str) -> OpenBatch | None: ...
    async def list_open(self, cursor: ListCursor, limit: int) -> tuple[Sequence[OpenBatch], ListCursor | None]: ...


class DeliveryStore(Protocol):
    """Frozen batches on their way. Every method may raise StoreAway; an answer per request, in order.

    Where many servers share the store, a StoreAway among the answers stands for a request whose server is away.
    """

    def work(
        self, requests: Sequence[Claim | Settle]
    ) -> Awaitable[Sequence[Claimed | Poisoned | Next | NothingOpen | Fenced | StoreAway]]: ...
    def release(self, releases: Sequence[Release]) -> Awaitable[Sequence[Next | NothingOpen | Fenced | StoreAway]]: ...
    async def requeue(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced: ...
    async def discard(self, claim: Claim) -> Next | WrongState | NothingOpen | Fenced: ...
    async def get(self, delivery_id: str) -> DeliveryRecord | None: ...
    async def list_deliveries(
        self, wanted: DeliveryFilter, cursor: ListCursor, limit: int
    ) -> tuple[Sequence[DeliveryRecord], ListCursor | None]: ...


class PartitionStore(Protocol):
    """Ownership and what is due. Every method may raise StoreAway."""

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]: ...
    async def acquire(self, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Sequence[Owner]: ...
    async def resign(self, held: Sequence[tuple[int, int]]) -> None: ...
    async def hand_over(self, moves: Sequence[tuple[int, int, str]]) -> Sequence[Owner | Fenced]:
        """Make each `(partition, own epoch, node)` the node's; gives who holds each afterwards."""
        ...

    async def sweep(
        self, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int]
    ) -> tuple[Sequence[DueBatch], Sequence[Ready]]: ...
    async def census(self, partitions: Sequence[int]) -> Census: ...
    async def turn_back(self, turned: Sequence[tuple[int, int, int]]) -> None:
        """Move what is due later back by `(partition, own epoch, ms)`, as the server's clock was."""
        ...


class Clock(Protocol):
    """Monotonic and wall time in seconds; tests drive their own."""

    def monotonic(self) -> float: ...
    def wall(self) -> float: ...


class Counter(Protocol):
    """Only ever grows."""

    def inc(self, amount: float = 1) -> None: ...


class Histogram(Protocol):
    """Counts observations in buckets."""

    def observe(self, amount: float) -> None: ...


class Gauge(Protocol):
    """A value of now."""

    def set(self, value: float) -> None: ...


class CommitMeters(Protocol):
    """What a group commit observes: requests in a call, and how long one takes."""

    commit_operations: Histogram
    commit_seconds: Histogram


class Meters(Protocol):
    """Pre-bound metric children; label look-ups never happen on the hot path. Seconds and bytes throughout."""

    accepted: Counter
    duplicates: Counter
    batches: Mapping[Reason, Counter]
    batch_messages: Histogram
    deliveries: Mapping[Literal["delivered", "retrying", "dead", "discarded"], Counter]
    tasks: Mapping[TaskOutcome, Counter]
    lanes_held: Gauge
    attempt_seconds: Histogram
    oldest_waiting_seconds: Gauge
    open_batches: Gauge
    mailbox_depth: Gauge
    commit_operations: Histogram
    commit_seconds: Histogram
    loop_lag_seconds: Histogram
    store_restarts: Counter
    replayed: Counter
    repaired: Counter
    fenced: Counter
    actor_restarts: Counter
    quarantined: Gauge
    breaker_open: Gauge
    nodes_alive: Gauge
    partitions_held: Gauge
    takeovers: Counter
    handovers: Counter
    handover_seconds: Histogram
    forwards: Mapping[Literal["done", "away", "not_owner"], Counter]
    direct_appends: Counter
    rings: Counter


class Journal(Protocol):
    """Structured log: a fixed lower-case phrase and fields. No secrets, no bodies."""

    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...
