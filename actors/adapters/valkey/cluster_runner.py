"""Cluster runner: how the store's parts reach their scripts when many servers share the store.

A transition is one call for each partition: all of its keys are in one slot, so the server does it whole or says that
they moved before it did anything. What only looks is one call for each server, over all its partitions.
Invariant: nothing is sent again but what a server said it had not done, and that once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from actors.adapters.valkey.keys import OWNERS
from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.runner import OfPartition, Runner, Transition
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.shard import MOVED, Shard
from actors.adapters.valkey.wire import Moved, Shifting
from actors.ports import StoreAway

MOVED_WAIT_S = 0.3
"""For how long what has moved waits until its new server can be used; after that its caller must come back."""

Q = TypeVar("Q", bound=OfPartition)
A = TypeVar("A")


class Looks(Protocol):
    """Finds out who has what."""

    def look(self) -> asyncio.Future[None]:
        """Look soon at who has what; the future ends when that is done."""
        ...


class Shards(Looks, Protocol):
    """Who has what."""

    def of(self, partition: int) -> Shard: ...
    def of_key(self, key: str) -> Shard: ...


class ClusterRunner(Runner):
    """The runner of a Redis Cluster."""

    def __init__(self, shards: Shards, scripts: Mapping[str, Script]) -> None:
        self._shards = shards
        self._scripts = scripts

    def begin(self, transition: Transition[Q, A], requests: Sequence[Q]) -> Awaitable[Sequence[A | StoreAway]]:
        """Run a transition, one call for each partition; all are on their way when this returns."""
        places: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request.partition, []).append(place)
        calls = []
        for partition, of in places.items():
            arguments = transition.arguments([requests[place] for place in of])
            run = partial(_run, self._scripts[transition.script], (OWNERS[partition],), arguments)
            calls.append(Call(partial(self._hot_of, partition), run))
        return _Scattered(transition, requests, list(places.values()), Sending(self._shards, calls))

    async def hot(self, name: str, partition: int, arguments: Sequence[Any]) -> Any:
        """Run a script that changes one partition."""
        run = partial(_run, self._scripts[name], (OWNERS[partition],), arguments)
        return await self._alone(Call(partial(self._hot_of, partition), run))

    async def cold(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script beside the hot path, where its first key is."""
        run = partial(_run, self._scripts[name], keys, arguments)
        return await self._alone(Call(partial(self._cold_of, keys[0]), run))

    async def command(self, verb: str, key: str, *rest: Any) -> Any:
        """Run a plain command beside the hot path, where its key is."""
        return await self._alone(Call(partial(self._cold_of, key), lambda lane: lane.call(verb, key, *rest)))

    async def spread(
        self, name: str, partitions: Sequence[int], arguments: Callable[[Sequence[int]], list[Any]]
    ) -> Sequence[tuple[Sequence[int], Any]]:
        """Run a script that only looks, one call for each server."""
        together: dict[Shard, list[int]] = {}
        for partition in partitions:
            together.setdefault(self._shards.of(partition), []).append(partition)
        calls = []
        for shard, of in together.items():
            run = partial(_run, self._scripts[name], (OWNERS[of[0]],), arguments(of))
            calls.append(Call(partial(_cold, shard), run))
        replies = _some(await Sending(self._shards, calls).replies())
        return list(zip(together.values(), replies, strict=True))

    async def _alone(self, call: Call) -> Any:
        (reply,) = _some(await Sending(self._shards, [call]).replies())
        return reply

    def _hot_of(self, partition: int) -> Lane:
        return self._shards.of(partition).hot

    def _cold_of(self, key: str) -> Lane:
        return self._shards.of_key(key).cold


class Call(Struct, frozen=True):
    """One call: which lane it takes as far as is known now, and what it does there."""

    lane: Callable[[], Lane]
    run: Callable[[Lane], Awaitable[Any]]


class Sending:
    """Calls that are on their way."""

    def __init__(self, shards: Looks, calls: Sequence[Call]) -> None:
        self._shards = shards
        self._calls = calls
        self._sent = [_sent(call) for call in calls]

    async def replies(self) -> list[Any]:
        """The reply of each call, StoreAway for one that was not done or whose outcome nobody knows."""
        outcomes = [await _outcome(sent) for sent in self._sent]
        moved = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Moved)]
        if moved:
            await self._rearranged([self._calls[place] for place in moved])
            again = [_sent(self._calls[place]) for place in moved]
            for place, sent in zip(moved, again, strict=True):
                outcome = await _outcome(sent)
                outcomes[place] = StoreAway(str(outcome)) if isinstance(outcome, Moved) else outcome
        elif any(isinstance(outcome, Shifting) for outcome in outcomes):
            self._shards.look()
        return outcomes

    async def _rearranged(self, calls: Sequence[Call]) -> None:
        """Wait a little until it is known who has what now, and those servers can be used."""
        try:
            async with asyncio.timeout(MOVED_WAIT_S):
                await asyncio.shield(self._shards.look())
                for call in calls:
                    await call.lane().up.wait()
        except TimeoutError:
            return


class _Scattered(Generic[Q, A]):
    """The answers of a transition that is on its way to many partitions."""

    __slots__ = ("_places", "_requests", "_sending", "_transition")

    def __init__(
        self, transition: Transition[Q, A], requests: Sequence[Q], places: Sequence[Sequence[int]], sending: Sending
    ) -> None:
        self._transition = transition
        self._requests = requests
        self._places = places
        self._sending = sending

    def __await__(self) -> Generator[Any, Any, Sequence[A | StoreAway]]:
        return self._answers().__await__()

    async def _answers(self) -> Sequence[A | StoreAway]:
        answered: dict[int, A | StoreAway] = {}
        replies = _some(await self._sending.replies())
        for places, reply in zip(self._places, replies, strict=True):
            group = [self._requests[place] for place in places]
            away = isinstance(reply, StoreAway)
            answered.update(zip(places, [reply] * len(group) if away else self._answers_of(group, reply), strict=True))
        return [answered[place] for place in range(len(self._requests))]

    def _answers_of(self, group: Sequence[Q], reply: Any) -> Sequence[A]:
        return self._transition.answers(group, reply)


def _run(script: Script, keys: Sequence[str], arguments: Sequence[Any], lane: Lane) -> Awaitable[Any]:
    return lane.script(script, keys, arguments)


def _cold(shard: Shard) -> Lane:
    return shard.cold


def _sent(call: Call) -> Awaitable[Any] | StoreAway | Moved:
    lane = call.lane()
    try:
        return call.run(lane)
    except StoreAway as error:
        return Moved(MOVED) if lane.why_down == MOVED else error


async def _outcome(sent: Awaitable[Any] | StoreAway | Moved) -> Any:
    if isinstance(sent, StoreAway | Moved):
        return sent
    try:
        return await sent
    except (StoreAway, Moved) as error:
        return error


def _some(replies: list[Any]) -> list[Any]:
    """The replies, if there is one among them."""
    if replies and all(isinstance(reply, StoreAway) for reply in replies):
        raise replies[0]
    return replies
