"""Forwarding: what the API asks of a key or a delivery, brought to the node that owns its partition.

An owner's work is done here when this node is the owner, else one hop away; the node that is asked never passes it on,
and this one asks a second time only when it has learned that another node is the owner. A message is stored from here
whoever owns it, and its owner is told what it must do about it soon; or, if so set, it goes to its owner first.
Invariant: what was answered was done; a caller who is told StoreAway may ask again and nothing is done twice that a
batch id, a message id or a delivery's state can tell apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import msgspec
from msgspec import Struct

from actors.attempt import Tools
from actors.buffers import Buffers
from actors.core.partition import locate
from actors.deliveries import Deliveries
from actors.forwarded_appends import ForwardedAppends
from actors.node_ports import (
    Bell,
    NotOwner,
    PeerAnswer,
    PeerAway,
    PeerDiscard,
    PeerDrop,
    PeerFlush,
    PeerRequest,
    PeerRetry,
    Peers,
)
from actors.ports import (
    Appended,
    ClosedBatch,
    DueBatch,
    Entry,
    Fenced,
    Next,
    NothingOpen,
    Overloaded,
    Owner,
    Ready,
    StoreAway,
    WrongState,
)
from actors.runtime.outcome import Tell, told

FORWARD_S = 1.0
"""For an owner's work, both tries together."""
TRIES = 2
NEAR_MS = 850
"""A batch that falls due later than this its owner's sweep sees in time: it looks 600 ms ahead every 250 ms."""
UNREACHABLE = "the owner of this key cannot be reached now"

Changed = Next | WrongState | NothingOpen


class Owners(Protocol):
    """Who owns what, as far as this node knows; `Ownership` is one."""

    node: str

    def epoch(self, partition: int) -> int: ...
    def owner_of(self, partition: int) -> str: ...
    def known(self, partition: int) -> Owner: ...
    def heard(self, partition: int, epoch: int, node: str) -> None: ...
    def reclaim(self) -> None: ...


class Neighbours(Struct, frozen=True):
    """The other nodes: how to ask one and how to ring at it, and whether it lives as far as is known here."""

    peers: Peers
    bell: Bell
    is_alive: Callable[[str], bool]


def hint_of(entry: Entry, appended: Appended) -> Ready | DueBatch | None:
    """What the owner of a message's partition must hear of at once, because its sweep would see it too late."""
    closed = appended.closed
    if closed is not None:
        return Ready(entry.partition, closed.delivery_id, closed.host, 0) if closed.first_in_line else None
    # A window's deadline is its first message's; a debounce's moves with each, also to an earlier time.
    moved = appended.size == 1 or entry.terms.max_wait_ms > 0
    if appended.size == 0 or appended.duplicate or not moved or appended.remaining_ms >= NEAR_MS:
        return None
    return DueBatch(entry.partition, entry.terms.kid, appended.deadline_ms, appended.remaining_ms)


