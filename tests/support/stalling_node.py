"""A node whose event loop can be blocked from outside: after SIGUSR1 the next claim's answer is followed by `STALL_S`
in which nothing runs, as after a callback that computes for that long. What was claimed is then about to be sent.

Test builds only; otherwise the same node as production.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

from actors.ports import Claimed
from router.app import Node
from router.lifecycle import run
from router.settings import Settings, load
from tests.support.failpoint_node import Call, Wrapped, outcome

STALL_S = 3.0
SERVE = ("-m", "tests.support.stalling_node")


class Stall:
    """Blocks the loop once for each time it was asked for."""

    def __init__(self) -> None:
        self._wanted = False

    def want(self) -> None:
        """Block the loop at the next claim."""
        self._wanted = True

    def into(self, store: Any) -> None:
        """Stand between the actors and the deliveries' store."""
        store.deliveries = Wrapped(store.deliveries, {"work": self._work})

    async def _work(self, call: Call) -> object:
        answers = await outcome(call)
        if self._wanted and any(isinstance(answer, Claimed) for answer in answers):
            self._wanted = False
            select.select([], [], [], STALL_S)
        return answers


def make(configured: Settings, store_url: str, on_fatal: Callable[[str], None]) -> Node:
    """Compose the node."""
    stall = Stall()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stall.want)
    return Node(configured, store_url, on_fatal, stall.into)


if __name__ == "__main__":
    sys.exit(run(load(os.environ).settings, make))
