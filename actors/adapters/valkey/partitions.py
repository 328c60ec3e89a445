"""Partitions in the store: implements PartitionStore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.replies import fenced
from actors.adapters.valkey.runner import Runner
from actors.ports import Census, DueBatch, Fenced, Owner, Ready

NO_SKIP: Mapping[int, int] = MappingProxyType({})


class ValkeyPartitions:
    """Ownership, and what is due."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]:
        """Who holds each partition."""
        flat = await self._runner.cold("owners", [OWNERS[partition] for partition in partitions], [])
        pairs = iter(flat)
        return [Owner(int(epoch), node.decode()) for epoch, node in zip(pairs, pairs, strict=True)]

    async def acquire(self, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Sequence[Owner]:
        """Take partitions whose epoch is the expected one; gives who holds each afterwards."""
        arguments: list[Any] = [node, seen]
        for partition, expected in wanted:
            arguments += (PREFIXES[partition], expected)
        replies = await self._runner.hot("acquire", [OWNERS[partition] for partition, _ in wanted], arguments)
        return [
            Owner(int(reply[1]), node) if reply[0] == b"OK" else Owner(int(reply[1]), reply[2].decode())
            for reply in replies
        ]

    async def resign(self, held: Sequence[tuple[int, int]]) -> None:
        """Hold the partitions no more."""
        arguments: list[Any] = []
        for partition, epoch in held:
            arguments += (PREFIXES[partition], epoch)
        await self._runner.hot("resign", [OWNERS[partition] for partition, _ in held], arguments)

    async def hand_over(self, moves: Sequence[tuple[int, int, str]]) -> Sequence[Owner | Fenced]:
        """Make partitions other nodes'; gives who holds each afterwards."""
        arguments: list[Any] = []
        for partition, epoch, node in moves:
            arguments += (PREFIXES[partition], epoch, node)
        if not moves:
            return []
        replies = await self._runner.hot("hand_over", [OWNERS[partition] for partition, _, _ in moves], arguments)
        return [
            Owner(int(reply[1]), reply[2].decode()) if reply[0] == b"OK" else fenced(reply) for reply in replies
        ]

    async def sweep(
        self, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int] = NO_SKIP
    ) -> tuple[Sequence[DueBatch], Sequence[Ready]]:
        """What falls due within `ahead_ms`; of a partition's ready rows the first `skip` are passed over."""
        if not partitions:
            return [], []
        named = [item for partition in partitions for item in (PREFIXES[partition], skip.get(partition, 0))]
        reply = await self._runner.cold("sweep", (OWNERS[partitions[0]],), [ahead_ms, limit, *named])
        due: list[DueBatch] = []
        ready: list[Ready] = []
        for index, batches, deliveries in reply:
            partition = partitions[index]
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
        if not partitions:
            return Census(0, 0, 0)
        prefixes = [PREFIXES[partition] for partition in partitions]
        reply = await self._runner.cold("census", (OWNERS[partitions[0]],), prefixes)
        open_batches, undelivered, oldest_ms, claimed = reply
        return Census(open_batches, undelivered, oldest_ms, tuple(name.decode() for name in claimed))
