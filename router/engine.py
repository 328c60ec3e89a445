"""Engine: the embedded store as the process that runs it sees it, be it a node or the parent of several.

Part of the composition, apart from `router/app.py` so that a parent of workers loads nothing of a node. Owns the order
in which an engine comes up: its folder locked, started, cleared of the nodes of earlier starts, kept.
"""

from __future__ import annotations

import sys
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from actors.adapters.data_dir import DataDirLock
from actors.adapters.embedded import EmbeddedValkey
from actors.adapters.valkey.fresh import forget_nodes
from router.settings import Settings

ENGINE_STOP_S_MIN = 0.5
"""A healthy engine has written out its log and gone within a tenth of that."""


class Engine(Protocol):
    """A store that this process runs itself."""

    async def start(self) -> str: ...
    async def stop(self, within_s: float | None = None) -> None: ...
    async def wait_exit(self) -> int: ...


def data_dir_lock(settings: Settings) -> DataDirLock:
    """The lock that makes DATA_DIR belong to one process; a context manager."""
    return DataDirLock(settings.data_dir)


def embedded_engine(settings: Settings) -> Engine:
    """The store for nodes that were given none. Tells on stderr when loading its data takes long."""
    return EmbeddedValkey(settings.data_dir, lambda line: print(line, file=sys.stderr, flush=True))


async def first_start(engine: Engine) -> str:
    """Start the engine when no node lives yet; gives its URL."""
    url = await engine.start()
    forget_nodes(url)
    return url


async def keep(engine: Engine, log: FilteringBoundLogger) -> None:
    """Start the engine again whenever it ends by itself; the data is in its log, the nodes live on."""
    while True:
        code = await engine.wait_exit()
        log.error("embedded store ended", exit_code=code)
        await engine.start()
