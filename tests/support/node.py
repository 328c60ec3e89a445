"""The real node as its own operating-system process: started, watched, crashed and stopped like in production.

Owns the process, its port and its log files. A node that dies while it should come up, or is not ready in time, is a
failure that shows what the node wrote. Failpoints are armed only through `tests.support.failpoint_node`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import aiohttp

from tests.support.child import Child, Launch, Process, leashed
from tests.support.until import NeverHappened, until
from tests.support.valkey import free_port

READY_S = 15.0
STOP_S = 10.0
SERVE = ("-m", "router", "serve")
SERVE_WITH_FAILPOINTS = ("-m", "tests.support.failpoint_node")


class Stopped(NamedTuple):
    """How a node ended after SIGTERM."""

    exit_code: int
    seconds: float


class NodeProcess:
    """One node on one data directory. `start` again after a crash or a stop: same port, same data, same log files.

    `program` is what Python runs for it.
    """

    def __init__(
        self,
        data_dir: Path,
        environment: Mapping[str, str] | None = None,
        *,
        redis_url: str | None = None,
        failpoints: str = "",
        program: Sequence[str] = SERVE,
        cores: Sequence[int] = (),
    ) -> None:
        self.begin: Callable[[Launch], Process] = leashed
        """How its process comes to be."""
        self.data_dir = data_dir
        self.port = free_port()
        self.failpoints = failpoints
        self.environment = dict(environment or {})
        self._redis_url = redis_url
        self._program = program
        self._cores = cores
        self._child: Child | None = None
        data_dir.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def child(self) -> Child:
        """The process of the latest start."""
        assert self._child is not None, "the node has not been started"
        return self._child

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        return self.child.pid

    async def start(self, *, ready_within_s: float = READY_S) -> float:
        """Start it, wait until /readyz is green and return how many seconds that took."""
        began = monotonic()
        self.launch()
        try:
            await until(self._is_ready, ready_within_s, what="/readyz is green")
        except NeverHappened as reason:
            self.child.close()
            raise NeverHappened(f"{reason}\n{self.child.output()}") from None
        return monotonic() - began

    def launch(self) -> None:
        """Start it without waiting for anything: for nodes that are expected to refuse."""
        assert self._child is None or self._child.exit_code is not None, "the node runs already"
        program = SERVE_WITH_FAILPOINTS if self.failpoints else self._program
        settings = {"APP_HOST": "127.0.0.1", "PORT": str(self.port), "DATA_DIR": str(self.data_dir)}
        if self._redis_url is not None:
            settings["REDIS_URL"] = self._redis_url
        if self.failpoints:
            settings["BUZON_FAILPOINT"] = self.failpoints
        log = self.data_dir.parent / f"{self.data_dir.name}-node"
        self._child = Child(
            [sys.executable, *program],
            log,
            environment=settings | self.environment,
            cores=self._cores,
            begin=self.begin,
        )

    async def ended(self, within_s: float = STOP_S) -> int:
        """Wait until the process is gone, by itself or by a failpoint, and return its exit code."""
        await until(lambda: self.child.exit_code is not None, within_s, what="the node ends")
        code = self.child.exit_code
        assert code is not None
        return code

    def kill9(self) -> None:
        """Crash it."""
        self.child.kill9()

    async def sigterm(self, within_s: float = STOP_S) -> Stopped:
        """Ask it to stop and wait until it has: its exit code and how long it took."""
        began = monotonic()
        self.child.send_signal(signal.SIGTERM)
        code = await self.ended(within_s)
        return Stopped(code, monotonic() - began)

    def freeze(self) -> None:
        """Stop it where it stands: sockets stay open, nothing is answered."""
        self.child.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        self.child.thaw()

    def output(self) -> str:
        """The end of what it wrote since its first start."""
        return self.child.output() if self._child is not None else "never started"

    def close(self) -> None:
        """End it however it can be ended."""
        if self._child is not None:
            self._child.close()

    async def _is_ready(self) -> bool:
        code = self.child.exit_code
        if code is not None:
            raise AssertionError(f"the node ended instead of getting ready\n{self.child.output()}")
        return await answers_200(self.port, "/readyz")


async def answers_200(port: int, path: str, within_s: float = 1.0) -> bool:
    """Whether one GET on a fresh connection is answered 200 in time; connection trouble is a no."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def http_client() -> aiohttp.ClientSession:
    """A client that waits no longer than a test may, keeps no cookies and follows no proxy of the environment."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=10),
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),
    )
