"""A node whose event loop can be blocked from outside: SIGUSR1 holds it up for `STALL_S`, as a callback that computes
or waits for that long would. Test builds only; otherwise the same node as production."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable

from router.app import Node
from router.lifecycle import run
from router.settings import Settings, load

STALL_S = 3.0
SERVE = ("-m", "tests.support.stalling_node")


def stall() -> None:
    """Block the thread that runs the loop."""
    select.select([], [], [], STALL_S)


def make(configured: Settings, store_url: str, on_fatal: Callable[[str], None]) -> Node:
    """Compose the node."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stall)
    return Node(configured, store_url, on_fatal)


if __name__ == "__main__":
    sys.exit(run(load(os.environ).settings, make))
