"""Ledger: what a client was promised, held against what a webhook saw.

Reads envelopes only (`format: envelope`), because they name their messages. Knows nothing of the router's own store or
logs: what a client sent and what a sink took are all the evidence there is. A webhook-id may come more than once after
a crash; a message in two of them, two bodies under one of them, or an order that differs from the client's never may.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from tests.support.sink import Received


class Named(Struct, frozen=True):
    """A message of an envelope, as far as it is looked at."""

    message_id: str


class Envelope(Struct, frozen=True):
    """The body of one delivery."""

    key: str
    messages: list[Named]


class Findings(Struct, frozen=True, kw_only=True):
    """What does not add up, empty when all does. `repeated`: webhook-ids that were taken more than once, and how often
    too many."""

    lost: frozenset[str]
    phantom: frozenset[str]
    twice: frozenset[str]
    mutated: frozenset[str]
    disordered: frozenset[str]
    repeated: dict[str, int]

    @property
    def clean(self) -> bool:
        """Nothing at all was found."""
        return self.sound and not self.repeated

    @property
    def sound(self) -> bool:
        """Nothing but repetitions of a delivery, same id, same bytes: what a crash may leave."""
        return not any((self.lost, self.phantom, self.twice, self.mutated, self.disordered))


_decode = msgspec.json.Decoder(Envelope).decode


class Ledger:
    """What was sent and what was acknowledged, in the order in which each key's one client did it."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self._acknowledged: dict[str, list[str]] = {}

    def note(self, key: str, message_id: str, *, acknowledged: bool) -> None:
        """Write down one try at sending a message; trying again under the same id is the same message."""
        self.sent.add(message_id)
        order = self._acknowledged.setdefault(key, [])
        if acknowledged and message_id not in order:
            order.append(message_id)

    @property
    def acknowledged(self) -> set[str]:
        """Every message that somebody was promised."""
        return {message_id for order in self._acknowledged.values() for message_id in order}

    def reconcile(
        self,
        requests: Sequence[Received],
        *,
        dead: Collection[str] = (),
        taken: Callable[[Received], bool] = lambda _request: True,
    ) -> Findings:
        """Hold the promises against `requests`. `taken` says which of them the webhook answered with 2xx; `dead` are
        the messages found in dead letters."""
        accepted = [request for request in requests if taken(request)]
        ids_by_batch = {_batch(request): _ids(request) for request in accepted}
        delivered = Counter(message_id for ids in ids_by_batch.values() for message_id in ids)
        tries = Counter(map(_batch, accepted))
        return Findings(
            lost=frozenset(self.acknowledged - delivered.keys() - set(dead)),
            phantom=frozenset(delivered.keys() - self.sent),
            twice=frozenset(message_id for message_id, batches in delivered.items() if batches > 1),
            mutated=frozenset(_mutated(requests)),
            disordered=frozenset(self._disordered(accepted)),
            repeated={batch: count - 1 for batch, count in tries.items() if count > 1},
        )

    def _disordered(self, accepted: Iterable[Received]) -> Iterator[str]:
        """Keys of which the acknowledged messages arrived, for the first time, in another order than they were sent."""
        arrived: dict[str, dict[str, None]] = {}
        for request in accepted:
            arrived.setdefault(_decode(request.body).key, {}).update(dict.fromkeys(_ids(request)))
        for key, order in self._acknowledged.items():
            seen = [message_id for message_id in arrived.get(key, ()) if message_id in set(order)]
            if seen != [message_id for message_id in order if message_id in set(seen)]:
                yield key


def _batch(request: Received) -> str:
    return request.headers["webhook-id"]


def _ids(request: Received) -> list[str]:
    return [message.message_id for message in _decode(request.body).messages]


def _mutated(requests: Iterable[Received]) -> Iterator[str]:
    first: dict[str, bytes] = {}
    for request in requests:
        digest = hashlib.sha256(request.body).digest()
        if first.setdefault(_batch(request), digest) != digest:
            yield _batch(request)