class Forwarding:
    """The front of buffers and deliveries on any node. `forward_appends`: a message goes to its owner first."""

    def __init__(
        self,
        buffers: Buffers,
        deliveries: Deliveries,
        ownership: Owners,
        neighbours: Neighbours,
        tools: Tools,
        forward_appends: bool,
    ) -> None:
        self._buffers = buffers
        self._deliveries = deliveries
        self._ownership = ownership
        self._neighbours = neighbours
        self._clock = tools.clock
        self._meters = tools.meters
        self.appends = ForwardedAppends(neighbours.peers, ownership.heard, tools)
        # Without forwarding there is nothing to decide before an append, and this is the hottest place.
        self.submit: Callable[[Entry, Tell[Appended]], None] = (
            self._by_way_of_owner if forward_appends else buffers.submit
        )
        """Store a message, here or by its owner; it is told later what came of it. Raises StoreAway, Overloaded."""

    async def append(self, entry: Entry) -> Appended:
        """The same as `submit`, to be awaited."""
        return await told(partial(self.submit, entry))

    async def flush(self, key: str, batch_id: str | None = None) -> ClosedBatch | NothingOpen:
        """Close the key's open batch now, as the delivery `batch_id` (made here when None): asking again with the
        same id gives the same answer. Raises StoreAway, Overloaded."""
        partition = locate(key)[1]
        name = batch_id or self._buffers.make_delivery_id(partition)
        if not _can_be_sent(key):
            return NothingOpen()
        answer = await self._by_owner(partition, PeerFlush(key, name), lambda: self._buffers.flush(key, name))
        if isinstance(answer, ClosedBatch | NothingOpen):
            return answer
        raise StoreAway(UNREACHABLE)

    async def drop(self, key: str) -> int | NothingOpen:
        """Drop the key's open batch; gives how many messages were dropped. Raises StoreAway, Overloaded."""
        if not _can_be_sent(key):
            return NothingOpen()
        answer = await self._by_owner(locate(key)[1], PeerDrop(key), lambda: self._buffers.drop(key))
        if isinstance(answer, int | NothingOpen):
            return answer
        raise StoreAway(UNREACHABLE)

    async def retry(self, delivery_id: str, partition: int) -> Changed:
        """Try a dead or waiting delivery again now. Raises StoreAway, Overloaded."""
        request = PeerRetry(delivery_id)
        return _changed(
            await self._by_owner(partition, request, lambda: self._deliveries.retry(delivery_id, partition))
        )

    async def retry_dead(self, key: str | None, since_ms: int, until_ms: int) -> int:
        """Try all dead deliveries again, of one key or all, created between the two instants; gives how many were
        queued again. Raises StoreAway, Overloaded: some may have been, and asking again goes on with the rest."""
        return await self._deliveries.retry_dead(key, since_ms, until_ms, self.retry)

    async def discard(self, delivery_id: str, partition: int) -> Changed:
        """Give a delivery up. Raises StoreAway, Overloaded."""
        request = PeerDiscard(delivery_id)
        return _changed(
            await self._by_owner(partition, request, lambda: self._deliveries.discard(delivery_id, partition))
        )

    def stored_for_other(self, entry: Entry, appended: Appended) -> None:
        """A message was stored in a partition that another node owns: tell that one what it must know at once."""
        self._meters.direct_appends.inc()
        owner = self._ownership.owner_of(entry.partition)
        if owner and owner != self._ownership.node:
            hint = hint_of(entry, appended)
            if hint is not None:
                self._neighbours.bell.ring(owner, hint)

    def task_startable(self, ready: Ready) -> None:
        """A task was stored that nobody of its line is before: start it here, or tell its owner. What is wanted later a
        sweep finds in time: a timer for each would be kept for as long as a year."""
        if ready.due_in_ms >= NEAR_MS:
            return
        if self._ownership.epoch(ready.partition):
            self._deliveries.offer(ready)
            return
        owner = self._ownership.owner_of(ready.partition)
        if owner and owner != self._ownership.node:
            self._neighbours.bell.ring(owner, ready)

    def _by_way_of_owner(self, entry: Entry, tell: Tell[Appended]) -> None:
        """Have the owner store a message; one that nobody is known to have stored is stored from here."""
        owner = self._ownership.owner_of(entry.partition)
        if self._ownership.epoch(entry.partition) or not self._is_other(owner):
            self._buffers.submit(entry, tell)
            return

        def answered(outcome: Appended | NotOwner | Exception) -> None:
            if isinstance(outcome, Appended):
                tell(outcome)
            else:
                self._instead(entry, tell, uncertain=isinstance(outcome, PeerAway | StoreAway))

        try:
            self.appends.submit(owner, entry, answered)
        except Overloaded:
            self._buffers.submit(entry, tell)

    def _instead(self, entry: Entry, tell: Tell[Appended], *, uncertain: bool) -> None:
        """Store here what its owner did not, or perhaps did."""

        def answered(outcome: Appended | Exception) -> None:
            tell(_of_this_request(entry, outcome) if uncertain and isinstance(outcome, Appended) else outcome)

        try:
            self._buffers.submit(entry, answered)
        except Overloaded as error:
            tell(error)

    async def _by_owner(
        self, partition: int, request: PeerRequest, here: Callable[[], Awaitable[PeerAnswer]]
    ) -> PeerAnswer:
        """Have the owner do it. Raises StoreAway when none is known or it cannot be reached: it may have been done."""
        ends_at = self._clock.monotonic() + FORWARD_S
        owner = self._ownership.owner_of(partition)
        for _ in range(TRIES):
            answer: PeerAnswer
            if owner == self._ownership.node and self._ownership.epoch(partition):
                answer = await here()
            elif self._is_other(owner):
                answer = await self._ask(owner, request, ends_at - self._clock.monotonic())
            else:
                break
            if not isinstance(answer, NotOwner | Fenced):
                return answer
            following = self._learned(partition, answer)
            if following == owner:
                break
            owner = following
        raise StoreAway(UNREACHABLE)

    async def _ask(self, owner: str, request: PeerRequest, within_s: float) -> PeerAnswer:
        try:
            answer = await self._neighbours.peers.ask(owner, request, within_s)
        except PeerAway as error:
            self._meters.forwards["away"].inc()
            raise StoreAway(UNREACHABLE) from error
        self._meters.forwards["not_owner" if isinstance(answer, NotOwner) else "done"].inc()
        return answer

    def _learned(self, partition: int, answer: NotOwner | Fenced) -> str:
        """Who owns the partition, now that somebody has said that it is not who it was thought to be."""
        self._ownership.heard(partition, answer.epoch, answer.node)
        self._ownership.reclaim()
        # What the store says holds; a peer may know less than this node.
        return answer.node if isinstance(answer, Fenced) else self._ownership.owner_of(partition)

    def _is_other(self, owner: str) -> bool:
        return owner not in ("", self._ownership.node) and self._neighbours.is_alive(owner)


def _changed(answer: PeerAnswer) -> Changed:
    if isinstance(answer, Next | WrongState | NothingOpen):
        return answer
    raise StoreAway(UNREACHABLE)


def _can_be_sent(key: str) -> bool:
    """False for a key with half a character in it, as a path can hold: no message has such a key, so nothing is open,
    and it could not be named to a peer."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_this_request(entry: Entry, appended: Appended) -> Appended:
    """What to say of a message that the owner may have stored just before it was stored from here.

    An id of ours (text) was made for this request or from its idempotency key: whoever stored it, it was this request,
    and to call that a duplicate would be wrong. A client's own id (a hash) may have been stored by an earlier request,
    by somebody else even, or by the owner a moment ago, and nobody can know: it *is* there already, and is said to be.
    """
    if appended.duplicate and isinstance(entry.dedupe, str):
        return msgspec.structs.replace(appended, duplicate=False)
    return appended
