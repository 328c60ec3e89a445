"""Edge: a real server around an application, with the middleware and the last resort that a node has.

Owns nothing but the wiring; the routes and the clock are the test's.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import Struct

from router.api.operations import Operations, register
from router.edge import logs
from router.edge.http import Edge
from router.edge.metrics import Metrics
from router.edge.openapi import About
from router.edge.server import EdgeRunner

BODY_BYTES_MAX = 64 * 1024
ABOUT = About(
    title="Buzón", version="0.0.1", description="A router of messages.", tags={"operations": "Running a node."}
)
WALL_S = 1_800_000_000.25


class FixedClock:
    """A clock that stands still."""

    def monotonic(self) -> float:
        """Seconds since nothing in particular."""
        return 0.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return WALL_S


class NodeState(Struct):
    """A node's knowledge of itself, for a test to change."""

    service: str = "buzon"
    version: str = "0.0.1"
    node: str = "node-1"
    port: int = 8000
    connected: bool = True
    cache: bool | None = None
    reasons: Sequence[str] = ()

    def store_connected(self) -> bool:
        """Whether the store answers."""
        return self.connected

    def cache_connected(self) -> bool | None:
        """Whether the cache's own store answers."""
        return self.cache

    def postgres(self) -> Literal["connected", "away", "unused"]:
        """Whether the inventory's database answers."""
        return "unused"

    def not_ready_reasons(self) -> Sequence[str]:
        """Why the node cannot work."""
        return self.reasons


class EdgeServer(TestServer):
    """A server on a free loopback port. `log` collects what it logs, one JSON line an event."""

    def __init__(self, *add_routes: Callable[[web.Application], object], access_log: bool = False) -> None:
        self.log = io.StringIO()
        self._handlers_before = list(logging.getLogger().handlers)
        logs.configure(self.log, level="DEBUG", console=False)
        self.metrics = Metrics("0.0.1")
        self.edge = Edge(self.metrics, logs.get("edge"), access_log=access_log)
        self.state = NodeState()
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        for add in add_routes:
            add(app)
        register(app, Operations(self.state, self.metrics, FixedClock()), ABOUT)
        super().__init__(app)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def close(self) -> None:
        """Stop, and give the logs of the process back as they were."""
        await super().close()
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = self._handlers_before

    async def _make_runner(self, **options: Any) -> EdgeRunner:
        return EdgeRunner(self.app, self.edge, **options)

    def events(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of one metric series now."""
        return self.metrics.registry.get_sample_value(name, labels)
