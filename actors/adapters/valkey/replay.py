"""Replay: what this node acknowledged lately goes back into a server that may have lost it.

Two steps. First every message is put where it belongs by the time at which it was first received, and no batch closes:
other nodes have acknowledged messages of the same keys and do the same now. Then, once they had time to, batches that
are full are closed. Known messages are dropped, so all of it may be repeated.
Invariant: what was acknowledged had its room already, so this is done also when memory is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.question import ask_all
from actors.adapters.valkey.scripts import Script
from actors.ports import Entry
from actors.task_ports import NewTask

REPLAY_MESSAGES = 128
"""Messages of one call."""
TOGETHER_S = 0.7
"""Longer than a lane takes to reconnect: within this time of each other nodes come back to a server."""


P = TypeVar("P", bound=Entry | NewTask)


class Replay:
    """`window_ms`: how long message ids are remembered. `apart`: a call may touch one partition only (Cluster)."""

    def __init__(self, scripts: Mapping[str, Script], window_ms: int, apart: bool) -> None:
        self._scripts = scripts
        self._window_ms = window_ms
        self._apart = apart

    async def run(self, connection: AbstractConnection, promised: Sequence[Entry | NewTask], others: bool) -> int:
        """Bring messages and tasks back, oldest first; gives how many had been lost. `others`: others do so too."""
        entries = [each for each in promised if isinstance(each, Entry)]
        tasks = [each for each in promised if isinstance(each, NewTask)]
        lost_tasks = 0
        for at in range(0, len(tasks), REPLAY_MESSAGES):
            lost_tasks += await self._tasks_restored(connection, tasks[at : at + REPLAY_MESSAGES])
        lost: list[Entry] = []
        known: list[Entry] = []
        for at in range(0, len(entries), REPLAY_MESSAGES):
            await self._restored(connection, entries[at : at + REPLAY_MESSAGES], lost, known)
        if others:
            await asyncio.sleep(TOGETHER_S)
        # Known ones too: they may have come back with an attempt that did not get as far as this.
        maybe_full = lost + known
        for at in range(0, len(maybe_full), REPLAY_MESSAGES):
            await self._reclosed(connection, maybe_full[at : at + REPLAY_MESSAGES])
        return len(lost) + lost_tasks

    async def _tasks_restored(self, connection: AbstractConnection, tasks: Sequence[NewTask]) -> int:
        replies = await self._call(connection, self._scripts["restore_tasks"], self._grouped(tasks), _task_arguments)
        return sum(sum(added) for added in replies)

    async def _restored(
        self, connection: AbstractConnection, entries: Sequence[Entry], lost: list[Entry], known: list[Entry]
    ) -> None:
        """Bring some messages back; notes which the server had lost and which it knew."""
        groups = self._grouped(entries)
        replies = await self._call(connection, self._scripts["restore"], groups, self._restore_arguments)
        for group, added in zip(groups, replies, strict=True):
            for entry, is_new in zip(group, added, strict=True):
                (lost if is_new else known).append(entry)

    async def _reclosed(self, connection: AbstractConnection, entries: Sequence[Entry]) -> None:
        """Close what is full. Each message that came back may have been the one that filled a batch."""
        await self._call(connection, self._scripts["reclose"], self._grouped(entries), _reclose_arguments)

    async def _call(
        self,
        connection: AbstractConnection,
        script: Script,
        groups: Sequence[Sequence[P]],
        arguments: Callable[[Sequence[P]], list[Any]],
    ) -> list[Any]:
        commands: list[tuple[Any, ...]] = []
        for group in groups:
            keys = [OWNERS[partition] for partition in {entry.partition for entry in group}]
            commands.append(("EVAL", script.source, len(keys), *keys, *arguments(group)))
        return await ask_all(connection, commands)

    def _grouped(self, entries: Sequence[P]) -> list[Sequence[P]]:
        if not self._apart:
            return [entries]
        return [list(group) for _, group in groupby(sorted(entries, key=_partition), _partition)]

    def _restore_arguments(self, entries: Sequence[Entry]) -> list[Any]:
        arguments: list[Any] = [self._window_ms]
        for entry in entries:
            arguments += (
                PREFIXES[entry.partition],
                entry.terms.kid,
                entry.message_id,
                entry.dedupe,
                entry.payload,
                entry.terms.wait_ms,
                entry.terms.max_wait_ms,
                entry.terms.key,
                entry.terms.policy,
                entry.terms.host,
                entry.trace,
                entry.received_us,
            )
        return arguments


def _partition(promised: Entry | NewTask) -> int:
    return promised.partition


def _task_arguments(tasks: Sequence[NewTask]) -> list[Any]:
    arguments: list[Any] = []
    for task in tasks:
        arguments += (PREFIXES[task.partition], task.kid, task.task_id, task.key, task.payload, task.policy)
        arguments += (task.host, task.trace, task.due_ms, task.received_us)
    return arguments


def _reclose_arguments(entries: Sequence[Entry]) -> list[Any]:
    arguments: list[Any] = []
    for entry in entries:
        arguments += (
            PREFIXES[entry.partition],
            entry.terms.kid,
            entry.terms.wait_ms,
            entry.terms.max_wait_ms,
            entry.terms.max_size,
            entry.terms.max_bytes,
            entry.batch_id,
        )
    return arguments
