"""Partitions in the store: implements PartitionStore."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from actors.adapters.valkey.keys import PREFIXES
from actors.adapters.valkey.replies import fenced
from actors.adapters.valkey.runner import Runner, Transition, present
from actors.core.partition import PARTITIONS
from actors.ports import Census, DueBatch, Fenced, Owner, Ready, StoreAway

TURNED_MS_MIN = 1000
"""Clocks are slewed, and that hurts nobody; one that goes back by more was set."""
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
NO_SKIP: Mapping[int, int] = MappingProxyType({})


class _Turned(Struct, frozen=True):
    """A partition of ours whose server's clock was turned back by `ms`."""

    partition: int
    epoch: int
    ms: int


class _Held(Struct, frozen=True):
    """A partition, the epoch it is believed to have, and a node: the one that wants it, or is to have it."""

    partition: int
    epoch: int
    node: str = ""


class ValkeyPartitions:
    """Ownership, and what is due. Of partitions whose server is away the last that was known is told."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._known = [Owner(0, "")] * PARTITIONS
        self._ahead_ms: dict[int, float] = {}
        """How far the clock of each partition's server is ahead of this machine's time since boot, at least."""

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]:
        """Who holds each partition."""
        for asked, flat in present(await self._runner.spread("owners", partitions, _prefixes)):
            pairs = iter(flat)
            for partition, epoch, node in zip(asked, pairs, pairs, strict=True):
                self._known[partition] = Owner(int(epoch), node.decode())
        return [self._known[partition] for partition in partitions]

    async def acquire(self, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Sequence[Owner]:
        """Take partitions whose epoch is the expected one; gives who holds each afterwards."""

        def arguments(of: Sequence[_Held]) -> list[Any]:
            return [node, seen, *(item for each in of for item in (PREFIXES[each.partition], each.epoch))]

        transition: Transition[_Held, Owner | Fenced] = Transition("acquire", arguments, _owners_now)
        held = [_Held(partition, expected, node) for partition, expected in wanted]
        answers = await self._changed(transition, held)
        return [
            Owner(each.epoch, "") if isinstance(answer, StoreAway) else _as_owner(answer)
            for each, answer in zip(held, answers, strict=True)
        ]

    async def resign(self, held: Sequence[tuple[int, int]]) -> None:
        """Hold the partitions no more."""
        await self._changed(_RESIGN, [_Held(partition, epoch) for partition, epoch in held])

    async def hand_over(self, moves: Sequence[tuple[int, int, str]]) -> Sequence[Owner | Fenced]:
        """Make partitions other nodes'; gives who holds each afterwards."""
        held = [_Held(*move) for move in moves]
        answers: list[Owner | Fenced] = []
        for each, answer in zip(held, await self._changed(_HAND_OVER, held), strict=True):
            known = self._known[each.partition]
            answers.append(Fenced(known.epoch, known.node) if isinstance(answer, StoreAway) else answer)
        return answers

    async def _changed(
        self, transition: Transition[_Held, Owner | Fenced], held: Sequence[_Held]
    ) -> Sequence[Owner | Fenced | StoreAway]:
        """Who holds each partition after the transition; StoreAway where nobody knows."""
        answers = await self._runner.each(transition, held)
        for each, answer in zip(held, answers, strict=True):
            if not isinstance(answer, StoreAway):
                self._known[each.partition] = _as_owner(answer)
        return answers

    async def sweep(
        self, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int] = NO_SKIP
    ) -> tuple[Sequence[DueBatch], Sequence[Ready]]:
        """What falls due within `ahead_ms`; of a partition's ready rows the first `skip` are passed over."""

        def arguments(asked: Sequence[int]) -> list[Any]:
            named = (item for partition in asked for item in (PREFIXES[partition], skip.get(partition, 0)))
            return [ahead_ms, limit, *named]

        due: list[DueBatch] = []
        ready: list[Ready] = []
        replies = present(await self._runner.spread("sweep", partitions, arguments))
        for partition, (_, batches, deliveries) in ((asked[row[0]], row) for asked, reply in replies for row in reply):
            rows = iter(batches)
            due.extend(
                DueBatch(partition, kid.decode(), deadline_ms, due_in_ms)
                for kid, deadline_ms, due_in_ms in zip(rows, rows, rows, strict=True)
            )
            rows = iter(deliveries)
            ready.extend(
                Ready(partition, name.decode(), host.decode(), due_in_ms)
                for name, host, due_in_ms in zip(rows, rows, rows, strict=True)
            )
        return due, ready

    async def census(self, partitions: Sequence[int]) -> Census:
        """How much waits."""
        counted = Census(0, 0, 0)
        sent = time.clock_gettime(_CLOCK)
        replies = present(await self._runner.spread("census", partitions, _prefixes))
        received = time.clock_gettime(_CLOCK)
        turned_back: dict[int, int] = {}
        for asked, reply in replies:
            open_batches, undelivered, oldest_ms, claimed, now_ms = reply
            turned_back |= self._turned_back(asked, now_ms, sent, received)
            counted = Census(
                counted.open_batches + open_batches,
                counted.undelivered + undelivered,
                max(counted.oldest_waiting_ms, oldest_ms),
                (*counted.claimed, *(name.decode() for name in claimed)),
                turned_back,
            )
        return counted

    async def turn_back(self, turned: Sequence[tuple[int, int, int]]) -> None:
        """Move what is due later back."""
        await self._runner.each(_TURN_BACK, [_Turned(*each) for each in turned])

    def _turned_back(self, asked: Sequence[int], now_ms: int, sent: float, received: float) -> dict[int, int]:
        """By how many ms the clock of these partitions' server is behind what it must be at least, if by much. It told
        its time between the question and the answer; a process that was frozen in between cannot tell when."""
        turned = {}
        for partition in asked:
            was_ahead_ms = self._ahead_ms.get(partition, float("-inf"))
            if was_ahead_ms - (now_ms - sent * 1000) > TURNED_MS_MIN:
                turned[partition] = round(was_ahead_ms - (now_ms - sent * 1000))
            self._ahead_ms[partition] = now_ms - received * 1000
        return turned


