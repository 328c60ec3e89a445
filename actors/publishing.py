"""Publishing: messages on their way into their streams, and what the store must still know of them.

Invariant: a message is acknowledged after the store has given it an offset. For RECENT_S the node remembers where each
channel stood after its last message: a store that came back without that begins a new epoch as soon as it is told, so
that nobody takes other messages under the same offsets for those that are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from actors.channel_ports import (
    ChannelMeters,
    ChannelName,
    ChannelStore,
    Position,
    Publish,
    Published,
    Recall,
    Recalled,
)
from actors.committer import Committer
from actors.core.ids import MESSAGE_PREFIX
from actors.ports import StoreAway
from actors.runtime.clock import Clock
from actors.runtime.outcome import Tell, told
from actors.runtime.supervisor import Supervisor

RECENT_S = 5.0
"""Longer than a store can lose of what it has acknowledged."""
RECENT_MAX = 4096
OVERHEAD_BYTES = 128
"""What a request needs beside its data."""


class Recent(Struct, frozen=True, gc=False):
    """Where a channel stood after this node's last message, and when."""

    channel: ChannelName
    position: Position
    id: str
    at: float


class Publishing:
    """The group commits of publishing and of joining, which keep one order. `new_id` makes ids of messages, `new_mark`
    marks that no node makes again."""

    def __init__(
        self,
        store: ChannelStore,
        supervisor: Supervisor,
        clock: Clock,
        meters: ChannelMeters,
        new_id: Callable[[], str],
        new_mark: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._meters = meters
        self._new_id = new_id
        self._new_mark = new_mark
        self._recent: dict[str, Recent] = {}
        commits = meters.channel_commits
        self._publishes: Committer[Publish, Published] = Committer(
            "channel publishes", store.publish, supervisor, clock, commits
        )
        self._publishes.on_committed = self._committed
        self._joins: Committer[Recall, Recalled] = Committer("channel joins", store.recall, supervisor, clock, commits)

    def submit(self, channel: ChannelName, data: bytes, once: str | None, tell: Tell[Published]) -> str:
        """Publish a message, and give its id; `tell` is called later, once: StoreAway when it was not, or nobody can
        know. Raises Overloaded."""
        message_id = self._new_id() if once is None else derived_id(once)
        request = Publish(channel, message_id, data, once is not None)
        self._publishes.submit(request, len(data) + OVERHEAD_BYTES, tell)
        return message_id

    async def publish(self, channel: ChannelName, data: bytes, once: str | None) -> Published:
        """The same, to be awaited."""
        return await told(partial(self.submit, channel, data, once))

    def publish_unheeded(self, channel: ChannelName, data: bytes) -> None:
        """Publish a message, and do not wait. Raises Overloaded."""
        request = Publish(channel, self._new_id(), data)
        self._publishes.submit(request, len(data) + OVERHEAD_BYTES, _unheeded)

    def join(
        self, channel: ChannelName, since: Position | None, last_id: str, bounds: tuple[int, int]
    ) -> Callable[[Callable[[Any], object]], None]:
        """A question with a mark, to be submitted with whoever is told its answer. `bounds`: messages and bytes."""
        recall = Recall(
            channel=channel,
            since=since,
            limit=bounds[0],
            bytes_max=bounds[1],
            mark=self._new_mark(),
            last_id=last_id,
        )
        return lambda answer: self._joins.submit(recall, OVERHEAD_BYTES, answer)

    def stands(self, name: str) -> Position | None:
        """Where a channel stood when it was last remembered, if that is not long ago."""
        self._tidy(self._clock.monotonic())
        recent = self._recent.get(name)
        return None if recent is None else recent.position

    def unverified(self) -> list[Recall]:
        """Questions that have a store which came back look whether it still has what this node published lately."""
        self._tidy(self._clock.monotonic())
        return [self.verifying(each.channel, each.position, each.id) for each in self._recent.values()]

    def remember(self, channel: ChannelName, position: Position, last_id: str) -> None:
        """This is where a channel stands, and must still stand when its store comes back."""
        now = self._clock.monotonic()
        self._note(channel, position, last_id, now)
        self._tidy(now)

    def verifying(self, channel: ChannelName, position: Position, last_id: str) -> Recall:
        """A question that has the store look whether it still has what stood there."""
        mark = self._new_mark()
        return Recall(channel=channel, since=position, limit=1, bytes_max=1, mark=mark, last_id=last_id)

    async def drained(self) -> None:
        """Wait until every message has its answer."""
        await self._publishes.drained()

    def _committed(self, requests: Sequence[Publish], answers: Sequence[Published | StoreAway]) -> None:
        fresh, now = 0, self._clock.monotonic()
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Published) and not answer.again:
                fresh += 1
                self._note(request.channel, answer.position, request.id, now)
        self._tidy(now)
        self._meters.channel_publications.inc(fresh)

    def _note(self, channel: ChannelName, position: Position, last_id: str, now: float) -> None:
        self._recent.pop(channel.name, None)
        self._recent[channel.name] = Recent(channel, position, last_id, now)

    def _tidy(self, now: float) -> None:
        while self._recent:
            oldest = next(iter(self._recent.values()))
            if now - oldest.at <= RECENT_S and len(self._recent) <= RECENT_MAX:
                return
            del self._recent[oldest.channel.name]


def derived_id(once: str) -> str:
    """The id of a message that may be sent again under the name of its request."""
    return MESSAGE_PREFIX + blake2b(once.encode(), digest_size=16).hexdigest()


def _unheeded(_outcome: object) -> None:
    """Nobody waits for this."""
