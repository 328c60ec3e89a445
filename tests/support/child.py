"""Child: one program run by a test or a benchmark, in a process of its own.

Owns the process and its two log files. Never outlives us: it hangs on a leash, and `close` ends it. Only ever
signals the pid that it started itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Protocol, Self

LEASH = Path(__file__).with_name("leash.py")
ROOT = Path(__file__).resolve().parents[2]
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "TZ")
TAIL_BYTES = 8192


class Launch(NamedTuple):
    """What is to run, and how."""

    argv: Sequence[str]
    out: Path
    err: Path
    environment: Mapping[str, str]
    cores: Sequence[int]
    cwd: Path


class Process(Protocol):
    """Part of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


def leashed(launch: Launch) -> Process:
    """Start a program that the kernel ends with us."""
    pinned = ",".join(map(str, launch.cores)) or "-"
    with launch.out.open("ab") as out, launch.err.open("ab") as err:
        return subprocess.Popen(  # noqa: S603  our own argv, no shell
            [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), pinned, *launch.argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=launch.cwd,
            env=launch.environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, in our order
        )


class Child:
    """A running program. `cores` pins it; `environment` replaces ours but for the few names that any program needs;
    `begin` starts it."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] = (),
        cwd: Path = ROOT,
        begin: Callable[[Launch], Process] = leashed,
    ) -> None:
        self.name = log.name
        self.stdout_path = log.with_suffix(".out")
        self.stderr_path = log.with_suffix(".err")
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        words = tuple(map(str, argv))
        self._process = begin(
            Launch(words, self.stdout_path, self.stderr_path, kept | dict(environment or {}), cores, cwd)
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Block until the program has ended, at most `timeout_s`; None when it still runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing when the program has already ended."""
        self._process.send_signal(number)

    def kill9(self) -> None:
        """Kill it as a crash would, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP): sockets stay open, nothing is answered. Returns once it has stopped."""
        self.send_signal(signal.SIGSTOP)
        ends_at = monotonic() + 1
        while self._state() not in "tTZX" and monotonic() < ends_at:
            os.sched_yield()

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self.send_signal(signal.SIGCONT)

    def close(self, timeout_s: float = 5.0) -> None:
        """End it: SIGTERM, and SIGKILL when that was not enough within `timeout_s`."""
        if self.exit_code is not None:
            return
        self.thaw()
        self.send_signal(signal.SIGTERM)
        if self.wait(timeout_s) is None:
            self.kill9()

    def output(self) -> str:
        """The end of what it wrote, for a failure report."""
        return f"{self.name} (exit code {self.exit_code})\n{_tail(self.stdout_path)}{_tail(self.stderr_path)}"

    def _state(self) -> str:
        stat = Path(f"/proc/{self.pid}/stat")
        return stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "X"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
