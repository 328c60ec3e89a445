"""What the kernel says of a process: CPU time, resident memory, time spent waiting for a core. Linux's /proc only."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """User + system time of all its threads since it started, in steps of a tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def reaped_cpu_s(pid: int) -> float:
    """The same of those of its children that have ended and been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident set size."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


class CoreShare:
    """How much of a core went to programs other than ours since this was made: what made a figure of time worthless."""

    def __init__(self, core: int, pid: int) -> None:
        self._core = core
        self._pid = pid
        self._before = self._reading()

    def restart(self) -> None:
        """Count from now on."""
        self._before = self._reading()

    def of_others(self) -> float:
        """The share of the core's time, 0 … 1, in steps of what a tick can tell."""
        total, idle, ours = (now - before for now, before in zip(self._reading(), self._before, strict=True))
        return max(0.0, (total - idle - ours) / total) if total else 0.0

    def _reading(self) -> tuple[float, float, float]:
        stat = Path("/proc/stat").read_text()
        line = next(line for line in stat.splitlines() if line.startswith(f"cpu{self._core} "))
        ticks = [int(field) / TICKS_PER_S for field in line.split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4], cpu_s(self._pid)


class RunQueue:
    """How long the main thread of a process stood ready to run without a core. Cheap enough for every probe."""

    def __init__(self, pid: int) -> None:
        path = f"/proc/{pid}/task/{pid}/schedstat"
        self._file = os.open(path, os.O_RDONLY) if Path(path).exists() else -1

    def waited_s(self) -> float:
        """Seconds in all; 0 where the kernel keeps no such count."""
        return int(os.pread(self._file, 96, 0).split()[1]) / 1e9 if self._file >= 0 else 0.0

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
