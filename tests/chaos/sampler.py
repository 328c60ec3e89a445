"""Sampler: five times a second, what /proc says of the nodes' processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from tests.bench.readings import PAGE_BYTES
from tests.chaos.evidence import Sample
from tests.chaos.sockets import socket_count
from tests.support.until import passing

EVERY_S = 0.2


class Sampler:
    """Samples the processes that `pids` gives (pid → node), as long as the block lasts."""

    def __init__(self, pids: Callable[[], Mapping[int, str]]) -> None:
        self.samples: list[Sample] = []
        self._pids = pids
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for pid, node in self._pids().items():
                if (sample := sampled(pid, node)) is not None:
                    self.samples.append(sample)
            await passing(EVERY_S)


def sampled(pid: int, node: str) -> Sample | None:
    """One process now; None when it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        resident = int((folder / "statm").read_text().split()[1]) * PAGE_BYTES
        threads = int((folder / "stat").read_text().rpartition(")")[2].split()[17])
        fds = len(os.listdir(folder / "fd"))
    except (OSError, IndexError):
        return None
    return Sample(monotonic(), node, pid, resident, fds, threads, socket_count(pid))
