"""Engine process: one server program of ours that works on a folder and ends with its node.

Owns the process, its log file and the lock on its folder. Relies on the caller holding DATA_DIR's lock. Knows neither
what the program is nor when it should be started again.
Invariants: a program lives at most as long as its node; at most one works on a folder; the folder's lock is free
exactly when nothing of an earlier program lives, its children included.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from actors.core.refusals import CannotStart

LAUNCHER = Path(__file__).with_name("embedded_launch.py")
SOCKET_PATH_BYTES_MAX = 103  # sun_path on macOS; Linux has 107
PROBE_S = 0.01
EXIT_PROBE_S = 0.1

Tie = Literal["signal", "pipe"]
TIE: Tie = "signal" if sys.platform == "linux" else "pipe"


class EngineFailed(CannotStart):
    """An embedded engine does not run."""


class EngineProcess:
    """The program that works on `directory`. `end` asks it to write out everything and go. One loop, main thread."""

    def __init__(self, name: str, directory: Path, log_name: str, *, end: signal.Signals, tie: Tie = TIE) -> None:
        self.name = name
        self.directory = directory
        self.log_path = directory / log_name
        self._lock_path = directory / "engine.lock"
        self._end = end
        self._tie = tie
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The program's process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def spawn(
        self, program: Sequence[str], *, account: tuple[int, int] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the program, as another user and group when `account` names them (only root can)."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the engine would be ended together with this thread: start it from the main one")
        self.forget()
        user = "-" if account is None else f"{account[0]}:{account[1]}"
        tie = [self._tie, str(int(self._end)), str(os.getpid()), str(self._lock_path), user]
        # Not the loop's own subprocesses: uvloop lets descriptors leak into them, asyncio takes a thread for each.
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own program and arguments, no shell
                [sys.executable, "-I", "-S", str(LAUNCHER), *tie, *program],
                stdin=subprocess.PIPE if self._tie == "pipe" else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=env,
                start_new_session=True,  # Ctrl-C is for the node, which stops the engine when all is written
            )

    async def stop(self, within_s: float) -> None:
        """Ask the program to end, and end it with all its children if it is there after `within_s`."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self._end)
            try:
                async with asyncio.timeout(within_s):
                    await _exit_of(process, PROBE_S)
            except TimeoutError:
                self._kill(process.pid)
        await _exit_of(process, PROBE_S)
        self.forget()

    async def wait_exit(self) -> int:
        """Wait until the program has ended, and return its exit code (negative for a signal)."""
        if self._process is None:
            raise RuntimeError("the engine has not been started")
        await _until_over(self._process.pid)
        return await _exit_of(self._process, EXIT_PROBE_S)

    def forget(self) -> None:
        """Let go of a program that has ended."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # ends the process that was waiting for our death
        self._process = None

    async def end_previous(self, patience_s: float, stop_s: float) -> None:
        """Wait for the program of a dead node, which was asked to end already; be harder on one that hangs.

        Of one that crashed only its children can be left; they are ended at once.
        """
        if self._is_free():
            return
        pid = self._locked_by()
        crashed = pid is not None and not _runs(pid)
        if not crashed and await self._free_within(patience_s):
            return
        pid = self._locked_by()
        if pid is None:
            raise EngineFailed(f"the {self.name} cannot be started: another program holds {self._lock_path}")
        for end in (self._kill,) if crashed else (self._thaw_and_end, self._kill):
            end(pid)
            if await self._free_within(stop_s):
                return
        raise EngineFailed(f"another engine (pid {pid}) still works on {self.directory} and cannot be ended")

    def rotate_log(self, bytes_max: int) -> int:
        """Put a large log aside, and give the length of the one that goes on: what comes after it is new."""
        try:
            size = self.log_path.stat().st_size
        except FileNotFoundError:
            return 0
        if size < bytes_max:
            return size
        self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return 0

    def log_lines(self, offset: int) -> list[str]:
        """What the program has said since the log was `offset` bytes long."""
        with self.log_path.open("rb") as log:
            log.seek(offset)
            return [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]

    async def _free_within(self, seconds: float) -> bool:
        ends_at = asyncio.get_running_loop().time() + seconds
        while not self._is_free():
            if asyncio.get_running_loop().time() >= ends_at:
                return False
            await asyncio.sleep(PROBE_S)
        return True

    def _is_free(self) -> bool:
        with self._lock_path.open("a+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            lock.truncate(0)  # so that a pid that is read while it is locked is never that of an earlier engine
            return True

    def _locked_by(self) -> int | None:
        text = self._lock_path.read_text()
        return int(text) if text.isdecimal() else None

    def _thaw_and_end(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, self._end)
            os.kill(pid, signal.SIGCONT)

    def _kill(self, pid: int) -> None:
        """End the program and what it forked, be it in its process group or, as PostgreSQL's, in groups of their own.

        The program goes first: PostgreSQL would take the death of a child for a crash and begin to repair it.
        """
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        for holder in self._lock_holders():
            with suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)

    def _lock_holders(self) -> Iterator[int]:
        """Processes that hold the folder's lock open: only the engine's own inherit it. Empty without /proc."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile, or another user's
                if any(os.readlink(each) == str(self._lock_path) for each in (folder / "fd").iterdir()):
                    yield int(folder.name)


def socket_path(directory: Path, name: str, *, avoid: str = "") -> Path:
    """Beside the data, or in a short folder whose name follows from it when that would be too long to bind.

    The short one also stands in for a path with one of the characters in `avoid`, which a client could not name.
    """
    beside = directory / name
    if len(os.fsencode(beside)) <= SOCKET_PATH_BYTES_MAX and not set(avoid) & set(str(beside)):
        return beside
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    folder = f"buzon-{os.getuid()}-{digest}"
    short = Path(tempfile.gettempdir()) / folder / name
    if len(os.fsencode(short)) > SOCKET_PATH_BYTES_MAX or set(avoid) & set(str(short)):
        short = Path("/tmp") / folder / name  # noqa: S108  made private and checked before use
    return short


def make_private(folder: Path, engine: str, uid: int | None = None) -> None:
    """Make a folder for a socket, of this user or of `uid`; `EngineFailed` when somebody else's is there already.

    Others can write to the folder for temporary files: theirs must not be taken for ours.
    """
    owner = os.getuid() if uid is None else uid
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if owner != os.getuid():
            os.chown(folder, owner, -1)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise EngineFailed(f"the {engine} cannot use {folder}: it is not this user's own folder")


async def _until_over(pid: int) -> None:
    """Wait without waking up until a child of ours has ended; where the kernel cannot tell, return at once."""
    if sys.platform != "linux":
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox; or it has ended
        return
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, over)
    try:
        await over
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(over: asyncio.Future[None]) -> None:
    if not over.done():  # it stays readable until nobody listens any more
        over.set_result(None)


async def _exit_of(process: subprocess.Popen[bytes], probe_s: float) -> int:
    while (code := process.poll()) is None:  # noqa: ASYNC110  a process has no event that works on every loop
        await asyncio.sleep(probe_s)
    return code


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: it has been given the pid since
        return False
    return True
