"""Partitions in the store: implements PartitionStore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from actors.adapters.valkey.keys import PREFIXES
from actors.adapters.valkey.replies import fenced
from actors.adapters.valkey.runner import Runner, Transition, present
from actors.core.partition import PARTITIONS
from actors.ports import Census, DueBatch, Fenced, Owner, Ready, StoreAway

NO_SKIP: Mapping[int, int] = MappingProxyType({})


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
        for _, reply in present(await self._runner.spread("census", partitions, _prefixes)):
            open_batches, undelivered, oldest_ms, claimed = reply
            counted = Census(
                counted.open_batches + open_batches,
                counted.undelivered + undelivered,
                max(counted.oldest_waiting_ms, oldest_ms),
                (*counted.claimed, *(name.decode() for name in claimed)),
            )
        return counted


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


_RESIGN = Transition("resign", _epochs, _resigned)
_HAND_OVER = Transition("hand_over", _moves, _owners_now)