def _prefixes(partitions: Sequence[int]) -> list[Any]:
    return [PREFIXES[partition] for partition in partitions]


def _epochs(held: Sequence[_Held]) -> list[Any]:
    return [item for each in held for item in (PREFIXES[each.partition], each.epoch)]


def _moves(held: Sequence[_Held]) -> list[Any]:
    return [item for each in held for item in (PREFIXES[each.partition], each.epoch, each.node)]


def _owners_now(held: Sequence[_Held], replies: Sequence[Any]) -> list[Owner | Fenced]:
    """Replies are {OK, epoch, ...} for the node named, or name who has it instead."""
    return [
        Owner(int(reply[1]), each.node) if reply[0] == b"OK" else fenced(reply)
        for each, reply in zip(held, replies, strict=True)
    ]


def _resigned(held: Sequence[_Held], replies: Sequence[Any]) -> list[Owner | Fenced]:
    return [
        Owner(each.epoch, "") if reply[0] == b"OK" else fenced(reply) for each, reply in zip(held, replies, strict=True)
    ]


def _as_owner(answer: Owner | Fenced) -> Owner:
    return Owner(answer.epoch, answer.node)


def _turns(turned: Sequence[_Turned]) -> list[Any]:
    return [item for each in turned for item in (PREFIXES[each.partition], each.epoch, each.ms)]


def _done(_turned: Sequence[_Turned], replies: Sequence[Any]) -> list[bool]:
    return [reply[0] == b"OK" for reply in replies]


_TURN_BACK = Transition("turn_back", _turns, _done)
_RESIGN = Transition("resign", _epochs, _resigned)
_HAND_OVER = Transition("hand_over", _moves, _owners_now)
